"""Tokens: who may publish, look, operate and subscribe, and for how long."""
import contextlib
import http.client
import json
import os
import queue
import socket
import threading
import time

import grpc
import pytest

import harness
import rpc
import tokens
from h2client import H2, grpc_message
from harness import SLOW, run, wait_until
from sse import Sse
from tokens import Auth, RsaKey, SecretKey, bearer

PUBLISH = "stentor.v1.PublisherService/Publish"
BATCH = "stentor.v1.PublisherService/PublishBatch"
STREAM = "stentor.v1.PublisherService/PublishStream"
CHANNEL = "stentor.v1.ChannelService/GetChannel"
HISTORY = "stentor.v1.ChannelService/GetHistory"
NODES = "stentor.v1.ClusterService/ListNodes"
REVOKE = "stentor.v1.ClusterService/RevokeToken"
UNAUTHENTICATED = {"code": "unauthenticated", "message": "a token is needed"}
DENIED = {"code": "permission_denied",
          "message": "the token does not allow this"}
RULES = """
rules:
  - match: 'news:*'
    access: public
  - match: 'kept:*'
    history: {size: 10, ttl: 1h}
  - match: 'kept-news:*'
    access: public
    history: {size: 10, ttl: 1h}
"""


def publish(port, token, channel, data="x"):
    """(HTTP status, answer); `token` None: without one."""
    return rpc.connect_json(port, PUBLISH, {"channel": channel, "data": data},
                            headers=bearer(token) if token else None)


def subscribe(c, channel, query=None, **headers):
    """Status, headers and text of an answer."""
    with Sse(c.n.port, channel, query=query, headers=headers) as s:
        s.wait_head()
        body = b"" if s.status == 200 else s.wait_body()
        return s.status, s.headers, body.decode()


def revoke(d, **what):
    status, answer = d.call(REVOKE, what)
    assert status == 200, answer
    return answer


def no_token_in_logs(c):
    """Nor its signature alone, nor its claims."""
    for p in c.processes:
        log = p.log() if p.log_path.exists() else ""
        for token in c.auth.made:
            for part in token.split(".")[1:]:
                assert part not in log, f"{p.name} logs a token"


@contextlib.contextmanager
def cluster_of(*args, auth=None, rules=RULES, **kw):
    options = {"log_level": "debug"}
    with harness.Cluster(
            *args, auth=auth or Auth(), rules=rules,
            dispatcher_options={**options, **kw.pop("dispatcher", {})},
            node_options={**options, **kw.pop("node", {})}, **kw) as c:
        yield c
        no_token_in_logs(c)
    harness.Cluster.live.remove(c)


@pytest.fixture(scope="module")
def c():
    with cluster_of(1, 1, 1) as made:
        yield made


# --- the API ---------------------------------------------------------------

def bad_tokens(auth):
    """{what auth_failures_total calls it: a token}"""
    stranger = SecretKey("k0")
    unknown = SecretKey("nobody")
    good = auth.token(publish=["*"])
    return {
        "malformed": "not.a.token",
        "unknown_key": auth.token(key=unknown, publish=["*"]),
        "bad_signature": auth.token(key=stranger, publish=["*"]),
        "expired": auth.token(ttl=-10, publish=["*"]),
        "not_yet": auth.token(nbf=int(time.time()) + 1000, publish=["*"]),
        "bad_issuer": auth.token(iss="https://else.example"),
        "bad_audience": auth.token(aud="else"),
        "bad_alg": tokens.encode({"exp": int(time.time()) + 60},
                                 auth.keys[0].sign, alg="RS256", kid="k0"),
        "none": tokens.encode({"exp": int(time.time()) + 60}, lambda _: b"",
                              alg="none", kid="k0"),
        "cut": good[:-8],
    }


def test_no_and_bad_tokens_are_refused_alike(c):
    assert publish(c.d.api_port, None, "a") == (401, UNAUTHENTICATED)
    for name, token in bad_tokens(c.auth).items():
        before = c.d.metric("stentor_auth_failures_total", reason=name)
        assert publish(c.d.api_port, token, "a") == (401, UNAUTHENTICATED), \
            name
        if name not in ("none", "cut"):
            assert c.d.metric("stentor_auth_failures_total",
                              reason=name) == before + 1, name
        with pytest.raises(grpc.RpcError) as e:
            stub = c.d.grpc.unary(PUBLISH, "stentor.v1.PublishRequest",
                                  "stentor.v1.PublishResponse")
            stub(rpc.PublishRequest(channel="a", data="x"), timeout=5,
                 metadata=[("authorization", f"Bearer {token}")])
        assert e.value.code() == grpc.StatusCode.UNAUTHENTICATED, name
        assert e.value.details() == UNAUTHENTICATED["message"]


