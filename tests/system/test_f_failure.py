"""kill -9 and SIGSTOP under traffic, and recovery."""
import os
import signal
import threading
import time

import pytest

import harness
from harness import alive, wait_until
from sse import Follower, Sse, follow_until


class Traffic:
    """Publishes numbers to a channel through any dispatcher that answers."""

    def __init__(self, cluster, channel, every=0.01):
        self.cluster, self.channel, self.every = cluster, channel, every
        self.sent = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self._stop.wait(self.every):
            for d in self.cluster.dispatchers:
                try:
                    d.publish(self.channel, str(self.sent))
                    self.sent += 1
                    break
                except (OSError, AssertionError,
                        harness.http.client.HTTPException):
                    continue

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def followers(c, channel, count=8):
    ports = [n.port for n in c.nodes]
    fs = [Follower(ports[i % len(ports):] + ports[:i % len(ports)], channel)
          for i in range(count)]
    follow_until(fs, lambda: all(f.ready() for f in fs), what="all ready")
    return fs


def wait_flow(c, fs, channel, timeout=15):
    """Fresh messages through every dispatcher reach every follower."""
    end = time.monotonic() + timeout * harness.SLOW
    for d in c.dispatchers:
        while True:  # who is just reconnecting may miss a probe, not all
            text = f"probe {time.monotonic_ns()}"
            d.publish(channel, text)
            try:
                follow_until(fs, lambda: all(text in f.data() for f in fs),
                             1, f"probe through {d.name} reaches all")
                break
            except harness.Timeout:
                if time.monotonic() > end:
                    raise


def close_all(fs):
    for f in fs:
        f.close()


def no_doubles(fs):
    for f in fs:
        got = [d for d in f.data() if d.isdigit()]
        assert len(got) == len(set(got)), "a message came twice"


def test_worker_killed(make_cluster, channel):
    c = make_cluster(2, 1, 2)
    fs = followers(c, channel)
    with Traffic(c, channel):
        for _ in range(3):
            victim = c.n.worker_pids()[0]
            restarts = c.n.metric("stentor_worker_restarts_total")
            c.n.kill_worker(victim)
            follow_until(fs, lambda: c.n.metric(
                "stentor_worker_restarts_total") == restarts + 1
                and len(c.n.worker_pids()) == 2, 15, "worker is restarted")
            follow_until(fs, lambda: c.n.ready() == 200, 10, "ready again")
            wait_flow(c, fs, channel)
        assert c.n.popen.poll() is None
    no_doubles(fs)
    close_all(fs)
    c.wait_ready()


def test_worker_restart_backs_off(make_cluster):
    """A worker that keeps dying is not restarted in a tight loop."""
    c = make_cluster(1, 1, 1)
    times = []
    for _ in range(5):
        pid = wait_until(lambda: next(iter(c.n.worker_pids()), None), 15,
                         "a worker runs")
        times.append(time.monotonic())
        c.n.kill_worker(pid)
        wait_until(lambda: not alive(pid))
    wait_until(lambda: c.n.worker_pids(), 20, "a worker runs")
    times.append(time.monotonic())
    gaps = [b - a for a, b in zip(times, times[1:])]
    assert gaps[-1] > 1.0 and gaps[-1] > 3 * gaps[0], gaps
    c.wait_ready()


def test_other_worker_goes_on(make_cluster, channel):
    """One worker's death closes only its own connections."""
    c = make_cluster(1, 1, 2)
    subs = [Sse(c.n.port, channel).wait_ready() for _ in range(40)]
    c.n.kill_worker(c.n.worker_pids()[0])
    wait_until(lambda: any(not s.pump() for s in subs), what="some end")
    c.wait_ready()
    c.d.publish(channel, "still here")
    wait_until(lambda: all(s.end or "still here" in s.data() or not s.pump()
                           for s in subs), what="the others are served")
    kept = [s for s in subs if not s.end]
    assert 5 <= len(kept) <= 35
    for s in subs:
        s.close()


