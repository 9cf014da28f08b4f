"""Kills and restarts under traffic over tcp and tls: no wedge afterwards.

The quick suite flaps for a few seconds; STENTOR_LONG=1 does the full 200.
"""
import random
import signal
import time

import pytest

import harness
from harness import Cluster, alive, open_fds, wait_until
from sse import Follower, Sse, follow_until
from test_f_failure import Traffic, wait_flow

TRANSPORT = pytest.mark.parametrize("transport", ["tcp", "tls"])


def flap(c, fs, rng):
    """Kills one worker or dispatcher; a dispatcher is started again."""
    if rng.random() < 0.5:
        d = rng.choice(c.dispatchers)
        d.kill()
        d.start()
        return
    n = rng.choice(c.nodes)
    pids = n.worker_pids()
    if pids:
        pid = rng.choice(pids)
        n.kill_worker(pid)
        follow_until(fs, lambda: not alive(pid), 5, "killed")


def run_flaps(c, channel, flaps, seconds, seed):
    rng = random.Random(seed)
    fs = [Follower([n.port for n in c.nodes], channel) for _ in range(6)]
    follow_until(fs, lambda: all(f.ready() for f in fs), what="all ready")
    end = time.monotonic() + seconds
    done = 0
    with Traffic(c, channel, every=0.002):
        while done < flaps and time.monotonic() < end:
            flap(c, fs, rng)
            done += 1
            pause = time.monotonic() + rng.uniform(0.05, 0.4)
            follow_until(fs, lambda: time.monotonic() > pause)
    c.wait_ready(40)
    wait_flow(c, fs, channel, 30)
    for f in fs:
        f.close()
    return done


@TRANSPORT
def test_flaps(make_cluster, channel, link_tls, transport):
    c = make_cluster(2, 1, 2, tls=link_tls if transport == "tls" else None)
    assert run_flaps(c, channel, 200, 8, seed=1) >= 8


@pytest.mark.long
@pytest.mark.timeout(1500)
@TRANSPORT
def test_200_flaps(make_cluster, channel, link_tls, transport):
    c = make_cluster(2, 2, 2, tls=link_tls if transport == "tls" else None)
    assert run_flaps(c, channel, 200, 1200, seed=2) == 200


def test_descriptors_do_not_leak(make_cluster, channel):
    """30 dispatcher restarts: the workers' descriptors stay as they were."""
    c = make_cluster(2, 1, 1)
    worker = c.n.worker_pids()[0]
    fds = open_fds(worker)
    other = open_fds(c.dispatchers[1].pid)
    for _ in range(30):
        c.d.kill()
        c.d.start(settle_ms=100).wait_ready()
    c.wait_ready()
    wait_until(lambda: open_fds(worker) <= fds + 4, 15,
               "the worker's descriptors are given back")
    assert open_fds(c.dispatchers[1].pid) <= other + 4


def test_tls_links_carry_messages(make_cluster, channel, link_tls):
    c = make_cluster(2, 1, 2, tls=link_tls)
    with Sse(c.n.port, channel) as s:
        s.wait_ready()
        for d in c.dispatchers:
            d.publish(channel, d.name * 5000)
        s.wait_messages(2)
        assert sorted(s.data()) == ["d0" * 5000, "d1" * 5000]


def test_tls_stranger_is_kept_out(make_cluster, link_tls, tmp_path):
    """A node with another CA's certificate never enters the table."""
    c = make_cluster(1, 1, 1, tls=link_tls)
    other = Cluster(0, 1, 1, tls=harness.LinkTls(tmp_path / "other"),
                    start=False)
    try:
        other.n.options["dispatchers"] = c.d.link_url
        other.n.options["name"] = "stranger"
        other.n.start()
        wait_until(lambda: other.n.ready() == 503, what="it answers")
        end = time.monotonic() + 2
        wait_until(lambda: time.monotonic() > end
                   or other.n.ready() == 200, 3)
        assert other.n.ready() == 503
        assert set(c.d.nodes()) == {"n0"}
        c.wait_ready()
    finally:
        other.n.signal(signal.SIGTERM)
        other.close()
        Cluster.live.remove(other)


def test_tls_without_certificates_is_refused(tmp_path):
    base = harness.free_ports(3)
    for options in (
            {}, {"link_tls_cert": tmp_path / "no.pem",
                 "link_tls_key": tmp_path / "no.key",
                 "link_tls_ca": tmp_path / "no.ca"}):
        r = harness.run([harness.DISPATCHER] + harness.option_list({
            "auth": "none", "api_listen": f"127.0.0.1:{base}",
            "admin_listen": f"127.0.0.1:{base + 1}",
            "link_listen": f"tls+tcp://127.0.0.1:{base + 2}", **options}),
            timeout=5)
        assert r.returncode == 78, (r.returncode, r.stderr)
        assert "tls" in r.stderr
