"""Much at once: for readers that read, far behind, or that don't read at all."""
import time

import pytest

from harness import SLOW, wait_until
from sse import Sse, pump_once

RULES = """
rules:
  - match: 'r:*'
    history: {size: 20000, ttl: 1h}
  - match: 'drop:*'
    lagging: drop_oldest
  - match: 'last:*'
    lagging: conflate
"""


@pytest.fixture
def cluster(make_cluster, tmp_path):
    def make(**node_options):
        config = tmp_path / "rules.yaml"
        config.write_text(RULES)
        return make_cluster(1, 1, 1, dispatcher_options={"config": config},
                            node_options={"config": config, **node_options})
    return make


def publish(c, channel, size, count):
    """In as few calls as may be."""
    messages = [dict(channel=channel, data=f"{i:08d} ".ljust(size, "x").encode())
                for i in range(count)]
    each = min(5000, (3 << 20) // (size + 100))
    for i in range(0, count, each):
        c.d.grpc.publish_batch(messages[i:i + each], timeout=30 * SLOW)


def numbers(stream):
    return [int(d[:8]) for d in stream.data()]


def test_far_behind_on_a_quiet_node(cluster):
    """10,000 messages: a page follows the other at once, also when nothing
    else wakes the loop."""
    c = cluster()
    with Sse(c.n.port, "r:a") as first:
        first.wait_ready()
        begin = first.last_id
    for _ in range(4):
        publish(c, "r:a", 50, 2500)
    start = time.monotonic()
    with Sse(c.n.port, "r:a", headers={"Last-Event-ID": begin}) as late:
        late.wait_messages(10000, 30 * SLOW)
        assert time.monotonic() - start < 3 * SLOW
        assert numbers(late) == [i for _ in range(4) for i in range(2500)]
        assert not [e for e in late.events if e.event == "stentor.gap"]


@pytest.mark.parametrize("channel", ["plain:a", "r:a", "drop:a", "last:a"])
@pytest.mark.parametrize("megabytes", [1, 6])
def test_burst_to_who_reads(cluster, channel, megabytes):
    """Nobody is slow whose socket was not asked, nor who was level just now."""
    c = cluster(queue_grace_ms=int(1000 * SLOW))
    count = megabytes * 500
    with Sse(c.n.port, channel) as stream:
        stream.wait_ready()
        publish(c, channel, 2000, count)
        stream.wait_messages(count, 30 * SLOW)
        assert numbers(stream) == list(range(count))
        assert not [e for e in stream.events if e.event == "stentor.gap"]
    assert c.n.metric("stentor_connections_closed_total", reason="slow") == 0


def test_readers_that_stall_give_way_together(cluster):
    """Each is within its own budget; all of them are not."""
    c = cluster(memory_max="40MiB", queue_bytes_max="1MiB",
                notsent_bytes="4KiB", stall_timeout_ms=600000)
    stalled = [Sse(c.n.port, f"plain:{i}", rcvbuf=4096) for i in range(60)]
    with Sse(c.n.port, "plain:other") as other:
        for s in (*stalled, other):
            s.wait_ready()
        limit = c.n.metric("stentor_queue_memory_max_bytes")
        assert limit == (40 << 20) // 5 * 3
        for turn in range(12):
            for i in range(len(stalled)):
                c.d.grpc.publish_batch(
                    [dict(channel=f"plain:{i}", data=b"x" * 20000)
                     for _ in range(5)], timeout=30 * SLOW)
            publish(c, "plain:other", 10, 1)
            other.wait_messages(turn + 1, 10 * SLOW)
            wait_until(lambda: c.n.metric("stentor_queue_memory_bytes")
                       <= limit, 10, "within the budget")
        assert c.n.metric("stentor_gave_way_total") > 0
        for s in stalled:
            s.close()
        wait_until(lambda: c.n.metric("stentor_queue_memory_bytes") < 1 << 20,
                   10, "it is free")
        pump_once([other])
        assert other.end is None
