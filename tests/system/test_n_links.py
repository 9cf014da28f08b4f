"""Links that are full, and what is kept all the same."""
import os
import signal
import time

import pytest

from fakeworker import FakeWorkers
from harness import rss_kib, wait_until
from sse import Sse, pump_once
from test_n_members import log_ids

RULES = "rules:\n- {match: 'score:*', history: {size: 10000, ttl: 1h}}\n"


def test_a_worker_that_stands_still_refuses_nobody(make_cluster):
    """One node runs 1 s of every 4: no reliable publish is refused for it, and
    the node beside it sees all of them at once."""
    c = make_cluster(1, 2, 1, rules=RULES,
                     dispatcher_options={"link_queue_bytes": "64KiB"},
                     node_options={"queue_bytes_max": "16MiB"})
    pid, = c.nodes[1].worker_pids()
    text = "z" * 1500
    with Sse(c.nodes[0].port, "score:1") as sub, \
            Sse(c.nodes[1].port, "score:1") as slow:
        sub.wait_ready()
        slow.wait_ready()
        sent = 0
        for _ in range(3):
            os.kill(pid, signal.SIGSTOP)
            end = time.monotonic() + 3
            while time.monotonic() < end:
                c.d.grpc.publish(channel="score:1", data=f"{sent} {text}")
                sent += 1
                pump_once([sub])
                time.sleep(0.002)
            os.kill(pid, signal.SIGCONT)
            end = time.monotonic() + 1
            while time.monotonic() < end:
                pump_once([sub, slow])
                time.sleep(0.01)
        assert sent > 500
        assert c.d.metric("stentor_routed_full_total") > 0
        assert c.d.metric("stentor_publish_total", code="UNAVAILABLE") == 0
        sub.wait_messages(sent, timeout=5)
        wait_until(lambda: c.d.metric("stentor_links_behind") == 0, 5,
                   "it has been told")
        assert c.d.metric("stentor_moved_told_total") > 0
        slow.wait_messages(sent, timeout=40)
        assert [int(x.split(" ")[0]) for x in slow.data()] == list(range(sent))


def top_told(w):
    return max(offset for _, _, offset in w.deliveries + w.moved)


def test_a_full_link_is_told_the_newest_top(make_cluster):
    """Once it takes something again; all of the log comes after that."""
    c = make_cluster(1, 0, 0, rules=RULES,
                     dispatcher_options={"link_queue_bytes": "64KiB"})
    text = "z" * 4000
    with FakeWorkers(c.d) as fake:
        w = fake.link(fake.add("slow"), ["score:1", "score:2"])
        wait_until(lambda: c.d.ready_workers() == {("slow", 0)}, 5, "linked")
        with fake.paused():
            for i in range(400):
                c.d.grpc.publish(channel="score:1", data=f"{i} {text}")
            assert c.d.metric("stentor_links_behind") == 1
        c.d.grpc.publish(channel="score:1", data="last")
        wait_until(lambda: top_told(w) == 401, 5, "it knows of all")
        offsets = [0] + [offset for _, _, offset in w.deliveries]
        tops = {offset for _, _, offset in w.moved}
        assert tops and offsets == sorted(set(offsets)) and len(offsets) < 402
        # what did not come was told, exactly
        for last, here in zip(offsets, offsets[1:]):
            assert here == last + 1 or here - 1 in tops


def test_workers_that_take_nothing_are_bounded_together(make_cluster):
    """Many of them: the dispatcher stays within its bound, and one that takes
    what it is sent misses nothing."""
    crowd = 60
    c = make_cluster(1, 1, 1, rules=RULES, dispatcher_options={
        "link_queues_bytes_max": "64MiB"})
    text = "z" * 16000
    with FakeWorkers(c.d) as fake, Sse(c.n.port, "score:0") as sub:
        sub.wait_ready()
        workers = [fake.add(f"f{i}", takes=False) for i in range(crowd)]
        for i, w in enumerate(workers):
            # each has messages of its own, so that nothing is shared
            fake.link(w, [f"score:own{i}"])
        wait_until(lambda: len(c.d.ready_workers()) == crowd + 1, 10, "linked")
        before = rss_kib(c.d.pid)
        for _ in range(110):
            c.d.grpc.publish(channel="score:0", data=text)
            pump_once([sub])
            for i in range(crowd):
                c.d.grpc.publish(channel=f"score:own{i}", data=text)
        assert c.d.metric("stentor_link_queues_bytes") <= 64 << 20
        assert c.d.metric("stentor_link_queues_displaced_total") > 0
        assert c.d.metric("stentor_publish_total", code="OK") == \
            110 * (crowd + 1)
        sub.wait_messages(110, timeout=10)
        # 64 MiB of queues and 16 + 60 x 64 KiB under way; the store has 105
        # MiB of the messages.
        print("grown by", (rss_kib(c.d.pid) - before) >> 10, "MiB")
        assert c.d.metric("stentor_links_behind") > 0
        assert "WORKER-DOWN" not in log_ids(c.d)


@pytest.mark.long
def test_2048_workers_that_take_nothing(make_cluster):
    """What is spoken of in --link-queues-bytes-max: the whole stays below
    1 GiB, and nothing that was acknowledged is lost."""
    crowd, rounds = 2048, 24
    rules = "rules:\n- {match: 'score:*', history: {size: 1, ttl: 1h}}\n"
    c = make_cluster(1, 0, 0, rules=rules)
    text = "z" * 16000
    most = 0
    with FakeWorkers(c.d) as fake:
        workers = []
        while len(workers) < crowd:
            group = [fake.add(f"f{len(workers) + i}", takes=False)
                     for i in range(128)]
            for w in group:
                fake.link(w, ["score:all", f"score:{w.node}"], timeout=30)
            workers += group
        wait_until(lambda: len(c.d.ready_workers()) == crowd, 30, "linked")
        for _ in range(rounds):
            batch = [dict(channel="score:all", data=text)]
            for i, w in enumerate(workers):
                batch.append(dict(channel=f"score:{w.node}",
                                  data=text))
                if len(batch) == 128 or i == crowd - 1:
                    answer = c.d.grpc.publish_batch(batch)
                    assert all(r.code == 0 for r in answer.results)
                    batch = []
            most = max(most, rss_kib(c.d.pid))
        queued = c.d.metric("stentor_link_queues_bytes")
        way = c.d.metric("stentor_links_under_way_bytes")
        print(f"RSS {most >> 10} MiB, queues {queued / 2**20:.0f} MiB, "
              f"under way {way / 2**20:.0f} MiB, behind "
              f"{c.d.metric('stentor_links_behind'):.0f}")
        assert queued <= 384 << 20
        assert most < 1 << 20
        assert c.d.metric("stentor_links_behind") == crowd
        assert len(c.d.ready_workers()) == crowd
