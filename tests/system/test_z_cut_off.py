"""Cables are cut: who is cut off says so, keeps what it can, and catches up."""
import random
import time

import pytest

from fleet import fleet, total
from harness import wait_until
from killtest import add_redis
from sse import Sse, pump_all

RULES = "rules:\n- {match: 'cut:*', history: {size: 5000, ttl: 1h}}\n"
CHANNELS = ["cut:a", "cut:b"]


class Publisher:
    """Numbers the messages of each channel; and readers who have had all."""

    def __init__(self):
        self.sent = {name: [] for name in CHANNELS}

    def publish(self, dispatcher, count):
        for _ in range(count):
            for name, sent in self.sent.items():
                dispatcher.publish(name, f"{name} {len(sent) + 1}")
                sent.append(f"{name} {len(sent) + 1}")

    def wait_all(self, streams, timeout=10):
        """Each has each channel's messages once, in order, and no gap."""
        due = sum(map(len, self.sent.values()))
        pump_all(streams, lambda: all(
            len(s.messages()) >= due for s in streams), timeout,
            f"{due} messages in each stream")
        for s in streams:
            assert not s.end
            assert not [e for e in s.events if e.event == "stentor.gap"]
            for name, sent in self.sent.items():
                assert [d for d in s.data() if d.split()[0] == name] == sent


def subscribe(node, count):
    return [Sse(node.port, *CHANNELS, host=node.place.front).wait_ready()
            for _ in range(count)]


def heard(streams, seconds=3):
    """Each stream gets a heartbeat, or something."""
    since = time.monotonic()
    pump_all(streams, lambda: all(
        s.comments and s.comments[-1][0] > since for s in streams), seconds,
        "heartbeats")


def close(streams):
    for s in streams:
        s.close()


@pytest.fixture
def cluster(lan, make_cluster):
    def make(dispatchers, **kw):
        return make_cluster(dispatchers, 2, 1, lan=lan, rules=RULES, **kw)
    return make


def test_node_cut_off_from_its_dispatcher(cluster):
    """Clients still reach it: they stay, and miss nothing."""
    c = cluster(1, store="lmdb:", node_options={"heartbeat_ms": 500})
    cut, other = c.nodes
    here, there = subscribe(cut, 20), subscribe(other, 5)
    messages = Publisher()
    messages.publish(c.d, 10)
    messages.wait_all(here + there)

    cut.place.cut("back")
    began = time.monotonic()
    messages.publish(c.d, 50)
    wait_until(lambda: cut.ready() == 503, 6, "the node is not ready")
    wait_until(lambda: c.d.ready_workers() == other.worker_names(),
               began + 6 - time.monotonic(), "it is in no routing table")
    messages.publish(c.d, 50)
    messages.wait_all(there)
    heard(here)
    assert {len(s.messages()) for s in here} == {20}

    cut.place.heal("back")
    messages.publish(c.d, 50)
    cut.wait_ready()
    messages.wait_all(here + there)
    assert cut.metric("stentor_gaps_told_total") == 0
    c.wait_ready()
    close(here + there)


def test_cut_for_a_moment(cluster):
    """Shorter than anybody notices: TCP's business, and no loss."""
    c = cluster(1, store="lmdb:")
    streams = subscribe(c.n, 5)
    messages = Publisher()
    for _ in range(3):
        c.n.place.cut("back")
        messages.publish(c.d, 20)
        c.n.place.heal("back")
        messages.publish(c.d, 20)
    messages.wait_all(streams)
    c.wait_ready()
    close(streams)


def test_dispatcher_cut_off_from_the_nodes(cluster):
    """It has the store and its producers: what it acknowledges is fetched
    through the other one."""
    c = cluster(2, start=False)
    add_redis(c)
    c.start()
    cut, other = c.dispatchers
    streams = subscribe(c.nodes[0], 10) + subscribe(c.nodes[1], 10)
    messages = Publisher()
    messages.publish(cut, 5)
    messages.publish(other, 5)
    messages.wait_all(streams)

    cut.place.cut("back")
    messages.publish(cut, 20)
    messages.publish(other, 20)
    wait_until(lambda: not cut.ready_workers(), 8, "its workers are gone")
    messages.publish(cut, 20)
    messages.wait_all(streams)
    assert [n.ready() for n in c.nodes] == [200, 200]

    cut.place.heal("back")
    c.wait_ready()
    messages.publish(cut, 20)
    messages.wait_all(streams)
    close(streams)


@pytest.mark.parametrize("cuts", [
    12, pytest.param(100, marks=[pytest.mark.long,
                                 pytest.mark.timeout(600)])])
def test_cables_cut_at_random(lan, make_cluster, cuts):
    """Of nodes and dispatchers, for a moment or longer than links live: every
    reader stays where it is and has every message, no call fails."""
    rng = random.Random(cuts)
    with fleet(make_cluster, lan, nodes=3) as f:
        f.load(200)
        heal_at = {}

        def heal(now):
            for p in [p for p, at in heal_at.items() if at <= now]:
                p.place.heal("back")
                del heal_at[p]
        for _ in range(cuts):
            p = rng.choice(f.cluster.nodes + f.cluster.dispatchers)
            p.place.cut("back")
            heal_at.setdefault(p, time.monotonic() + rng.choice(
                [rng.uniform(0.01, 0.5), rng.uniform(2, 7)]))
            pause = time.monotonic() + rng.uniform(0.1, 1.2)
            wait_until(lambda: heal(time.monotonic())
                       or time.monotonic() > pause)
        wait_until(lambda: heal(time.monotonic()) or not heal_at)
        f.cluster.wait_ready()
        report, stats = f.finish()
        assert report["errors"] == []
        assert stats["connects"] == 200, "somebody was sent away"
        assert total(f.cluster.nodes, "stentor_links_lost_total") > 0
