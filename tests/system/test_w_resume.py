"""Reliable channels as a client sees them: positions, resume, gaps, replay."""
import signal
import time

import pytest

from harness import rss_kib, rss_room, wait_until
from sse import Sse, pump_all, pump_once

RULES = """
rules:
  - match: 'r:small:*'
    history: {size: 5, ttl: 1h}
  - match: 'r:latest:*'
    history: {size: 100, ttl: 1h, latest: 2}
  - match: 'r:conflate:*'
    history: {size: 10000, ttl: 1h}
    lagging: conflate
  - match: 'r:drop:*'
    history: {size: 10000, ttl: 1h}
    lagging: drop_oldest
  - match: 'r:*'
    history: {size: 10000, ttl: 1h}
"""
HOSTILE = ["x", "17", "-", "AAAA", "A" * 3000, "%00", "AQAAAAA" * 40,
           "..", "_" * 64, "AQ" + "_" * 30, "\u00e9"]


@pytest.fixture
def cluster(make_cluster, tmp_path):
    def make(dispatchers=1, nodes=1, workers=1, rules=RULES, **node_options):
        config = tmp_path / "rules.yaml"
        config.write_text(rules)
        c = make_cluster(dispatchers, nodes, workers,
                         dispatcher_options={"config": config},
                         node_options={"config": config, **node_options})
        c.config = config
        return c
    return make


def resume(port, stream, **kw):
    """The same client again, elsewhere, as EventSource comes back."""
    return Sse(port, *stream.channels,
               headers={"Last-Event-ID": stream.last_id}, **kw)


def publish(c, channel, first, last):
    for i in range(first, last + 1):
        c.dispatchers[i % len(c.dispatchers)].publish(channel, f"m{i}")


def numbers(first, last):
    return [f"m{i}" for i in range(first, last + 1)]


def gaps(stream):
    return [e.json() for e in stream.events if e.event == "stentor.gap"]


def offsets(gap):
    return tuple(int(gap[k]["offset"]) for k in ("from", "to"))


def test_positions_count_from_one(cluster):
    c = cluster()
    for i in range(1, 4):
        answer = c.d.publish("r:a", f"m{i}")
        assert answer["position"]["offset"] == str(i)
    with Sse(c.n.port, "r:a", query={"format": "json"}) as s:
        ready = s.wait_event("stentor.ready").json()
        assert ready["channels"][0]["position"] == answer["position"]
        c.d.publish("r:a", "m4")
        message = s.wait_messages(1)[0]
        assert message.json()["position"] == {
            "epoch": answer["position"]["epoch"], "offset": "4"}
        assert message.id and message.id != ready


def test_resume_on_another_node(cluster):
    c = cluster(nodes=2)
    with Sse(c.nodes[0].port, "r:a") as s:
        s.wait_ready()
        publish(c, "r:a", 1, 3)
        s.wait_messages(3)
    publish(c, "r:a", 4, 6)
    with resume(c.nodes[1].port, s) as again:
        again.wait_messages(3)
        publish(c, "r:a", 7, 8)
        again.wait_messages(5)
        assert again.data() == numbers(4, 8)
        assert not gaps(again)
    assert c.nodes[1].metric("stentor_resume_total", outcome="replayed") == 1


def test_ready_alone_is_a_place(cluster):
    """A client that never got a message misses none either."""
    c = cluster()
    for first in (1, 3):  # no log yet; a log
        with Sse(c.n.port, "r:quiet") as s:
            s.wait_ready()
            assert s.last_id
        publish(c, "r:quiet", first, first + 1)
        with resume(c.n.port, s) as again:
            again.wait_messages(2)
            assert again.data() == numbers(first, first + 1)
            assert not gaps(again)


def test_query_and_header(cluster):
    c = cluster()
    with Sse(c.n.port, "r:a") as s:
        s.wait_ready()
        publish(c, "r:a", 1, 1)
        s.wait_messages(1)
        old = s.last_id
        publish(c, "r:a", 2, 2)
        s.wait_messages(2)
    with Sse(c.n.port, "r:a", query={"last_event_id": old}) as q:
        q.wait_messages(1)
        assert q.data() == ["m2"]
    # the header is newer than what the page was made with
    with Sse(c.n.port, "r:a", query={"last_event_id": old},
             headers={"Last-Event-ID": s.last_id}) as h:
        h.wait_ready()
        publish(c, "r:a", 3, 3)
        h.wait_messages(1)
        assert h.data() == ["m3"]


