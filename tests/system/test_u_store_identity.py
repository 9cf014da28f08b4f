"""Stores that are emptied under a cluster, or were never there: who says that
he is ready, and who finds together again."""
import pytest

from harness import run, wait_until
from killtest import add_redis
from sse import Sse

RULES = 'rules:\n  - {match: "log:*", history: {size: 100, ttl: 1h}}\n'


@pytest.fixture
def redis(make_cluster):
    c = make_cluster(2, 2, 1, start=False, rules=RULES)
    c.redis = add_redis(c)
    c.start()
    return c


def flush(c):
    assert run(["redis-cli", "-p", c.redis.port,
                "flushall"]).stdout == "OK\n"


@pytest.mark.parametrize("restarted", [False, True])
def test_emptied_store(redis, restarted):
    """FLUSHALL takes the store's identity too. A dispatcher that starts right
    after it gives it another one: all come to the same, and no stream ends."""
    one, two = redis.dispatchers
    streams = [Sse(n.port, "log:a") for n in redis.nodes]
    for s in streams:
        s.wait_ready()
    one.publish("log:a", "1")
    for s in streams:
        s.wait_data("1")
    if restarted:
        two.kill()
        flush(redis)
        two.start()
    else:
        flush(redis)
    redis.wait_ready(20)
    for d, data in ((one, "2"), (two, "3")):
        wait_until(lambda: len(d.ready_workers()) == 2, 20, "all are linked")
        d.publish("log:a", data)
        for s in streams:
            s.wait_data(data)
    assert one.metric("stentor_store_refused_workers") == 0
    for s in streams:
        assert s.data() == ["1", "2", "3"]
        assert not s.end
        s.close()


def test_store_that_was_never_there(make_cluster):
    """Its dispatcher was ready for the time that a store may be away."""
    c = make_cluster(1, 1, 1, start=False, rules=RULES)
    redis = add_redis(c)
    redis.kill()  # before anybody has seen it
    c.n.start()
    c.d.start()
    wait_until(lambda: '"SETTLED"' in c.d.log(), what="it has settled")
    status, _, text = c.d.get("/readyz")
    assert status == 503 and b"store" in text, (status, text)
    assert '"READY"' not in c.d.log()
    redis.start().wait_ready()
    c.wait_ready()
    with Sse(c.n.port, "log:a") as s:
        s.wait_ready()
        c.d.publish("log:a", "x")
        s.wait_data("x")
