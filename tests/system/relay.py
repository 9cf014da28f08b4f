"""A link with a delay: a TCP relay, the same time each way."""
import collections
import select
import socket
import threading
import time

CHUNK = 65536


class Relay(threading.Thread):
    """Relay(port, 0.02).port is where to connect to instead."""

    def __init__(self, to, delay):
        super().__init__(daemon=True)
        self._to, self._delay = to, delay
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._peers = {}    # socket -> the one that its bytes go to
        self._queue = collections.deque()  # (due, to, bytes; b"": its end)
        self._wake, self._woken = socket.socketpair()
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._wake.close()
        self.join()

    def run(self):
        try:
            while self._turn():
                pass
        finally:
            for s in (*self._peers, self._listener, self._woken):
                s.close()

    def _turn(self):
        now = time.monotonic()
        while self._queue and self._queue[0][0] <= now:
            self._deliver(*self._queue.popleft()[1:])
        wait = self._queue[0][0] - now if self._queue else 1
        readable, _, _ = select.select(
            [self._listener, self._woken, *self._peers], [], [], max(wait, 0))
        for s in readable:
            if s is self._woken:
                return False
            if s is self._listener:
                client = s.accept()[0]
                server = socket.create_connection(("127.0.0.1", self._to))
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._peers.update({client: server, server: client})
            else:
                self._take(s)
        return True

    def _take(self, s):
        try:
            data = s.recv(CHUNK)
        except OSError:
            data = b""
        self._queue.append((time.monotonic() + self._delay, self._peers[s],
                            data))
        if not data:
            del self._peers[s]

    @staticmethod
    def _deliver(to, data):
        try:
            if data:
                to.sendall(data)
            else:
                to.shutdown(socket.SHUT_WR)
        except OSError:
            pass
