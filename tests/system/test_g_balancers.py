"""Draining behind real load balancers that go by least connections.

A node that drains has the fewest connections, so it would be sent back all
whom it has sent away. Their configurations are the ones that deploy/ has.
"""
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time

import pytest
import yaml

import harness
from harness import LOOPBACK, SLOW, free_ports, wait_until
from sse import Sse, pump_once

CLIENTS = 100
DRAIN = 4
RETRY_MS = (400, 800)
PATIENCE = 30
DEPLOY = harness.ROOT / "deploy"
WHERE = f"{harness.ROOT / 'build/tools'}:{os.environ['PATH']}:/usr/sbin"


class Reader:
    """An EventSource: waits its `retry:`, and gives up at any but 200."""

    def __init__(self, port, channel):
        self.port, self.channel = port, channel
        self.stream, self.due, self.retry = None, 0.0, 3.0
        self.lost_at = None   # since when it has no stream
        self.outages = []     # (seconds, its retry:)
        self.turned_away = 0  # answers that were no stream

    def ready(self):
        return self.stream is not None and any(
            e.event == "stentor.ready" for e in self.stream.events)

    def step(self):
        now = time.monotonic()
        if self.stream is None:
            if now >= self.due:
                self.stream = Sse(self.port, self.channel)
            return
        if self.lost_at and self.ready():
            self.outages.append((now - self.lost_at, self.told))
            self.lost_at = None
        if not self.stream.end:
            return
        assert self.stream.status == 200, f"gives up: {self.stream}"
        if self.stream.retries:
            self.retry = self.stream.retries[-1] / 1000
        if self.lost_at is None:
            self.lost_at, self.told = now, self.retry
        else:
            self.turned_away += 1
        self.due = now + self.retry
        self.stream.close()
        self.stream = None

    def close(self):
        if self.stream:
            self.stream.close()


def turn(readers, cond, what, timeout=PATIENCE):
    end = time.monotonic() + timeout * SLOW
    while not cond():
        if time.monotonic() > end:
            raise harness.Timeout(what)
        pump_once([r.stream for r in readers if r.stream], 0.005)
        for r in readers:
            r.step()


def nginx(directory):
    config = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    text = config["configs"]["front"]["content"].replace("$$", "$")
    text = text.replace("/tmp/", f"{directory}/")
    if os.getuid() == 0:
        text = "user root;\n" + text
    return text, ["nginx", "-e", "stderr", "-g", "daemon off;", "-c"]


def haproxy(directory):
    return ((DEPLOY / "balancers/haproxy.cfg").read_text(),
            ["haproxy", "-db", "-f"])


def haproxy_plain(directory):
    """Knows nothing of /readyz: it sees whether the port is open."""
    text, argv = haproxy(directory)
    text = text.replace("  option httpchk GET /readyz\n", "")
    return text.replace(" port 8081", ""), argv


def caddy(directory):
    text = (DEPLOY / "balancers/Caddyfile").read_text()
    return "{\n\tadmin off\n\tgrace_period 1s\n}\n" + text, [
        "caddy", "run", "--adapter", "caddyfile", "--config"]


@contextlib.contextmanager
def balancer(make, directory, nodes):
    """The program with deploy/'s configuration, for these nodes."""
    port = free_ports()
    text, argv = make(directory)
    program = shutil.which(argv[0], path=WHERE)
    if program is None:
        pytest.skip(f"no {argv[0]}: deploy/setup.sh, tests/deploy/tools")
    for i, node in enumerate(nodes, 1):
        text = text.replace(f"node{i}:8080 port 8081",
                            f"node{i}:8080 port {node.admin_port}")
        text = text.replace(f"node{i}:8080", f"{LOOPBACK}:{node.port}")
    text = text.replace("bind :8080", f"bind {LOOPBACK}:{port}")
    text = text.replace("listen 8080", f"listen {LOOPBACK}:{port}")
    text = text.replace("\n:8080 {", f"\nhttp://{LOOPBACK}:{port} {{")
    path = directory / f"{argv[0]}.conf"
    path.write_text(text)
    env = {**os.environ, "HOME": str(directory)}
    with open(directory / f"{argv[0]}.log", "wb") as log:
        p = subprocess.Popen([program, *argv[1:], str(path)], env=env, stdout=log,
                             stderr=log, stdin=subprocess.DEVNULL)
    try:
        def answers():
            assert p.poll() is None, (directory / f"{argv[0]}.log").read_text()
            with contextlib.suppress(OSError):
                socket.create_connection((LOOPBACK, port), 1).close()
                return True
        wait_until(answers, what=f"{argv[0]} listens")
        yield port
    finally:
        p.send_signal(signal.SIGTERM)
        p.wait(10)


def drain(victim, how):
    if how == "sigterm":
        victim.signal(signal.SIGTERM)
    else:
        ctl(victim, "--no-wait")


def ctl(victim, *more):
    d = victim.cluster.d
    r = harness.run([harness.CTL, "--dispatcher", f"http://{d.api}", "drain",
                     *more, victim.name])
    assert r.returncode == 0, r.stderr


def held_by(node):
    return node.metric("stentor_connections")


def used_again(stack, readers, node):
    """A newcomer each second, until the balancer has noticed."""
    port, channel = readers[0].port, readers[0].channel
    for _ in range(PATIENCE):
        readers.append(stack.enter_context(contextlib.closing(
            Reader(port, channel))))
        turn(readers, readers[-1].ready, "a newcomer has a stream")
        with contextlib.suppress(harness.Timeout):
            turn(readers, lambda: held_by(node) > 0, "used again", 1)
            return
    raise harness.Timeout("the node is used again")


@pytest.mark.parametrize("how", ["sigterm", "order"])
@pytest.mark.parametrize("make", [nginx, haproxy, haproxy_plain, caddy])
def test_nobody_is_sent_back(make_cluster, channel, make, how):
    c = make_cluster(1, 2, 1, node_options={
        "drain_seconds": DRAIN, "retry_min_ms": RETRY_MS[0],
        "retry_max_ms": RETRY_MS[1]})
    victim, other = c.nodes
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(balancer(make, c.dir, c.nodes))
        readers = [stack.enter_context(contextlib.closing(
            Reader(port, channel))) for _ in range(CLIENTS)]
        turn(readers, lambda: all(r.ready() for r in readers), "all are there")
        turn(readers, lambda: sum(map(held_by, c.nodes)) == CLIENTS, "counted")
        held = held_by(victim)
        assert CLIENTS / 4 < held < CLIENTS * 3 / 4, "by least connections"
        drain(victim, how)
        turn(readers, lambda: held_by(other) == CLIENTS,
             "all have moved")
        turn(readers, lambda: all(r.ready() for r in readers), "and hear")
        moved = [r for r in readers if r.outages]
        assert len(moved) >= held
        assert max(r.turned_away for r in readers) <= 1
        outages = [o for r in moved for o in r.outages]
        mean = sum(seconds for seconds, _ in outages) / len(outages)
        told = sum(retry for _, retry in outages) / len(outages)
        assert mean <= 1.5 * told, (mean, told)
        if how == "sigterm":
            assert victim.wait_exit(DRAIN + 3) == 0
            victim.first_pids = None
        else:
            ctl(victim, "--stop")
            victim.wait_ready()
            used_again(stack, readers, victim)
