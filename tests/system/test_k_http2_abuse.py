"""HTTP/2 abuse: the attacker is cut off or answered, others are served.

From a list of public attacks on HTTP/2 servers (rapid reset, CONTINUATION
flood, MadeYouReset, SETTINGS and PING floods ...). Each case runs beside a
subscriber and a producer that must notice nothing.
"""
import struct
import time

import pytest

import rpc
from h2client import (ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM,
                      GOAWAY, HEADERS, PING, PREFACE, PRIORITY, PUSH_PROMISE,
                      RST_STREAM, SETTINGS, WINDOW_UPDATE, RawH2, frame,
                      grpc_headers, grpc_message)
from harness import open_fds, rss_kib, rss_room, wait_until
from sse import Sse

PUBLISH = rpc.PUBLISHER + "/Publish"
STREAM = rpc.PUBLISHER + "/PublishStream"


@pytest.fixture
def beside(cluster, channel):
    """The well-behaved neighbour: served before, during and after."""
    rss = rss_kib(cluster.d.pid)
    fds = open_fds(cluster.d.pid)
    with Sse(cluster.n.port, channel) as sub:
        sub.wait_ready()
        count = 0

        def check():
            nonlocal count
            count += 1
            start = time.monotonic()
            cluster.d.publish(channel, f"well {count}")
            sub.wait_data(f"well {count}")
            assert time.monotonic() - start < 2
        check()
        yield check
        check()
        cluster.d.grpc.publish(channel=channel, data="by grpc too")
        sub.wait_data("by grpc too")
    assert cluster.d.running()
    assert rss_kib(cluster.d.pid) - rss < rss_room(48), "memory grew"
    wait_until(lambda: open_fds(cluster.d.pid) <= fds + 8, 10,
               "its descriptors are given back")


@pytest.fixture
def raw(cluster, beside):
    with RawH2(cluster.d.api_port) as r:
        yield r


def headers(r, stream, path=PUBLISH, flags=END_HEADERS):
    return r.headers(stream, grpc_headers(path), flags)


def rst(stream, code=8):
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def refused(r, seconds=5):
    """GOAWAY, or the connection simply ended."""
    r.read_for(seconds, lambda: GOAWAY in r.kinds())
    return r.closed or GOAWAY in r.kinds()


def test_rapid_reset(raw, beside):
    stream = 1
    for _ in range(100):
        batch = b""
        for _ in range(300):
            batch += headers(raw, stream) + rst(stream)
            stream += 2
        if not raw.send(batch):
            break
        beside()
        if raw.closed:
            break
    assert refused(raw), "30,000 resets and still welcome"


def test_made_you_reset_window_update(raw, beside):
    """The server is made to send the resets itself."""
    stream = 1
    for _ in range(100):
        batch = b""
        for _ in range(200):
            batch += headers(raw, stream, STREAM) + frame(
                WINDOW_UPDATE, 0, stream, b"\0\0\0\0")
            stream += 2
        if not raw.send(batch):
            break
    assert refused(raw)


def test_made_you_reset_data_after_end(raw):
    stream = 1
    for _ in range(100):
        batch = b""
        for _ in range(200):
            batch += headers(raw, stream, flags=END_HEADERS | END_STREAM)
            batch += frame(DATA, END_STREAM, stream, b"x")
            stream += 2
        if not raw.send(batch):
            break
    assert refused(raw)


def test_made_you_reset_self_dependency(raw):
    stream = 1
    for _ in range(100):
        batch = b""
        for _ in range(200):
            batch += headers(raw, stream, STREAM) + frame(
                PRIORITY, 0, stream, struct.pack(">IB", stream, 16))
            stream += 2
        if not raw.send(batch):
            break
    raw.read_for(2)  # an error per stream, or ignored as RFC 9113 allows


def test_window_overflow(raw):
    raw.send(headers(raw, 1, STREAM)
             + frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 0x7fffffff)) * 2)
    raw.read_for(3, lambda: RST_STREAM in raw.kinds() or refused(raw, 0))
    assert raw.closed or {RST_STREAM, GOAWAY} & raw.kinds()
    raw.send(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 0x7fffffff)) * 2)
    assert refused(raw)


def test_continuation_flood(raw):
    raw.send(headers(raw, 1, flags=0))
    for _ in range(2000):
        if not raw.send(frame(CONTINUATION, 0, 1,
                              raw.block([("x-fill", "v" * 100)]) * 50)):
            break
    assert refused(raw)


