"""A raw SSE client: its own HTTP/1.1 and event-stream parser on a socket.

Nothing is hidden from a test: status, headers, every event with its id, every
retry:, every comment, and how the stream ended. Many clients are read from one
thread with pump_all(); a client that must not read is simply not pumped.
"""
import json
import selectors
import socket
import time
import urllib.parse
from dataclasses import dataclass

from harness import SLOW, Timeout

TIMEOUT = 10.0


@dataclass
class Event:
    event: str
    data: str
    id: str
    at: float  # time.monotonic() when it was read

    def json(self):
        return json.loads(self.data)


class _Lines:
    """Splits text bytes at CR, LF and CRLF, as they arrive."""

    def __init__(self):
        self._rest = b""
        self._skip_lf = False

    def feed(self, data):
        for byte in data:
            if byte == 10 and self._skip_lf:
                self._skip_lf = False
                continue
            self._skip_lf = byte == 13
            if byte in (10, 13):
                line, self._rest = self._rest, b""
                yield line
            else:
                self._rest += bytes([byte])


class _FastLines(_Lines):
    """The same for the usual stream that has no CR."""

    def feed(self, data):
        if b"\r" in data or self._skip_lf:
            yield from super().feed(data)
            return
        parts = (self._rest + data).split(b"\n")
        self._rest = parts.pop()
        yield from parts


def subscribe_path(channels, **query):
    pairs = [("channel", c) for c in channels] + list(query.items())
    return "/v1/subscribe?" + urllib.parse.urlencode(pairs, safe=":@/~")


