"""SIGTERM: gentle, paced, in time; a second one is at once."""
import contextlib
import http.client
import json
import queue
import signal
import socket
import threading
import time

import grpc
import pytest

import rpc
from harness import SLOW, wait_until
from relay import Relay
from sse import Sse, pump_all

DRAIN = 3


@pytest.fixture
def c(make_cluster):
    return make_cluster(2, 2, 2, node_options={"drain_seconds": DRAIN})


def test_node_drain(c, channel):
    victim, other = c.nodes
    subs = [Sse(victim.port, channel).wait_ready() for _ in range(100)]
    stay = Sse(other.port, channel).wait_ready()
    retries_before = [len(s.retries) for s in subs]
    start = time.monotonic()
    victim.signal(signal.SIGTERM)
    wait_until(lambda: victim.ready() == 503, 1, "not ready at once")
    assert victim.metric("stentor_draining") >= 1
    c.d.publish(channel, "during the drain")
    ends = {}

    def all_ended():
        for i, s in enumerate(subs):
            if s.end and i not in ends:
                ends[i] = time.monotonic() - start
        return len(ends) == len(subs)
    pump_all(subs, all_ended, DRAIN + 2, "every client is sent away")
    assert victim.wait_exit(3) == 0
    assert time.monotonic() - start < DRAIN + 1.5
    # each client its own retry:, no final chunk, nobody's stream broken
    assert {s.end for s in subs} == {"clean"}
    assert all(len(s.retries) > n for s, n in zip(subs, retries_before))
    assert len({s.retries[-1] for s in subs}) > 20
    # a slope, not a cliff
    times = sorted(ends.values())
    # (at least 50 a second and worker: 100 clients last about a second,
    # less where the kernel spread them unevenly)
    assert times[-1] - times[0] > 0.6, times
    busiest = max(sum(t <= x < t + 0.2 for x in times) for t in times)
    assert busiest < 60, f"{busiest} of 100 within 200 ms"
    # who was not closed yet still got the message
    assert sum("during the drain" in s.data() for s in subs) > 10
    stay.wait_data("during the drain")
    for d in c.dispatchers:
        wait_until(lambda d=d: d.ready_workers() == other.worker_names(),
                   8, "dispatchers forget the node")
    victim.first_pids = None
    for s in subs + [stay]:
        s.close()


def test_drain_refuses_new_clients(c, channel):
    victim = c.nodes[0]
    old = [Sse(victim.port, channel).wait_ready() for _ in range(20)]
    victim.signal(signal.SIGTERM)
    wait_until(lambda: victim.ready() == 503, 1, "not ready at once")
    try:
        with Sse(victim.port, channel) as s:
            s.wait_end(DRAIN + 2)
            # an EventSource must never see an error status
            assert s.status in (None, 200)
            if s.status == 200:
                assert s.retries and s.end == "clean"
                assert not s.events
    except ConnectionRefusedError:
        pass
    assert victim.wait_exit(DRAIN + 3) == 0
    for s in old:
        s.close()


def test_empty_node_drains_at_once(c):
    start = time.monotonic()
    assert c.nodes[0].stop() == 0
    assert time.monotonic() - start < DRAIN - 1


def test_drain_ends_though_clients_do_not_read(c, channel):
    victim = c.nodes[0]
    subs = [Sse(victim.port, channel, rcvbuf=4096) for _ in range(10)]
    for s in subs:
        s.wait_ready()
    for i in range(100):
        c.d.grpc.publish(channel=channel, data="x" * 20000)
    start = time.monotonic()
    victim.signal(signal.SIGTERM)
    assert victim.wait_exit(DRAIN + 2) == 0
    assert time.monotonic() - start < DRAIN + 1.5
    for s in subs:
        s.close()


def test_second_sigterm_is_at_once(make_cluster, channel):
    c = make_cluster(1, 1, 2, node_options={"drain_seconds": 60})
    subs = [Sse(c.n.port, channel).wait_ready() for _ in range(20)]
    c.n.signal(signal.SIGTERM)
    wait_until(lambda: c.n.ready() == 503, 1, "draining")
    c.n.signal(signal.SIGTERM)
    start = time.monotonic()
    c.n.wait_exit(3)
    assert time.monotonic() - start < 2
    for s in subs:
        s.close()


def test_node_sigint_ends_too(c, channel):
    """Ctrl-C of `make run`."""
    c.nodes[0].signal(signal.SIGINT)
    assert c.nodes[0].wait_exit(DRAIN + 2) == 0


