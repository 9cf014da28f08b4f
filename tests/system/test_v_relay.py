"""The relay of the kill test misbehaves as it is told, and not otherwise."""
import socket
import threading
import time

import pytest

from harness import wait_until
from relay import Relay


@pytest.fixture
def relay():
    with Relay() as r:
        yield r


@pytest.fixture
def echo():
    """A server that says everything again."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(s):
        with s:
            try:
                while data := s.recv(65536):
                    s.sendall(data)
            except OSError:
                pass

    def accept():
        while True:
            try:
                s, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(s,), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()
    listener.close()


@pytest.fixture
def through(relay, echo):
    port = relay.add("a>b", ("127.0.0.1", 0), echo)
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.settimeout(10)
        yield s


def ask(s, data=b"ping"):
    s.sendall(data)
    got = b""
    while len(got) < len(data):
        piece = s.recv(65536)
        assert piece, "ended"
        got += piece
    return got


def silent(s):
    s.settimeout(0.2)
    try:
        with pytest.raises(TimeoutError):
            s.recv(1)
    finally:
        s.settimeout(10)


def test_everything_passes(through):
    big = bytes(range(256)) * 4096
    sender = threading.Thread(target=through.sendall, args=(big,))
    sender.start()
    got = b""
    while len(got) < len(big):
        got += through.recv(65536)
    sender.join()
    assert got == big


@pytest.mark.parametrize("hold", ["there", "back", "both"])
def test_hold_loses_nothing(relay, through, hold):
    assert ask(through) == b"ping"
    relay.set("a>*", hold=hold)
    through.sendall(b"one")
    silent(through)
    relay.set("a>*", hold="")
    assert through.recv(3) == b"one"


def test_delay(relay, through):
    relay.set("a>b", delay_ms=100)
    begin = time.monotonic()
    assert ask(through) == b"ping"
    assert time.monotonic() - begin >= 0.2
    relay.set("a>b", delay_ms=0)
    assert ask(through) == b"ping"


def test_loss_makes_late_and_keeps_order(relay, through):
    relay.set("a>b", loss=0.5)
    for i in range(8):
        assert ask(through, b"%d" % i) == b"%d" % i


def test_cut(relay, through):
    assert ask(through) == b"ping"
    assert relay.connections() == 1
    assert relay.cut("x*") == 0
    assert relay.cut("a>b") == 1
    with pytest.raises(ConnectionResetError):
        through.recv(1)


def test_refuse(relay, echo):
    port = relay.add("a>b", ("127.0.0.1", 0), echo)
    relay.set("a>b", refuse=True)
    with socket.create_connection(("127.0.0.1", port)) as s:
        assert s.recv(1) == b""
    relay.set("a>b", refuse=False)
    with socket.create_connection(("127.0.0.1", port)) as s:
        assert ask(s) == b"ping"


def test_an_end_is_passed_on(relay, echo):
    port = relay.add("a>b", ("127.0.0.1", 0), echo)
    with socket.create_connection(("127.0.0.1", port)) as s:
        assert ask(s) == b"ping"
    wait_until(lambda: relay.connections() == 0, what="no connection is left")


def test_who_connects_gives_the_route_its_name(relay, make_cluster):
    """Links of two dispatchers and a node, all through the relay; one of them
    is cut off while the other serves."""
    c = make_cluster(2, 1, 1, start=False)
    node = c.nodes[0]
    urls = ["tcp://127.0.0.1:%d" % relay.add(
        f"n0>{d.name}", ("127.0.0.1", 0), ("127.0.0.1", d.link_port))
        for d in c.dispatchers]
    relay.add("?>n0", ("127.0.1.1", node.link_port),
              ("127.0.0.1", node.link_port))
    node.options.update(dispatchers=",".join(urls),
                        link_advertise="127.0.1.1")
    c.start()
    for name in ("n0>d0", "d0>n0", "n0>d1", "d1>n0"):
        wait_until(lambda: relay.connections(name) == 1, 5, name)
    relay.set("d0>*", hold="both")
    relay.set("*>d0", hold="both")
    wait_until(lambda: not c.dispatchers[0].ready_workers(), 15,
               "d0 sees nobody")
    assert c.dispatchers[1].ready_workers() == {("n0", 0)}
    relay.set("d0>*", hold="")
    relay.set("*>d0", hold="")
    c.wait_ready(20)