class Sse:
    """One connection. end: None, 'clean' (final chunk), 'cut' or 'reset'."""

    def __init__(self, port, *channels, query=None, headers=None, path=None,
                 rcvbuf=None, accept="text/event-stream", send=True,
                 host="127.0.0.1"):
        self.channels = channels
        self.path = path or subscribe_path(channels, **(query or {}))
        self.status = self.reason = self.headers = self.end = None
        self.events, self.retries, self.comments = [], [], []
        self.last_id = ""
        self.body = bytearray()
        self.first_byte_at = None
        self._head = bytearray()
        self._chunk = bytearray()
        self._chunk_left = None
        self._chunked = False
        self._lines = _FastLines()
        self._clear()
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if rcvbuf:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.sock.settimeout(TIMEOUT * SLOW)
        self.sock.connect((host, port))
        self.local_port = self.sock.getsockname()[1]
        if send:
            lines = [f"GET {self.path} HTTP/1.1",
                     f"Host: {host}:{port}"]
            if accept:
                lines.append(f"Accept: {accept}")
            for name, value in (headers or {}).items():
                lines.append(f"{name}: {value}")
            self.sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.started_at = time.monotonic()
        self.sock.setblocking(False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    # --- parsing ---

    def _clear(self):
        self._data, self._event, self._id_seen = [], "", None

    def _line(self, line):
        text = line.decode("utf-8")  # ours must always be valid
        if not text:
            if self._id_seen is not None:
                self.last_id = self._id_seen
            if self._data:
                self.events.append(Event(
                    self._event or "message", "\n".join(self._data),
                    self.last_id, time.monotonic()))
            self._clear()
            return
        name, colon, value = text.partition(":")
        if not name and colon:
            self.comments.append((time.monotonic(), value))
            return
        value = value[1:] if value.startswith(" ") else value
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id_seen = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retries.append(int(value))

    def _on_body(self, data):
        if self.first_byte_at is None and data:
            self.first_byte_at = time.monotonic()
        self.body += data
        if self.is_stream():
            for line in self._lines.feed(bytes(data)):
                self._line(line)

    def _on_chunks(self, data):
        self._chunk += data
        while True:
            if self._chunk_left is None:
                eol = self._chunk.find(b"\r\n")
                if eol < 0:
                    return
                size = int(self._chunk[:eol].split(b";")[0], 16)
                del self._chunk[:eol + 2]
                if size == 0:
                    self.end = "clean"
                    return
                self._chunk_left = size
            take = self._chunk[:self._chunk_left]
            if take:
                del self._chunk[:len(take)]
                self._chunk_left -= len(take)
                self._on_body(take)
            if self._chunk_left:
                return
            if len(self._chunk) < 2:
                return
            assert self._chunk[:2] == b"\r\n", self._chunk[:20]
            del self._chunk[:2]
            self._chunk_left = None

    def _on_bytes(self, data):
        if self.status is not None:
            (self._on_chunks if self._chunked else self._on_body)(data)
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            return
        lines = self._head[:end].decode("latin-1").split("\r\n")
        rest = bytes(self._head[end + 4:])
        version, status, self.reason = (lines[0].split(" ", 2) + [""])[:3]
        assert version == "HTTP/1.1", lines[0]
        self.status = int(status)
        self.headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()
        self._chunked = "chunked" in self.headers.get(
            "transfer-encoding", "").lower()
        if rest:
            self._on_bytes(rest)

    # --- reading ---

    def is_stream(self):
        return (self.status == 200 and self.headers.get(
            "content-type", "").startswith("text/event-stream"))

    def pump(self, limit=1 << 20):
        """Reads what is there; False when the stream has ended."""
        if self.end:
            return False
        try:
            data = self.sock.recv(limit)
        except BlockingIOError:
            return True
        except (ConnectionResetError, BrokenPipeError):
            self.end = "reset"
            return False
        if not data:
            length = (self.headers or {}).get("content-length")
            whole = length is not None and len(self.body) == int(length)
            self.end = "clean" if whole else "cut"
            return False
        self._on_bytes(data)
        return not self.end

    def wait(self, cond, timeout=TIMEOUT, what=None):
        """Reads until cond(self) is true; returns its value."""
        pump_all([self], lambda: cond(self), timeout,
                 what or f"{self.path}: condition; {self}")
        return cond(self)

    def wait_head(self, timeout=TIMEOUT):
        self.wait(lambda s: s.status is not None or s.end, timeout, "head")
        assert self.status is not None, f"ended before a head: {self.end}"
        return self

    def wait_body(self, timeout=TIMEOUT):
        """A bounded answer in whole (Content-Length, chunked or closed)."""
        def whole(s):
            length = (s.headers or {}).get("content-length")
            return s.end or (length and len(s.body) >= int(length))
        self.wait(whole, timeout, "body")
        return bytes(self.body)

    def wait_end(self, timeout=TIMEOUT):
        self.wait(lambda s: s.end, timeout, "end of stream")
        return self.end

    def wait_event(self, name, timeout=TIMEOUT, nth=1):
        def found(s):
            hits = [e for e in s.events if e.event == name]
            return hits[nth - 1] if len(hits) >= nth else None
        return self.wait(found, timeout, f"event {name}")

    def wait_ready(self, timeout=TIMEOUT):
        self.wait_event("stentor.ready", timeout)
        return self

    def wait_data(self, data, timeout=TIMEOUT):
        return self.wait(lambda s: next(
            (e for e in s.events if e.data == data), None), timeout,
            f"data {data[:60]!r}")

    def wait_messages(self, count, timeout=TIMEOUT):
        self.wait(lambda s: len(s.messages()) >= count, timeout,
                  f"{count} messages")
        return self.messages()

    def messages(self):
        """Events of producers, without ours."""
        return [e for e in self.events
                if not e.event.startswith("stentor.")]

    def data(self):
        return [e.data for e in self.messages()]

    def __str__(self):
        return (f"<Sse {self.path} status={self.status} end={self.end} "
                f"events={len(self.events)} retries={self.retries}>")


def pump_all(clients, cond, timeout=TIMEOUT, what="condition"):
    """Reads from many clients until cond() is true; ended ones are left."""
    end = time.monotonic() + timeout * SLOW
    with selectors.DefaultSelector() as sel:
        for c in clients:
            if not c.end and c.sock is not None:
                sel.register(c.sock, selectors.EVENT_READ, c)
        while not cond():
            left = end - time.monotonic()
            if left <= 0:
                raise Timeout(f"not within {timeout * SLOW:g} s: {what}")
            if not sel.get_map():
                raise Timeout(f"all streams ended, still not: {what}; "
                              + "; ".join(str(c) for c in clients[:5]))
            for key, _ in sel.select(min(left, 0.05)):
                if not key.data.pump():
                    sel.unregister(key.fileobj)


def pump_once(clients, seconds=0.0):
    """Reads what has arrived, waiting at most `seconds` for the first."""
    with selectors.DefaultSelector() as sel:
        for c in clients:
            if not c.end and c.sock is not None:
                sel.register(c.sock, selectors.EVENT_READ, c)
        if sel.get_map():
            for key, _ in sel.select(seconds):
                key.data.pump()


class Follower:
    """Behaves as EventSource does: comes back after every end of stream.

    Reconnects to the next of `ports` after a short pause of its own (tests do
    not wait for real retry times) and keeps all messages of all lives.
    """

    PAUSE = 0.05

    def __init__(self, ports, *channels):
        self.ports, self.channels = list(ports), channels
        self.past, self.lives, self._at = [], 0, 0
        self.stream = None
        self._next = 0.0

    def step(self):
        """Reads or reconnects; never blocks for long."""
        if self.stream is None:
            if time.monotonic() < self._next:
                return
            port = self.ports[self._at % len(self.ports)]
            try:
                self.stream = Sse(port, *self.channels)
                self.lives += 1
            except OSError:
                self._lost()
            return
        while self.stream.pump():
            try:
                self.stream.sock.recv(1, socket.MSG_PEEK)
            except (BlockingIOError, ConnectionError):
                return
        s = self.stream
        if s.status is not None:
            assert s.status == 200, f"EventSource would give up: {s}"
        self.past += s.messages()
        s.close()
        self.stream = None
        self._lost()

    def _lost(self):
        self._at += 1
        self._next = time.monotonic() + self.PAUSE

    def ready(self):
        return self.stream is not None and any(
            e.event == "stentor.ready" for e in self.stream.events)

    def data(self):
        now = self.stream.messages() if self.stream else []
        return [e.data for e in self.past + now]

    def close(self):
        if self.stream:
            self.stream.close()
            self.stream = None


def follow_until(followers, cond, timeout=TIMEOUT, what="condition"):
    end = time.monotonic() + timeout * SLOW
    while not cond():
        if time.monotonic() > end:
            raise Timeout(f"not within {timeout * SLOW:g} s: {what}")
        for f in followers:
            f.step()
        time.sleep(0.002)
