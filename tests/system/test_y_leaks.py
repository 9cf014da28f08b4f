"""Nothing grows: clients that come and go, links that break, an orderly end.

The quick suite does a part of it; STENTOR_LONG=1 the 100,000 clients and 1,000
breaks.
"""
import contextlib
import re
import selectors
import shutil
import socket
import struct
import threading

import pytest

from harness import (BUILD, SLOW, Timeout, open_fds, rss_kib, rss_room,
                     wait_until)
from sse import Sse, pump_all

ROOM_MIB = 3
TOGETHER = 100  # clients at once
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST


# What they say before they go; None: as soon as they are connected.
def farewells(channel):
    subscribe = (f"GET /v1/subscribe?channel={channel}&channel={channel}:x "
                 "HTTP/1.1\r\nHost: t\r\nAccept: text/event-stream\r\n\r\n")
    return [None, subscribe.encode(), subscribe[:50].encode(),
            subscribe.encode(), b"GET /nothing HTTP/1.1\r\nHost: t\r\n\r\n",
            b"\x16\x03\x01 no HTTP at all\r\n\r\n"]


def come_and_go(port, channel, count):
    """So many clients; each other one waits for its answer before it goes."""
    says = farewells(channel)
    for first in range(0, count, TOGETHER):
        with contextlib.ExitStack() as stack:
            for i in range(first, min(first + TOGETHER, count)):
                s = stack.enter_context(socket.socket())
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                s.connect(("127.0.0.1", port))
                say = says[i % len(says)]
                if say:
                    s.sendall(say)
            if say:
                s.settimeout(5 * SLOW)
                s.recv(100)


def settled(c):
    wait_until(lambda: c.n.metric("stentor_connections") == 0, 20, "all gone")
    wait_until(lambda: c.n.metric("stentor_channels") == 0, 20,
               "all channels forgotten")


def check_clients(c, channel, count):
    worker = c.n.worker_pids()[0]
    come_and_go(c.n.port, channel, count // 5)
    settled(c)
    rss, fds = rss_kib(worker), open_fds(worker)
    dispatcher = rss_kib(c.d.pid)
    come_and_go(c.n.port, channel, count - count // 5)
    settled(c)
    assert open_fds(worker) <= fds + 2
    assert rss_kib(worker) < rss + rss_room(ROOM_MIB)
    assert rss_kib(c.d.pid) < dispatcher + rss_room(ROOM_MIB)
    with Sse(c.n.port, channel).wait_ready() as s:
        c.d.publish(channel, "after all")
        s.wait_data("after all")


@pytest.fixture
def c(make_cluster):
    return make_cluster(1, 1, 1, node_options={"connection_rate_max": 0})


def test_clients_come_and_go(c, channel):
    check_clients(c, channel, 10000)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_100000_clients_come_and_go(c, channel):
    check_clients(c, channel, 100000)


class Cable:
    """Carries bytes between a node and a dispatcher's link port; breaks."""

    def __init__(self, port):
        self.target = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.pairs = {}
        self.breaks = 0
        self.carried = 0  # connections
        self.wanted = False
        self.wake_in, self.wake_out = socket.socketpair()
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.selector.register(self.wake_in, selectors.EVENT_READ)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _drop(self, s):
        other = self.pairs.pop(s, None)
        self.pairs.pop(other, None)
        for end in (s, other):
            if end:
                with contextlib.suppress(KeyError, ValueError):
                    self.selector.unregister(end)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                end.close()

    def _accept(self):
        near, _ = self.listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self.target), 5)
        except OSError:
            near.close()
            return
        self.pairs.update({near: far, far: near})
        self.carried += 1
        for s in (near, far):
            self.selector.register(s, selectors.EVENT_READ)

    def _carry(self, s):
        try:
            data = s.recv(65536)
            if data:
                self.pairs[s].sendall(data)
                return
        except (OSError, KeyError):
            pass
        self._drop(s)

    def _run(self):
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is self.wake_in:
                    order = self.wake_in.recv(1)
                    while self.pairs:
                        self._drop(next(iter(self.pairs)))
                    self.breaks += 1
                    if order == b"q":
                        return
                elif key.fileobj is self.listener:
                    self._accept()
                elif key.fileobj in self.pairs:
                    self._carry(key.fileobj)

    def cut(self):
        carried = self.carried
        self.wake_out.send(b"x")
        return lambda: self.carried > carried

    def close(self):
        self.wake_out.send(b"q")
        self.thread.join()
        for s in (self.listener, self.wake_in, self.wake_out):
            s.close()