def test_node_killed(make_cluster, channel):
    """Workers follow their supervisor; clients move to the other node."""
    c = make_cluster(2, 2, 2)
    victim, other = c.nodes
    fs = followers(c, channel)
    pids = victim.worker_pids()
    with Traffic(c, channel):
        victim.kill()
        wait_until(lambda: not any(alive(p) for p in pids), 5,
                   "workers end with their supervisor")
        wait_flow(c, fs, channel)
        for d in c.dispatchers:
            follow_until(fs, lambda d=d: d.ready_workers()
                         == other.worker_names(), 8, "routes without it")
        victim.start()
        follow_until(fs, lambda: victim.ready() == 200, 10, "back")
        with Sse(victim.port, channel) as s:
            s.wait_ready()
            for d in c.dispatchers:
                d.publish(channel, f"to the new one {d.name}")
                s.wait_data(f"to the new one {d.name}")
    no_doubles(fs)
    close_all(fs)
    victim.first_pids = None
    c.wait_ready()


def test_dispatcher_killed(make_cluster, channel):
    """Clients stay connected; producers use the other one."""
    c = make_cluster(2, 2, 2)
    fs = followers(c, channel)
    victim = c.dispatchers[0]
    with Traffic(c, channel):
        for _ in range(3):
            victim.kill()
            text = f"by the other {time.monotonic_ns()}"
            c.dispatchers[1].publish(channel, text)
            follow_until(fs, lambda: all(text in f.data() for f in fs),
                         5, "the other dispatcher delivers")
            victim.start()
            follow_until(fs, lambda: victim.ready() == 200, 10, "ready")
            # routes correctly from its first ready moment
            text = f"by the new {time.monotonic_ns()}"
            victim.publish(channel, text)
            follow_until(fs, lambda: all(text in f.data() for f in fs),
                         5, "the restarted dispatcher delivers")
        assert all(f.lives == 1 for f in fs), "nobody was disconnected"
    no_doubles(fs)
    close_all(fs)
    c.wait_ready()


def test_all_dispatchers_killed(make_cluster, channel):
    c = make_cluster(2, 1, 2)
    fs = followers(c, channel, 4)
    for d in c.dispatchers:
        d.kill()
    wait_until(lambda: c.n.ready() == 503, what="node is not ready")
    for d in c.dispatchers:
        d.start()
    c.wait_ready()
    wait_flow(c, fs, channel)
    assert all(f.lives == 1 for f in fs), "clients were kept"
    close_all(fs)


def test_silent_worker_leaves_the_routing_table(make_cluster, channel):
    """SIGSTOP: within 5 s no dispatcher counts on it; SIGCONT heals."""
    c = make_cluster(2, 1, 2)
    fs = followers(c, channel, 4)
    pid = c.n.worker_pids()[1]
    os.kill(pid, signal.SIGSTOP)
    t = time.monotonic()
    try:
        for d in c.dispatchers:
            wait_until(lambda d=d: len(d.ready_workers()) == 1, 5.5,
                       "the silent worker is out")
        assert time.monotonic() - t < 5.5 * harness.SLOW
    finally:
        os.kill(pid, signal.SIGCONT)
    c.wait_ready()
    wait_flow(c, fs, channel)
    close_all(fs)


def test_paused_dispatcher(make_cluster, channel):
    """A dispatcher that freezes and thaws routes right again."""
    c = make_cluster(2, 1, 2)
    fs = followers(c, channel, 4)
    frozen = c.dispatchers[0]
    frozen.signal(signal.SIGSTOP)
    try:
        # long enough for every worker to give it up
        with Sse(c.n.port, channel + "/new") as s:
            s.wait_event("stentor.ready", timeout=8)
            c.dispatchers[1].publish(channel + "/new", "x")
            s.wait_data("x")
    finally:
        frozen.signal(signal.SIGCONT)
    c.wait_ready()
    wait_flow(c, fs, channel)
    close_all(fs)


# Not SIGSEGV: a sanitizer would take ours for a finding of its own.
@pytest.mark.parametrize("signo", [signal.SIGTRAP, signal.SIGABRT])
def test_crash_is_logged(make_cluster, signo):
    c = make_cluster(1, 1, 1)
    pid = c.n.worker_pids()[0]
    c.n.kill_worker(pid, signo)
    wait_until(lambda: c.n.worker_pids() not in ([], [pid]), 10, "restart")
    assert any(str(pid) in str(r) or "worker" in str(r).lower()
               for r in c.n.log_lines()), "the death is in the log"
    c.wait_ready()