@pytest.mark.parametrize("form", ["raw", "json"])
def test_several_channels_with_one_id(cluster, form):
    c = cluster(nodes=2)
    names = ["r:a", "e:x", "r:b", "r:c"]
    with Sse(c.nodes[0].port, *names, query={"format": form}) as s:
        s.wait_ready()
        publish(c, "r:a", 1, 2)
        publish(c, "r:b", 1, 1)
        c.d.publish("e:x", "ephemeral")
        s.wait_messages(4)
    publish(c, "r:a", 3, 3)
    publish(c, "r:b", 2, 3)
    publish(c, "r:c", 1, 1)
    with Sse(c.nodes[1].port, *names, query={"format": form},
             headers={"Last-Event-ID": s.last_id}) as again:
        again.wait_messages(4)
        pump_once([again], 0.1)
        got = again.messages()
        assert len(got) == 4
        if form == "json":
            by = {n: [e.json()["data"] for e in got
                      if e.json()["channel"] == n] for n in names}
            assert by == {"r:a": ["m3"], "r:b": ["m2", "m3"],
                          "r:c": ["m1"], "e:x": []}
        # cut in the middle of it, the next continues there
        middle = got[1].id
    with Sse(c.nodes[0].port, *names, query={"format": form},
             headers={"Last-Event-ID": middle}) as third:
        third.wait_messages(2)
        pump_once([third], 0.1)
        assert sorted(third.data()) == sorted(e.data for e in got[2:])
    # for another list it is not valid
    with Sse(c.nodes[0].port, "r:b", "r:a",
             headers={"Last-Event-ID": s.last_id}) as other:
        other.wait_ready()
        assert [g["reason"] for g in gaps(other)] == ["malformed"] * 2


def test_too_old_is_told_exactly(cluster):
    c = cluster()
    with Sse(c.n.port, "r:small:a") as s:
        s.wait_ready()
        publish(c, "r:small:a", 1, 2)
        s.wait_messages(2)
    publish(c, "r:small:a", 3, 12)  # five are kept: 8 to 12
    with resume(c.n.port, s) as again:
        again.wait_messages(5)
        assert again.data() == numbers(8, 12)
        assert [(g["reason"], offsets(g)) for g in gaps(again)] == [
            ("expired", (3, 7))]


def test_hostile_ids(cluster):
    """Told, and given no less than a newcomer."""
    c = cluster()
    publish(c, "r:a", 1, 3)
    with Sse(c.n.port, "r:a") as good:
        good.wait_ready()
        clients = [Sse(c.n.port, "r:a", query={"last_event_id": bad})
                   for bad in HOSTILE]
        clients += [Sse(c.n.port, "r:a", headers={"Last-Event-ID": bad})
                    for bad in HOSTILE if bad.isascii()]
        for s in clients:
            s.wait_ready()
            assert [g["reason"] for g in gaps(s)] == ["malformed"], s.path
        publish(c, "r:a", 4, 4)
        for s in clients:
            s.wait_messages(4)
            assert s.data() == numbers(1, 4)
            s.close()
        good.wait_messages(1)
        assert good.data() == ["m4"]
    # they share what is read
    assert c.n.metric("stentor_replay_pages_total") <= 2
    assert c.n.metric("stentor_gaps_told_total",
                      reason="malformed") == len(clients)


def test_gap_is_told_once(cluster):
    """Its id is the place behind it: who is cut off right there and comes back
    is not told again, and gets what is kept."""
    c = cluster()
    publish(c, "r:a", 1, 3)
    with Sse(c.n.port, "r:a", query={"last_event_id": "nonsense"}) as s:
        gap = s.wait_event("stentor.gap")
        s.wait_messages(3)
        assert s.data() == numbers(1, 3)
        with Sse(c.n.port, "r:a", headers={"Last-Event-ID": gap.id}) as again:
            again.wait_messages(3)
            assert again.data() == numbers(1, 3)
            assert not gaps(again)
    # where there never was a message none can have been missed
    with Sse(c.n.port, "r:empty", query={"last_event_id": "nonsense"}) as s:
        s.wait_ready()
        assert not gaps(s)


