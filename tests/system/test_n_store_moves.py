"""What was appended reaches everybody, whoever waits, and by whomever it was."""
import os
import signal
import threading

import grpc
import pytest

import rpc
from harness import wait_until
from killstores import add_redis
from sse import Sse

RULES = "rules:\n- {match: 'score:*', history: {size: 1000, ttl: 1h}}\n"


@pytest.fixture
def shared(make_cluster):
    """Two dispatchers with one Redis; nothing but that runs."""
    c = make_cluster(2, 1, 1, start=False, rules=RULES)
    c.redis = add_redis(c)
    return c


def test_what_redis_took_too_late_is_routed(shared):
    """The caller was told that it is not known; readers see it all the same,
    as soon as it is there, and the retry adds nothing."""
    c = shared
    c.start()
    with Sse(c.n.port, "score:1") as sub:
        sub.wait_ready()
        c.d.publish("score:1", "first")
        sub.wait_data("first")
        os.kill(c.redis.pid, signal.SIGSTOP)
        codes = []

        def publish():
            try:
                c.d.grpc.publish(channel="score:1", data="late",
                                 idempotency_key="k")
            except grpc.RpcError as e:
                codes.append(e.code())
        caller = threading.Thread(target=publish)
        caller.start()
        caller.join(rpc.TIMEOUT)
        os.kill(c.redis.pid, signal.SIGCONT)
        assert codes == [grpc.StatusCode.UNAVAILABLE]
        sub.wait_messages(2, 1.5)
        assert sub.data() == ["first", "late"]
        wait_until(lambda: c.d.ready() == 200, 5, "Redis is back")
        c.d.grpc.publish(channel="score:1", data="late", idempotency_key="k")
        c.d.grpc.publish(channel="score:1", data="next")
        sub.wait_data("next")
        assert sub.data() == ["first", "late", "next"]


def test_a_dispatcher_that_sees_nobody(shared, channel):
    """While another one of its store sees the nodes: not ready, ephemeral
    messages are refused, reliable ones reach everybody at once."""
    c = shared
    blind, other = c.dispatchers
    c.n.options["dispatchers"] = other.link_url
    for d in c.dispatchers:
        d.start(settle_ms=200)
    c.n.start()
    c.n.wait_ready()
    c.n.first_pids = c.n.worker_pids()
    wait_until(lambda: blind.ready() == 503 and b"cut off from most"
               in blind.get("/readyz")[2], 10, "it says why")
    wait_until(lambda: other.ready() == 200, 5, "the other one is ready")
    with Sse(c.n.port, "score:1", channel) as sub:
        sub.wait_ready()
        for i in range(20):
            blind.grpc.publish(channel="score:1", data=str(i))
            sub.wait_messages(i + 1, 1)
        assert sub.data() == [str(i) for i in range(20)]
        with pytest.raises(grpc.RpcError) as e:
            blind.grpc.publish(channel=channel, data="lost")
        assert e.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "lost sight" in e.value.details()
        other.grpc.publish(channel=channel, data="not lost")
        sub.wait_data("not lost")
    assert other.metric("stentor_moved_told_total") > 0
    # Its peer goes: there is nobody who would know better.
    other.kill()
    wait_until(lambda: blind.ready() == 200, 20, "it is as good as any")
