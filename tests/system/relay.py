#!/usr/bin/python3
"""A network that misbehaves: TCP relays on loopback, in a process of their own.

    with Relay() as relay:
        port = relay.add("n0>d0", ("127.0.0.1", 0), ("127.0.0.1", 7071))
        relay.set("n0>d0", hold="there")

A route is a place to listen at and one to connect to; commands go to all
routes whose names match a pattern (fnmatch), and hold for connections to come
too, until the same pattern is set to something else:

  hold="there"    what goes to the server stays where it is ("back": what comes
                  from it; "both"); as when packets in that direction are lost,
                  TCP on both sides waits. "": flows again, nothing is missing.
  delay_ms=N      every byte comes so much later
  loss=P          each piece of what flows is N ms late by chance, as after a
                  retransmission, and all behind it
  refuse=True     connections are ended at once
  cut(pattern)    every connection is reset, in the middle of what flows

Where many connect to one route (dispatchers to a worker) its name may begin
with `?`: then it stands for the --name of the process that connects, so that
d0>n1 can be cut while d1>n1 flows.
"""
import collections
import contextlib
import fnmatch
import json
import os
import pathlib
import random
import select
import selectors
import socket
import struct
import subprocess
import sys
import time

CHUNK = 64 << 10
BUFFER_MAX = 256 << 10  # of a direction: then the sender waits
LOSS_SECONDS = (0.2, 0.6)  # TCP's least retransmission, and the next


class Relay:
    """The process, seen from a test."""

    def __init__(self, seed=1):
        self.popen = subprocess.Popen(
            [sys.executable, __file__, str(seed)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.popen.kill()
        self.popen.wait()
        with contextlib.suppress(OSError):
            self.popen.stdin.close()
        self.popen.stdout.close()

    def ask(self, **command):
        self.popen.stdin.write(json.dumps(command) + "\n")
        self.popen.stdin.flush()
        ready, _, _ = select.select([self.popen.stdout], [], [], 20)
        line = self.popen.stdout.readline() if ready else ""
        assert line, "the relay does not answer"
        answer = json.loads(line)
        assert "error" not in answer, answer
        return answer

    def add(self, name, listen, to):
        """The port that it listens at."""
        return self.ask(add=name, listen=listen, to=to)["port"]

    def set(self, pattern, **state):
        return self.ask(set=pattern, state=state)

    def cut(self, pattern):
        """How many connections there were."""
        return self.ask(cut=pattern)["connections"]

    def connections(self, pattern="*"):
        return self.ask(count=pattern)["connections"]


# --- the process --------------------------------------------------------------

SOCK_DIAG = 20  # linux/sock_diag.h, linux/inet_diag.h
INODE_AT = 16 + 68  # netlink's header, inet_diag_msg.idiag_inode


def inode_of(client):
    """Of the other end's socket, which is on this machine; 0: it has ended.
    The kernel looks that one up: /proc/net/tcp leaves out lines while others
    change, and a local port may be that of several connections."""
    peer, here = client.getpeername(), client.getsockname()
    request = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0,
                          0xffffffff)
    request += struct.pack("!HH", peer[1], here[1])
    for address, _ in (peer, here):
        request += socket.inet_aton(address).ljust(16, b"\0")
    request += bytes(4) + b"\xff" * 8  # any interface and cookie
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as s:
        s.settimeout(1)
        s.send(struct.pack("=IHHII", 16 + len(request), SOCK_DIAG, 1, 1, 0)
               + request)
        answer = s.recv(4096)
    if struct.unpack_from("=H", answer, 4)[0] != SOCK_DIAG:
        return 0
    return struct.unpack_from("=I", answer, INODE_AT)[0]


def owner(client):
    """The --name of the dispatcher that has connected; "": nobody."""
    inode = f"socket:[{inode_of(client)}]"
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"stentor-dispatcher" not in words:
                continue
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):  # closed meanwhile
                    if os.readlink(f"/proc/{pid}/fd/{fd}") == inode:
                        return next((w[7:].decode()
                                     for w in words.split(b"\0")
                                     if w.startswith(b"--name=")), "")
    return ""


class Way:
    """One direction of a connection."""

    def __init__(self, source, target, direction):
        self.source, self.target, self.direction = source, target, direction
        self.pieces = collections.deque()  # (when, bytes)
        self.bytes = 0
        self.ended = False  # by the source
        self.over = False  # and the target knows
        self.last = 0.0

    def take(self, state, rng, now):
        """False: nothing came, or the source has ended."""
        try:
            data = self.source.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.ended = True
            return
        when = now + state.get("delay_ms", 0) / 1000
        if rng.random() < state.get("loss", 0):
            when += rng.uniform(*LOSS_SECONDS)
        self.last = max(self.last, when)
        self.pieces.append((self.last, data))
        self.bytes += len(data)

    def give(self, now):
        """False: the target is gone."""
        while self.pieces and self.pieces[0][0] <= now:
            when, data = self.pieces[0]
            try:
                sent = self.target.send(data)
            except BlockingIOError:
                return True
            except OSError:
                return False
            self.bytes -= sent
            if sent < len(data):
                self.pieces[0] = when, data[sent:]
                return True
            self.pieces.popleft()
        return True


