"""Out of file descriptors: streams go on, newcomers are told, it ends well."""
import contextlib
import socket
import time

import harness
import pytest

from harness import LOOPBACK, SLOW, http_get, wait_until
from sse import Sse

LIMITS = [600, pytest.param(20000, marks=pytest.mark.long)]


def enough(nofile):
    """Silent connections: more than what is for them, and than we can have."""
    return int(1.2 * nofile) if nofile < 5000 else 16000


class Flood:
    """Silent TCP connections to a port; those that are closed come again."""

    def __init__(self, port, count):
        self.port, self.count = port, count
        self.sockets = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for s in self.sockets:
            s.close()

    def press(self, most=1 << 20):
        alive = []
        for s in self.sockets:
            try:
                if s.recv(1, socket.MSG_DONTWAIT) == b"":
                    s.close()
                    continue
            except BlockingIOError:
                pass
            except OSError:
                s.close()
                continue
            alive.append(s)
        self.sockets = alive
        for _ in range(min(most, self.count - len(self.sockets))):
            s = socket.socket()
            s.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                s.connect((LOOPBACK, self.port))
            self.sockets.append(s)


def limited(make_cluster, nofile, **options):
    c = make_cluster(1, 1, 1, start=False, **options)
    for p in c.processes:
        p.wrapper = ("prlimit", f"--nofile={nofile}:{nofile}")
    c.start()
    return c


def ids(process, name):
    return [r for r in process.log_lines() if r["id"] == name]


def goes_on(c, streams, channel, text):
    """A message reaches all: again and again, as links may be new."""
    def arrives():
        with contextlib.suppress(OSError):  # refused in the first 100 ms
            c.d.publish(channel, text)
        deadline = time.monotonic() + 0.2
        while time.monotonic() < deadline:
            for s in streams:
                s.pump()
            if all(text in s.data() for s in streams):
                return True
    wait_until(arrives, what=f"{text} reaches all")
    assert all(s.end is None for s in streams)


def served(port, channel):
    """Of a newcomer: 200 at once, and a stream, or told when to come back."""
    with Sse(port, channel) as s:
        s.wait(lambda s: s.end or any(
            e.event == "stentor.ready" for e in s.events), 5)
        assert s.status == 200
        return s.end is None or bool(s.retries)


def back(port, channel):
    """Within a second; until nng has closed its sockets some are refused."""
    begun = time.monotonic()
    while True:
        try:
            with Sse(port, channel) as s:
                s.wait_ready()
                break
        except (OSError, harness.Timeout):
            assert time.monotonic() - begun < 1 * SLOW
    assert time.monotonic() - begun < 1 * SLOW


@pytest.mark.parametrize("nofile", LIMITS)
def test_silent_clients_and_a_dispatcher_restarted(make_cluster, channel,
                                                   nofile):
    c = limited(make_cluster, nofile)
    pids = c.n.worker_pids()
    assert len(ids(c.n, "HEADS-LOWERED")) == (1 if nofile < 5000 else 0)
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(Sse(c.n.port, channel))
                   for _ in range(5)]
        for s in streams:
            s.wait_ready()
        with Flood(c.n.port, enough(nofile)) as flood:
            flood.press()
            c.d.kill()
            flood.press()
            assert served(c.n.port, channel)
            c.d.start(settle_ms=200)
            c.d.wait_ready()
            flood.press()
            wait_until(lambda: c.n.metric("stentor_connections_rejected_total",
                                          reason="heads") > 0)
            assert served(c.n.port, channel)
            goes_on(c, streams, channel, "in the flood")
        back(c.n.port, channel)
        goes_on(c, streams, channel, "after it")
    assert c.n.worker_pids() == pids
    assert not ids(c.n, "ACCEPT-STARVED"), "there is room for all it takes"


def test_clients_that_stay_after_their_answer(make_cluster, channel):
    """They hold a descriptor until they go: never more than there are."""
    c = limited(make_cluster, 600)
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(Sse(c.n.port, channel))
        stream.wait_ready()
        for _ in range(700):
            s = stack.enter_context(
                socket.create_connection((LOOPBACK, c.n.port)))
            s.sendall(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: c.n.metric("stentor_connections_rejected_total",
                                      reason="not_found") == 700)
        assert harness.open_fds(c.n.worker_pids()[0]) < 600 - 64
        assert served(c.n.port, channel)
        goes_on(c, [stream], channel, "m")
    assert not ids(c.n, "ACCEPT-STARVED")


def test_links_take_all_descriptors(make_cluster, channel):
    """nng takes what comes to the link port, so nothing bounds it there."""
    c = limited(make_cluster, 600)
    pids = c.n.worker_pids()
    with Sse(c.n.port, channel) as stream:
        stream.wait_ready()
        with Flood(c.n.link_port, 700) as links, \
                Flood(c.n.port, 30) as clients:
            # few at once: what overflows nng's queue comes again much later
            wait_until(lambda: links.press(50) or
                       harness.open_fds(pids[0]) >= 599,
                       what="no descriptor is left")
            clients.press()
            c.d.kill()
            c.d.start(settle_ms=200)

            def refused():
                links.press(50)
                clients.press()
                return c.n.metric("stentor_connections_rejected_total",
                                  reason="files") >= 30
            wait_until(refused, what="newcomers are refused")
            assert stream.end is None
        back(c.n.port, channel)
        c.d.wait_ready()
        goes_on(c, [stream], channel, "after it")
        wait_until(lambda: ids(c.n, "ACCEPT-AGAIN"), what="it says so")
    assert c.n.worker_pids() == pids
    assert len(ids(c.n, "ACCEPT-STARVED")) == 1


@pytest.mark.parametrize("nofile", LIMITS)
def test_silent_producers(make_cluster, channel, nofile):
    """Links, the admin port and producers who are there do not notice."""
    c = limited(make_cluster, nofile,
                dispatcher_options={"api_connections_max": 1000000})
    assert len(ids(c.d, "CONNECTIONS-LOWERED")) == 1
    with Sse(c.n.port, channel) as stream:
        stream.wait_ready()
        c.d.publish(channel, "first")
        with Flood(c.d.api_port, enough(nofile)) as flood:
            flood.press()
            wait_until(lambda: flood.press() or c.d.metric(
                "stentor_api_connections_closed_total",
                reason="made_way") > 0)
            assert c.d.get("/livez")[0] == 200
            pids = c.n.worker_pids()
            c.n.kill_worker(pids[0])
            wait_until(lambda: c.n.worker_pids() not in ([], pids))
            c.n.wait_ready()
            flood.press()
            assert c.d.get("/livez")[0] == 200
            with Sse(c.n.port, channel) as again:
                again.wait_ready()
                goes_on(c, [again], channel, "in the flood")
        begun = time.monotonic()
        wait_until(lambda: http_get(c.d.api_port, "/")[0], what="it answers")
        assert time.monotonic() - begun < 1 * SLOW
    assert not ids(c.d, "ACCEPT-STARVED")