def test_the_header(c):
    """The scheme in any case; another one, or two headers, is none."""
    token = c.auth.admin()
    for value, status in ((f"Bearer {token}", 200), (f"bearer  {token}", 200),
                          (f"BEARER {token}", 200), (token, 401),
                          (f"Basic {token}", 401), ("Bearer", 401),
                          ("Bearer ", 401), (f"Bearer {token}, x", 401)):
        got, headers, body = rpc.connect(
            c.d.api_port, NODES, b"{}", "application/json",
            {"Authorization": value})
        assert got == status, (value[:12], body)
        if status == 401:
            assert headers["WWW-Authenticate"] == "Bearer"
            assert json.loads(body) == UNAUTHENTICATED
    with H2(c.d.api_port) as h2:
        pair = ("authorization", f"Bearer {token}")
        for extra, code in (((pair,), 0), ((pair, pair), 16), ((), 16)):
            stream = h2.open_grpc(NODES, *extra)
            h2.send(stream, grpc_message(b""), end=True)
            assert h2.status(stream) == code


def test_health_and_reflection_need_none(c):
    status, answer = rpc.connect_json(
        c.d.api_port, "grpc.health.v1.Health/Check", {})
    assert (status, answer) == (200, {"status": "SERVING"})
    # Nor do they look at one.
    status, _ = rpc.connect_json(c.d.api_port, "grpc.health.v1.Health/Check",
                                 {}, headers=bearer("nonsense"))
    assert status == 200
    status, _, body = rpc.connect(c.d.api_port, "no.Such/Method", b"{}",
                                  "application/json")
    assert status == 404, body


def test_refused_before_the_body(c):
    """A head alone is answered, and no 100 Continue invites the rest."""
    head = (f"POST /{PUBLISH} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
            "Content-Type: application/json\r\nContent-Length: 100000\r\n"
            "\r\n").encode()
    with socket.create_connection(("127.0.0.1", c.d.api_port), 5) as s:
        s.sendall(head)
        s.settimeout(5 * SLOW)
        got = b""
        while data := s.recv(65536):
            got += data
        assert got.startswith(b"HTTP/1.1 401 "), got
        assert b"Connection: close" in got or b"connection: close" in got
    assert c.d.metric("stentor_api_body_bytes") == 0
    with H2(c.d.api_port) as h2:
        stream = h2.open_grpc(PUBLISH)  # and no body
        assert h2.status(stream) == 16


def test_a_keep_alive_connection_survives_a_refusal(c):
    conn = http.client.HTTPConnection(
        "127.0.0.1", c.d.api_port, timeout=5)
    body = json.dumps({"channel": "a", "data": "x"})
    for token, status in ((None, 401), (c.auth.admin(), 200), ("x", 401)):
        conn.request("POST", "/" + PUBLISH, body=body,
                     headers={"Content-Type": "application/json",
                              **(bearer(token) if token else {})})
        r = conn.getresponse()
        r.read()
        assert r.status == status
    conn.close()


def test_publish_needs_the_channel(c):
    token = c.auth.token(publish=["score:*", "chat:1"])
    for channel in ("score:1", "score:", "chat:1"):
        assert publish(c.d.api_port, token, channel)[0] == 200
    for channel in ("score", "chat:12", "chat:", "other"):
        assert publish(c.d.api_port, token, channel) == (403, DENIED)
    assert publish(c.d.api_port, c.auth.token(admin=True), "score:1") == (
        403, DENIED)
    messages = [{"channel": ch, "data": "x"}
                for ch in ("score:1", "other", "chat:1")]
    status, answer = rpc.connect_json(c.d.api_port, BATCH,
                                      {"messages": messages},
                                      headers=bearer(token))
    assert status == 200
    assert [r.get("code", 0) for r in answer["results"]] == [0, 7, 0]
    assert answer["results"][1]["error"] == DENIED["message"]


