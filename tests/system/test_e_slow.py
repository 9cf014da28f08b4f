"""Peers that do not read: bounded queues, a policy, a counter, no victims."""
import os
import signal
import socket
import time

from harness import rss_kib, rss_room, wait_until
from sse import Sse, pump_once
from h2client import H2
import rpc


def worker_rss(c):
    return sum(rss_kib(p) for p in c.n.worker_pids())


def flood(c, channel, quick, until, most=4000, size=16384):
    """Publishes while `quick` keeps reading; returns how many."""
    text = "z" * size
    sent = 0
    while not until() and sent < most:
        for _ in range(10):
            c.d.grpc.publish(channel=channel, data=f"{sent} {text}")
            sent += 1
            pump_once([quick])
        # It can't be what lags: on a loaded machine it has had no turn.
        quick.wait_messages(sent, timeout=20)
    return sent


def test_slow_reader_is_bounded(make_cluster, channel):
    """Its queue fills up to the budget, then messages drop, counted."""
    c = make_cluster(1, 1, 1)
    before = worker_rss(c)
    with Sse(c.n.port, channel) as quick, \
            Sse(c.n.port, channel, rcvbuf=4096) as slow:
        quick.wait_ready()
        slow.wait_ready()

        def acted():
            m = c.n.metrics()
            return (m.total("stentor_messages_dropped_total",
                            reason="slow_consumer") > 100
                    or m.total("stentor_connections_closed_total",
                               reason="slow") >= 1)
        sent = flood(c, channel, quick, acted)
        assert acted(), f"nothing happened after {sent} messages"
        # the reader beside it lost nothing and kept the order
        quick.wait_messages(sent, timeout=20)
        assert [d.split(" ")[0] for d in quick.data()] == [
            str(i) for i in range(sent)]
        # bounded: nowhere near the bytes that were published
        assert worker_rss(c) - before < rss_room(32)
        # and what the slow one gets, once it reads, is whole and in order
        slow.wait(lambda s: s.end or len(s.messages()) > 5)
        got = [int(d.split(" ")[0]) for d in slow.data()]
        assert got == sorted(set(got))


def test_slow_reader_recovers(make_cluster, channel):
    """drop_oldest: who reads again gets the newest messages."""
    c = make_cluster(1, 1, 1)
    with Sse(c.n.port, channel) as quick, \
            Sse(c.n.port, channel, rcvbuf=4096) as slow:
        quick.wait_ready()
        slow.wait_ready()
        flood(c, channel, quick, lambda: c.n.metric(
            "stentor_messages_dropped_total",
            reason="slow_consumer") > 10)
        c.d.publish(channel, "newest")
        slow.wait_data("newest", timeout=15)
        assert not slow.end


def test_rule_close_closes(make_cluster, channel, tmp_path):
    """lagging: close sends the laggard away, with retry: where it fits."""
    config = tmp_path / "rules.yaml"
    config.write_text("rules:\n  - match: 't:*'\n    lagging: close\n")
    c = make_cluster(1, 1, 1, dispatcher_options={"config": config},
                     node_options={"config": config})
    assert c.d.channel(channel)["rule"]["lagging"] == "close"
    with Sse(c.n.port, channel) as quick, \
            Sse(c.n.port, channel, rcvbuf=4096) as slow:
        quick.wait_ready()
        slow.wait_ready()
        sent = flood(c, channel, quick, lambda: c.n.metric(
            "stentor_connections_closed_total") >= 1)
        quick.wait_messages(sent, timeout=20)
        slow.wait_end(timeout=20)
        assert slow.end in ("cut", "reset")
        got = [int(d.split(" ")[0]) for d in slow.data()]
        assert got == list(range(len(got)))  # a prefix, nothing skipped


def test_reader_that_never_reads_again_is_closed(make_cluster, channel):
    """Time without a byte taken is bounded."""
    c = make_cluster(1, 1, 1, node_options={"stall_timeout_ms": 2000,
                                           "heartbeat_ms": 1000})
    with Sse(c.n.port, channel) as quick, \
            Sse(c.n.port, channel, rcvbuf=4096) as slow:
        quick.wait_ready()
        slow.wait_ready()
        flood(c, channel, quick, lambda: c.n.metric(
            "stentor_messages_dropped_total",
            reason="slow_consumer") > 0)

        def gone():
            pump_once([quick])
            return c.n.metric("stentor_connections") == 1
        wait_until(gone, 10, "the dead reader is closed")
        c.d.publish(channel, "fine")
        quick.wait_data("fine")


def test_producer_that_never_reads(cluster, channel):
    """A gRPC client with a zero window can't make the dispatcher grow."""
    before = rss_kib(cluster.d.pid)
    frame = rpc.PublishRequest(channel=channel, data="x" * 1000)
    with H2(cluster.d.api_port, window=0) as h:
        stream = h.open_grpc(rpc.PUBLISHER + "/PublishStream")
        end = time.monotonic() + 1.5
        sent = 0
        while time.monotonic() < end and sent < 20000:
            if not h.try_message(stream, frame.SerializeToString()):
                break  # flow control pushes back, as it should
            sent += 1
            h.pump()
        with Sse(cluster.n.port, channel) as s:
            s.wait_ready()
            cluster.d.publish(channel, "others go on")
            s.wait_data("others go on")
        assert rss_kib(cluster.d.pid) - before < rss_room(48)


def test_http1_producer_that_never_reads(cluster, channel):
    """Pipelined requests whose answers nobody takes."""
    before = rss_kib(cluster.d.pid)
    body = b'{"channel":"%s","data":"x"}' % channel.encode()
    request = (b"POST /stentor.v1.PublisherService/Publish HTTP/1.1\r\n"
               b"Host: x\r\nContent-Type: application/json\r\n"
               b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    with socket.create_connection(
            ("127.0.0.1", cluster.d.api_port)) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.settimeout(0.3)
        try:
            for _ in range(400):
                s.sendall(request * 100)
        except OSError:
            pass  # pushed back or cut off: both are right
        with Sse(cluster.n.port, channel) as sub:
            sub.wait_ready()
            cluster.d.publish(channel, "others go on")
            sub.wait_data("others go on")
        assert rss_kib(cluster.d.pid) - before < rss_room(48)


def test_stopped_worker_does_not_stop_others(make_cluster, channel):
    """A worker that stops reading its link hurts only its own clients."""
    c = make_cluster(1, 2, 1)
    frozen, well = c.nodes
    with Sse(frozen.port, channel) as a, Sse(well.port, channel) as b:
        a.wait_ready()
        b.wait_ready()
        pid = frozen.worker_pids()[0]
        os.kill(pid, signal.SIGSTOP)
        try:
            before = rss_kib(c.d.pid)
            sent = flood(c, channel, b, lambda: False, most=600)
            b.wait_messages(sent, timeout=20)
            assert rss_kib(c.d.pid) - before < rss_room(48)
        finally:
            os.kill(pid, signal.SIGCONT)
        frozen.expect_deaths = True