def test_dispatcher_drain(c, channel):
    """Not ready, calls in flight are finished, links left, exit 0."""
    leaving, staying = c.dispatchers
    sub = Sse(c.n.port, channel).wait_ready()
    stub = leaving.grpc
    stub.publish(channel=channel, data="before")
    leaving.signal(signal.SIGTERM)
    assert leaving.wait_exit(15) == 0
    leaving.close_grpc()
    staying.publish(channel, "after")
    sub.wait_data("before")
    sub.wait_data("after")
    assert not sub.end, "subscribers do not notice"
    sub.close()


def test_dispatcher_drain_under_calls(c, channel):
    """A client that retries UNAVAILABLE never sees another error."""
    leaving = c.dispatchers[0]
    sub = Sse(c.n.port, channel).wait_ready()
    stub = rpc.Stubs(f"127.0.0.1:{leaving.api_port}")
    codes, ok = set(), 0
    leaving.signal(signal.SIGTERM)
    deadline = time.monotonic() + 15
    while leaving.popen.poll() is None and time.monotonic() < deadline:
        try:
            stub.publish(channel=channel, data=str(ok), timeout=2)
            ok += 1
        except grpc.RpcError as e:
            codes.add(e.code())
    stub.close()
    assert leaving.wait_exit(1) == 0
    assert codes <= {grpc.StatusCode.UNAVAILABLE}
    sub.wait_messages(ok)  # what was acknowledged did arrive
    sub.close()


def test_dispatcher_health_flips_before_it_goes(make_cluster):
    """Watch sees NOT_SERVING (or the end of the stream) on drain."""
    c = make_cluster(1, 1, 1)
    watch = c.d.grpc.channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        rpc.messages("grpc.health.v1.HealthCheckRequest").SerializeToString,
        rpc.messages("grpc.health.v1.HealthCheckResponse").FromString)
    call = watch(rpc.messages("grpc.health.v1.HealthCheckRequest")(),
                 timeout=20)
    assert next(call).status == 1
    c.d.signal(signal.SIGTERM)
    seen = []
    try:
        for r in call:
            seen.append(r.status)
    except grpc.RpcError as e:
        assert e.code() in (grpc.StatusCode.UNAVAILABLE,
                            grpc.StatusCode.CANCELLED)
    assert 1 not in seen
    assert c.d.wait_exit(15) == 0
    c.d.close_grpc()


def test_dispatcher_second_sigterm(make_cluster, channel):
    c = make_cluster(1, 1, 1)
    call = c.d.grpc.publish_stream(iter([]), timeout=20)
    list(call)
    c.d.signal(signal.SIGTERM)
    with contextlib.suppress(ProcessLookupError, OSError):
        # Two at once would be one.
        wait_until(lambda: c.d.ready() == 503, 3, "it drains")
        c.d.signal(signal.SIGTERM)
    c.d.wait_exit(3)


# --- what is on the wire when a dispatcher is told to end ---

RULES = 'rules:\n  - {match: "log:*", history: {size: 1000, ttl: 1h}}\n'
DELAY = 0.02  # one way; grpcio gives a connection 100 ms
CALLS = 32


@contextlib.contextmanager
def slow_link(to):
    """A port that leads there, DELAY each way."""
    with Relay() as relay:
        port = relay.add("api", ("127.0.0.1", 0), ("127.0.0.1", to))
        relay.set("api", delay_ms=DELAY * 1000)
        yield port


@pytest.fixture
def one(make_cluster):
    return make_cluster(1, 1, 1, rules=RULES)


@pytest.mark.parametrize("name", ["log:wire", "wire"])
def test_calls_on_the_wire_are_answered(one, name):
    """32 calls are under way in the link when SIGTERM comes; none fails."""
    with slow_link(one.d.api_port) as port, Sse(one.n.port, name) as sub:
        sub.wait_ready()
        stubs = rpc.Stubs(f"127.0.0.1:{port}")
        stubs.publish(channel=name, data="before")
        call = stubs.channel.unary_unary(
            f"/{rpc.PUBLISHER}/Publish", rpc.PublishRequest.SerializeToString,
            rpc.PublishResponse.FromString)
        futures = [call.future(rpc.PublishRequest(channel=name, data=str(i)),
                               timeout=rpc.TIMEOUT) for i in range(CALLS)]
        time.sleep(DELAY / 4)
        one.d.signal(signal.SIGTERM)
        wait_until(lambda: one.d.ready() == 503, 1, "not ready at once")
        assert {f.code() for f in futures} == {grpc.StatusCode.OK}
        assert one.d.wait_exit(10) == 0
        stubs.close()
        sub.wait_messages(1 + CALLS)


