"""A whole installation: Redis, dispatchers, nodes, a load balancer before the
nodes, a producer, and EventSources that check everything.
"""
import contextlib
import json
import pathlib
import subprocess
import sys

import harness
from balancer import Balancer
from harness import wait_until
from killtest import add_redis
from subscribers import Subscribers

CHANNEL = "fleet:%d"
RULES = "rules:\n- {match: 'fleet:*', history: {size: 5000, ttl: 1h}}\n"
NODE_OPTIONS = {"drain_seconds": 2, "retry_min_ms": 200,
                "retry_max_ms": 1000}
_PRODUCER = pathlib.Path(__file__).with_name("producer.py")


def held(nodes):
    """Streams of each."""
    return [n.metric("stentor_connections") for n in nodes]


def total(nodes, metric, **labels):
    return sum(n.metric(metric, **labels) for n in nodes)


class Producer:
    """producer.py, publishing to all dispatchers in rotation."""

    def __init__(self, cluster, channels, rate):
        to = "ipv4:" + ",".join(d.api for d in cluster.dispatchers)
        self.popen = subprocess.Popen(
            [sys.executable, _PRODUCER, f"--to={to}", f"--channel={CHANNEL}",
             f"--channels={channels}", f"--rate={rate}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def finish(self):
        """Its report, once it has published its last."""
        out, _ = self.popen.communicate("\n", timeout=20 * harness.SLOW)
        return json.loads(out)

    def close(self):
        self.popen.kill()
        self.popen.wait()


class Fleet:
    """Make it with fleet(), which starts all but producer and readers."""

    def __init__(self, cluster, balancer, stack):
        self.cluster, self.balancer = cluster, balancer
        self._stack = stack
        self.producer = self.readers = None

    def load(self, subscribers, channels=40, rate=200):
        """Readers through the balancer, and then a producer."""
        self.readers = Subscribers(
            self.cluster.dir / "readers.log", [self.balancer.address],
            subscribers, channel=CHANNEL, channels=channels, format="mixed",
            max_seconds=600)
        self._stack.callback(self.readers.close)
        self.readers.wait_ready()
        self.produce(channels, rate)
        # What happens from here on, happens under way.
        wait_until(lambda: self.readers.stats()["messages"] > subscribers,
                   what="messages flow")

    def produce(self, channels, rate):
        self.producer = Producer(self.cluster, channels, rate)
        self._stack.callback(self.producer.close)

    def scale_out(self, count):
        """So many more nodes, ready and in rotation."""
        added = [self.cluster.add_node() for _ in range(count)]
        for n in added:
            n.start()
        for n in added:
            self.wait_in_rotation(n)
        return added

    def wait_in_rotation(self, node):
        wait_until(lambda: node in self.balancer.ready, 15,
                   f"{node.name} is in rotation")

    def roll_nodes(self):
        """Each is drained, started again and waited for, then the next."""
        for n in self.cluster.nodes:
            assert n.stop() == 0
            n.first_pids = None
            n.start().wait_ready()
            self.wait_in_rotation(n)

    def roll_dispatchers(self):
        for d in self.cluster.dispatchers:
            assert d.stop() == 0
            d.start()
            self.cluster.wait_ready()

    def finish(self):
        """(producer's report, readers' stats), after every reader has every
        message once and in order, and never saw a status but 200."""
        report = self.producer.finish()
        assert not report["misplaced"]
        r = self.readers
        wait_until(lambda: r.stats()["ready"] == r.count, 15,
                   "every reader is connected")
        r.tell_tops(report["tops"])
        with contextlib.suppress(harness.Timeout):  # what follows says more
            wait_until(lambda: not r.stats()["behind"], 15)
        stats = r.stats()
        wrong = {name: stats[name] for name in (*r.FAULTS, "gaps_told")
                 if stats[name]}
        assert not wrong, (wrong, r.log()[-2000:])
        assert min(report["tops"]) > 10, "little was at stake"
        return report, stats


@contextlib.contextmanager
def fleet(make_cluster, lan=None, dispatchers=2, nodes=2, workers=1,
          node_options=None, **dispatcher_options):
    """On hosts of their own, or on loopback. The cluster is ended by
    make_cluster, the rest when this is left."""
    c = make_cluster(dispatchers, nodes, workers, start=False, lan=lan,
                     rules=RULES,
                     node_options={**NODE_OPTIONS, **(node_options or {})},
                     dispatcher_options=dispatcher_options)
    add_redis(c)
    c.start()
    with contextlib.ExitStack() as stack:
        front = lan.front if lan else harness.LOOPBACK
        balancer = stack.enter_context(Balancer(front, c.nodes))
        f = Fleet(c, balancer, stack)
        for n in c.nodes:
            f.wait_in_rotation(n)
        yield f
