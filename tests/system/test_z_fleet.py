"""Scaling and rolling, and users who do not notice."""
import signal

import pytest

from fleet import fleet, held
from harness import wait_until

READERS = 300


@pytest.fixture
def fleet2(lan, make_cluster):
    """Two dispatchers, two nodes, a balancer."""
    with fleet(make_cluster, lan) as f:
        yield f


def test_scale_out_and_in(fleet2):
    """From 2 nodes to 4 and back: every reader has every message."""
    f = fleet2
    f.load(READERS)
    old = list(f.cluster.nodes)
    added = f.scale_out(2)
    for n in old:
        n.signal(signal.SIGTERM)
    for n in old:
        assert n.wait_exit(8) == 0
    wait_until(lambda: sum(held(added)) == READERS, 10,
               "everybody is on the new nodes")
    # by the fewest connections, so they share
    assert min(held(added)) > READERS / 3, held(added)
    report, stats = f.finish()
    assert not report["errors"]
    assert stats["resumes"] >= READERS
    assert stats["open"] == READERS


def test_rolling_restart(fleet2):
    """Dispatchers, then nodes: nothing lost, and no call of a stock producer
    that retries by service config fails."""
    f = fleet2
    f.load(READERS)
    f.roll_dispatchers()
    f.roll_nodes()
    report, stats = f.finish()
    assert report["errors"] == []
    assert stats["resumes"] > READERS / 2
