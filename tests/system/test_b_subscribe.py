"""The SSE contract: answers, headers, heartbeats, limits, overload."""
import os
import re
import socket
import time

import pytest

from harness import http_get, wait_until
from sse import Sse, pump_all, subscribe_path


def test_stream_headers(cluster, channel):
    with Sse(cluster.n.port, channel) as s:
        s.wait_ready()
        assert s.status == 200
        assert s.headers["content-type"].startswith("text/event-stream")
        # Nor may a middle box compress, and so hold back, what it carries.
        assert s.headers["cache-control"] == "no-store, no-transform"
        assert s.headers["connection"] == "close"
        assert s.headers["x-accel-buffering"] == "no"
        assert s.headers["transfer-encoding"] == "chunked"
        assert "content-length" not in s.headers
        assert s.headers["access-control-allow-origin"]
        assert s.retries and 100 <= s.retries[0] <= 60000
        assert bytes(s.body).lstrip().startswith(b"retry:")


def test_retry_is_randomised(cluster, channel):
    seen = set()
    for _ in range(20):
        with Sse(cluster.n.port, channel) as s:
            s.wait(lambda s: s.retries)
            seen.add(s.retries[0])
    assert len(seen) > 5, seen


def test_ready_names_the_channels(cluster, channel):
    names = [channel + "/a", channel + "/b"]
    with Sse(cluster.n.port, *names) as s:
        ready = s.wait_event("stentor.ready")
        for name in names:
            assert name in ready.data
        ready.json()


def test_first_bytes_do_not_wait_for_dispatchers(make_cluster, channel):
    """retry: leaves at once though no dispatcher acknowledges anything."""
    c = make_cluster(1, 1, 1)
    c.d.popen.send_signal(19)  # SIGSTOP: the link stands, nobody answers
    try:
        with Sse(c.n.port, channel) as s:
            s.wait(lambda s: s.retries, timeout=0.9)
            # and the confirmation is waited for at most about a second
            s.wait_event("stentor.ready", timeout=3)
            assert s.events[0].at - s.started_at > 0.3
    finally:
        c.d.popen.send_signal(18)


def test_json_format_ready_is_plain(cluster, channel):
    with Sse(cluster.n.port, channel, query={"format": "json"}) as s:
        s.wait_event("stentor.ready").json()


def test_accept_variants(cluster, channel):
    for accept in (None, "*/*", "text/*",
                   "text/html, text/event-stream;q=0.5"):
        with Sse(cluster.n.port, channel, accept=accept) as s:
            s.wait_ready()


def test_heartbeat(make_cluster, channel):
    c = make_cluster(1, 1, 1, node_options={"heartbeat_ms": 1000})
    with Sse(c.n.port, channel) as s:
        s.wait_ready()
        s.wait(lambda s: len(s.comments) >= 3, timeout=6)
        times = [at for at, _ in s.comments]
        gaps = [b - a for a, b in zip(times, times[1:])]
        assert all(0.3 < g < 2.5 for g in gaps), gaps
        assert not s.messages()


@pytest.mark.parametrize("path,status", [
    ("/v1/subscribe", 400),
    ("/v1/subscribe?channel=", 400),
    ("/v1/subscribe?channel=with%20space", 400),
    ("/v1/subscribe?channel=a%00b", 400),
    ("/v1/subscribe?channel=%zz", 400),
    ("/v1/subscribe?channel=%C3%A9", 400),
    ("/v1/subscribe?channel=" + "a" * 129, 400),
    ("/v1/subscribe?channel=ok&channel=not%20ok", 400),
    ("/v1/subscribe?channel=ok&format=xml", 400),
    ("/v1/subscribe/?channel=ok", 404),
    ("/v1/nothing", 404),
    ("/V1/SUBSCRIBE?channel=ok", 404),
    ("/v1/subscribe?channel=" + "a/" * 8000, 414),
])
def test_bad_request(cluster, path, status):
    with Sse(cluster.n.port, path=path) as s:
        s.wait_head()
        body = s.wait_body()
        got = {414: (414, 431)}.get(status, (status,))
        assert s.status in got, body
        assert body.strip(), "an error says why"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_wrong_method(cluster, channel, method):
    status, headers, _ = http_get(cluster.n.port,
                                  subscribe_path([channel]), method)
    assert status == 405
    assert "GET" in headers["Allow"]


