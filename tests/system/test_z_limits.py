"""Limits of clients' ports: who exceeds one is told so, and nobody else is."""
import http.client
import json
import socket

from harness import SLOW, wait_until
from sse import Sse, pump_all


def rejected(c, reason):
    return c.n.metric("stentor_connections_rejected_total", reason=reason)


def turned_away(s):
    """200, a retry: of its own, and the end: what an EventSource survives."""
    s.wait_end()
    return s.status == 200 and s.retries and not s.events


def test_streams_of_one_address(make_cluster, channel):
    c = make_cluster(1, 1, 1,
                     node_options={"connections_per_address_max": 2})
    with Sse(c.n.port, channel) as a, Sse(c.n.port, channel) as b:
        a.wait_ready()
        b.wait_ready()
        with Sse(c.n.port, channel) as third:
            assert turned_away(third)
        assert rejected(c, "address") == 1
        with Sse(c.n.port, channel, accept="application/json") as other:
            other.wait_body()
            assert other.status == 503
        a.close()
        wait_until(lambda: c.n.metric("stentor_connections") == 1)
        with Sse(c.n.port, channel) as again:
            again.wait_ready()
        c.d.publish(channel, "m")
        b.wait_data("m")


def test_rate_of_new_streams(make_cluster, channel):
    c = make_cluster(1, 1, 1, node_options={"connection_rate_max": 5})
    streams = [Sse(c.n.port, channel) for _ in range(20)]
    pump_all(streams, lambda: all(
        s.end or any(e.event == "stentor.ready" for e in s.events)
        for s in streams))
    away = [s for s in streams if s.end]
    assert 5 <= len(streams) - len(away) < 20
    assert all(turned_away(s) for s in away)
    assert len({s.retries[0] for s in away}) > 1
    assert rejected(c, "rate") == len(away)
    for s in streams:
        s.close()


def test_subscriptions_of_a_worker(make_cluster, channel):
    c = make_cluster(1, 1, 1, node_options={"subscriptions_max": 5})
    names = [f"{channel}:{i}" for i in range(4)]
    with Sse(c.n.port, *names) as a:
        a.wait_ready()
        with Sse(c.n.port, *names) as b:
            assert turned_away(b)
        with Sse(c.n.port, channel) as one:
            one.wait_ready()


def test_connections_without_a_request(make_cluster, channel):
    """They give way, the oldest first, and a client that asks is served."""
    c = make_cluster(1, 1, 1, node_options={"heads_max": 16})
    with Sse(c.n.port, channel) as s:
        s.wait_ready()
        idle = [socket.create_connection(("127.0.0.1", c.n.port))
                for _ in range(100)]
        with Sse(c.n.port, channel) as late:
            late.wait_ready()
        wait_until(lambda: rejected(c, "heads") >= 80)
        c.d.publish(channel, "m")
        s.wait_data("m")
        idle[0].settimeout(5)
        assert idle[0].recv(1) == b""
        for x in idle:
            x.close()


# --- the API ---------------------------------------------------------------

class Producer:
    """One connection that is kept, from an address of this machine's own."""

    def __init__(self, d, address):
        self.http = http.client.HTTPConnection(
            "127.0.0.1", d.api_port, timeout=5 * SLOW,
            source_address=(address, 0))

    def publish(self, channel):
        """Whether it was answered."""
        body = json.dumps({"channel": channel, "data": "m"})
        try:
            self.http.request("POST", "/stentor.v1.PublisherService/Publish",
                              body, {"Content-Type": "application/json"})
            answer = self.http.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self.http.close()
            return False
        assert answer.status == 200
        return True

    def close(self):
        self.http.close()


def test_api_connections_of_one_address(make_cluster, channel):
    c = make_cluster(1, 0, 0, dispatcher_options={
        "api_connections_per_address_max": 3})

    def refused():
        return c.d.metric("stentor_api_connections_rejected_total",
                          reason="address")
    greedy = [Producer(c.d, "127.0.0.2") for _ in range(10)]
    well = Producer(c.d, "127.0.0.3")
    assert well.publish(channel)
    assert [p.publish(channel) for p in greedy] == [True] * 3 + [False] * 7
    assert refused() == 7
    # who was there before goes on, and who else comes gets in
    late = Producer(c.d, "127.0.0.3")
    for p in (well, late, *greedy[:3]):
        assert p.publish(channel)
    greedy[0].close()
    wait_until(lambda: greedy[9].publish(channel), what="a place is free")
    assert well.publish(channel)
    for p in (well, late, *greedy):
        p.close()