def test_empty_continuation_flood(raw):
    raw.send(headers(raw, 1, flags=0))
    for _ in range(200):
        if not raw.send(frame(CONTINUATION, 0, 1) * 100):
            break
    assert refused(raw)


def test_headers_that_never_end(cluster, raw):
    """A header block without its end holds a bounded time or amount."""
    raw.send(headers(raw, 1, flags=0))
    raw.read_for(0.5)  # the others are checked by the fixture


def test_empty_data_flood(raw, beside):
    raw.send(headers(raw, 1, STREAM))
    for _ in range(100):
        if not raw.send(frame(DATA, 0, 1) * 1000):
            break
        beside()
    assert refused(raw) or RST_STREAM in raw.kinds()


def test_one_byte_data(raw, channel):
    """Slow, but a legal message in the end."""
    body = grpc_message(rpc.PublishRequest(
        channel=channel, data="bytes").SerializeToString())
    raw.send(headers(raw, 1) + b"".join(
        frame(DATA, 0, 1, bytes([b])) for b in body)
        + frame(DATA, END_STREAM, 1))
    raw.read_for(5, lambda: raw.kinds() >= {HEADERS, DATA})
    assert raw.kinds() >= {HEADERS, DATA}


def test_settings_flood(raw, beside):
    """Every SETTINGS wants an ACK that this client does not read."""
    flood = frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535)) * 1000
    for _ in range(100):
        if not raw.send(flood):
            break
    beside()
    raw.read_for(0.3)


def test_ping_flood(raw, beside):
    for _ in range(100):
        if not raw.send(frame(PING, 0, 0, b"12345678") * 1000):
            break
    beside()
    raw.read_for(0.3)


def test_floods_unread(cluster, beside):
    """The same without reading a byte: queued answers are bounded."""
    for flood in (frame(PING, 0, 0, b"12345678"), frame(SETTINGS)):
        with RawH2(cluster.d.api_port) as r:
            r.sock.settimeout(1)
            sent = 0
            try:
                for _ in range(200):
                    r.sock.setblocking(True)
                    r.sock.settimeout(1)
                    r.sock.sendall(flood * 2000)
                    sent += 1
            except OSError:
                pass  # cut off or pushed back
            assert sent < 200
        beside()


def test_zero_window_with_many_answers(cluster, beside, channel):
    """The peer never lets us send: streams are bounded, others served."""
    settings = struct.pack(">HI", 4, 0)  # INITIAL_WINDOW_SIZE = 0
    with RawH2(cluster.d.api_port, settings) as r:
        body = grpc_message(rpc.PublishRequest(
            channel=channel + "/void", data="x").SerializeToString())
        for i in range(2000):
            s = 2 * i + 1
            if not r.send(headers(r, s) + frame(DATA, END_STREAM, s, body)):
                break
        beside()


def test_too_many_streams(raw, beside):
    """More open streams than allowed: refused, not queued."""
    raw.send(b"".join(headers(raw, 2 * i + 1, STREAM)
                      for i in range(5000)))
    raw.read_for(5, lambda: RST_STREAM in raw.kinds() or raw.closed)
    assert raw.closed or {RST_STREAM, GOAWAY} & raw.kinds()
    beside()


def test_hpack_bomb(raw):
    """A large header in the dynamic table, referred to many times."""
    raw.hpack.header_table_size = 4096
    block = raw.hpack.encode(grpc_headers(PUBLISH, ("x", "v" * 3800)))
    again = raw.hpack.encode([("x", "v" * 3800)])
    assert len(again) <= 2
    raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 1,
                   block + again * 4000))
    raw.read_for(5, lambda: raw.closed or {RST_STREAM, HEADERS, GOAWAY}
                 & raw.kinds())
    assert raw.closed or {RST_STREAM, HEADERS, GOAWAY} & raw.kinds()