def stream_of(c, token, requests):
    call = c.d.grpc.channel.stream_stream(
        "/" + STREAM, rpc.PublishRequest.SerializeToString,
        rpc.PublishResult.FromString)
    return call(requests, metadata=[("authorization", f"Bearer {token}")])


def test_a_stream_checks_each_message(c):
    token = c.auth.token(publish=["score:*"])
    requests = [rpc.PublishRequest(channel=ch, data="x")
                for ch in ("score:1", "other", "score:2")]
    results = list(stream_of(c, token, iter(requests)))
    assert [r.code for r in results] == [0, 7, 0]


class OpenStream:
    """A publish stream that stays open."""

    def __init__(self, c, token):
        self.requests = queue.Queue()
        self.results = []
        self.call = stream_of(c, token, iter(self.requests.get, None))
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self):
        with contextlib.suppress(grpc.RpcError):
            for r in self.call:
                self.results.append(r)

    def publish(self, channel):
        self.requests.put(rpc.PublishRequest(channel=channel, data="x"))

    def end(self, timeout):
        self.thread.join(timeout * SLOW)
        assert not self.thread.is_alive()
        self.requests.put(None)
        return self.call.code()


def test_a_stream_ends_with_its_token(c):
    s = OpenStream(c, c.auth.token(ttl=2, publish=["a"]))
    s.publish("a")
    assert s.end(6) == grpc.StatusCode.UNAUTHENTICATED
    assert [r.code for r in s.results] == [0]


def test_a_stream_ends_when_its_token_is_revoked(c):
    mine = OpenStream(c, c.auth.token(sub="user:9", publish=["a"]))
    other = OpenStream(c, c.auth.token(sub="user:10", publish=["a"]))
    silent = OpenStream(c, c.auth.token(sub="user:9", publish=["a"]))
    for s in (mine, other):
        s.publish("a")
        wait_until(lambda s=s: s.results, what="a first result")
    revoke(c.d, sub="user:9")
    assert mine.end(3) == grpc.StatusCode.UNAUTHENTICATED
    silent.publish("a")
    assert silent.end(3) == grpc.StatusCode.UNAUTHENTICATED
    assert silent.results == []
    other.publish("a")
    wait_until(lambda: len(other.results) == 2, what="the other goes on")
    other.requests.put(None)
    assert other.end(3) == grpc.StatusCode.OK


def test_looking_needs_the_channel(c):
    token = c.auth.token(subscribe=["score:*", "kept:1"])
    producer = c.auth.token(publish=["*"])
    admin = c.auth.token(admin=True)
    for method, channel, got in (
            (CHANNEL, "score:1", {token: 200, producer: 403, admin: 200}),
            (CHANNEL, "chat:1", {token: 403, producer: 403, admin: 200}),
            (CHANNEL, "news:1", {token: 200, producer: 200, admin: 200}),
            (HISTORY, "kept:1", {token: 200, producer: 403, admin: 200}),
            (HISTORY, "kept:2", {token: 403, producer: 403, admin: 200}),
            (HISTORY, "kept-news:1", {token: 200, producer: 200})):
        for who, status in got.items():
            found, answer = rpc.connect_json(
                c.d.api_port, method, {"channel": channel},
                headers=bearer(who))
            assert found == status, (method, channel, answer)
            if status == 403:
                assert answer == DENIED
    assert rpc.connect_json(c.d.api_port, CHANNEL,
                            {"channel": "news:1"})[0] == 401


def test_the_cluster_is_for_administrators(c):
    token = c.auth.token(publish=["*"], subscribe=["*"])
    for method in (NODES, REVOKE):
        for who, status in ((token, 403), (None, 401)):
            assert rpc.connect_json(
                c.d.api_port, method, {},
                headers=bearer(who) if who else None)[0] == status
    assert c.d.call(NODES, {})[0] == 200


@pytest.mark.parametrize("request_", [
    {}, {"sub": "a", "jti": "b"}, {"sub": "x" * 129}, {"jti": "x" * 129},
    {"sub": "a", "ttlSeconds": 30 * 24 * 3600 + 1},
])
def test_a_bad_revocation(c, request_):
    status, answer = c.d.call(REVOKE, request_)
    assert (status, answer["code"]) == (400, "invalid_argument")


def test_without_tokens_nothing_is_revoked(cluster):
    status, answer = cluster.d.call(REVOKE, {"sub": "a"})
    assert (status, answer["code"]) == (400, "failed_precondition")