def test_http1_requests_on_the_wire_are_answered(one, channel):
    """Kept-alive connections: each has its next request under way."""
    body = json.dumps({"channel": channel, "data": "x"})
    head = {"Content-Type": "application/json"}
    path = f"/{rpc.PUBLISHER}/Publish"
    with slow_link(one.d.api_port) as port:
        clients = [http.client.HTTPConnection("127.0.0.1", port,
                                              timeout=rpc.TIMEOUT)
                   for _ in range(8)]
        for c in clients:
            c.request("POST", path, body, head)
            assert c.getresponse().read()
        for c in clients:
            c.request("POST", path, body, head)
        one.d.signal(signal.SIGTERM)
        for c in clients:
            answer = c.getresponse()
            assert answer.status == 200, answer.read()
            assert answer.headers["Connection"] == "close"
            answer.read()
            c.close()
        assert one.d.wait_exit(10) == 0


def test_http1_pipelined_requests_are_answered(one, channel):
    """Two in flight on one connection; answers in their order."""
    body = json.dumps({"channel": channel, "data": "x"}).encode()
    request = (f"POST /{rpc.PUBLISHER}/Publish HTTP/1.1\r\nHost: x\r\n"
               "Content-Type: application/json\r\n"
               f"Content-Length: {len(body)}\r\n\r\n").encode() + body
    with slow_link(one.d.api_port) as port, socket.create_connection(
            ("127.0.0.1", port), timeout=rpc.TIMEOUT) as s:
        s.sendall(request)
        assert s.recv(4096).startswith(b"HTTP/1.1 200 ")
        s.sendall(request * 2)
        one.d.signal(signal.SIGTERM)
        got = b""
        while part := s.recv(4096):
            got += part
        assert got.count(b"HTTP/1.1 200 ") == 2
        assert got.count(b"Connection: close") == 1
    assert one.d.wait_exit(10) == 0


def test_publish_stream_ends_in_order(one):
    """Results for what was received, then UNAVAILABLE; nothing in between."""
    requests = queue.Queue()
    call = one.d.grpc.publish_stream(iter(requests.get, None), timeout=20)
    for i in range(100):
        requests.put(rpc.PublishRequest(channel="log:s", data=str(i)))
    offsets = [next(call).response.position.offset for _ in range(50)]
    wait_until(lambda: one.d.history("log:s")["top"]["offset"] == "100",
               what="all have arrived")
    one.d.signal(signal.SIGTERM)
    with pytest.raises(grpc.RpcError) as e:
        for result in call:
            offsets.append(result.response.position.offset)
    assert e.value.code() == grpc.StatusCode.UNAVAILABLE
    assert e.value.details() == "shutting down"
    assert offsets == list(range(1, 101))
    requests.put(None)
    assert one.d.wait_exit(10) == 0
    one.d.close_grpc()


# --- connections of age ---

AGE_MS = 300


def test_age_never_resets_an_idle_connection(make_cluster, channel):
    """Kept-alive connections with pauses: http.client does not retry."""
    c = make_cluster(1, 1, 1, dispatcher_options={
        "api_connection_age_ms": AGE_MS})
    body = json.dumps({"channel": channel, "data": "x"})
    closes, errors = [0], []

    def client(pause):
        conn = http.client.HTTPConnection("127.0.0.1", c.d.api_port,
                                          timeout=rpc.TIMEOUT)
        end = time.monotonic() + 4
        try:
            while time.monotonic() < end:
                conn.request("POST", f"/{rpc.PUBLISHER}/Publish", body,
                             {"Content-Type": "application/json"})
                answer = conn.getresponse()
                assert answer.status == 200, answer.read()
                answer.read()
                closes[0] += answer.headers["Connection"] == "close"
                time.sleep(pause)
        except Exception as e:
            errors.append(repr(e))
        finally:
            conn.close()
    threads = [threading.Thread(target=client, args=(p,)) for p in
               (0, 0.001, 0.01, 0.03, 0.1, 0.31, 0.9, 1.5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
    assert closes[0] > 20, "connections do come of age"


def test_age_moves_publish_streams(make_cluster):
    c = make_cluster(1, 1, 1, rules=RULES, dispatcher_options={
        "api_connection_age_ms": AGE_MS})
    sent = results = 0
    start = time.monotonic()
    for _ in range(3):  # each on a new connection
        requests = queue.Queue()
        call = c.d.grpc.publish_stream(iter(requests.get, None), timeout=20)
        try:
            while True:
                requests.put(rpc.PublishRequest(channel="log:a",
                                                data=str(sent)))
                sent += 1
                assert next(call).response.position.offset == results + 1
                results += 1
                time.sleep(0.01)
        except grpc.RpcError as e:
            assert e.code() == grpc.StatusCode.UNAVAILABLE
            assert "come of age" in e.details()
        requests.put(None)
    assert results >= sent - 3 and results > 30
    assert time.monotonic() - start < 10 * SLOW
    # the one whose stream ended under it is in no log, or has its place
    assert int(c.d.history("log:a")["top"]["offset"]) in (results, sent)