def test_idle_channels_cost_no_reads(cluster):
    """But for the sweep, which is usually ten minutes away."""
    c = cluster(sweep_ms=600000)
    streams = [Sse(c.n.port, *[f"r:{i}:{k}" for k in range(50)])
               for i in range(20)]
    for s in streams:
        s.wait_ready()
    # what is asked when a link comes up is over
    before = [None]

    def calm():
        time.sleep(0.5)  # the metric is shown ten times a second
        now = c.n.metric("stentor_store_questions_total")
        same, before[0] = now == before[0], now
        return same
    wait_until(calm)
    time.sleep(5)
    assert c.n.metric("stentor_store_questions_total") == before[0]
    assert c.n.metric("stentor_logs") == 1000
    for s in streams:
        s.close()


def test_new_subscriber_gets_the_latest(cluster):
    c = cluster()
    with Sse(c.n.port, "r:latest:a") as s:
        s.wait_ready()
        publish(c, "r:latest:a", 1, 5)
        s.wait_messages(5)
        with Sse(c.n.port, "r:latest:a") as late:
            late.wait_messages(2)
            publish(c, "r:latest:a", 6, 6)
            late.wait_messages(3)
            assert late.data() == numbers(4, 6)
            assert not gaps(late)


def test_many_share_one_read(cluster):
    c = cluster()
    with Sse(c.n.port, "r:a") as s:
        s.wait_ready()
    publish(c, "r:a", 1, 50)
    crowd = [resume(c.n.port, s) for _ in range(100)]
    pump_all(crowd, lambda: all(len(x.messages()) >= 50 for x in crowd), 20)
    assert all(x.data() == numbers(1, 50) for x in crowd)
    assert c.n.metric("stentor_replay_pages_total") < 10
    assert c.n.metric("stentor_messages_replayed_total") == 5000
    for x in crowd:
        x.close()


def test_live_between_the_pages(cluster):
    """What is published during a long replay comes after it, once."""
    c = cluster()
    with Sse(c.n.port, "r:a") as s:
        s.wait_ready()
    publish(c, "r:a", 1, 600)
    with resume(c.n.port, s) as again:
        for i in range(601, 701):
            publish(c, "r:a", i, i)
            pump_once([again])
        again.wait_messages(700)
        pump_once([again], 0.1)
        assert again.data() == numbers(1, 700)


def test_worker_killed(cluster):
    c = cluster(workers=2)
    with Sse(c.n.port, "r:a") as s:
        s.wait_ready()
        publish(c, "r:a", 1, 3)
        s.wait_messages(3)
        for pid in c.n.worker_pids():
            c.n.kill_worker(pid)
        s.wait_end()
    publish(c, "r:a", 4, 6)
    wait_until(lambda: len(c.n.worker_pids()) == 2)
    c.n.wait_ready()
    with resume(c.n.port, s) as again:
        again.wait_messages(3)
        assert again.data() == numbers(4, 6)


# --- slow readers ----------------------------------------------------------

def flood(c, channel, quick, until, most=3000, size=16384, **fields):
    """Publishes while `quick` keeps reading; returns how many."""
    text = "z" * size
    sent = 0
    while not until() and sent < most:
        for _ in range(10):
            key = {k: v(sent) for k, v in fields.items()}
            c.d.grpc.publish(channel=channel, data=f"{sent} {text}", **key)
            sent += 1
            pump_once([quick])
        # It can't be what lags: on a loaded machine it has had no turn.
        quick.wait_messages(sent, timeout=20)
    return sent


def seen(stream):
    return [int(d.split(" ")[0]) for d in stream.data()]


def test_slow_is_closed_and_resumes(cluster):
    c = cluster()
    with Sse(c.n.port, "r:a") as quick, \
            Sse(c.n.port, "r:a", rcvbuf=4096) as slow:
        quick.wait_ready()
        slow.wait_ready()
        sent = flood(c, "r:a", quick, lambda: c.n.metric(
            "stentor_connections_closed_total", reason="slow") >= 1)
        slow.wait_end(timeout=20)
        first = seen(slow)
        assert first == list(range(len(first))) and len(first) < sent
        with resume(c.n.port, slow) as again:
            again.wait_messages(sent - len(first), timeout=30)
            assert first + seen(again) == list(range(sent))