def test_the_rate_of_a_token():
    with cluster_of(1, 0, 0, dispatcher={"publish_rate_max": 20,
                                         "publish_burst_max": 5}) as c:
        token = c.auth.token(publish=["*"])
        messages = [{"channel": "a", "data": "x"}] * 50
        status, answer = rpc.connect_json(c.d.api_port, BATCH,
                                          {"messages": messages},
                                          headers=bearer(token))
        codes = [r.get("code", 0) for r in answer["results"]]
        assert status == 200 and codes == [0] * 5 + [8] * 45
        assert c.d.metric("stentor_publish_rate_limited_total") == 45
        # Another token has a rate of its own, and time gives this one more.
        assert publish(c.d.api_port, c.auth.token(publish=["*"]),
                       "a")[0] == 200
        wait_until(lambda: publish(c.d.api_port, token, "a")[0] == 200)


# --- keys ------------------------------------------------------------------

class Traffic:
    """Publishes with a token all the time; anything but 200 is kept."""

    def __init__(self, c, token):
        self.count, self.failures = 0, []
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(c, token))
        self.thread.start()

    def _run(self, c, token):
        while not self.done.is_set():
            status, answer = publish(c.d.api_port, token, "a")
            self.count += 1
            if status != 200:
                self.failures.append(answer)
            time.sleep(0.005)

    def stop(self):
        self.done.set()
        self.thread.join()
        assert self.count > 0 and self.failures == []


def test_keys_rotate_under_traffic(tmp_path):
    old, new = SecretKey("old"), RsaKey("new", tmp_path)
    auth = Auth(old)
    with cluster_of(1, 1, 1, auth=auth) as c:
        traffic = Traffic(c, auth.token(publish=["*"]))
        # Another key, by SIGHUP: both are good.
        auth.keys.append(new)
        c.config.write_text(auth.install(c.dir) + RULES)
        for p in c.processes:
            p.signal(1)
        late = auth.token(key=new, publish=["*"], subscribe=["*"], admin=True)
        wait_until(lambda: publish(c.d.api_port, late, "a")[0] == 200,
                   what="the new key counts")
        wait_until(lambda: subscribe(c, "b", **bearer(late))[0] == 200,
                   what="on the node as well")
        traffic.stop()
        # The old one goes: its tokens are strangers'.
        auth.keys.remove(old)
        gone = auth.token(key=old, publish=["*"])
        c.config.write_text(auth.install(c.dir) + RULES)
        c.d.signal(1)
        wait_until(lambda: publish(c.d.api_port, gone, "a")[0] == 401,
                   what="the old key does not count any more")
        assert publish(c.d.api_port, late, "a")[0] == 200


def test_a_key_file_is_replaced():
    auth = Auth(SecretKey("k"))
    with cluster_of(1, 1, 1, auth=auth) as c:
        before = auth.token(publish=["*"], subscribe=["*"])
        path = auth.path(auth.keys[0])
        auth.keys = [SecretKey("k")]
        after = auth.token(publish=["*"], subscribe=["*"])
        fresh = path.with_suffix(".new")
        auth.keys[0].write(fresh)
        os.replace(fresh, path)  # as Kubernetes does
        wait_until(lambda: publish(c.d.api_port, after, "a")[0] == 200,
                   what="the new key counts")
        assert publish(c.d.api_port, before, "a")[0] == 401
        wait_until(lambda: subscribe(c, "a", **bearer(after))[0] == 200,
                   what="on the node as well")
        assert subscribe(c, "a", **bearer(before))[0] == 401
        # A faulty file changes nothing.
        path.write_text("short")
        wait_until(lambda: all("AUTH-KEYS-FAULTY" in p.log()
                               for p in c.processes), what="it is said")
        assert publish(c.d.api_port, after, "a")[0] == 200
        assert subscribe(c, "a", **bearer(after))[0] == 200


