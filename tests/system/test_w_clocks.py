"""Hosts whose clocks differ: what lives and how late it was is told by one."""
import glob
import os
import time

import pytest

from harness import wait_until
from sse import Sse

FAKETIME = next(iter(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")), None)
RULES = """
rules:
  - match: 'r:*'
    history: {size: 100, ttl: 1h}
"""

pytestmark = [
    pytest.mark.skipif(FAKETIME is None, reason="no libfaketime"),
    pytest.mark.skipif("asan" in os.environ.get("STENTOR_BUILD", "") or
                       "tsan" in os.environ.get("STENTOR_BUILD", ""),
                       reason="sanitizers must be loaded first")]


def at(seconds):
    """argv of a program that runs another with its wall clock ahead."""
    return ("env", f"LD_PRELOAD={FAKETIME}", f"FAKETIME={seconds:+d}s",
            "FAKETIME_DONT_FAKE_MONOTONIC=1")


@pytest.fixture(params=[10, -10])
def apart(request, make_cluster):
    c = make_cluster(1, 1, 1, rules=RULES, start=False)
    c.d.wrapper = at(-request.param)  # one process: libfaketime dislikes forks
    c.start()
    return c


def seconds_of(c, name):
    m = c.n.metrics()
    return m.total(f"{name}_sum") / m.total(f"{name}_count")


def test_clocks_differ(apart):
    """A node 10 s ahead, or behind: ttl and latency are what they are."""
    c = apart
    with Sse(c.n.port, "r:a") as s, Sse(c.n.port, "e:x") as e:
        s.wait_ready()
        e.wait_ready()
        for i in range(5):
            c.d.publish("r:a", f"m{i}", ttlMs=5000)
            c.d.publish("e:x", f"x{i}", ttlMs=5000)
        s.wait_messages(5)
        e.wait_messages(5)
        wait_until(lambda: c.n.metric("stentor_messages_delivered_total") == 10)
        assert seconds_of(c, "stentor_delivery_latency_seconds") < 1
        wait_until(lambda: 9.5 < c.n.metric("stentor_clock_skew_seconds") < 10.5)
        assert c.n.log().count('"CLOCK-SKEW"') == 1
        old = s.messages()[0].id
        # what comes back later than its time is not replayed, what is not is
        c.d.publish("r:a", "short", ttlMs=1000)
        c.d.publish("r:a", "long", ttlMs=60000)
        s.wait_data("long")
    time.sleep(1.2)  # its ttl, and no more than that
    with Sse(c.n.port, "r:a", headers={"Last-Event-ID": old}) as again:
        again.wait_data("long")
        assert "short" not in again.data()