def test_conflation_resumes_exactly(cluster):
    """Only the newest of each key while it lags; nothing newer is missing."""
    c = cluster()
    with Sse(c.n.port, "r:conflate:a") as quick, \
            Sse(c.n.port, "r:conflate:a", rcvbuf=4096) as slow:
        quick.wait_ready()
        slow.wait_ready()
        sent = flood(c, "r:conflate:a", quick, lambda: c.n.metric(
            "stentor_messages_dropped_total", reason="conflated") > 100,
            conflation_key=lambda i: f"k{i % 3}")
        quick.wait_messages(sent, timeout=20)
        assert seen(quick) == list(range(sent))  # it kept up
        slow.wait(lambda s: seen(s) and seen(s)[-1] == sent - 1, 20)
        got = seen(slow)
        assert got == sorted(set(got)) and len(got) < sent
        assert set(range(sent - 3, sent)) <= set(got)
        assert not gaps(slow)
        publish(c, "r:conflate:a", 1, 1)
        slow.wait_data("m1")
    publish(c, "r:conflate:a", 2, 2)
    with resume(c.n.port, slow) as again:
        again.wait_messages(1)
        assert again.data() == ["m2"]


def test_drop_oldest_tells_what_was_dropped(cluster):
    c = cluster()
    with Sse(c.n.port, "r:drop:a", query={"format": "json"}) as quick, \
            Sse(c.n.port, "r:drop:a", query={"format": "json"},
                rcvbuf=4096) as slow:
        quick.wait_ready()
        slow.wait_ready()
        flood(c, "r:drop:a", quick, lambda: c.n.metric(
            "stentor_messages_dropped_total", reason="slow_consumer") > 50)
        c.d.publish("r:drop:a", "end")
        slow.wait(lambda s: s.messages() and
                  s.messages()[-1].json()["data"] == "end", 20)
        # every offset is there, or told
        expected = 1
        for e in slow.events:
            if e.event == "stentor.gap":
                gap = e.json()
                assert gap["reason"] == "lagging"
                assert offsets(gap)[0] == expected
                expected = offsets(gap)[1] + 1
            elif e.event == "message":
                assert int(e.json()["position"]["offset"]) == expected
                expected += 1
        assert gaps(slow)


def test_expired_messages_are_not_written(cluster):
    # counters lag: what is published until it is seen must not be too much
    c = cluster(queue_bytes_max="64MiB")
    with Sse(c.n.port, "r:a") as quick, \
            Sse(c.n.port, "r:a", rcvbuf=4096) as slow:
        quick.wait_ready()
        slow.wait_ready()
        # fill its socket, then queue what will be too old
        flood(c, "r:a", quick, lambda: c.n.metric(
            "stentor_blocked_connections") >= 1, size=2048)
        c.d.publish("r:a", "too late", ttlMs=50)
        c.d.publish("r:a", "in time", ttlMs=600000)
        old = time.monotonic() + 0.1
        quick.wait_data("in time")
        wait_until(lambda: time.monotonic() > old)
        slow.wait_data("in time", 20)
        assert "too late" not in slow.data()
    assert c.n.metric("stentor_messages_dropped_total",
                      reason="expired") >= 1
    # nor are they replayed
    with Sse(c.n.port, "r:a", headers={
            "Last-Event-ID": quick.messages()[-3].id}) as again:
        again.wait_data("in time")
        assert again.data() == ["in time"]
        assert not gaps(again)


def test_replay_to_slow_readers_is_bounded(cluster):
    """Clients that resume and do not read hold the replay budget, no more,
    and one that reads is served meanwhile."""
    c = cluster(**{"replay_bytes_max": "1MiB"})
    with Sse(c.n.port, "r:a") as s:
        s.wait_ready()
    text = "z" * 8192
    for i in range(300):
        c.d.grpc.publish(channel="r:a", data=f"{i} {text}")
    before = sum(rss_kib(p) for p in c.n.worker_pids())
    lazy = [resume(c.n.port, s, rcvbuf=4096) for _ in range(50)]
    wait_until(lambda: c.n.metric("stentor_replay_bytes") > 0)
    with resume(c.n.port, s) as eager:
        eager.wait_messages(300, 30)
        assert seen(eager) == list(range(300))
    assert c.n.metric("stentor_replay_bytes") <= 1 << 20
    grown = sum(rss_kib(p) for p in c.n.worker_pids()) - before
    assert grown < rss_room(24)
    for x in lazy:
        x.close()


