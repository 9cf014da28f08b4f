"""TLS on the API port and on the port for event streams.

Slow readers and resumes are those of test_e_slow and test_w_resume, once more
with encrypted streams: what is told, dropped and counted must be the same.
"""
import inspect
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import time

import grpc
import pytest

import harness
import rpc
import test_e_slow
import test_w_resume
from harness import rss_kib, rss_room, wait_until
from sse import Sse, pump_all, pump_once
from test_p_ctl import Tail
from test_w_resume import cluster  # noqa: F401  (a fixture)

NAME = "stentor.test"
PUBLISH = "stentor.v1.PublisherService/Publish"


class Authority:
    """Issues certificates, and exchanges those of a server that runs."""

    def __init__(self, directory):
        self.dir = pathlib.Path(directory)
        self.ca, self.ca_key = self.dir / "ca.pem", self.dir / "ca.key"
        self._openssl("req", "-x509", *self._key(self.ca_key), "-out",
                      self.ca, "-days", "2", "-subj", "/CN=test authority")
        self.cert, self.key = self.issue("server")

    @staticmethod
    def _key(path):
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                "-nodes", "-keyout", path]

    @staticmethod
    def _openssl(*args):
        subprocess.run(["openssl", *map(str, args)], check=True,
                       stdin=subprocess.DEVNULL, capture_output=True)

    def issue(self, name, days=2):
        cert, key, csr, ext = (self.dir / f"{name}.{e}"
                               for e in ("pem", "key", "csr", "ext"))
        ext.write_text(f"subjectAltName=DNS:{NAME},IP:127.0.0.1\n")
        self._openssl("req", *self._key(f"{key}.new"), "-out", csr, "-subj",
                      f"/CN={name}")
        self._openssl("x509", "-req", "-in", csr, "-CA", self.ca, "-CAkey",
                      self.ca_key, "-CAcreateserial", "-out", f"{cert}.new",
                      "-days", days, "-extfile", ext)
        pathlib.Path(f"{key}.new").replace(key)
        pathlib.Path(f"{cert}.new").replace(cert)
        return cert, key

    def context(self):
        return ssl.create_default_context(cafile=self.ca)

    def node(self):
        return {"tls_cert": self.cert, "tls_key": self.key}

    def api(self, client_ca=False):
        options = {"api_tls_cert": self.cert, "api_tls_key": self.key}
        if client_ca:
            options["api_tls_client_ca"] = self.ca
        return options


