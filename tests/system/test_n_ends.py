"""Everything ends at once, again and again: in order, and by no signal."""
import signal

import pytest

import harness


def round_of(c):
    """Starts all, and ends all at once as soon as every link stands."""
    workers = set().union(*(n.worker_names() for n in c.nodes))
    for p in c.processes:
        p.start(**({"settle_ms": 0} if p in c.dispatchers else {}))
    harness.wait_until(lambda: all(
        d.ready() and d.ready_workers() == workers for d in c.dispatchers),
        what="links")
    harness.wait_until(lambda: all(n.ready() for n in c.nodes))
    for p in c.processes:
        p.signal(signal.SIGTERM)
    for p in c.processes:
        p.wait_exit()


def ended_ill(c):
    found = [f"{p.name}: {p.popen.returncode}" for p in c.processes
             if p.popen.returncode != 0]
    return found + [r for n in c.nodes for r in n.log_lines() if r["id"] in (
        "WORKER-EXIT", "CHECK-FAILED", "NNG-STUCK")]


@pytest.mark.parametrize("rounds", [
    20, pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_starts_and_ends(make_cluster, rounds):
    c = make_cluster(2, 2, 2, start=False)
    for _ in range(rounds):
        round_of(c)
        assert not ended_ill(c)