# --- rules -----------------------------------------------------------------

NO_HISTORY = "rules:\n  - match: 'n:*'\n    priority: normal\n"


def reload(c, processes, rules):
    c.config.write_text(rules)
    for p in processes:
        n = sum(r["id"] == "RELOADED" for r in p.log_lines())
        p.signal(signal.SIGHUP)
        wait_until(lambda: sum(
            r["id"] == "RELOADED" for r in p.log_lines()) > n)


@pytest.fixture
def rollout(make_cluster, tmp_path):
    """Two nodes; d and n1 read one file, n0 another: a roll-out under way."""
    paths = [tmp_path / name for name in ("old.yaml", "new.yaml")]
    for path in paths:
        path.write_text(NO_HISTORY)
    c = make_cluster(1, 2, 1, dispatcher_options={"config": paths[1]},
                     node_options={"config": paths[1]}, start=False)
    c.nodes[0].options["config"] = paths[0]
    c.start()
    c.old, c.config = paths
    return c


def test_rule_rolls_out_under_streams(rollout):
    """The dispatcher gives history to a channel before a node hears of it:
    streams of several channels go on, resume anywhere, and lose nothing."""
    c = rollout
    n0, n1 = c.nodes
    names = ["r:a", "e:x"]
    with Sse(n0.port, *names) as s, Sse(n0.port, "r:a") as alone:
        s.wait_ready()
        alone.wait_ready()
        reload(c, [c.d, n1], RULES)
        publish(c, "r:a", 1, 3)
        c.d.publish("e:x", "x1")
        s.wait_data("x1")
        s.wait_messages(4)
        alone.wait_messages(3)
        assert s.data() == numbers(1, 3) + ["x1"]
        assert alone.data() == numbers(1, 3)
        assert not s.end and not alone.end
        # to the new node and back to the one that has the old rules
        publish(c, "r:a", 4, 5)
        s.wait_messages(6)
        last = s.messages()[2].id
        for n in (n1, n0):
            with Sse(n.port, *names, headers={"Last-Event-ID": last}) as other:
                other.wait_messages(2)
                assert other.data() == numbers(4, 5)
                assert not gaps(other)
        # at last it hears of it
        c.config.write_text(RULES)
        c.old.write_text(RULES)
        n = sum(r["id"] == "RELOADED" for r in n0.log_lines())
        n0.signal(signal.SIGHUP)
        wait_until(lambda: sum(
            r["id"] == "RELOADED" for r in n0.log_lines()) > n)
        publish(c, "r:a", 6, 8)
        alone.wait_messages(8)
        assert alone.data() == numbers(1, 8)
        s.wait_messages(9)
        assert [d for d in s.data() if d != "x1"] == numbers(1, 8)
    assert n0.metric("stentor_connections_closed_total", reason="slow") == 0


def test_rule_rolls_out_to_the_node_first(rollout):
    c = rollout
    n0, n1 = c.nodes
    with Sse(n1.port, "r:a") as s:
        s.wait_ready()
        reload(c, [n1], RULES)
        c.d.publish("r:a", "before")
        s.wait_data("before")
        reload(c, [c.d], RULES)
        publish(c, "r:a", 1, 5)
        s.wait_messages(6)
        assert s.data() == ["before"] + numbers(1, 5)
        assert not gaps(s)


def test_reload_keeps_connections(cluster):
    """SIGHUP: a channel gains its history, and loses it, under a stream."""
    c = cluster(rules=NO_HISTORY)
    with Sse(c.n.port, "r:a") as s:
        s.wait_ready()
        c.d.publish("r:a", "before")
        s.wait_data("before")

        reload(c, c.processes, RULES)
        for i in range(200):
            answer = c.d.publish("r:a", f"m{i}")
        assert int(answer["position"]["offset"]) >= 1
        s.wait_data("m199")
        wait_until(lambda: c.n.metric("stentor_replays") == 0)
        c.d.publish("r:a", "now")
        assert s.wait_data("now").id
        reload(c, c.processes, NO_HISTORY)
        assert "position" not in c.d.publish("r:a", "after")
        s.wait_data("after")
        assert not s.end
        assert c.n.metric("stentor_connections_closed_total") == 0