def flap(c, cable, times):
    for _ in range(times):
        wait_until(cable.cut(), 20, "the node dials again")
    wait_until(lambda: c.d.ready_workers() == c.n.worker_names(), 20,
               "the link is up")


@pytest.fixture
def cabled(make_cluster):
    c = make_cluster(1, 1, 1, start=False)
    cable = Cable(c.d.link_port)
    c.n.options["dispatchers"] = f"tcp://127.0.0.1:{cable.port}"
    c.start()
    yield c, cable
    cable.close()


def check_flaps(cabled, channel, times):
    c, cable = cabled
    worker = c.n.worker_pids()[0]
    names = [f"{channel}:{i}" for i in range(50)]
    with Sse(c.n.port, *names).wait_ready() as s:
        flap(c, cable, times // 5)
        rss = [rss_kib(pid) for pid in (worker, c.d.pid)]
        fds = [open_fds(pid) for pid in (worker, c.d.pid)]
        flap(c, cable, times - times // 5)
        room, now = 4, []

        def given_back():
            now[:] = [open_fds(pid) for pid in (worker, c.d.pid)]
            return all(n <= before + room for n, before in zip(now, fds))
        try:
            wait_until(given_back, 15, "descriptors are given back")
        except Timeout:
            pytest.fail(f"descriptors of worker and dispatcher: {fds} became "
                        f"{now}")
        for pid, before in zip((worker, c.d.pid), rss):
            assert rss_kib(pid) < before + rss_room(ROOM_MIB)
        wait_until(lambda: c.d.channel(names[7]).get("subscribers") == "1",
                   what="the interest is known again")
        c.d.publish(names[7], "after all")
        s.wait_data("after all")


def test_links_flap(cabled, channel):
    check_flaps(cabled, channel, 50)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_1000_link_flaps(cabled, channel):
    check_flaps(cabled, channel, 1000)


# nng 1.5 loses a message that is sent while its connection closes
# (nanomsg/nng#1713), and never ends its threads.
SUPPRESSIONS = """
{
   nng-message-lost
   Memcheck:Leak
   ...
   fun:nng_outbox_send
}
"""


@pytest.mark.skipif(not shutil.which("valgrind"), reason="no valgrind")
@pytest.mark.skipif(BUILD.name in ("asan", "tsan"), reason="sanitized")
def test_valgrind_finds_no_leak(make_cluster, tmp_path, channel):
    """Everything is given back at an orderly end, of all three processes."""
    (tmp_path / "supp").write_text(SUPPRESSIONS)
    c = make_cluster(
        1, 1, 1, start=False, store="lmdb:",
        rules="rules:\n  - match: '*'\n    history: {size: 10, ttl: 1h}\n")
    for p in c.processes:
        p.wrapper = ["valgrind", "-q", "--leak-check=full",
                     "--errors-for-leak-kinds=definite",
                     "--show-leak-kinds=definite", "--trace-children=yes",
                     f"--suppressions={tmp_path / 'supp'}",
                     f"--log-file={tmp_path / p.name}-%p.valgrind"]
    for p in c.processes:
        p.start()
    c.wait_ready(60)
    subs = [Sse(c.n.port, channel, f"{channel}:{i}") for i in range(20)]
    pump_all(subs, lambda: all(
        any(e.event == "stentor.ready" for e in s.events) for s in subs),
        60, "all are ready")
    for i in range(20):
        c.d.publish(channel, f"message {i}")
    pump_all(subs, lambda: all("message 19" in s.data() for s in subs), 60,
             "all have everything")
    for s in subs[:10]:
        s.close()
    with Sse(c.n.port, channel, query={"last_event_id": subs[15].last_id}):
        assert len(c.d.history(channel)["messages"]) == 10
    for p in reversed(c.processes):
        p.stop(60)
    for s in subs:
        s.close()
    reports = {p.name: p.read_text() for p in tmp_path.glob("*.valgrind")}
    assert len(reports) == 3
    faults = {name: text for name, text in reports.items()
              if re.search(r"definitely lost|Invalid|uninitialised", text)}
    assert not faults, "\n".join(faults.values())
