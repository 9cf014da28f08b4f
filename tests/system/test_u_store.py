"""Channels that keep history, seen from the producers' side: positions, order,
idempotency, history, and stores that are away, shared or not to be shared."""
import shutil
import signal
import socket
import struct
import threading
import time

import grpc
import pytest

import h2client
import rpc
from harness import (DISPATCHER, SLOW, free_ports, option_list, run,
                     wait_until)
from killtest import add_redis
from sse import Sse
from test_x_tls import Authority

RULES = """
rules:
- match: "score:*"
  history: {size: 100, ttl: 10m}
- match: "short:*"
  history: {size: 5, ttl: 10m}
- match: "log:*"
  history: {size: 20000, ttl: 10m}
"""
EPHEMERAL = "note:1"


@pytest.fixture(scope="module", params=["memory:", "lmdb:"])
def c(request):
    import harness
    cluster = harness.Cluster(1, 1, 1, store=request.param, rules=RULES)
    yield cluster
    cluster.close()
    harness.Cluster.live.remove(cluster)


_names = iter(range(10 ** 9))


@pytest.fixture
def score():
    return f"score:{next(_names)}"


def position(response):
    assert response.HasField("position"), response
    return response.position.epoch, response.position.offset


def code_of(call, *args, **kw):
    with pytest.raises(grpc.RpcError) as e:
        call(*args, **kw)
    return e.value.code(), e.value.details()


def dispatcher(**options):
    """One that must end by itself."""
    return run([DISPATCHER] + option_list(dict(auth="none", **options)))


# --- positions and order ------------------------------------------------------

def test_positions_are_contiguous(c, score):
    places = [position(c.d.grpc.publish(channel=score, data="x"))
              for _ in range(10)]
    batch = c.d.grpc.publish_batch([dict(channel=score, data="y")] * 50)
    places += [position(r.response) for r in batch.results]
    stream = c.d.grpc.publish_stream(
        [rpc.PublishRequest(channel=score, data="z")] * 200)
    places += [position(r.response) for r in stream]
    answer = c.d.publish(score, "curl")["position"]
    places.append((int(answer["epoch"]), int(answer["offset"])))
    epoch = places[0][0]
    assert epoch > 1_600_000_000_000  # milliseconds since 1970
    assert places == [(epoch, i + 1) for i in range(len(places))]
    assert int(c.d.channel(score)["top"]["offset"]) == len(places)


