"""/metrics: strict format, the names of the contract, bounded labels."""
import shutil
import subprocess

import pytest

import metrics
from harness import ROOT, http_get, wait_until
from sse import Sse

NODE = """connections connections_max connections_accepted_total
connections_rejected_total connections_closed_total subscriptions channels
messages_received_total messages_delivered_total messages_dropped_total
bytes_sent_total delivery_latency_seconds_bucket send_queue_bytes
event_loop_lag_seconds_bucket draining worker_restarts_total build_info
""".split()
DISPATCHER = """publish_total publish_duration_seconds_bucket routed_total
fanout_workers_bucket nodes link_up link_queue_bytes interest_entries
grpc_server_handled_total build_info""".split()

PROMTOOL = shutil.which("promtool", path=f"{ROOT}/build/tools") \
    or shutil.which("promtool")


@pytest.fixture
def busy(cluster, channel):
    with Sse(cluster.n.port, channel) as s:
        s.wait_ready()
        cluster.d.publish(channel, "x")
        s.wait_data("x")
        yield cluster, channel


@pytest.mark.parametrize("which", ["d", "n"])
def test_format_is_strict(busy, which):
    c, channel = busy
    process = getattr(c, which)
    status, headers, body = process.get("/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    text = body.decode()
    found = metrics.check(text)
    want = NODE if which == "n" else DISPATCHER
    missing = [x for x in want if "stentor_" + x not in found.names()]
    assert not missing
    for name in ("process_cpu_seconds_total", "process_open_fds",
                 "process_resident_memory_bytes", "process_max_fds",
                 "process_start_time_seconds"):
        assert name in found.names()
    assert channel not in text, "no label holds a channel"
    assert found.total("stentor_build_info") >= 1


@pytest.mark.skipif(not PROMTOOL, reason="no promtool: run tests/deploy/tools")
@pytest.mark.parametrize("which", ["d", "n"])
def test_promtool_agrees(busy, which):
    c, _ = busy
    r = subprocess.run([PROMTOOL, "check", "metrics"],
                       input=getattr(c, which).get("/metrics")[2],
                       capture_output=True, timeout=20)
    assert r.returncode == 0, (r.stdout + r.stderr).decode()


def test_latency_is_measured(busy):
    c, channel = busy
    name = "stentor_delivery_latency_seconds"
    wait_until(lambda: c.n.metric(name + "_count") >= 1)
    m = c.n.metrics()
    assert m.total(name + "_sum") / m.total(name + "_count") < 1


def test_counters_move(busy):
    c, channel = busy
    n0, d0 = c.n.metrics(), c.d.metrics()
    c.d.publish(channel, "y" * 1000)
    for m, process, name, least in (
            (n0, c.n, "stentor_bytes_sent_total", 1000),
            (n0, c.n, "stentor_messages_delivered_total", 1),
            (d0, c.d, "stentor_publish_total", 1),
            (d0, c.d, "stentor_routed_total", 1)):
        wait_until(lambda: process.metric(name) >= m.total(name) + least,
                   what=name)


def test_bad_requests_are_counted(cluster):
    before = cluster.n.metric("stentor_connections_rejected_total")
    http_get(cluster.n.port, "/v1/subscribe")
    wait_until(lambda: cluster.n.metric(
        "stentor_connections_rejected_total") == before + 1)


def test_whole_node_is_summed(cluster22, channel):
    c = cluster22
    wait_until(lambda: c.n.metric("stentor_connections") == 0,
               what="no stream of the tests before is left")
    subs = [Sse(c.n.port, channel).wait_ready() for _ in range(20)]
    wait_until(lambda: c.n.metric("stentor_connections") == 20)
    for s in subs:
        s.close()


def test_counters_survive_a_worker(make_cluster, channel):
    """A counter of the node never goes back when a worker dies."""
    c = make_cluster(1, 1, 2)
    name = "stentor_connections_accepted_total"
    for _ in range(10):
        Sse(c.n.port, channel).wait_ready().close()
    before = c.n.metric(name)
    assert before == 10
    c.n.kill_worker(c.n.worker_pids()[0])
    wait_until(lambda: c.n.metric("stentor_worker_restarts_total") == 1)
    assert c.n.metric(name) >= before
    c.wait_ready()
    assert c.n.metric(name) >= before


def test_gauges_forget_a_dead_worker(make_cluster, channel):
    c = make_cluster(1, 1, 2)
    subs = [Sse(c.n.port, channel).wait_ready() for _ in range(20)]
    for pid in c.n.worker_pids():
        c.n.kill_worker(pid)
    wait_until(lambda: c.n.metric("stentor_connections") == 0,
               what="connections of dead workers are not counted")
    c.wait_ready()
    for s in subs:
        s.close()
