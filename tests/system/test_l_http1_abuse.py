"""Malformed HTTP/1.1 on the SSE, API and admin ports."""
import re
import select
import socket
import time

import pytest

from harness import SLOW, open_fds, rss_kib, rss_room, wait_until
from sse import Sse

PORTS = pytest.mark.parametrize("which", ["sse", "api", "admin-node",
                                          "admin-dispatcher"])


def port_of(cluster, which):
    return {"sse": cluster.n.port, "api": cluster.d.api_port,
            "admin-node": cluster.n.admin_port,
            "admin-dispatcher": cluster.d.admin_port}[which]


def exchange(port, data, seconds=3, close_write=False):
    """(what came back, did the server close)."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as s:
        s.settimeout(5 * SLOW)
        try:
            s.sendall(data)
            if close_write:
                s.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        end = time.monotonic() + seconds * SLOW
        while (left := end - time.monotonic()) > 0:
            if not select.select([s], [], [], left)[0]:
                break
            try:
                part = s.recv(65536)
            except OSError:
                return got, True
            if not part:
                return got, True
            got += part
    return got, False


@pytest.fixture
def beside(cluster, channel):
    with Sse(cluster.n.port, channel) as sub:
        sub.wait_ready()
        yield
        cluster.d.publish(channel, "others are served")
        sub.wait_data("others are served")
        for p in (cluster.d, cluster.n):
            assert p.get("/livez")[0] == 200


GET = b"GET /v1/subscribe?channel=a HTTP/1.1\r\nHost: x\r\n"
MALFORMED = {
    "garbage": b"\x00\x01\x02\xff garbage\r\n\r\n",
    "no-version": b"GET /\r\n\r\n",
    "http-0.9": b"GET / HTTP/0.9\r\n\r\n",
    "http-9": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    "lower-case-method": b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
    "bad-method": b"G@T / HTTP/1.1\r\nHost: x\r\n\r\n",
    "bare-lf": b"GET / HTTP/1.1\nHost: x\n\n",
    "bare-cr": b"GET / HTTP/1.1\rHost: x\r\r",
    "cr-any": GET + b"X: y\r\n\rZ",
    "space-before-colon": GET + b"X : y\r\n\r\n",
    "no-colon": GET + b"nonsense\r\n\r\n",
    "obs-fold": GET + b"X: a\r\n b\r\n\r\n",
    "nul-in-header": GET + b"X: a\0b\r\n\r\n",
    "nul-in-url": b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "cl-and-te": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
                  b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "two-lengths": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
                    b"Content-Length: 6\r\n\r\nhello!"),
    "negative-length": (b"POST / HTTP/1.1\r\nHost: x\r\n"
                        b"Content-Length: -1\r\n\r\n"),
    "huge-length": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: "
                    b"99999999999999999999999\r\n\r\n"),
    "bad-chunk": (b"POST / HTTP/1.1\r\nHost: x\r\n"
                  b"Transfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n"),
    "huge-chunk": (b"POST / HTTP/1.1\r\nHost: x\r\n"
                   b"Transfer-Encoding: chunked\r\n\r\n"
                   b"ffffffffffffffff1\r\nx\r\n"),
    "te-nonsense": (b"POST / HTTP/1.1\r\nHost: x\r\n"
                    b"Transfer-Encoding: chunked, nonsense\r\n\r\n0\r\n\r\n"),
    "absolute-form": b"GET http:///v1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "authority-form": b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "dot-dot": b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    "encoded-nul": b"GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n",
}


@PORTS
@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(cluster, beside, which, name):
    got, closed = exchange(port_of(cluster, which), MALFORMED[name],
                           close_write=True)
    if got:
        version, status = got.split(b" ")[:2]
        assert version == b"HTTP/1.1"
        assert 400 <= int(status) < 600, got[:200]
        assert len(re.findall(rb"HTTP/1\.1 \d{3} ", got)) == 1
    assert got or closed


@PORTS
def test_head_too_large(cluster, beside, which):
    before = [rss_kib(p) for p in [cluster.d.pid] + cluster.n.worker_pids()]
    got, closed = exchange(port_of(cluster, which),
                           GET + b"X: " + b"y" * (4 << 20), seconds=5)
    assert closed, "a head without end is not collected for ever"
    if got:
        assert int(got.split(b" ")[1]) in (400, 413, 431)
    after = [rss_kib(p) for p in [cluster.d.pid] + cluster.n.worker_pids()]
    assert all(b - a < rss_room(8) for a, b in zip(before, after))


@PORTS
def test_too_many_headers(cluster, beside, which):
    head = GET + b"".join(b"X-%d: y\r\n" % i for i in range(500)) + b"\r\n"
    got, _ = exchange(port_of(cluster, which), head)
    assert got and int(got.split(b" ")[1]) in (400, 413, 431)


@PORTS
def test_url_too_long(cluster, beside, which):
    got, _ = exchange(port_of(cluster, which),
                      b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: x\r\n"
                      b"\r\n")
    assert got and int(got.split(b" ")[1]) in (414, 431, 400)


@PORTS
def test_byte_by_byte(cluster, beside, which):
    """A slow but correct request is served."""
    path = {"sse": b"/v1/nothing"}.get(which, b"/livez")
    with socket.create_connection(
            ("127.0.0.1", port_of(cluster, which))) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n":
            s.sendall(bytes([byte]))
        s.settimeout(5 * SLOW)
        assert s.recv(4096).startswith(b"HTTP/1.1 ")


def test_body_on_the_sse_port(cluster, beside):
    got, _ = exchange(cluster.n.port,
                      b"GET /v1/subscribe?channel=a HTTP/1.1\r\nHost: x\r\n"
                      b"Content-Length: 1000000\r\n\r\n" + b"x" * 1000)
    assert got.startswith((b"HTTP/1.1 4", b"HTTP/1.1 200"))


def test_connections_that_say_nothing(cluster, beside):
    """Half-open and silent ones beside: the others don't care."""
    fds = sum(open_fds(p) for p in cluster.n.worker_pids())
    idle = [socket.create_connection(("127.0.0.1", port_of(cluster, w)))
            for w in ("sse", "api", "admin-node", "admin-dispatcher")
            for _ in range(50)]
    with Sse(cluster.n.port, "beside:idle") as s:
        s.wait_ready()
    for s in idle:
        s.close()
    wait_until(lambda: sum(open_fds(p) for p in cluster.n.worker_pids())
               <= fds + 2, what="descriptors are given back")


def test_abrupt_ends(cluster, beside):
    """Connections that end at every point of a request."""
    request = GET + b"Accept: text/event-stream\r\n\r\n"
    for cut in range(0, len(request) + 1, 3):
        for linger in (False, True):
            s = socket.create_connection(("127.0.0.1", cluster.n.port))
            s.sendall(request[:cut])
            if linger:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                             b"\1\0\0\0\0\0\0\0")
            s.close()


def test_admin_port_gives_way(cluster, beside):
    """More idle admin connections than it keeps: probes still answer."""
    idle = [socket.create_connection(("127.0.0.1", cluster.n.admin_port))
            for _ in range(100)]
    assert cluster.n.get("/readyz")[0] == 200
    for s in idle:
        s.close()