BROKEN = {
    "data-on-stream-0": frame(DATA, 0, 0, b"x"),
    "headers-on-stream-0": frame(HEADERS, END_HEADERS, 0, b"\x82"),
    "even-stream": frame(HEADERS, END_HEADERS, 2, b"\x83\x86\x84"),
    "data-on-idle": frame(DATA, 0, 7, b"x"),
    "rst-on-idle": rst(9),
    "push-promise": frame(PUSH_PROMISE, END_HEADERS, 1,
                          struct.pack(">I", 2) + b"\x82"),
    "continuation-alone": frame(CONTINUATION, END_HEADERS, 1, b"\x82"),
    "settings-size": frame(SETTINGS, 0, 0, b"12345"),
    "settings-ack-payload": frame(SETTINGS, ACK, 0, b"123456"),
    "settings-on-stream": frame(SETTINGS, 0, 1),
    "settings-window": frame(SETTINGS, 0, 0,
                             struct.pack(">HI", 4, 0xffffffff)),
    "settings-frame-size": frame(SETTINGS, 0, 0, struct.pack(">HI", 5, 1)),
    "ping-size": frame(PING, 0, 0, b"123"),
    "window-size": frame(WINDOW_UPDATE, 0, 0, b"123"),
    "window-zero": frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\0"),
    "frame-too-large": b"\xff\xff\xff\0\0\0\0\0\1" + b"x" * 20000,
    "bad-hpack": frame(HEADERS, END_HEADERS, 1, b"\xff" * 20),
    "bad-hpack-index": frame(HEADERS, END_HEADERS, 1, b"\xbf\xff"),
    "padding": frame(DATA, 8, 1, b"\xff"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_frame(raw, name):
    """A connection error is a GOAWAY or the end, at once."""
    raw.send(BROKEN[name])
    assert refused(raw), raw.frames()


HEADS = {
    "upper-case": [("X-Upper", "v")],
    "duplicate-path": [(":path", "/x")],
    "unknown-pseudo": [(":nonsense", "v")],
    "connection-header": [("connection", "keep-alive")],
    "te": [("te", "gzip")],
    "newline": [("x", "a\r\nb")],
    "content-length": [("content-length", "5"), ("content-length", "6")],
}


@pytest.mark.parametrize("name", HEADS)
def test_malformed_head(raw, name):
    raw.send(raw.headers(1, grpc_headers(PUBLISH) + HEADS[name],
                         END_HEADERS | END_STREAM))
    raw.read_for(5, lambda: raw.closed
                 or {RST_STREAM, HEADERS, GOAWAY} & raw.kinds())
    assert raw.closed or {RST_STREAM, HEADERS, GOAWAY} & raw.kinds()


@pytest.mark.parametrize("path", ["x", "*", "", "//", "/%zz",
                                  "/" + PUBLISH + "?a=b", "/" + "a" * 5000],
                         ids=range(7))
def test_odd_path(raw, path):
    head = [(n, path if n == ":path" else v)
            for n, v in grpc_headers(PUBLISH)]
    raw.send(raw.headers(1, head, END_HEADERS | END_STREAM))
    raw.read_for(5, lambda: raw.closed
                 or {RST_STREAM, HEADERS, GOAWAY} & raw.kinds())
    assert raw.closed or {RST_STREAM, HEADERS, GOAWAY} & raw.kinds()


def test_content_length_mismatch(raw):
    raw.send(raw.headers(1, grpc_headers(
        PUBLISH, ("content-length", "3")))
        + frame(DATA, END_STREAM, 1, grpc_message(b"\n\1a")))
    raw.read_for(5, lambda: raw.closed or {RST_STREAM, GOAWAY, HEADERS}
                 & raw.kinds())
    assert raw.closed or {RST_STREAM, GOAWAY, HEADERS} & raw.kinds()


def test_trailers_from_the_client(raw, channel):
    body = grpc_message(rpc.PublishRequest(
        channel=channel, data="t").SerializeToString())
    raw.send(headers(raw, 1) + frame(DATA, 0, 1, body)
             + raw.headers(1, [("x-trailer", "v")],
                           END_HEADERS | END_STREAM))
    raw.read_for(5, lambda: raw.closed or raw.kinds() & {HEADERS,
                                                         RST_STREAM})
    assert raw.closed or raw.kinds() & {HEADERS, RST_STREAM}


@pytest.mark.parametrize("start", [
    b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + b"x" * 50, PREFACE[:10],
    PREFACE + b"garbage" * 20, PREFACE + frame(PING, 0, 0, b"12345678"),
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100],
    ids=["half", "cut", "garbage", "no-settings", "tls"])
def test_preface(cluster, beside, start):
    with RawH2(cluster.d.api_port, preface=False) as r:
        r.send(start)
        r.read_for(1, lambda: r.closed)


def test_many_connections_that_say_nothing(cluster, beside):
    idle = [RawH2(cluster.d.api_port, preface=False) for _ in range(200)]
    try:
        beside()
    finally:
        for r in idle:
            r.sock.close()