def test_channel_twice_counts_once(cluster, channel):
    with Sse(cluster.n.port, channel, channel) as s:
        s.wait_head()
        if s.status == 400:
            return
        s.wait_ready()
        cluster.d.publish(channel, "one")
        cluster.d.publish(channel, "two")
        s.wait_data("two")
        assert s.data() == ["one", "two"]


def test_too_many_channels(make_cluster):
    c = make_cluster(1, 1, 1, node_options={"channels_max": 5})
    names = [f"c{i}" for i in range(6)]
    with Sse(c.n.port, *names[:5]) as s:
        s.wait_ready()
    with Sse(c.n.port, *names) as s:
        assert s.wait_head().status == 400
        assert b"channel" in s.wait_body()


def test_head(cluster, channel):
    with Sse(cluster.n.port, send=False) as s:
        s.sock.setblocking(True)
        s.sock.sendall(f"HEAD {subscribe_path([channel])} HTTP/1.1\r\n"
                       "Host: x\r\nConnection: close\r\n\r\n".encode())
        got = b""
        s.sock.settimeout(5)
        while True:
            part = s.sock.recv(4096)
            if not part:
                break
            got += part
        head, _, rest = got.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"text/event-stream" in head.lower()
        assert rest == b""


def test_options_preflight(cluster, channel):
    status, headers, body = http_get(
        cluster.n.port, subscribe_path([channel]), "OPTIONS",
        {"Origin": "http://app.example",
         "Access-Control-Request-Method": "GET",
         "Access-Control-Request-Headers": "last-event-id"})
    assert status in (200, 204)
    assert headers["Access-Control-Allow-Origin"] in (
        "*", "http://app.example")
    allowed = headers["Access-Control-Allow-Headers"].lower()
    for name in ("last-event-id", "authorization", "cache-control"):
        assert name in allowed
    # What tracing adds to every request of a page is no reason to fail.
    for asked, there in (("traceparent,tracestate, x-my-own", True),
                         ("x" * 513, False), ("a;b", False)):
        _, headers, _ = http_get(
            cluster.n.port, subscribe_path([channel]), "OPTIONS",
            {"Origin": "http://app.example",
             "Access-Control-Request-Method": "GET",
             "Access-Control-Request-Headers": asked})
        allowed = headers["Access-Control-Allow-Headers"]
        assert (asked in allowed) == there
        assert "Last-Event-ID" in allowed
    assert "GET" in headers["Access-Control-Allow-Methods"]


@pytest.mark.parametrize("method,path,more,status", [
    ("GET", "/v1/subscribe", {}, 400),
    ("GET", "/v1/nothing", {}, 404),
    ("POST", "/v1/subscribe?channel=a", {}, 405),
    ("GET", "/v1/subscribe?channel=" + "a/" * 5000, {}, 414),
    ("GET", "/v1/subscribe?channel=a", {"X-Long": "x" * 20000}, 431),
])
@pytest.mark.parametrize("origins", ["*", "http://app.example"])
def test_errors_carry_cors(make_cluster, origins, method, path, more, status):
    """Otherwise a page can't tell a 400 from a network failure."""
    c = make_cluster(1, 1, 1, node_options={"cors_origins": origins})
    got, headers, _ = http_get(c.n.port, path, method,
                               {"Origin": "http://app.example", **more})
    assert got == status
    assert headers["Access-Control-Allow-Origin"] == origins


def test_last_event_id_is_harmless(cluster, channel):
    """No channel keeps history yet, so a position never is an error."""
    for value in ("0", "x" * 200, "1-2", "%00"):
        with Sse(cluster.n.port, channel,
                 headers={"Last-Event-ID": value}) as s:
            s.wait_ready()