@pytest.mark.parametrize("binary", [harness.DISPATCHER, harness.CONNNODE])
@pytest.mark.parametrize("config, fault", [
    ("", "auth.keys"),
    ("auth:\n  keys:\n    - {kid: a, alg: HS256, file: missing}\n",
     "/missing:"),
    ("auth:\n  keys:\n    - {kid: a, alg: HS256, file: short}\n", "/short:"),
    ("auth:\n  keys:\n    - {kid: a, alg: RS256, file: short}\n", "/short:"),
], ids=["none", "missing", "short", "no-pem"])
def test_faulty_keys_end_it_at_once(tmp_path, binary, config, fault):
    (tmp_path / "short").write_text("only a few bytes")
    path = tmp_path / "c.yaml"
    path.write_text(config)
    port = harness.free_ports(4)
    argv = [binary, "--auth=jwt", f"--config={path}",
            f"--link-listen=tcp://127.0.0.1:{port}",
            f"--admin-listen=127.0.0.1:{port + 1}"]
    if binary == harness.CONNNODE:
        argv += [f"--listen=127.0.0.1:{port + 2}", "--workers=1",
                 f"--dispatchers=tcp://127.0.0.1:{port + 3}"]
    else:
        argv += [f"--api-listen=127.0.0.1:{port + 2}"]
    r = run(argv, timeout=5)
    assert r.returncode == 78, r.stderr
    assert fault in r.stderr
    assert "few bytes" not in r.stderr


# --- revocation ------------------------------------------------------------

def test_revoked_everywhere():
    """n0 knows both dispatchers, n1 only d1; d2 comes later."""
    # No history: each dispatcher has a store of its own.
    with cluster_of(3, 2, 2, rules="", start=False) as c:
        d0, d1, d2 = c.dispatchers
        n0, n1 = c.nodes
        n1.options["dispatchers"] = d1.link_url
        for p in (d0, d1, n0, n1):
            p.start(**({"settle_ms": 200} if p in c.dispatchers else {}))
        for p in (d0, d1, n0, n1):
            p.wait_ready()
        wait_until(lambda: len(d0.ready_workers()) == 2
                   and len(d1.ready_workers()) == 4, what="all are linked")
        by_sub = c.auth.token(sub="user:1", subscribe=["*"], publish=["*"])
        by_jti = c.auth.token(sub="user:2", jti="j2", subscribe=["*"],
                              publish=["*"])
        kept = c.auth.token(sub="user:2", jti="j3", subscribe=["*"],
                            publish=["*"])
        streams = {t: [Sse(n.port, "a", headers=bearer(t)) for n in c.nodes]
                   for t in (by_sub, by_jti, kept)}
        for s in sum(streams.values(), []):
            s.wait_ready()
        at = time.monotonic()
        # d0's own workers; n1's hear of it by n0 and d1.
        assert revoke(d0, sub="user:1")["workers"] == 2
        assert revoke(d0, jti="j2", ttlSeconds=3600)["workers"] == 2
        for token in (by_sub, by_jti):
            for s in streams[token]:
                event = s.wait_event("stentor.closing", 5)
                assert event.json() == {"reason": "token_revoked"}
                s.wait_end()
        assert time.monotonic() - at < 1 * SLOW
        for d in (d0, d1):
            wait_until(lambda d=d: publish(d.api_port, by_sub, "a")[0] == 401)
            assert publish(d.api_port, by_jti, "a")[0] == 401
            assert publish(d.api_port, kept, "a")[0] == 200
            assert d.metric("stentor_auth_revocations") == 2
        # Known to who comes later, by any worker.
        d2.start(settle_ms=200)
        d2.wait_ready()
        wait_until(lambda: publish(d2.api_port, by_jti, "a")[0] == 401,
                   what="a dispatcher that starts later knows")
        assert publish(d2.api_port, by_sub, "a")[0] == 401
        assert publish(d2.api_port, kept, "a")[0] == 200
        # And the other way round: a worker that starts later.
        old = n1.worker_pids()[0]
        n1.kill_worker(old)
        wait_until(lambda: not harness.alive(old)
                   and len(n1.worker_pids()) == 2, what="a new worker")
        wait_until(lambda: n1.log().count('"LISTENING"') == 3,
                   what="which listens")

        def refused():
            with Sse(n1.port, "a", headers=bearer(by_jti)) as s:
                return s.wait_head().status == 401
        wait_until(refused, what="no worker of n1 lets it in")
        for _ in range(16):
            assert refused()
        for s in streams[kept]:
            s.close()