def test_each_channel_counts_for_itself(c, score):
    other = score + ":b"
    batch = c.d.grpc.publish_batch(
        [dict(channel=ch, data="x") for _ in range(20)
         for ch in (score, other)])
    offsets = [position(r.response)[1] for r in batch.results]
    assert offsets == [i // 2 + 1 for i in range(40)]


def test_stream_results_are_in_order_of_requests(c, score):
    """What is known at once waits behind what waits for the store."""
    requests = []
    for i in range(1500):
        kind = i % 3
        requests.append(rpc.PublishRequest(
            channel=(score, EPHEMERAL, "not a channel")[kind], data=str(i)))
    results = list(c.d.grpc.publish_stream(requests))
    assert len(results) == len(requests)
    for i, r in enumerate(results):
        if i % 3 == 0:
            assert position(r.response)[1] == i // 3 + 1
        elif i % 3 == 1:
            assert r.code == 0 and not r.response.HasField("position")
        else:
            assert r.code == 3 and r.error.startswith("channel:")
    assert c.d.metric("stentor_publish_stream_waiting") == 0


def test_subscribers_get_what_was_stored(c, score):
    with Sse(c.n.port, score) as sub:
        sub.wait_ready()
        r = c.d.grpc.publish(channel=score, data="one", event="ball")
        assert r.nodes == 1
        assert sub.wait_data("one").event == "ball"
        c.d.grpc.publish_batch(
            [dict(channel=score, data=str(i)) for i in range(300)])
        sub.wait_messages(301)
        assert sub.data() == ["one"] + [str(i) for i in range(300)]


def test_batch_mixes_channels_and_faults(c, score):
    r = c.d.grpc.publish_batch([
        dict(channel=score, data="a"),
        dict(channel=EPHEMERAL, data="b"),
        dict(channel=EPHEMERAL, data="c", idempotency_key="k"),
        dict(channel=score, data="d", idempotency_key="with space"),
        dict(channel=score, data="e")]).results
    assert [x.code for x in r] == [0, 0, 9, 3, 0]
    assert "keeps no history" in r[2].error
    assert r[3].error.startswith("idempotency_key:")
    assert position(r[4].response)[1] == 2
    assert c.d.metric("stentor_publish_batch_waiting") == 0


# --- idempotency --------------------------------------------------------------

def test_idempotent_publish(c, score):
    with Sse(c.n.port, score) as sub:
        sub.wait_ready()
        first = c.d.grpc.publish(channel=score, data="1", idempotency_key="k")
        again = c.d.grpc.publish(channel=score, data="1", idempotency_key="k")
        assert again.message_id == first.message_id
        assert position(again) == position(first)
        other = c.d.grpc.publish(channel=score + "x", data="3",
                                 idempotency_key="k")
        assert position(other)[1] == 1
        last = c.d.grpc.publish(channel=score, data="4")
        assert position(last)[1] == 2
        sub.wait_data("4")
        assert sub.data() == ["1", "4"]


def test_idempotency_key_of_another_message(c, score):
    """It is told, not swallowed: gRPC and Connect."""
    c.d.grpc.publish(channel=score, data="1", idempotency_key="k")
    code, text = code_of(c.d.grpc.publish, channel=score, data="2",
                         idempotency_key="k")
    assert code == grpc.StatusCode.ALREADY_EXISTS
    assert "idempotency_key: was used for another message" in text
    assert position(c.d.grpc.publish(channel=score, data="3"))[1] == 2


def test_idempotent_within_a_batch(c, score):
    r = c.d.grpc.publish_batch(
        [dict(channel=score, data="x", idempotency_key="same")
         for i in range(10)]).results
    assert {x.response.message_id for x in r} == {r[0].response.message_id}
    assert {position(x.response)[1] for x in r} == {1}


def test_idempotent_through_two_dispatchers(redis):
    one, two = redis.dispatchers
    for i in range(20):
        first = one.grpc.publish(channel="score:i", data=str(i),
                                 idempotency_key=f"key{i}")
        again = two.grpc.publish(channel="score:i", data=str(i),
                                 idempotency_key=f"key{i}")
        assert again.message_id == first.message_id
        assert position(again) == position(first)
    assert position(two.grpc.publish(channel="score:i", data="x"))[1] == 21


def peers(d, count):
    wait_until(lambda: d.metric("stentor_store_peers") == count,
               what=f"{d.name} hears {count} others")


def test_dispatchers_know_one_another(redis):
    """And forget one that has left, or died, and are heard again after the
    connections that they listen in were cut."""
    one, two = redis.dispatchers

    def moved(direction):
        return two.metric("stentor_store_moved_total", direction=direction)

    for d in redis.dispatchers:
        peers(d, 1)
        assert d.metric("stentor_store_news_up") == 1
    one.publish("log:peers", "a")
    wait_until(lambda: moved("heard") == 1)
    missed = moved("missed")
    with socket.create_connection(
            (redis.redis.place.front, redis.redis.port), 5) as s:
        s.sendall(b"CLIENT KILL TYPE pubsub\r\n")
        assert s.recv(64) == b":2\r\n"
    wait_until(lambda: moved("missed") > missed)
    wait_until(lambda: two.metric("stentor_store_news_up") == 1)
    one.publish("log:peers", "b")
    wait_until(lambda: moved("heard") == 2)
    two.kill()
    peers(one, 0)
    two.start().wait_ready()
    peers(one, 1)
    two.stop()
    peers(one, 0)


def test_store_by_tls(make_cluster, tmp_path):
    c = make_cluster(1, 1, 1, start=False, rules=RULES)
    redis = add_redis(c)
    for name in ("ours", "other"):
        (tmp_path / name).mkdir()
    ours, other = Authority(tmp_path / "ours"), Authority(tmp_path / "other")
    cert, key = ours.issue("client")
    port = free_ports(1)
    out = run(["redis-cli", "-h", redis.place.front, "-p", redis.port,
               "config", "set", "tls-cert-file", ours.cert, "tls-key-file",
               ours.key, "tls-ca-cert-file", ours.ca, "tls-port", port])
    assert out.stdout == "OK\n"
    d = c.d
    d.options.update(store=f"rediss://{redis.place.front}:{port}",
                     store_tls_ca=ours.ca, store_tls_cert=cert,
                     store_tls_key=key)
    c.start()
    with Sse(c.n.port, "log:tls") as sub:
        sub.wait_ready()
        for n in range(20):
            d.publish("log:tls", str(n))
        sub.wait_messages(20)
    assert d.metric("stentor_store_news_up") == 1
    # Whoever is somebody else's is told nothing, and people are told why.
    d.stop()
    d.options["store_tls_ca"] = other.ca
    d.start()
    wait_until(lambda: "not of an authority in store-tls-ca" in d.log())
    assert d.ready() != 200
    d.stop()
    d.options.update(store_tls_ca=ours.ca, store_tls_cert="",
                     store_tls_key="")
    d.start()
    wait_until(lambda: "client certificate" in d.log())
    assert d.ready() != 200


def test_two_dispatchers_count_together(redis):
    """200 messages through each at once: 1 to 400, and one order for all."""
    answers = {}

    def produce(d):
        answers[d.name] = [
            position(r.response)[1] for r in d.grpc.publish_stream(
                [rpc.PublishRequest(channel="log:t", data=f"{d.name} {i}")
                 for i in range(200)])]
    with Sse(redis.n.port, "log:t") as sub:
        sub.wait_ready()
        threads = [threading.Thread(target=produce, args=(d,))
                   for d in redis.dispatchers]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert all(a == sorted(a) for a in answers.values())
        assert sorted(sum(answers.values(), [])) == list(range(1, 401))
        sub.wait_messages(400)
        stored = []
        while len(stored) < 400:
            after = stored[-1]["position"] if stored else None
            stored += redis.d.history(
                "log:t", limit=1000,
                **({"after": after} if after else {}))["messages"]
        assert sub.data() == [m["data"] for m in stored]


# --- GetHistory ---------------------------------------------------------------

def offsets(answer):
    return [int(m["position"]["offset"]) for m in answer.get("messages", [])]


def test_history(c, score):
    empty = c.d.history(score)
    assert not {"top", "first", "messages", "gap", "more"} & set(empty)
    for i in range(1, 151):
        c.d.grpc.publish(channel=score, data=f"message {i}", event="ball",
                         conflation_key="key")
    a = c.d.history(score)  # its rule keeps 100, and that is the default
    assert offsets(a) == list(range(51, 151))
    assert int(a["top"]["offset"]) == 150
    assert int(a["first"]["offset"]) == 51
    assert "more" not in a and "gap" not in a
    m = a["messages"][0]
    assert (m["data"], m["event"], m["conflationKey"]) == (
        "message 51", "ball", "key")
    assert abs(int(m["publishedMs"]) / 1000 - time.time()) < 60
    epoch = a["top"]["epoch"]
    a = c.d.history(score, limit=10, after={"epoch": epoch, "offset": 100})
    assert offsets(a) == list(range(101, 111)) and a["more"]
    a = c.d.history(score, limit=10, latest=True)
    assert offsets(a) == list(range(141, 151)) and "more" not in a
    a = c.d.history(score, after={"epoch": epoch, "offset": 150})
    assert offsets(a) == [] and "gap" not in a
    # Places that can't be honoured.
    a = c.d.history(score, limit=1, after={"epoch": epoch, "offset": 20})
    assert offsets(a) == [51] and a["gap"]
    a = c.d.history(score, limit=1, after={"epoch": 7, "offset": 1000})
    assert offsets(a) == [51] and a["gap"]
    a = c.d.history(score, after={"epoch": epoch, "offset": 1000})
    assert offsets(a) == [] and a["gap"]


def test_history_leaves_out_what_is_over(c, score):
    c.d.grpc.publish(channel=score, data="short", ttl_ms=1)
    c.d.grpc.publish(channel=score, data="long", ttl_ms=600000)
    wait_until(lambda: offsets(c.d.history(score)) == [2], 2,
               "the first is over")
    assert int(c.d.history(score)["first"]["offset"]) == 1


@pytest.mark.parametrize("fields, code, text", [
    (dict(channel="no good"), "invalid_argument", "channel: "),
    (dict(channel="score:1", limit=1001), "invalid_argument", "limit: "),
    (dict(channel="score:1", latest=True, after={"offset": 1}),
     "invalid_argument", "latest: "),
    (dict(channel="note:1"), "failed_precondition",
     'channel: keeps no history (rule "*")'),
])
def test_history_refuses(c, fields, code, text):
    status, answer = c.d.call("stentor.v1.ChannelService/GetHistory", fields)
    assert status == 400
    assert answer["code"] == code and answer["message"].startswith(text)


def test_channel_tells_its_rule(c, score):
    rule = c.d.channel(score)["rule"]
    assert (rule["historySize"], rule["historyTtlMs"]) == (100, "600000")
    assert "top" not in c.d.channel(score)
    assert "historySize" not in c.d.channel(EPHEMERAL)["rule"]


# --- an embedded store --------------------------------------------------------

@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_restart_keeps_positions(make_cluster, how):
    c = make_cluster(1, 1, 1, store="lmdb:", rules=RULES)
    first = c.d.grpc.publish(channel="score:r", data="1", idempotency_key="k")
    for i in range(2, 11):
        c.d.grpc.publish(channel="score:r", data=str(i))
    c.d.close_grpc()
    if how == signal.SIGKILL:
        c.d.kill()
    else:
        assert c.d.stop() == 0
    c.d.start()
    c.wait_ready()
    again = c.d.grpc.publish(channel="score:r", data="1", idempotency_key="k")
    assert again.message_id == first.message_id
    next_one = c.d.grpc.publish(channel="score:r", data="11")
    assert position(next_one) == (position(first)[0], 11)
    assert offsets(c.d.history("score:r")) == list(range(1, 12))


def test_second_dispatcher_on_the_same_path_is_refused(make_cluster):
    c = make_cluster(1, 0, 0, store="lmdb:", rules=RULES)
    ports = free_ports(3)
    out = dispatcher(store=c.d.options["store"],
                     api_listen=f"127.0.0.1:{ports}",
                     link_listen=f"tcp://127.0.0.1:{ports + 1}",
                     admin_listen=f"127.0.0.1:{ports + 2}")
    assert out.returncode == 78
    assert "--store: " in out.stderr
    c.d.grpc.publish(channel="score:1", data="still there")


@pytest.mark.parametrize("store", ["memory:", "lmdb:"])
def test_second_dispatcher_with_a_store_of_its_own(make_cluster, store):
    """Two truths: whoever comes second is told so, and serves nobody."""
    c = make_cluster(2, 1, 2, start=False, rules=RULES, store=store)
    one, two = c.dispatchers
    if store == "lmdb:":
        two.options["store"] = f"lmdb:{c.dir / 'other'}"
    one.start(settle_ms=200).wait_ready()
    c.n.start()
    wait_until(lambda: one.ready_workers() == c.n.worker_names(), 10,
               "the node is linked")
    c.n.first_pids = c.n.worker_pids()
    two.start(settle_ms=200)

    def refused():
        return (two.ready() == 503 and b"another store is in use"
                in two.get("/readyz")[2])
    wait_until(refused, 10, "the second one says why it is not ready")
    wait_until(lambda: two.metric("stentor_store_refused_workers") > 0, 5,
               "a metric says so")
    assert any(line.get("id") == "STORE-DIFFERS"
               and "start one dispatcher" in line.get("text", "")
               for line in two.log_lines())
    code, text = code_of(two.grpc.publish, channel="score:1", data="x")
    assert code == grpc.StatusCode.UNAVAILABLE
    assert "another store is in use" in text
    assert not two.ready_workers()
    # The first one goes on as if nothing were.
    assert one.ready() == 200
    with Sse(c.n.port, "score:1") as sub:
        sub.wait_ready()
        one.grpc.publish(channel="score:1", data="y")
        sub.wait_data("y")
    # And the second one can stay when the first is gone.
    assert one.stop() == 0
    wait_until(lambda: two.ready_workers() == c.n.worker_names(), 15,
               "the node has changed over")
    two.wait_ready()


def test_stores_do_not_matter_without_history(make_cluster):
    c = make_cluster(2, 1, 1)
    c.wait_ready()
    for d in c.dispatchers:
        assert d.metric("stentor_store_refused_workers") == 0


@pytest.mark.parametrize("url, text", [
    ("postgres://x", "--store: "),
    ("lmdb:/proc/nowhere", "--store: "),
    ("redis://", "--store: "),
    ("rediss://h/1", "--store: "),
])
def test_bad_store_is_a_configuration_error(url, text):
    out = dispatcher(store=url)
    assert out.returncode == 78
    assert text in out.stderr


def test_passwords_are_not_told(make_cluster):
    c = make_cluster(1, 0, 0, dispatcher_options={
        "store": "rediss://someone:geheim1@127.0.0.1:1",
        "store_password": "geheim2"})
    shown = c.d.get("/debug/config")[2].decode()
    assert 'store: "rediss://(not told)@127.0.0.1:1"' in shown
    assert "store_password: (not told)" in shown
    assert "geheim" not in shown + c.d.log()


# --- a store that goes away ---------------------------------------------------

def health(d):
    call = d.grpc.unary("grpc.health.v1.Health/Check",
                        "grpc.health.v1.HealthCheckRequest",
                        "grpc.health.v1.HealthCheckResponse")
    return call(rpc.messages("grpc.health.v1.HealthCheckRequest")(),
                timeout=rpc.TIMEOUT).status


def test_store_dies_and_comes_back(redis):
    d = redis.d
    d.grpc.publish(channel="score:1", data="1")
    redis.redis.kill()

    def refused():
        try:
            d.grpc.publish(channel="score:1", data="lost", timeout=5 * SLOW)
        except grpc.RpcError as e:
            assert e.code() == grpc.StatusCode.UNAVAILABLE, e
            return "nothing was published" in e.details()
        return False
    wait_until(refused, 10, "refused before it is appended")
    assert d.grpc.publish(channel=EPHEMERAL, data="goes on").message_id
    wait_until(lambda: d.ready() == 503, 10, "not ready")
    assert d.get("/readyz")[2].startswith(b"the store is not available: ")
    wait_until(lambda: health(d) == 2, 2, "gRPC's health says so too")
    assert d.metric("stentor_store_up") == 0
    status, answer = d.call("stentor.v1.ChannelService/GetHistory",
                            {"channel": "score:1"})
    assert status == 503 and answer["code"] == "unavailable"
    redis.redis.start().wait_ready()
    d.wait_ready()
    wait_until(lambda: health(d) == 1, 2, "gRPC's health says so too")
    assert position(d.grpc.publish(channel="score:1", data="2"))[1] == 2
    assert [m["data"] for m in d.history("score:1")["messages"]] == ["1", "2"]


def test_store_that_does_not_answer(redis):
    """What became of it is not known: the same key finds out."""
    d = redis.d
    d.grpc.publish(channel="score:1", data="1")
    redis.redis.signal(signal.SIGSTOP)
    code, text = code_of(d.grpc.publish, channel="score:1", data="2",
                         idempotency_key="two")
    assert code == grpc.StatusCode.UNAVAILABLE
    assert "retry with the same idempotency_key" in text
    assert d.grpc.publish(channel=EPHEMERAL, data="goes on").message_id
    redis.redis.signal(signal.SIGCONT)

    def retried():
        try:
            return d.grpc.publish(channel="score:1", data="2",
                                  idempotency_key="two")
        except grpc.RpcError as e:
            assert e.code() == grpc.StatusCode.UNAVAILABLE, e
            return None
    assert position(wait_until(retried, 10, "it is back"))[1] == 2
    assert [m["data"] for m in d.history("score:1")["messages"]] == ["1", "2"]


def test_store_is_put_back_to_a_copy(redis):
    """Positions are given once, and no answer speaks of what is lost."""
    d, data = redis.d, redis.redis.data
    kept = [position(d.grpc.publish(channel="score:1", data=str(i),
                                    idempotency_key=f"key-{i}"))
            for i in range(1, 4)]
    shutil.copytree(data / "appendonlydir", redis.dir / "copy")
    lost = [position(d.grpc.publish(channel="score:1", data=str(i),
                                    idempotency_key=f"key-{i}"))
            for i in range(4, 6)]
    assert lost[-1] == (kept[0][0], 5)
    redis.redis.kill()
    shutil.rmtree(data / "appendonlydir")
    shutil.copytree(redis.dir / "copy", data / "appendonlydir")
    wait_until(lambda: d.ready() == 503, 10, "not ready")
    redis.redis.start().wait_ready()
    d.wait_ready()
    epoch, offset = position(d.grpc.publish(channel="score:1", data="new"))
    assert epoch > kept[0][0] and offset == 4
    # The third has survived, and its answer tells where it is now.
    again = d.grpc.publish(channel="score:1", data="3",
                           idempotency_key="key-3")
    assert position(again) == (epoch, 3)
    # The fourth is in nobody's log.
    again = d.grpc.publish(channel="score:1", data="4",
                           idempotency_key="key-4")
    assert position(again) == (epoch, 5)
    assert [m["data"] for m in d.history("score:1")["messages"]] == [
        "1", "2", "3", "new", "4"]
    assert any(line.get("id") == "STORE-REDIS-BEHIND"
               for line in d.log_lines())


def test_settings_of_redis_are_looked_at(redis):
    """What each channel costs, once."""
    warned = [line for line in redis.d.log_lines()
              if line.get("id") == "STORE-REDIS-NODES"]
    assert len(warned) == 1 and "1 KiB" in warned[0]["msg"]
    redis.redis.kill()
    wait_until(lambda: redis.d.ready() == 503, 10, "not ready")
    redis.redis.start().wait_ready()
    redis.d.wait_ready()
    assert len([line for line in redis.d.log_lines()
                if line.get("id") == "STORE-REDIS-NODES"]) == 1


# --- the end, and new rules ---------------------------------------------------

def test_drain_waits_for_the_store(redis):
    """What was begun before SIGTERM is stored and answered."""
    d = redis.d
    for other in redis.dispatchers:
        other.options["store_timeout_ms"] = 10000
    d.close_grpc()
    assert d.stop() == 0
    d.start(settle_ms=0)
    redis.wait_ready()
    redis.redis.signal(signal.SIGSTOP)
    call = d.grpc.unary("stentor.v1.PublisherService/Publish",
                        "stentor.v1.PublishRequest",
                        "stentor.v1.PublishResponse")
    futures = [call.future(rpc.PublishRequest(channel="log:d", data=str(i)),
                           timeout=20 * SLOW) for i in range(20)]
    more = threading.Event()

    def endless():
        for i in range(50):
            yield rpc.PublishRequest(channel="log:e", data=str(i))
        more.wait(20 * SLOW)  # no half-close: the dispatcher ends it
    stream = d.grpc.publish_stream(endless(), timeout=20 * SLOW)
    wait_until(lambda: d.metric("stentor_publish_pending") == 70, 5,
               "all wait for the store")
    d.signal(signal.SIGTERM)
    wait_until(lambda: d.ready() == 503, 5, "it drains")
    redis.redis.signal(signal.SIGCONT)
    assert sorted(position(f.result())[1] for f in futures) == list(
        range(1, 21))
    got = []
    with pytest.raises(grpc.RpcError) as e:
        for r in stream:
            got.append(position(r.response)[1])
    assert e.value.code() == grpc.StatusCode.UNAVAILABLE
    assert got == list(range(1, 51))
    more.set()
    assert d.wait_exit() == 0


def stream_results(h):
    """Whole results in what a raw client got on its stream."""
    data = b"".join(payload for kind, _, stream, payload in h.frames()
                    if kind == h2client.DATA and stream == 1)
    found, at = [], 0
    while at + 5 <= len(data):
        end = at + 5 + int.from_bytes(data[at + 1:at + 5], "big")
        if end > len(data):
            break
        found.append(rpc.PublishResult.FromString(data[at + 5:end]))
        at = end
    return found


def test_drain_in_a_stream(make_cluster):
    """What was stored was answered, whenever the end came. (By a raw client:
    grpcio forgets results when the status that follows them is not OK.)"""
    c = make_cluster(1, 1, 1, store="lmdb:", rules=RULES)
    body = h2client.grpc_message(rpc.PublishRequest(
        channel="log:s", data="x" * 50).SerializeToString())
    window = struct.pack(">HI", 4, 1 << 30)  # INITIAL_WINDOW_SIZE
    with h2client.RawH2(c.d.api_port, settings=window) as h:
        h.send(h2client.frame(h2client.WINDOW_UPDATE, 0, 0,
                              struct.pack(">I", 1 << 30)))
        h.send(h.headers(1, h2client.grpc_headers(
            "stentor.v1.PublisherService/PublishStream")))
        sent = 0
        while not h.closed and sent < 6000:
            h.send(h2client.frame(h2client.DATA, 0, 1, body * 20))
            sent += 20
            h.read_for(0.0005)
            if sent == 3000:
                c.d.signal(signal.SIGTERM)
        assert h.cut_off()
        results = stream_results(h)
    assert c.d.wait_exit() == 0
    taken = [position(r.response)[1] for r in results if r.code == 0]
    assert len(taken) > 100 and taken == list(range(1, len(taken) + 1))
    assert {r.code for r in results} <= {0, 14}
    c.d.start()
    c.wait_ready()
    assert int(c.d.channel("log:s")["top"]["offset"]) == len(taken)


def test_reload_while_publishes_are_pending(redis, stuck):
    """Rules may go while messages that they decided about are under way."""
    stream = stuck.grpc.publish_stream(
        [rpc.PublishRequest(channel="score:1", data=str(i))
         for i in range(50)])
    wait_until(lambda: stuck.metric("stentor_publish_pending") == 50, 5,
               "all wait")
    redis.config.write_text(RULES + '- match: "note:*"\n  history: '
                                    '{size: 10, ttl: 10m}\n')
    stuck.signal(signal.SIGHUP)
    wait_until(lambda: any(line.get("id") == "RELOADED"
                           for line in stuck.log_lines()), 5, "reloaded")
    redis.redis.signal(signal.SIGCONT)
    assert [position(r.response)[1] for r in stream] == list(range(1, 51))
    assert position(stuck.grpc.publish(channel=EPHEMERAL, data="x"))[1] == 1