def test_overload_sends_event_streams_away_kindly(make_cluster, channel):
    c = make_cluster(1, 1, 1, node_options={"max_connections": 3})
    keep = [Sse(c.n.port, channel).wait_ready() for _ in range(3)]
    with Sse(c.n.port, channel) as s:
        s.wait_end()
        assert s.status == 200
        assert s.headers["content-type"].startswith("text/event-stream")
        assert s.retries and s.retries[-1] >= 500
        assert s.end == "clean"  # for proxies; browsers come back anyway
        assert not s.messages()
    with Sse(c.n.port, channel, accept="application/json") as s:
        s.wait_head()
        assert s.status == 503
        assert int(s.headers["retry-after"]) >= 1
    wait_until(lambda: c.n.metric(
        "stentor_connections_rejected_total") >= 2, what="counted")
    # those who were in are not disturbed
    c.d.publish(channel, "for three")
    for s in keep:
        s.wait_data("for three")
    # and a place that becomes free is given away again
    keep.pop().close()

    def another():
        s = Sse(c.n.port, channel)
        s.wait(lambda s: s.end or s.events)
        if s.end:
            s.close()
            return None
        return s
    keep.append(wait_until(another, what="a free place is given away"))
    for s in keep:
        s.close()


def test_wrong_accept_is_not_a_stream(cluster, channel):
    """Without overload a client that wants JSON is told clearly."""
    with Sse(cluster.n.port, channel, accept="application/json") as s:
        s.wait_head()
        assert s.status in (200, 406, 503)


def ask(port, *lines):
    """Head and body of the answer to a request of these lines."""
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.settimeout(5)
        s.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        got = b""
        while part := s.recv(65536):
            got += part
    head, _, body = got.partition(b"\r\n\r\n")
    return head.decode(), body.decode()


def test_accept_on_several_lines(cluster, channel):
    with Sse(cluster.n.port, channel, accept="text/html\r\nAccept: */*") as s:
        s.wait_ready()


def test_absolute_form(cluster, channel):
    """As a proxy asks (RFC 9112 3.2.2)."""
    path = subscribe_path([channel])
    with Sse(cluster.n.port, path=f"http://any.example:80{path}") as s:
        s.wait_ready()
    head, _ = ask(cluster.n.port, "GET http://any.example/nothing HTTP/1.1",
                  "Host: x")
    assert " 404 " in head


def test_http_1_0_gets_no_chunks(cluster, channel):
    """RFC 9112 6.1; nginx asks so, unless it is told otherwise."""
    with Sse(cluster.n.port, channel, send=False) as s, \
            Sse(cluster.n.port, channel) as beside:
        beside.wait_ready()
        s.sock.setblocking(True)
        s.sock.sendall(f"GET {subscribe_path([channel])} HTTP/1.0\r\n\r\n"
                       .encode())
        s.sock.setblocking(False)
        s.wait_ready()
        assert "transfer-encoding" not in s.headers
        for text in ("one", "two\nlines"):
            cluster.d.publish(channel, text)
        for reader in (s, beside):
            reader.wait_data("two\nlines")
            assert reader.data() == ["one", "two\nlines"]
        assert bytes(s.body) == bytes(beside.body).replace(
            b"retry: %d" % beside.retries[0], b"retry: %d" % s.retries[0])


def test_http_1_0_is_sent_away_without_chunks(make_cluster, channel):
    c = make_cluster(1, 1, 1, node_options={"max_connections": 1})
    with Sse(c.n.port, channel) as s:
        s.wait_ready()
        head, body = ask(c.n.port, f"GET {subscribe_path([channel])} HTTP/1.0")
        assert " 200 " in head and "chunked" not in head
        assert re.fullmatch(r"retry: \d+\n\n", body)


