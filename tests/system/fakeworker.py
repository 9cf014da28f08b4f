"""Workers of the link protocol that a test has in its hand: they say what they
are told to say, and need not listen, answer or take what they are sent.

All share one connection to the dispatcher, and one port that it dials back to;
a thread reads and beats. A worker that `takes` is False stops reading right
behind its greeting.
"""
import contextlib
import random
import selectors
import socket
import struct
import threading
import time

import rpc
from harness import LOOPBACK, free_ports, wait_until

Frame = rpc.messages("stentor.link.v1.Frame")
PROTOCOL = 2
PUSH, PULL = (b"\0SP\0" + struct.pack(">HH", n, 0) for n in (0x50, 0x51))
REFUSED = {"STORE": 6, "FULL": 4, "RESET": 5, "NAME": 7}
_M = (1 << 64) - 1


def siphash(key, data):
    """SipHash-2-4, as hash.c."""
    def rotl(x, b):
        return (x << b | x >> (64 - b)) & _M

    k0, k1 = struct.unpack("<QQ", key)
    v = [k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d,
         k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573]

    def rounds(n):
        for _ in range(n):
            v[0] = (v[0] + v[1]) & _M
            v[1] = rotl(v[1], 13) ^ v[0]
            v[0] = rotl(v[0], 32)
            v[2] = (v[2] + v[3]) & _M
            v[3] = rotl(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & _M
            v[3] = rotl(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & _M
            v[1] = rotl(v[1], 17) ^ v[2]
            v[2] = rotl(v[2], 32)

    tail = data[len(data) // 8 * 8:]
    words = [data[i:i + 8] for i in range(0, len(data) // 8 * 8, 8)]
    words.append(tail.ljust(7, b"\0") + bytes([len(data) & 255]))
    for word in words:
        m, = struct.unpack("<Q", word)
        v[3] ^= m
        rounds(2)
        v[0] ^= m
    v[2] ^= 255
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


class _Pipe:
    """One connection that the dispatcher made."""

    def __init__(self, sock):
        self.sock = sock
        self.rest = bytearray()
        self.greeted = False

    def messages(self):
        """Whole nng messages; b"" at the end of the connection."""
        try:
            data = self.sock.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            yield b""
            return
        self.rest += data
        if not self.greeted and len(self.rest) >= 8:
            del self.rest[:8]
            self.greeted = True
        while self.greeted and len(self.rest) >= 8:
            size, = struct.unpack(">Q", self.rest[:8])
            if len(self.rest) < 8 + size:
                break
            yield bytes(self.rest[8:8 + size])
            del self.rest[:8 + size]


class FakeWorker:
    def __init__(self, crowd, node, index, hello):
        self.crowd = crowd
        self.node, self.index = node, index
        self.incarnation = hello.pop("incarnation", random.getrandbits(63) | 1)
        self.takes = hello.pop("takes", True)
        self.hello = hello
        self.refusals = []  # reasons
        self.moved = []     # (channel, epoch, offset)
        self.unnamed = 0
        self.deliveries = []
        self.beat = {}      # fields of Heartbeat
        self.anew()

    def anew(self):
        """Another attempt, under an epoch of its own."""
        self.epoch = random.getrandbits(63) | 1
        self.peer = 0
        self.key = None
        self.seq = self.rx_seq = self.rx_bytes = 0
        self.pipe = None
        self.crowd.by_epoch[self.epoch] = self
        return self

    def say_hello(self):
        f = Frame(sender_epoch=self.epoch)
        h = f.hello
        h.protocol, h.node, h.worker = PROTOCOL, self.node, self.index
        h.incarnation = self.incarnation
        h.link_address = self.crowd.address
        h.dialed = self.crowd.dispatcher.link_url
        h.version = "fake"
        for name, value in self.hello.items():
            setattr(h, name, value)
        self.crowd.push(f)

    def say(self, frame=None):
        """In sequence; acknowledges what was read."""
        f = frame or Frame()
        self.seq += 1
        f.sender_epoch, f.receiver_epoch = self.epoch, self.peer
        f.seq, f.ack, f.ack_bytes = self.seq, self.rx_seq, self.rx_bytes
        self.crowd.push(f)

    def want(self, channels, end=True):
        f = Frame()
        f.interest.add.extend(siphash(self.key, c.encode()) for c in channels)
        f.interest.snapshot_end = end
        self.say(f)

    def heartbeat(self):
        f = Frame()
        f.heartbeat.connections = 0
        for name, value in self.beat.items():
            if isinstance(value, list):
                getattr(f.heartbeat, name).extend(value)
            else:
                setattr(f.heartbeat, name, value)
        self.say(f)

    def take(self, f, size):
        if f.HasField("refuse"):
            self.refusals.append(f.refuse.reason)
        if f.HasField("hello_ack"):
            self.peer, self.key = f.sender_epoch, f.hello_ack.hash_key
        if f.seq == 0 or f.sender_epoch != self.peer:
            return
        self.rx_seq = f.seq
        self.rx_bytes += size
        self.moved += [(m.channel, m.top.epoch, m.top.offset)
                       for m in f.moved]
        self.unnamed += f.moved_unnamed
        self.deliveries += [(d.channel, d.data, d.offset)
                            for d in f.deliveries]


class FakeWorkers:
    def __init__(self, dispatcher):
        self.dispatcher = dispatcher
        self.by_epoch = {}
        self.workers = []
        self._lock = threading.RLock()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # small, so that a worker that takes nothing is soon full
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        port = free_ports(1)
        self._listener.bind((LOOPBACK, port))
        self._listener.listen(4096)
        self._listener.setblocking(False)
        self.address = f"tcp://{LOOPBACK}:{port}"
        self._out = socket.create_connection(
            (LOOPBACK, dispatcher.link_port), timeout=10)
        self._out.sendall(PUSH)
        assert self._out.recv(8) == PULL
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._pipes = []
        self._ended = self._paused = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._ended = True
        self._thread.join()
        for sock in [self._listener, self._out, *(p.sock for p in
                                                  self._pipes)]:
            sock.close()

    def push(self, frame):
        body = frame.SerializeToString()
        with self._lock:
            self._out.sendall(struct.pack(">Q", len(body)) + body)

    def add(self, node, index=0, **hello):
        """A worker that says hello until it is answered; see link.proto."""
        with self._lock:
            w = FakeWorker(self, node, index, hello)
            self.workers.append(w)
            w.say_hello()
        return w

    def link(self, w, channels, timeout=10):
        """Until its snapshot of these channels is told."""
        wait_until(lambda: w.key, timeout, f"{w.node} is answered")
        with self._lock:
            w.want(channels)
        return w

    @contextlib.contextmanager
    def paused(self):
        """Nothing is read or acknowledged; they go on saying that they live.

        Their acknowledgements stay where they are.
        """
        self._paused = True
        yield
        self._paused = False

    def _accept(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.sendall(PULL)
            pipe = _Pipe(sock)
            self._pipes.append(pipe)
            self._selector.register(sock, selectors.EVENT_READ, pipe)

    def _read(self, pipe):
        for body in pipe.messages():
            if not body:
                self._selector.unregister(pipe.sock)
                pipe.sock.close()
                self._pipes.remove(pipe)
                return
            f = Frame.FromString(body)
            w = self.by_epoch.get(f.receiver_epoch)
            if w is None:
                continue
            w.take(f, len(body))
            if w.peer and not w.takes:
                self._selector.unregister(pipe.sock)
                return

    def _run(self):
        beat_at = 0
        while not self._ended:
            if self._paused:
                time.sleep(0.02)
                ready = []
            else:
                ready = self._selector.select(0.05)
            with self._lock:
                for key, _ in ready:
                    if key.data is None:
                        self._accept()
                    else:
                        self._read(key.data)
                if time.monotonic() < beat_at:
                    continue
                beat_at = time.monotonic() + 0.9
                for w in self.workers:
                    if w.peer:
                        w.heartbeat()
                    else:
                        w.say_hello()
