"""Strangers on the link ports: whatever they send, new links still form."""
import socket
import struct
import time

import pytest

from harness import rss_kib, rss_room, wait_until
from sse import Sse

RST = struct.pack("ii", 1, 0)
SP_PUSH = b"\0SP\0" + struct.pack(">HH", 0x50, 0)
SP_PULL = b"\0SP\0" + struct.pack(">HH", 0x51, 0)
SP_PAIR = b"\0SP\0" + struct.pack(">HH", 0x10, 0)
SP_SUB = b"\0SP\0" + struct.pack(">HH", 0x21, 0)


def sp_message(body):
    return struct.pack(">Q", len(body)) + body


def abort(port, data=b""):
    """connect, send, FIN, RST: what kills nng 1.5's listener for ever."""
    s = socket.create_connection(("127.0.0.1", port), timeout=5)
    try:
        if data:
            s.sendall(data)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
        s.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    s.close()


def link_ports(c):
    return ([d.link_port for d in c.dispatchers]
            + [n.link_port + i for n in c.nodes for i in range(n.workers)])


def new_links_form(c, channel, again=True):
    """A node and a dispatcher that start now join and are served."""
    node, dispatcher = c.nodes[0], c.dispatchers[0]
    if again:
        node.kill()
        node.start()
        c.wait_ready(20)
        node.first_pids = node.worker_pids()
        # worker listeners that were attacked are gone with the kill; those
        # of the other node must take the link of a new dispatcher
        dispatcher.kill()
        dispatcher.start()
        c.wait_ready(20)
    for i, n in enumerate(c.nodes):
        with Sse(n.port, channel) as s:
            s.wait_ready()
            for d in c.dispatchers:
                d.publish(channel, f"{i} {d.name}")
                s.wait_data(f"{i} {d.name}")


@pytest.fixture(scope="module")
def c(request):
    """Shared: what one attack leaves behind meets the next one."""
    from conftest import _shared
    yield from _shared(request, 2, 2, 2)


@pytest.fixture
def still_well(c, channel):
    yield
    new_links_form(c, channel, again=False)


def test_aborted_connections(c, channel):
    """500 connect + FIN + RST on every link port."""
    for port in link_ports(c):
        for _ in range(500):
            abort(port)
    new_links_form(c, channel)


def test_aborted_after_half_a_header(c, channel):
    for port in link_ports(c):
        for i in range(100):
            abort(port, SP_PUSH[:i % 9])
    new_links_form(c, channel)


def test_garbage_and_http(c, still_well):
    for port in link_ports(c):
        for data in (b"\xff" * 1000, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                     b"\0", b"\0SP", b"\0SP\0", SP_PUSH[:7],
                     b"\0SP\1" + SP_PUSH[4:], b"\x16\x03\x01\0\xff"):
            with socket.create_connection(("127.0.0.1", port)) as s:
                s.sendall(data)


@pytest.mark.parametrize("hello", [SP_PULL, SP_PAIR, SP_SUB],
                         ids=["pull", "pair", "sub"])
def test_wrong_protocol(c, still_well, hello):
    for port in link_ports(c):
        for _ in range(10):
            with socket.create_connection(("127.0.0.1", port)) as s:
                s.sendall(hello + sp_message(b"x"))


def test_garbage_messages(c, still_well):
    """A peer that speaks SP but not our protocol."""
    for port in link_ports(c):
        with socket.create_connection(("127.0.0.1", port)) as s:
            s.sendall(SP_PUSH)
            s.settimeout(5)
            assert s.recv(8)[:4] == b"\0SP\0"
            for body in (b"", b"\0", b"\xff" * 100, b"\x09", b"x" * 100000,
                         b"\x32\xff\xff\xff\xff\x0f", b"\x0a\x02\x08\x01"):
                try:
                    s.sendall(sp_message(body) * 20)
                except OSError:
                    break  # cut off


def test_oversized_length(c, still_well):
    before = {p.name: rss_kib(p.pid) for p in c.processes}
    for port in link_ports(c):
        for size in (1 << 23, 1 << 31, 1 << 40, (1 << 64) - 1):
            with socket.create_connection(("127.0.0.1", port)) as s:
                s.sendall(SP_PUSH + struct.pack(">Q", size) + b"x" * 1000)
                s.settimeout(5)
                try:  # ends: nobody waits for an exabyte
                    while s.recv(4096):
                        pass
                except ConnectionError:
                    pass
                except socket.timeout:
                    pytest.fail(f"{size} bytes are waited for")
    for p in c.processes:
        assert rss_kib(p.pid) - before[p.name] < rss_room(32)


def test_half_a_message_held_open(c, channel):
    """Strangers that hang do not hold up anybody."""
    held = []
    for port in link_ports(c):
        for data in (b"", SP_PUSH[:4], SP_PUSH, SP_PUSH
                     + struct.pack(">Q", 1000) + b"x"):
            for _ in range(10):
                s = socket.create_connection(("127.0.0.1", port))
                s.sendall(data)
                held.append(s)
    new_links_form(c, channel)
    for s in held:
        s.close()


def test_forged_hellos_are_bounded(c, still_well):
    """Hellos of invented workers must not fill the dispatcher."""
    def varint(n):
        out = b""
        while n > 127:
            out += bytes([n & 127 | 128])
            n >>= 7
        return out + bytes([n])

    def field(number, body):
        return bytes([number << 3 | 2]) + varint(len(body)) + body

    port = c.d.link_port
    before = rss_kib(c.d.pid)
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.sendall(SP_PUSH)
        s.settimeout(5)
        s.recv(8)
        for i in range(3000):
            hello = (b"\x08\x01" + field(2, b"forged-%d" % i)
                     + b"\x21" + struct.pack("<Q", i + 1)
                     + field(5, b"tcp://127.0.0.1:9"))
            frame = b"\x09" + struct.pack("<Q", i + 1) + field(6, hello)
            try:
                s.sendall(sp_message(frame))
            except OSError:
                break
        wait_until(lambda: c.d.ready() == 200)
        assert rss_kib(c.d.pid) - before < rss_room(64)
    # the invented ones fade and never were in the routing table
    names = {n for n, _ in c.d.ready_workers()}
    assert names == {"n0", "n1"}
    wait_until(lambda: set(c.d.nodes()) == {"n0", "n1"}, 15,
               "forged nodes are forgotten")

    # and nothing goes on dialling them: their sockets are closed
    def quiet():
        name = "process_cpu_seconds_total"
        used, start = c.d.metric(name), time.monotonic()
        wait_until(lambda: time.monotonic() - start > 1, 2)
        return c.d.metric(name) - used < 0.25
    wait_until(quiet, 20, "the dispatcher is idle again")
