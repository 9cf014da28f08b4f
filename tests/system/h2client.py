"""HTTP/2 on a raw socket: well-formed by python3-h2, or any frame at all."""
import select
import socket
import struct
import time

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import hpack

from harness import SLOW

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, \
    WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, ACK = 1, 4, 1


def frame(kind, flags=0, stream=0, payload=b""):
    return (struct.pack(">I", len(payload))[1:] + bytes([kind, flags])
            + struct.pack(">I", stream) + payload)


def grpc_headers(path, *extra, method="POST"):
    return [(":method", method), (":scheme", "http"), (":path", "/" + path),
            (":authority", "test"), ("te", "trailers"),
            ("content-type", "application/grpc"), *extra]


def grpc_message(body, flag=0):
    return struct.pack(">BI", flag, len(body)) + body


class H2:
    """A polite client: events and answers by stream."""

    def __init__(self, port, window=None):
        self.sock = socket.create_connection(("127.0.0.1", port),
                                             timeout=5 * SLOW)
        self.conn = h2.connection.H2Connection(h2.config.H2Configuration(
            client_side=True, header_encoding="utf-8"))
        self.conn.initiate_connection()
        if window is not None:
            self.conn.update_settings(
                {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.headers, self.trailers, self.data = {}, {}, {}
        self.ended, self.reset = set(), {}
        self.goaway = None
        self.closed = False
        self.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def flush(self):
        data = self.conn.data_to_send()
        if data:
            self.sock.sendall(data)

    def open(self, headers, end=False):
        stream = self.conn.get_next_available_stream_id()
        self.conn.send_headers(stream, headers, end_stream=end)
        self.flush()
        return stream

    def open_grpc(self, path, *extra):
        return self.open(grpc_headers(path, *extra))

    def send(self, stream, data, end=False):
        for i in range(0, len(data), 16384):
            self.conn.send_data(stream, data[i:i + 16384])
        if end:
            self.conn.end_stream(stream)
        self.flush()

    def try_message(self, stream, body):
        """False when flow control or the socket has no room."""
        data = grpc_message(body)
        if self.conn.local_flow_control_window(stream) < len(data):
            self.pump(0.05)
            if self.conn.local_flow_control_window(stream) < len(data):
                return False
        self.send(stream, data)
        return True

    def pump(self, seconds=0.0):
        """Reads what is there; True if something was."""
        if self.closed or not select.select([self.sock], [], [], seconds)[0]:
            return False
        try:
            data = self.sock.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.closed = True
            return True
        for e in self.conn.receive_data(data):
            self._on(e)
        try:
            self.flush()
        except OSError:
            self.closed = True
        return True

    def _on(self, e):
        sid = getattr(e, "stream_id", None)
        if isinstance(e, h2.events.ResponseReceived):
            self.headers[sid] = dict(e.headers)
        elif isinstance(e, h2.events.TrailersReceived):
            self.trailers[sid] = dict(e.headers)
        elif isinstance(e, h2.events.DataReceived):
            self.data[sid] = self.data.get(sid, b"") + e.data
            self.conn.acknowledge_received_data(
                e.flow_controlled_length, sid)
        elif isinstance(e, h2.events.StreamEnded):
            self.ended.add(sid)
        elif isinstance(e, h2.events.StreamReset):
            self.reset[sid] = e.error_code
        elif isinstance(e, h2.events.ConnectionTerminated):
            self.goaway = e.error_code

    def wait(self, cond, timeout=5):
        end = time.monotonic() + timeout * SLOW
        while not cond():
            left = end - time.monotonic()
            assert left > 0, (f"timeout: headers={self.headers} "
                              f"reset={self.reset} goaway={self.goaway}")
            if self.closed:
                assert cond(), (f"closed: headers={self.headers} "
                                f"reset={self.reset} goaway={self.goaway}")
            self.pump(min(left, 0.1))

    def wait_stream(self, stream, timeout=5):
        """Until the stream ended; (headers, data, trailers, reset)."""
        self.wait(lambda: stream in self.ended or stream in self.reset
                  or self.closed, timeout)
        return (self.headers.get(stream), self.data.get(stream, b""),
                self.trailers.get(stream), self.reset.get(stream))

    def status(self, stream, timeout=5):
        """The gRPC status of a stream, or 'h2:CODE' or 'http:STATUS'."""
        headers, _, trailers, reset = self.wait_stream(stream, timeout)
        for block in (trailers, headers):
            if block and "grpc-status" in block:
                return int(block["grpc-status"])
        if headers and headers[":status"] != "200":
            return f"http:{headers[':status']}"
        return f"h2:{reset}"


class RawH2:
    """An attacker: sends any bytes, remembers what came back."""

    def __init__(self, port, settings=b"", preface=True):
        self.sock = socket.create_connection(("127.0.0.1", port),
                                             timeout=5 * SLOW)
        self.hpack = hpack.Encoder()
        self.got = b""
        self.closed = False
        if preface:
            self.send(PREFACE + frame(SETTINGS, 0, 0, settings))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, data):
        """Sends, reading meanwhile; False once the server has cut us off."""
        view = memoryview(data)
        end = time.monotonic() + 10 * SLOW
        self.sock.setblocking(False)
        while view and not self.closed and time.monotonic() < end:
            r, w, _ = select.select([self.sock], [self.sock], [], 0.1)
            if r:
                self._read()
            if w and not self.closed:
                try:
                    view = view[self.sock.send(view):]
                except BlockingIOError:
                    pass
                except OSError:
                    self.closed = True
        return not self.closed

    def _read(self):
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.got += data
        else:
            self.closed = True

    def read_for(self, seconds, until=lambda: False):
        end = time.monotonic() + seconds
        while (not self.closed and not until()
               and (left := end - time.monotonic()) > 0):
            if select.select([self.sock], [], [], min(left, 0.1))[0]:
                self._read()

    def block(self, headers):
        return self.hpack.encode(headers, huffman=False)

    def headers(self, stream, headers, flags=END_HEADERS):
        return frame(HEADERS, flags, stream, self.block(headers))

    def frames(self):
        """[(type, flags, stream, payload)] of what came back."""
        found, i = [], 0
        while len(self.got) - i >= 9:
            size = int.from_bytes(self.got[i:i + 3], "big")
            if len(self.got) - i < 9 + size:
                break
            found.append((self.got[i + 3], self.got[i + 4],
                          int.from_bytes(self.got[i + 5:i + 9], "big"),
                          self.got[i + 9:i + 9 + size]))
            i += 9 + size
        return found

    def kinds(self):
        return {f[0] for f in self.frames()}

    def cut_off(self, seconds=5):
        """True when the server ended the connection."""
        self.read_for(seconds * SLOW)
        return self.closed
