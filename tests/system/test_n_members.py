"""One member of a cluster decides for nobody but itself."""
import os
import signal
import time

from fakeworker import REFUSED, FakeWorkers
from harness import wait_until
from sse import Sse

RULES = "rules:\n- {match: 'score:*', history: {size: 1000, ttl: 1h}}\n"


def log_ids(process):
    return [line.get("id") for line in process.log_lines()]


# --- a dispatcher that starts ------------------------------------------------

def test_settles_without_those_it_cannot_dial(make_cluster):
    """Two nodes whose address leads nowhere keep nobody waiting."""
    c = make_cluster(1, 0, 0)
    c.d.kill()
    c.d.start(settle_ms=500)
    wait_until(lambda: c.d.ready() is not None, 10, "the port is open")
    start = time.monotonic()
    with FakeWorkers(c.d) as fake:
        for i in range(2):
            fake.add(f"lost{i}", link_address="tcp://127.0.0.1:1")
        c.d.wait_ready(5)
        assert time.monotonic() - start < 4
    settled = [line for line in c.d.log_lines() if line["id"] == "SETTLED"][-1]
    assert settled["dialling"] == 2 and settled["missed"] == 0
    c.d.publish("score:1", "x")


def test_settling_has_an_end(make_cluster):
    """One that is dialled, and never ends its snapshot, is waited for: but
    not for ever."""
    c = make_cluster(1, 0, 0)
    c.d.kill()
    c.d.start(settle_ms=100, settle_max_ms=3000)
    wait_until(lambda: c.d.ready() is not None, 10, "the port is open")
    start = time.monotonic()
    with FakeWorkers(c.d) as fake:
        w = fake.add("slow")
        wait_until(lambda: w.key, 5, "it is dialled")
        c.d.wait_ready(10)
        assert 2 < time.monotonic() - start < 6
        assert c.d.metric("stentor_settle_missed_workers") == 1


# --- one store for all -------------------------------------------------------

def test_a_stray_of_another_store_is_refused_alone(make_cluster):
    """The others' dispatcher goes on, with an alarm."""
    c = make_cluster(1, 1, 2, rules=RULES)
    with FakeWorkers(c.d) as fake, Sse(c.n.port, "score:1") as sub:
        sub.wait_ready()
        stray = fake.add("stray", store=1)
        wait_until(lambda: REFUSED["STORE"] in stray.refusals, 5,
                   "it is told why")
        assert c.d.metric("stentor_store_refused_workers") == 1
        assert "STORE-DIFFERS" in log_ids(c.d)
        for i in range(40):
            assert c.d.ready() == 200
            c.d.publish("score:1", str(i))
            time.sleep(0.05)
        sub.wait_messages(40)


def test_a_hello_alone_stops_nobody(make_cluster):
    c = make_cluster(1, 0, 0, rules=RULES)
    with FakeWorkers(c.d) as fake:
        fake.add("ghost", store=1, link_address="tcp://127.0.0.1:1")
        end = time.monotonic() + 2
        while time.monotonic() < end:
            assert c.d.ready() == 200
            c.d.publish("score:1", "x")
            time.sleep(0.05)
        assert c.d.metric("stentor_store_refused_workers") == 0
        # One that is there, and alone with it, is the majority; and stays so
        # however often it tries.
        stray = fake.add("stray", store=1)
        wait_until(lambda: c.d.ready() == 503, 5, "it is outvoted")
        for _ in range(4):
            stray.anew().say_hello()
            time.sleep(0.3)
            assert c.d.ready() == 503


# --- two of one name ---------------------------------------------------------

