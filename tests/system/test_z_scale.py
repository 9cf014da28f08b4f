"""Clients behind a balancer while an autoscaler, the fleet itself or an
operator moves them: all messages, once, in order."""
import math
import signal
import time

import grpc
import pytest

from fleet import CHANNEL, fleet, held, total
from harness import CTL, run, wait_until
from subscribers import Subscribers
from test_i_scaler import Keda

TARGET = 100


class Autoscaler:
    """KEDA and the HPA behind it: asks any dispatcher what the fleet holds,
    and starts and ends nodes. Scales in by one after `quiet` looks that said
    so; an error changes nothing."""

    def __init__(self, f, quiet=5, most=4):
        self.f, self.quiet, self.most = f, quiet, most
        self.keda = [Keda(d, metricName="connections", target=str(TARGET))
                     for d in f.cluster.dispatchers]
        self.looks = self.low = 0
        self.leaving = []
        spec = self.keda[0].spec()
        self.metric, self.target = spec.metricName, spec.targetSizeFloat

    def total(self):
        self.looks += 1
        keda = self.keda[self.looks % len(self.keda)]
        value = keda.value(self.metric).metricValueFloat
        assert keda.active()
        return value

    def nodes(self):
        return [n for n in self.f.cluster.nodes
                if n.running() and n not in self.leaving]

    def look(self):
        """One synchronisation of the HPA; returns how many nodes are wanted."""
        have = len(self.nodes())
        try:
            wanted = math.ceil(self.total() / self.target)
        except grpc.RpcError as e:
            assert e.code() == grpc.StatusCode.UNAVAILABLE
            return have
        wanted = min(max(wanted, 1), self.most)
        self.low = self.low + 1 if wanted < have else 0
        if wanted > have:
            self.f.scale_out(wanted - have)
        elif self.low > self.quiet:
            self.low = 0
            self.leaving.append(self.nodes()[-1])
            self.leaving[-1].signal(signal.SIGTERM)
        return wanted

    def wait_nodes(self, count):
        """Looks until there are so many nodes, all asked for."""
        def there():
            time.sleep(0.2)  # its interval
            return self.look() == len(self.nodes()) == count
        wait_until(there, 20, f"{count} nodes")


def visitors(f, count):
    """Readers who leave again."""
    return Subscribers(f.cluster.dir / "visitors.log", [f.balancer.address],
                       count, channel=CHANNEL, channels=40,
                       max_seconds=120).wait_ready()


@pytest.mark.timeout(120)
def test_autoscaler(make_cluster):
    """1 node, 3 when many come, 1 again when they have gone; those who were
    there all the time have every message."""
    with fleet(make_cluster, nodes=1) as f:
        f.load(50)
        scaler = Autoscaler(f)
        assert scaler.target == TARGET
        scaler.wait_nodes(1)
        many = visitors(f, 200)
        try:
            scaler.wait_nodes(3)
        finally:
            many.close()
        scaler.wait_nodes(1)
        for n in scaler.leaving:
            assert n.wait_exit(8) == 0
        f.finish()


def test_rebalance_after_scale_out(make_cluster):
    """The node that held everybody gives away what is above the level, and
    then all is quiet; nobody misses a message."""
    with fleet(make_cluster, nodes=1,
               node_options={"retry_min_ms": 50, "retry_max_ms": 200},
               rebalance_calm_ms=1000, rebalance_rate=200) as f:
        f.load(300)
        f.scale_out(2)
        nodes = f.cluster.nodes
        wait_until(lambda: max(held(nodes)) <= 115, 20, "level")
        # Those on their way are in nobody's sum, so it may go a bit beyond.
        wait_until(lambda: total(nodes, "stentor_streams_leaving_per_second")
                   == 0 and sum(held(nodes)) == 300, what="quiet")
        assert min(held(nodes)) >= 85, held(nodes)
        moved = total(nodes, "stentor_connections_closed_total",
                      reason="rebalance")
        assert 185 <= moved <= 285
        _, stats = f.finish()
        assert stats["connects"] == 300 + moved, "it went on"


def drain(f, *argv):
    return run([CTL, "--dispatcher", f"http://{f.cluster.d.api}", "drain",
                *argv])


def test_drain_by_order(make_cluster):
    """`stentorctl drain NODE`: empty, not ready, running, and back."""
    with fleet(make_cluster, workers=2) as f:
        f.load(200)
        node, other = f.cluster.nodes
        r = drain(f, node.name, "--time", "3s")
        assert r.returncode == 0, r.stderr
        assert f"{node.name}: 0 left" in r.stdout
        assert node.ready() == 503
        assert held([node]) == [0]
        wait_until(lambda: held([other]) == [200], what="all are there")
        assert node not in f.balancer.ready
        assert drain(f, node.name, "--stop").returncode == 0
        f.wait_in_rotation(node)
        f.cluster.wait_ready()
        f.finish()
        assert drain(f, "nobody").returncode != 0