class TlsSse(Sse):
    """The same client, encrypted."""

    context = None  # set by the fixture

    def __init__(self, port, *channels, headers=None,
                 accept="text/event-stream", **kw):
        super().__init__(port, *channels, send=False, **kw)
        self.sock.settimeout(10 * harness.SLOW)
        self.sock = self.context.wrap_socket(self.sock,
                                             server_hostname="127.0.0.1")
        lines = [f"GET {self.path} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
        if accept:
            lines.append(f"Accept: {accept}")
        lines += [f"{k}: {v}" for k, v in (headers or {}).items()]
        self.sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.sock.setblocking(False)

    def serial(self):
        return self.sock.getpeercert()["serialNumber"]

    def pump(self, limit=1 << 20):
        # what has been decrypted already is not seen by select()
        while not self.end:
            try:
                data = self.sock.recv(1 << 16)
            except ssl.SSLWantReadError:
                return True
            except (ConnectionResetError, BrokenPipeError):
                self.end = "reset"
                return False
            if not data:
                self.end = "cut"
                return False
            self._on_bytes(data)
        return False


@pytest.fixture(scope="session")
def session_authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def authority(session_authority, monkeypatch):
    monkeypatch.setattr(TlsSse, "context", session_authority.context())
    return session_authority


@pytest.fixture
def make_cluster(make_cluster, authority):
    """Nodes speak TLS; the API is plain unless a test says otherwise."""
    def make(*args, node_options=None, **kw):
        return make_cluster(
            *args, node_options={**authority.node(), **(node_options or {})},
            **kw)
    return make


@pytest.fixture
def make_dispatcher(make_cluster, authority):
    """A dispatcher alone whose API speaks TLS."""
    def make(client_ca=False, **options):
        c = make_cluster(1, 0, 1, start=False, dispatcher_options={
            **authority.api(client_ca), **options})
        c.d.start(settle_ms=0).wait_ready()
        return c.d
    return make


def handshakes(process, outcome):
    return process.metric("stentor_tls_handshakes_total", outcome=outcome)


def curl(port, authority, path, *args, data=None):
    """(what it says it does, body) of one request."""
    argv = ["curl", "-sv", "--max-time", "10", "--cacert", authority.ca,
            *args, f"https://127.0.0.1:{port}/{path}"]
    if data is not None:
        body = authority.dir / "body"
        body.write_text(data)
        argv += ["-H", "Content-Type: application/json", "--data-binary",
                 f"@{body}"]
    r = harness.run(argv)
    return r.stderr, r.stdout


# --- event streams ---------------------------------------------------------

def test_streams_over_tls(make_cluster, authority, channel):
    c = make_cluster(1, 1, 2)
    streams = [TlsSse(c.n.port, channel) for _ in range(6)]
    pump_all(streams, lambda: all(
        any(e.event == "stentor.ready" for e in s.events) for s in streams))
    text = "\u00fc" * 20000  # several records each
    for i in range(50):
        c.d.publish(channel, f"{i} {text if i % 10 == 0 else ''}")
    pump_all(streams, lambda: all(len(s.messages()) == 50 for s in streams))
    for s in streams:
        assert [d.split(" ")[0] for d in s.data()] == [
            str(i) for i in range(50)]
        assert s.data()[10].split(" ")[1] == text
        s.close()
    wait_until(lambda: c.n.metric("stentor_connections") == 0)
    assert c.n.metric("stentor_messages_delivered_total") == 300
    assert c.n.metric("stentor_send_queue_bytes") == 0
    assert handshakes(c.n, "ok") == 6
    assert handshakes(c.n, "failed") == 0
    assert c.n.metric("stentor_tls_certificate_expires_seconds") > time.time()


def test_answers_over_tls(make_cluster, authority):
    """What is no stream ends with a goodbye."""
    c = make_cluster(1, 1, 1)
    said, body = curl(c.n.port, authority, "v1/subscribe")
    assert "HTTP/1.1 400" in said and "channel" in body
    assert "ALPN: server accepted http/1.1" in said
    assert "close notify" in said
    said, body = curl(c.n.port, authority, "", "--no-alpn")
    assert "HTTP/1.1 200" in said and "<html" in body
    for old in ("--tls-max 1.1", "--tls-max 1.0"):
        said, _ = curl(c.n.port, authority, "", "--ciphers",
                       "DEFAULT@SECLEVEL=0", *old.split())
        assert "alert protocol version" in said
    said, _ = curl(c.n.port, authority, "", "--tls-max", "1.2")
    assert "TLSv1.2" in said and "HTTP/1.1 200" in said
    # 404 and 408 too
    with TlsSse(c.n.port, path="/nothing") as s:
        assert b"not found" in s.wait_body()


def run_over_tls(case, request, monkeypatch):
    monkeypatch.setattr(inspect.getmodule(case), "Sse", TlsSse)
    case(**{name: request.getfixturevalue(name)
            for name in inspect.signature(case).parameters})


@pytest.mark.parametrize("case", [
    test_e_slow.test_slow_reader_is_bounded,
    test_e_slow.test_slow_reader_recovers,
    test_e_slow.test_rule_close_closes,
    test_e_slow.test_reader_that_never_reads_again_is_closed,
], ids=lambda case: case.__name__[5:])
def test_slow(case, request, monkeypatch, authority):
    run_over_tls(case, request, monkeypatch)


@pytest.mark.parametrize("case", [
    test_w_resume.test_resume_on_another_node,
    test_w_resume.test_many_share_one_read,
    test_w_resume.test_live_between_the_pages,
    test_w_resume.test_slow_is_closed_and_resumes,
    test_w_resume.test_conflation_resumes_exactly,
    test_w_resume.test_drop_oldest_tells_what_was_dropped,
    test_w_resume.test_expired_messages_are_not_written,
    test_w_resume.test_replay_to_slow_readers_is_bounded,
    test_w_resume.test_reload_keeps_connections,
], ids=lambda case: case.__name__[5:])
def test_resume(case, request, monkeypatch, authority):
    run_over_tls(case, request, monkeypatch)


def test_big_backlog(make_cluster, authority, channel):
    """A reader that stops and goes on gets all that its budget holds, byte for
    byte, and what it was sent is accounted for to the last byte."""
    c = make_cluster(1, 1, 1, node_options={"queue_bytes_max": "64MiB"})
    sizes = [1, 70000, 200, 16384, 16385, 300000, 65536, 10] * 12
    with TlsSse(c.n.port, channel, rcvbuf=4096) as s:
        s.wait_ready()
        for i, size in enumerate(sizes):
            c.d.publish(channel, f"{i} " + chr(97 + i % 26) * size)
        wait_until(lambda: c.n.metric("stentor_blocked_connections") == 1)
        assert c.n.metric("stentor_send_queue_bytes") > 1 << 20
        s.wait_messages(len(sizes), timeout=30)
        assert s.data() == [f"{i} " + chr(97 + i % 26) * size
                            for i, size in enumerate(sizes)]
        c.d.publish(channel, "last")
        s.wait_data("last")
        wait_until(lambda: c.n.metric("stentor_blocked_connections") == 0)
        wait_until(lambda: c.n.metric("stentor_send_queue_bytes") == 0)
        assert c.n.metric("stentor_messages_delivered_total") == (
            len(sizes) + 1)


def test_what_a_stream_costs(make_cluster, authority, channel):
    """Idle streams: the header of session_tls.h says 15 KiB each."""
    if harness.BUILD.name in ("asan", "tsan"):
        pytest.skip("sanitizers keep memory of their own")
    c = make_cluster(1, 1, 1)
    with TlsSse(c.n.port, channel) as first:
        first.wait_ready()
        pid = c.n.worker_pids()[0]
        before = rss_kib(pid)
        streams = [TlsSse(c.n.port, channel) for _ in range(200)]
        pump_all(streams, lambda: all(
            any(e.event == "stentor.ready" for e in s.events)
            for s in streams))
        grown = rss_kib(pid) - before
        for s in streams:
            s.close()
    # the kernel's socket memory is not the worker's
    assert grown / 200 < 20


def test_client_that_talks_on(make_cluster, authority, channel):
    """Bytes after the request are bounded, encrypted as they are."""
    c = make_cluster(1, 1, 1)
    with TlsSse(c.n.port, channel) as s, TlsSse(c.n.port, channel) as well:
        s.wait_ready()
        well.wait_ready()
        # how much the socket takes before the worker looks is its kernel's
        # affair: the end must come, and not by our own time-out
        s.sock.settimeout(10 * harness.SLOW)
        end = time.monotonic() + 10 * harness.SLOW
        with pytest.raises((ConnectionError, ssl.SSLError)):
            while time.monotonic() < end:
                s.sock.sendall(b"x" * 100)
        c.d.publish(channel, "on")
        well.wait_data("on")


# --- the API ---------------------------------------------------------------

def grpc_channel(d, authority, cert=None, key=None):
    credentials = grpc.ssl_channel_credentials(
        authority.ca.read_bytes(), key and key.read_bytes(),
        cert and cert.read_bytes())
    return grpc.secure_channel(
        f"127.0.0.1:{d.api_port}", credentials,
        options=[("grpc.ssl_target_name_override", NAME)])


def grpc_publish(channel, name="a", data="x", timeout=10):
    call = channel.unary_unary("/" + PUBLISH,
                               rpc.PublishRequest.SerializeToString,
                               lambda b: b)
    return call(rpc.PublishRequest(channel=name, data=data),
                timeout=timeout * harness.SLOW)


@pytest.mark.parametrize("flags,version,alpn", [
    (["--http2"], "HTTP/2 200", "h2"),
    (["--http1.1"], "HTTP/1.1 200", "http/1.1"),
    (["--no-alpn"], "HTTP/1.1 200", None),
    (["--no-alpn", "--http2-prior-knowledge"], "HTTP/2 200", None),
    (["--http2", "--tls-max", "1.2"], "HTTP/2 200", "h2"),
])
def test_api_by_curl(make_dispatcher, authority, flags, version, alpn):
    d = make_dispatcher()
    big = '{"channel":"a","data":"' + "x" * 200000 + '"}'
    said, body = curl(d.api_port, authority, PUBLISH, *flags, data=big)
    if "--http2-prior-knowledge" in flags and "HTTP/2" not in said:
        pytest.skip("this curl speaks no prior knowledge over TLS")
    assert version in said and "messageId" in body
    if alpn:
        assert f"ALPN: server accepted {alpn}\n" in said
    assert handshakes(d, "ok") == 1


def test_stentorctl(make_dispatcher, authority):
    d = make_dispatcher(client_ca=True)
    ctl = [harness.CTL, "--dispatcher", f"https://127.0.0.1:{d.api_port}"]
    cert, key = authority.issue("operator")
    ours = ["--ca-file", authority.ca, "--cert-file", cert, "--key-file", key]
    done = harness.run([*ctl, *ours, "publish", "a", "hello"])
    assert done.returncode == 0, done.stderr
    # a stranger's server, and a server to which we are one
    for fewer in (ours[2:], ours[:2]):
        done = harness.run([*ctl, *fewer, "publish", "a", "hello"])
        assert done.returncode == 69 and done.stderr


def test_stentorctl_tail(make_cluster, authority, tmp_path, channel):
    """Trusts who the authority that it is given has signed, and nobody else."""
    c = make_cluster(1, 1, 1)
    (tmp_path / "other").mkdir()
    with Tail(c, channel, "--ca-file", authority.ca, scheme="https") as tail:
        tail.wait_subscribed()
        c.d.publish(channel, "seen by tail")
        tail.wait_printed("seen by tail")
    for ca in ([], ["--ca-file", Authority(tmp_path / "other").ca]):
        with Tail(c, channel, *ca, scheme="https") as tail:
            assert tail.wait_end() == 69
            assert "certificate" in tail.err and not tail.out


def test_api_by_grpc(make_dispatcher, authority):
    d = make_dispatcher(data_bytes_max="1MiB")
    with grpc_channel(d, authority) as channel:
        grpc_publish(channel, data="y" * 900000)
        call = channel.stream_stream(
            f"/{rpc.PUBLISHER}/PublishStream",
            rpc.PublishRequest.SerializeToString,
            rpc.PublishResult.FromString)
        results = list(call(
            (rpc.PublishRequest(channel="a", data=f"{i}" * 100)
             for i in range(3000)), timeout=30 * harness.SLOW))
        assert len(results) == 3000
        assert all(r.code == 0 for r in results)
    wait_until(lambda: d.metric("stentor_api_connections") == 0)


def test_api_large_answers_to_a_slow_client(make_dispatcher, authority,
                                            tmp_path):
    """An answer larger than any buffer, taken a little at a time."""
    config = tmp_path / "rules.yaml"
    config.write_text("rules:\n  - match: '*'\n"
                      "    history: {size: 100, ttl: 1h}\n")
    d = make_dispatcher(config=config)
    with grpc_channel(d, authority) as channel:
        for i in range(12):
            grpc_publish(channel, data=f"{i} " + "z" * 500000)
    body = b'{"channel":"a","limit":100}'
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(20 * harness.SLOW)
        raw.connect(("127.0.0.1", d.api_port))
        with authority.context().wrap_socket(
                raw, server_hostname="127.0.0.1") as s:
            s.sendall(b"POST /stentor.v1.ChannelService/GetHistory HTTP/1.1"
                      b"\r\nHost: x\r\nContent-Type: application/json\r\n"
                      b"Connection: close\r\nContent-Length: %d\r\n\r\n%s"
                      % (len(body), body))
            got = bytearray()
            while data := s.recv(1 << 16):
                got += data
    head, _, answer = bytes(got).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    length = int(re.search(rb"(?i)content-length: (\d+)", head).group(1))
    assert len(answer) == length > 1 << 20


def test_api_client_certificates(make_dispatcher, authority, tmp_path):
    d = make_dispatcher(client_ca=True)
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    for pair in ((None, None), other.issue("stranger")):
        with grpc_channel(d, authority, *pair) as channel:
            with pytest.raises(grpc.RpcError) as e:
                grpc_publish(channel, timeout=3)
            assert e.value.code() == grpc.StatusCode.UNAVAILABLE
    assert handshakes(d, "failed") >= 2
    assert handshakes(d, "ok") == 0
    with grpc_channel(d, authority, *authority.issue("producer")) as channel:
        grpc_publish(channel)
    assert handshakes(d, "ok") == 1


# --- rotation --------------------------------------------------------------

def expiry(process):
    return process.metric("stentor_tls_certificate_expires_seconds")


@pytest.mark.parametrize("how", ["hangup", "time"])
def test_rotation(make_cluster, tmp_path, monkeypatch, channel, how):
    """Who is there stays; who comes sees the new certificate."""
    a = Authority(tmp_path)
    monkeypatch.setattr(TlsSse, "context", a.context())
    c = make_cluster(1, 1, 2, start=False, node_options=a.node(),
                     dispatcher_options=a.api())
    c.d.start(settle_ms=200).wait_ready()
    c.n.start().wait_ready()
    c.n.first_pids = c.n.worker_pids()
    with TlsSse(c.n.port, channel) as old, \
            grpc_channel(c.d, a) as producer:
        old.wait_ready()
        grpc_publish(producer, channel, "before")
        old.wait_data("before")
        # half of an exchange changes nothing
        good = a.key.read_bytes()
        a.key.write_text("no key")
        ends = {p: expiry(p) for p in (c.d, c.n)}
        for p in ends:
            p.signal(signal.SIGHUP)
            wait_until(lambda p=p: "TLS-UNREADABLE" in p.log())
        a.key.write_bytes(good)
        with TlsSse(c.n.port, channel) as same:
            assert same.serial() == old.serial()
        a.issue("server", days=9)
        for p in ends:
            if how == "hangup":
                p.signal(signal.SIGHUP)
            wait_until(lambda p=p: expiry(p) > ends[p] + 86400, 15)
        grpc_publish(producer, channel, "after")
        old.wait_data("after")

        def renewed():
            with TlsSse(c.n.port, channel) as new:
                new.wait_ready()
                return new.serial() != old.serial()
        wait_until(lambda: all(renewed() for _ in range(8)), 10)
        assert not old.end
        said, _ = curl(c.d.api_port, a, PUBLISH,
                       data='{"channel":"x","data":"y"}')
        assert "200" in said
        assert c.n.metric("stentor_connections_closed_total",
                          reason="shutdown") == 0


@pytest.mark.parametrize("fault", [
    {"cert": None}, {"key": None}, {"cert": "missing.pem"},
    {"cert": "ca.key"}, {"key": "ca.key"}])
def test_faulty_files_are_refused(authority, fault):
    files = {"cert": authority.cert, "key": authority.key}
    for which, name in fault.items():
        files[which] = name and authority.dir / name
    base = harness.free_ports(4)
    for program, prefix, options in (
            (harness.DISPATCHER, "api_tls_", {"api_listen": base}),
            (harness.CONNNODE, "tls_", {"listen": base})):
        options = {k: f"127.0.0.1:{v}" for k, v in options.items()}
        options.update({prefix + k: v for k, v in files.items() if v},
                       auth="none", admin_listen=f"127.0.0.1:{base + 1}",
                       link_listen=f"tcp://127.0.0.1:{base + 2}")
        r = harness.run([program] + harness.option_list(options), timeout=5)
        assert r.returncode == 78, r
        assert "tls-cert" in r.stderr
        bad = fault.get("cert") or fault.get("key")
        assert not bad or bad in r.stderr or str(authority.key) in r.stderr


# --- hostile ---------------------------------------------------------------

@pytest.fixture
def both(make_cluster, authority, channel):
    """[(process, port)] of two programs that speak TLS and are in a hurry."""
    c = make_cluster(1, 1, 1, start=False, dispatcher_options={
        **authority.api(), "api_head_timeout_ms": 700,
        "api_connections_max": 30}, node_options={
        "head_timeout_ms": 700, "tls_handshakes_max": 10})
    c.d.start(settle_ms=0).wait_ready()
    c.n.start().wait_ready()
    c.n.first_pids = c.n.worker_pids()
    c.ends = [(c.d, c.d.api_port), (c.n, c.n.port)]
    return c


def well(c, authority, channel):
    """A client that behaves is served."""
    with grpc_channel(c.d, authority) as producer, \
            TlsSse(c.n.port, channel) as s:
        s.wait_ready()
        grpc_publish(producer, channel, "fine")
        s.wait_data("fine")


def read_to_end(s, timeout=5):
    s.settimeout(timeout * harness.SLOW)
    got = b""
    try:
        while data := s.recv(1 << 16):
            got += data
    except ConnectionResetError:
        pass
    return got


def connection(port):
    return socket.create_connection(("127.0.0.1", port), timeout=5)


def hello(authority):
    """A ClientHello as bytes."""
    out = ssl.MemoryBIO()
    client = authority.context().wrap_bio(ssl.MemoryBIO(), out,
                                          server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


def test_plain_http_to_tls(both, authority, channel):
    for process, port in both.ends:
        failed = handshakes(process, "failed")
        for text in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                     b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                     b"\x16\x03\x01" + b"\xff" * 500, b"\0" * 100):
            with connection(port) as s:
                s.sendall(text)
                assert b"HTTP" not in read_to_end(s)
            failed += 1
        wait_until(lambda p=process: handshakes(p, "failed") == failed)
    well(both, authority, channel)


def test_tls_to_plain(make_dispatcher, authority, channel, request):
    """The port answers in plain words, or ends."""
    c = harness.Cluster(1, 1, 1)
    try:
        for port in (c.d.api_port, c.n.port):
            with connection(port) as s:
                s.sendall(hello(authority))
                s.shutdown(socket.SHUT_WR)
                got = read_to_end(s)
                assert got == b"" or got.startswith(b"HTTP/1.1 4"), got
        with Sse(c.n.port, channel) as s:
            s.wait_ready()
            c.d.publish(channel, "fine")
            s.wait_data("fine")
        c.close()
    finally:
        c._kill_all()
        harness.Cluster.live.remove(c)


def test_slow_handshake_is_cut(both, authority, channel):
    """A byte now and then does not keep a handshake alive."""
    first = hello(authority)
    for process, port in both.ends:
        began = time.monotonic()
        with connection(port) as silent, connection(port) as s:
            for byte in first:
                try:
                    s.sendall(bytes([byte]))
                except OSError:
                    break
                time.sleep(0.02)  # its pace is what is tested
            else:
                pytest.fail("it took the whole hello")
            assert time.monotonic() - began < 4 * harness.SLOW
            read_to_end(s)
            read_to_end(silent)
        wait_until(lambda p=process: handshakes(p, "unfinished") >= 1)
    assert both.d.metric("stentor_api_connections_closed_total",
                         reason="head_timeout") >= 2
    assert both.n.metric("stentor_connections_rejected_total",
                         reason="timeout") >= 2
    well(both, authority, channel)


def test_half_open_handshakes_are_bounded(make_cluster, authority, channel):
    """The oldest go, at once; who behaves gets in between them."""
    c = make_cluster(1, 1, 1, node_options={"tls_handshakes_max": 10})
    worker = c.n.worker_pids()[0]
    before = rss_kib(worker)
    first = hello(authority)
    peers = []
    try:
        for i in range(100):
            s = connection(c.n.port)
            s.sendall(first)
            peers.append(s)
            if i % 20 == 19:
                with TlsSse(c.n.port, channel) as stream:
                    stream.wait_ready()
        # the last to come in cut one more, and left its place
        wait_until(lambda: handshakes(c.n, "unfinished") == 91)
        for s in peers[:80]:  # the server's part of a handshake, then the end
            read_to_end(s)
        assert rss_kib(worker) - before < rss_room(16)
    finally:
        for s in peers:
            s.close()
    wait_until(lambda: handshakes(c.n, "unfinished") == 100)
    assert handshakes(c.n, "ok") == 5


def test_crowd_of_newcomers(make_cluster, authority, channel):
    """3000 say hello at once: those who are in get their messages meanwhile,
    and all newcomers are answered."""
    c = make_cluster(1, 1, 1, node_options={"tls_handshakes_max": 3000,
                                            "head_timeout_ms": 60000})
    first = hello(authority)
    peers = [connection(c.n.port) for _ in range(3000)]
    with TlsSse(c.n.port, channel) as s:
        s.wait_ready()
        for p in peers:
            p.sendall(first)
        late = []
        for i in range(20):
            began = time.monotonic()
            c.d.grpc.publish(channel=channel, data=str(i))
            s.wait_data(str(i))
            late.append(time.monotonic() - began)
        print(f"latencies, ms: {[round(1000 * t) for t in late]}")
        assert max(late) < 0.3 * harness.SLOW
    for p in peers:
        p.settimeout(10 * harness.SLOW)
        assert p.recv(5)[:3] == b"\x16\x03\x03"
        p.close()


def test_crowd_of_producers(make_dispatcher, authority):
    """3000 say hello at once, and each third more than is read at once: who is
    in gets answers meanwhile, and all who mean well are answered."""
    d = make_dispatcher(api_tls_handshakes_max=3000, api_connections_max=4000,
                        api_head_timeout_ms=60000)
    first = hello(authority)
    peers = [connection(d.api_port) for _ in range(3000)]
    with grpc_channel(d, authority) as producer:
        grpc_publish(producer)
        for i, p in enumerate(peers):
            p.sendall(first + (b"?" * 4096 if i % 3 == 0 else b""))
        late = []
        for _ in range(20):
            began = time.monotonic()
            grpc_publish(producer)
            late.append(time.monotonic() - began)
        print(f"latencies, ms: {[round(1000 * t) for t in late]}")
        assert max(late) < 0.3 * harness.SLOW
    for i, p in enumerate(peers):
        p.settimeout(10 * harness.SLOW)
        if i % 3 != 0:
            assert p.recv(5)[:3] == b"\x16\x03\x03"
        p.close()
    wait_until(lambda: d.metric("stentor_api_connections") == 0)
    assert handshakes(d, "ok") == 1
    assert handshakes(d, "failed") == 1000
    assert handshakes(d, "unfinished") == 2000


def test_api_handshakes_are_bounded(make_dispatcher, authority):
    """The oldest go, at once; who behaves gets in between them."""
    d = make_dispatcher(api_tls_handshakes_max=10)
    first = hello(authority)
    peers = []
    with grpc_channel(d, authority) as there:
        grpc_publish(there)
        for i in range(100):
            peers.append(connection(d.api_port))
            peers[-1].sendall(first)
            if i % 20 == 19:
                with grpc_channel(d, authority) as newcomer:
                    grpc_publish(newcomer)
        # the last to come in cut one more, and left its place
        wait_until(lambda: handshakes(d, "unfinished") == 91)
        for s in peers[:80]:
            read_to_end(s)
        grpc_publish(there)
        for s in peers:
            s.close()
    wait_until(lambda: handshakes(d, "unfinished") == 100)
    assert d.metric("stentor_api_connections_closed_total",
                    reason="abuse") == 91


def test_api_half_open_handshakes_are_bounded(both, authority, channel):
    """They count as connections, and their time is short."""
    first = hello(authority)
    peers = []
    for _ in range(40):
        s = connection(both.d.api_port)
        s.sendall(first)
        peers.append(s)
    wait_until(lambda: both.d.metric(
        "stentor_api_connections_rejected_total") >= 10)
    for s in peers:
        read_to_end(s)
        s.close()
    wait_until(lambda: both.d.metric("stentor_api_connections") == 0)
    assert handshakes(both.d, "unfinished") == 30
    well(both, authority, channel)


def test_broken_off_at_every_byte(both, authority, channel):
    """A hello cut off anywhere leaves nothing behind."""
    first = hello(authority)
    for process, port in both.ends:
        done = sum(handshakes(process, o) for o in ("failed", "unfinished"))
        cuts = range(1, len(first), 23)
        for cut in cuts:
            with connection(port) as s:
                s.sendall(first[:cut])
        wait_until(lambda p=process: sum(
            handshakes(p, o)
            for o in ("failed", "unfinished")) == done + len(cuts))
    well(both, authority, channel)
    wait_until(lambda: both.d.metric("stentor_api_connections") == 0)


def test_records_damaged_in_a_stream(both, authority, channel):
    """Garbage after the handshake ends that stream alone."""
    with TlsSse(both.n.port, channel) as s, \
            TlsSse(both.n.port, channel) as beside:
        s.wait_ready()
        beside.wait_ready()
        raw = socket.socket(fileno=socket.dup(s.sock.fileno()))
        with raw:
            raw.sendall(b"\x17\x03\x03\x00\x20" + b"?" * 32)
            wait_until(lambda: both.n.metric("stentor_connections") == 1)
        with grpc_channel(both.d, authority) as producer:
            grpc_publish(producer, channel, "fine")
        beside.wait_data("fine")
        pump_once([beside])
        assert not beside.end