def test_the_younger_of_one_name_is_refused(make_cluster, channel):
    """And let in when its elder is gone or silent, but not before."""
    c = make_cluster(1, 0, 0)
    with FakeWorkers(c.d) as fake:
        old = fake.link(fake.add("twin", started=1000), [channel])
        wait_until(lambda: c.d.ready_workers() == {("twin", 0)}, 5, "linked")
        young = fake.add("twin", started=2000)
        wait_until(lambda: REFUSED["NAME"] in young.refusals, 5,
                   "the younger is told")
        assert "NAME-TAKEN" in log_ids(c.d)
        assert c.d.metric("stentor_names_taken_total") == 1
        for i in range(20):
            assert c.d.publish(channel, str(i))["nodes"] == 1
            time.sleep(0.02)
        wait_until(lambda: len(old.deliveries) == 20, 5, "none was lost")
        assert not old.refusals and not young.deliveries
        # The elder stops: it is silent, and the younger comes in.
        fake.workers.remove(old)
        start = time.monotonic()
        wait_until(lambda: young.key, 10, "the younger is let in")
        assert 2.5 < time.monotonic() - start < 7


def test_a_restarted_worker_comes_in_at_once(make_cluster, channel):
    c = make_cluster(1, 1, 1)
    pid, = c.n.worker_pids()
    c.n.kill_worker(pid)
    wait_until(lambda: c.n.worker_pids() not in ([], [pid]), 10, "restarted")
    start = time.monotonic()
    wait_until(lambda: c.d.ready_workers() == c.n.worker_names(), 10, "linked")
    assert time.monotonic() - start < 3
    assert c.d.metric("stentor_names_taken_total") == 0


# --- a routing table that is full --------------------------------------------

def channels(count):
    return [f"t:{i}" for i in range(count)]


def subscribe(c, count, per_stream=50):
    names = channels(count)
    subs = [Sse(c.n.port, *names[i:i + per_stream])
            for i in range(0, count, per_stream)]
    for s in subs:
        s.wait_ready()
    return subs


def reaches_all(c, count):
    return [i for i in range(count)
            if c.d.grpc.publish(channel=f"t:{i}", data="x").nodes != 1]


def test_a_worker_that_returns_to_a_full_table_is_whole(make_cluster):
    """Its own pairs of before are in the way, and are swept."""
    c = make_cluster(1, 1, 1, dispatcher_options={"interest_max": 1000})
    subs = subscribe(c, 600)
    assert reaches_all(c, 600) == []
    os.kill(c.d.pid, signal.SIGSTOP)
    wait_until(lambda: c.n.metric("stentor_dispatcher_links_up") == 0,
               what="the worker gives its dispatcher up")
    os.kill(c.d.pid, signal.SIGCONT)
    wait_until(lambda: c.d.ready_workers() == c.n.worker_names()
               and reaches_all(c, 600) == [], 10, "every channel routes")
    assert c.d.metric("stentor_interest_full_total") == 0
    for s in subs:
        s.close()


def test_what_does_not_fit_is_sent_everything(make_cluster):
    c = make_cluster(1, 1, 1, dispatcher_options={"interest_max": 1000})
    subs = subscribe(c, 1200)
    assert reaches_all(c, 1200) == []
    assert c.d.metric("stentor_interest_all_workers") == 1
    assert "INTEREST-FULL" in log_ids(c.d)
    for s in subs[12:]:
        s.close()
    # 600 fit: its next snapshot ends it
    wait_until(lambda: c.d.metric("stentor_interest_all_workers") == 0, 25,
               "it announces again")
    wait_until(lambda: reaches_all(c, 600) == [], 10, "every channel routes")
    assert c.d.grpc.publish(channel="t:nobody", data="x").nodes == 0
    for s in subs[:12]:
        s.close()


def test_too_many_that_do_not_fit_are_refused(make_cluster):
    """Told, rather than acknowledged and forgotten."""
    c = make_cluster(1, 0, 0, dispatcher_options={"interest_max": 1000})
    with FakeWorkers(c.d) as fake:
        crowd = [fake.add(f"n{i}") for i in range(66)]
        wait_until(lambda: all(w.key for w in crowd), 10, "linked")
        fake.link(crowd[0], channels(999))
        for w in crowd[1:]:
            fake.link(w, channels(5))
        wait_until(lambda: REFUSED["FULL"] in crowd[-1].refusals, 10,
                   "the last one is refused")
        assert c.d.metric("stentor_interest_all_workers") == 64
        assert not any(w.refusals for w in crowd[:-1])
        assert len(c.d.ready_workers()) == 65