class Connection:
    def __init__(self, name, client, server):
        self.name, self.client, self.server = name, client, server
        self.ways = [Way(client, server, "there"), Way(server, client, "back")]


class Server:
    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.selector = selectors.DefaultSelector()
        self.routes, self.connections = [], set()
        self.states = []  # (pattern, state): the last one counts

    def state_of(self, name):
        merged = {}
        for pattern, state in self.states:
            if fnmatch.fnmatchcase(name, pattern):
                merged.update(state)
        return merged

    def command(self, c):
        if "add" in c:
            listener = socket.create_server(tuple(c["listen"]), backlog=256)
            listener.setblocking(False)
            self.selector.register(listener, selectors.EVENT_READ,
                                   (c["add"], tuple(c["to"])))
            return {"port": listener.getsockname()[1]}
        if "set" in c:
            self.states = [s for s in self.states if s[0] != c["set"]]
            state = {k: v for k, v in c["state"].items() if v}
            if state:
                self.states.append((c["set"], state))
            return {}
        pattern = c.get("cut", c.get("count"))
        found = [x for x in self.connections
                 if fnmatch.fnmatchcase(x.name, pattern)]
        for connection in found if "cut" in c else ():
            self.end(connection)
        return {"connections": len(found)}

    def accept(self, listener, name, to):
        client, _ = listener.accept()
        if name.startswith("?"):
            try:
                name = owner(client) + name[1:]
            except OSError:  # it has ended already
                client.close()
                return
        if self.state_of(name).get("refuse"):
            client.close()
            return
        try:
            server = socket.create_connection(to, 1)
        except OSError:
            client.close()
            return
        for s in (client, server):
            s.setblocking(False)
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections.add(Connection(name, client, server))

    def end(self, connection):
        """Reset, with half a frame in the target's hands if any was on its
        way."""
        for way in connection.ways:
            if way.pieces:
                _, data = way.pieces[0]
                with contextlib.suppress(OSError):
                    way.target.send(data[:len(data) // 2])
        for s in (connection.client, connection.server):
            with contextlib.suppress(OSError):
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                             struct.pack("ii", 1, 0))
        self.forget(connection)

    def forget(self, connection):
        for s in (connection.client, connection.server):
            with contextlib.suppress(KeyError, ValueError):
                self.selector.unregister(s)
            s.close()
        self.connections.discard(connection)

    def move(self, connection, now):
        """Gives what is due and says what is waited for; when more is due."""
        state = self.state_of(connection.name)
        want = {connection.client: 0, connection.server: 0}
        due = None
        for way in connection.ways:
            if state.get("hold") in (way.direction, "both"):
                continue
            if not way.ended and way.bytes < BUFFER_MAX:
                way.take(state, self.rng, now)
            if not way.give(now):
                self.end(connection)
                return None
            if way.ended and not way.pieces and not way.over:
                way.over = True
                with contextlib.suppress(OSError):
                    way.target.shutdown(socket.SHUT_WR)
            if not way.ended and way.bytes < BUFFER_MAX:
                want[way.source] |= selectors.EVENT_READ
            if way.pieces and way.pieces[0][0] <= now:
                want[way.target] |= selectors.EVENT_WRITE
            elif way.pieces:
                due = min(due or way.pieces[0][0], way.pieces[0][0])
        if all(way.over for way in connection.ways):
            self.forget(connection)
            return None
        for s, events in want.items():
            key = self.selector.get_map().get(s)
            if key is None and events:
                self.selector.register(s, events, connection)
            elif key is not None and not events:
                self.selector.unregister(s)
            elif key is not None and key.events != events:
                self.selector.modify(s, events, connection)
        return due

    def run(self):
        self.selector.register(sys.stdin, selectors.EVENT_READ, None)
        pending = b""
        dues = {}
        while True:
            now = time.monotonic()
            wait = min(dues.values(), default=now + 1) - now
            touched = set()
            for key, _ in self.selector.select(max(0, wait)):
                if key.data is None:
                    data = os.read(sys.stdin.fileno(), CHUNK)
                    if not data:
                        return
                    *lines, pending = (pending + data).split(b"\n")
                    for line in lines:
                        print(json.dumps(self.command(json.loads(line))),
                              flush=True)
                    touched |= self.connections
                elif isinstance(key.data, tuple):
                    before = set(self.connections)
                    self.accept(key.fileobj, *key.data)
                    touched |= self.connections - before
                else:
                    touched.add(key.data)
            now = time.monotonic()
            touched |= {c for c, due in dues.items() if due <= now}
            for connection in touched:
                dues.pop(connection, None)
                if connection in self.connections:
                    due = self.move(connection, now)
                    if due is not None:
                        dues[connection] = due


if __name__ == "__main__":
    Server(int(sys.argv[1])).run()