def test_a_crowd_is_revoked_at_once(c):
    """More streams, and more revocations, than one turn of a worker ends and
    tells: all that are meant end, no other does, and all are told on."""
    count = 150
    crowd = [c.auth.token(sub="crowd", subscribe=["*"]) for _ in range(5)]
    each = [c.auth.token(sub=f"one:{i}", subscribe=["*"])
            for i in range(count)]
    other = c.auth.token(sub="nobody", subscribe=["*"])
    before = c.d.metric("stentor_auth_revocations")
    with contextlib.ExitStack() as stack:
        meant = [stack.enter_context(Sse(c.n.port, "a", headers=bearer(t)))
                 for t in crowd * (count // 5) + each]
        stays = stack.enter_context(Sse(c.n.port, "a", headers=bearer(other)))
        for s in meant + [stays]:
            s.wait_ready()
        revoke(c.d, sub="crowd")
        for i in range(count):
            revoke(c.d, sub=f"one:{i}")
        for s in meant:
            event = s.wait_event("stentor.closing", 5)
            assert event.json() == {"reason": "token_revoked"}
            assert s.wait_end() == "clean"
        assert c.d.metric("stentor_auth_revocations") == before + count + 1
        publish(c.d.api_port, c.auth.admin(), "a", "still here")
        stays.wait_data("still here")


def test_a_worker_remembers_what_was_revoked():
    """Started again while no dispatcher is there to tell it."""
    with cluster_of(1, 1, 1, rules="") as c:
        revoked = c.auth.token(sub="user:1", subscribe=["*"])
        kept = c.auth.token(sub="user:2", subscribe=["*"])
        with Sse(c.n.port, "a", headers=bearer(revoked)) as s:
            s.wait_ready()
            assert revoke(c.d, sub="user:1")["workers"] == 1
            s.wait_end()
        c.d.close_grpc()
        c.d.kill()
        old = c.n.worker_pids()[0]
        c.n.kill_worker(old)
        wait_until(lambda: c.n.log().count('"LISTENING"') == 2,
                   what="a new worker listens")
        for token, status in ((revoked, 401), (kept, 200)):
            with Sse(c.n.port, "a", headers=bearer(token)) as s:
                assert s.wait_head().status == status
        assert '"REVOCATIONS-REMEMBERED"' in c.n.log()


# --- subscribers -----------------------------------------------------------

def test_subscribers_need_a_token(c):
    status, headers, text = subscribe(c, "score:1")
    assert (status, headers["www-authenticate"]) == (401, "Bearer")
    assert text.strip() == "a token is needed"
    for name, token in bad_tokens(c.auth).items():
        got = subscribe(c, "score:1", **bearer(token))
        assert (got[0], got[2]) == (status, text), name
    token = c.auth.token(subscribe=["score:*"])
    assert subscribe(c, "score:1", **bearer(token))[0] == 200
    status, headers, text = subscribe(c, "chat:1", **bearer(token))
    assert status == 403 and "chat" not in text and "score" not in text
    with Sse(c.n.port, "score:1", "chat:1", headers=bearer(token)) as s:
        assert s.wait_head().status == 403
    with Sse(c.n.port, "score:1", "news:1", headers=bearer(token)) as s:
        assert s.wait_head().status == 200


def test_where_a_subscriber_shows_it(c):
    good = c.auth.token(subscribe=["score:*"])
    little = c.auth.token(subscribe=["chat:*"])
    cookie = {"Cookie": f"theme=dark; stentor_token={good}; x=y"}
    assert subscribe(c, "score:1", **cookie)[0] == 200
    assert subscribe(c, "score:1", query={"token": good})[0] == 200
    assert subscribe(c, "score:1", Cookie=f"xstentor_token={good}")[0] == 401
    # The header counts before the query, that before the cookie.
    assert subscribe(c, "score:1", query={"token": good},
                     **bearer(little))[0] == 403
    assert subscribe(c, "score:1", **bearer(little), **cookie)[0] == 403
    assert subscribe(c, "score:1", query={"token": little}, **cookie)[0] == 403
    assert subscribe(c, "score:1", query={"token": little})[0] == 403
    # One that is no good counts for nothing, wherever it stands.
    stale = c.auth.token(ttl=-10, subscribe=["score:*"])
    assert subscribe(c, "score:1", query={"token": stale}, **cookie)[0] == 200
    assert subscribe(c, "score:1", **bearer(stale), **cookie)[0] == 200
    assert subscribe(c, "score:1", Cookie=f"stentor_token={stale}",
                     query={"token": good})[0] == 200
    assert subscribe(c, "score:1", Cookie=f"stentor_token={stale}; "
                     f"stentor_token={good}")[0] == 200
    assert subscribe(c, "score:1", **bearer(stale))[0] == 401


def test_a_token_that_is_too_long(c):
    """Told apart from one that is no good: a server that makes such tokens
    has to find out."""
    good = c.auth.token(subscribe=["score:*"])
    long = c.auth.token(subscribe=["score:*"], more="x" * 8192)
    status, _, text = subscribe(c, "score:1", **bearer(long))
    assert (status, text.strip()) == (431, "token: at most 8192 bytes")
    assert subscribe(c, "score:1", **bearer(long),
                     Cookie=f"stentor_token={good}")[0] == 200
    assert subscribe(c, "score:1", query={"token": long})[0] == 414
    with cluster_of(1, 1, 1, auth=Auth(), node={"url_bytes_max": 16384}) as big:
        long = big.auth.token(subscribe=["*"], more="x" * 8192)
        status, _, text = subscribe(big, "score:1", query={"token": long})
        assert (status, text.strip()) == (414, "token: at most 8192 bytes")


def rejected(c, reason):
    return c.n.metric("stentor_connections_rejected_total", reason=reason)


def test_strangers_use_up_nothing():
    """A flood without tokens takes no share of new streams from those who have
    one, nor a place in the queue of those who are to come back."""
    rate = 10
    with cluster_of(1, 1, 1, node={"connection_rate_max": rate}) as c:
        tokens_ = [c.auth.token(subscribe=["*"]) for _ in range(rate)]
        for _ in range(20 * rate):
            assert subscribe(c, "score:1")[0] == 401
        assert rejected(c, "rate") == 0
        with contextlib.ExitStack() as stack:
            for token in tokens_:
                s = stack.enter_context(Sse(c.n.port, "a",
                                            headers=bearer(token)))
                assert s.wait_head().status == 200
                s.wait_ready()
        assert rejected(c, "unauthorized") == 20 * rate
    # Nor does it in a node that is full.
    with cluster_of(1, 1, 1, node={"max_connections": 1, "retry_min_ms": 1000,
                                   "retry_max_ms": 1000}) as c:
        token = c.auth.token(subscribe=["*"])
        with Sse(c.n.port, "a", headers=bearer(token)) as s:
            s.wait_ready()
            for _ in range(20 * rate):
                assert subscribe(c, "score:1")[0] == 401
            with Sse(c.n.port, "a", headers=bearer(token)) as away:
                away.wait_end()
                assert away.status == 200
                assert away.retries[0] < 2000


def test_forged_tokens_are_verified_at_a_bounded_rate():
    rate = 10
    with cluster_of(1, 1, 1, node={"token_rate_max": rate}) as c:
        known = c.auth.token(subscribe=["*"])
        with Sse(c.n.port, "a", headers=bearer(known)) as s:
            s.wait_ready()
        got = [subscribe(c, "score:1", **bearer(
                   c.auth.token(key=SecretKey("k0"), subscribe=["*"])))[0]
               for _ in range(10 * rate)]
        away = got.count(200)  # with a retry
        assert away + got.count(401) == len(got) and got.count(401) >= rate / 2
        assert rejected(c, "token_rate") == away > len(got) / 4
        # Who was seen lately needs no budget.
        for _ in range(2 * rate):
            with Sse(c.n.port, "a", headers=bearer(known)) as s:
                s.wait_ready()


def test_public_channels_need_none(c):
    assert subscribe(c, "news:1")[0] == 200
    assert subscribe(c, "news:1", **bearer("nonsense"))[0] == 200
    with Sse(c.n.port, "news:1") as s:
        s.wait_ready()
        c.d.publish("news:1", "to all")
        s.wait_data("to all")


def test_a_subscription_ends_with_its_token(c):
    with Sse(c.n.port, "a", headers=bearer(
            c.auth.token(ttl=2, subscribe=["a"]))) as s, \
            Sse(c.n.port, "a", headers=bearer(
                c.auth.token(ttl=60, subscribe=["a"]))) as longer:
        s.wait_ready()
        longer.wait_ready()
        retries = len(s.retries)
        event = s.wait_event("stentor.closing", 6)
        assert event.json() == {"reason": "token_expired"}
        s.wait_end()
        assert len(s.retries) > retries
        c.d.publish("a", "still there")
        longer.wait_data("still there")