def test_who_takes_no_end_gives_way(make_cluster, channel):
    """Connections that are answered and stay open: no more than heads-max."""
    c = make_cluster(1, 1, 1, node_options={"heads_max": 16})
    pid = c.n.worker_pids()[0]

    def descriptors():
        return len(os.listdir(f"/proc/{pid}/fd"))
    with Sse(c.n.port, channel) as s:
        s.wait_ready()
        before = descriptors()
        lingering = []
        for _ in range(100):
            x = socket.create_connection(("127.0.0.1", c.n.port))
            x.sendall(b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n")
            x.settimeout(5)
            assert b" 404 " in x.recv(4096)
            lingering.append(x)
        assert descriptors() <= before + 2 * 16
        c.d.publish(channel, "m")
        s.wait_data("m")
        for x in lingering:
            x.close()


def test_bytes_after_the_request_are_not_a_second_one(cluster, channel):
    """Pipelining behind an event stream never yields another answer."""
    with Sse(cluster.n.port, channel) as s:
        s.wait_ready()
        s.sock.setblocking(True)
        s.sock.sendall(b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        s.sock.setblocking(False)
        cluster.d.publish(channel, "after the garbage")
        s.wait(lambda s: s.end or s.data())
        assert b"HTTP/1.1" not in bytes(s.body)


def nobody(cluster):
    """The streams of tests before have ended at the node too."""
    wait_until(lambda: cluster.n.metric("stentor_connections") == 0,
               what="no stream is left")


def test_client_half_close_ends_the_session(cluster, channel):
    nobody(cluster)
    with Sse(cluster.n.port, channel) as s:
        s.wait_ready()
        wait_until(lambda: cluster.n.metric("stentor_connections") == 1)
        s.sock.shutdown(socket.SHUT_WR)
        wait_until(lambda: cluster.n.metric("stentor_connections") == 0,
                   what="session is gone")


def test_client_reset_ends_the_session(cluster, channel):
    nobody(cluster)
    s = Sse(cluster.n.port, channel).wait_ready()
    s.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                      b"\1\0\0\0\0\0\0\0")
    s.close()
    wait_until(lambda: cluster.n.metric("stentor_connections") == 0,
               what="session is gone")
    wait_until(lambda: cluster.d.channel(channel).get("workers", 0) == 0,
               what="interest is withdrawn")


def test_subscriptions_come_and_go(cluster, channel):
    """Gauges return to where they were; no interest stays behind."""
    nobody(cluster)
    start = cluster.n.metrics()
    subs = [Sse(cluster.n.port, f"{channel}/{i % 10}") for i in range(60)]
    pump_all(subs, lambda: all(
        any(e.event == "stentor.ready" for e in s.events) for s in subs),
        what="60 are ready")
    for name, more in (("connections", 60), ("subscriptions", 60),
                       ("channels", 10)):
        name = "stentor_" + name
        wait_until(lambda: cluster.n.metric(name)
                   == start.total(name) + more, what=name)
    for s in subs:
        s.close()
    for name in ("stentor_connections", "stentor_subscriptions",
                 "stentor_channels"):
        wait_until(lambda: cluster.n.metric(name) == start.total(name),
                   what=name)


def test_idle_connection_before_its_head_is_closed(make_cluster):
    c = make_cluster(1, 1, 1, node_options={"head_timeout_ms": 1000})
    with socket.create_connection(("127.0.0.1", c.n.port)) as s:
        s.settimeout(6)
        t = time.monotonic()
        while s.recv(4096):
            pass
        assert 0.5 < time.monotonic() - t < 5
    # a head that trickles in does not help
    with socket.create_connection(("127.0.0.1", c.n.port)) as s:
        s.settimeout(0.1)
        s.sendall(b"GET /v1/subscribe?channel=a HTTP/1.1\r\nX: ")
        t = time.monotonic()
        done = False
        while not done and time.monotonic() - t < 8:
            try:
                s.sendall(b"y")
                done = not s.recv(4096)
            except socket.timeout:
                pass
            except OSError:
                done = True
        assert done and time.monotonic() - t < 5
