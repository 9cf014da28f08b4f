"""Two dispatchers, two nodes of two workers: who gets what."""
from harness import wait_until
from sse import Sse


def spread(c, channel, per_node):
    subs = []
    for n in c.nodes:
        subs += [Sse(n.port, channel) for _ in range(per_node)]
    for s in subs:
        s.wait_ready()
    return subs


def test_everybody_gets_everything_once(cluster22, channel):
    c = cluster22
    subs = spread(c, channel, 20)
    for i in range(50):
        c.dispatchers[i % 2].publish(channel, str(i))
    for s in subs:
        s.wait_messages(50)
        assert sorted(s.data(), key=int) == [str(i) for i in range(50)]
        # each dispatcher's own order is kept
        for first in (0, 1):
            mine = [int(x) for x in s.data() if int(x) % 2 == first]
            assert mine == sorted(mine)
    for s in subs:
        s.close()


def test_every_worker_has_a_share(cluster22, channel):
    """SO_REUSEPORT spreads the connections over both workers."""
    c = cluster22
    subs = spread(c, channel, 40)
    answer = c.d.channel(channel)
    assert int(answer["subscribers"]) == 80
    assert answer["nodes"] == 2 and answer["workers"] == 4
    for s in subs:
        s.close()


def routed(c):
    """Messages each worker was sent, as dispatcher 0 counts them."""
    return {(name, w.get("index", 0)): int(w.get("messagesSent", 0))
            for name, n in c.d.nodes().items()
            for w in n["workers"]}


def test_only_interested_workers(cluster22, channel):
    c = cluster22
    with Sse(c.nodes[1].port, channel) as s:
        s.wait_ready()
        before = routed(c)
        total = c.d.metric("stentor_routed_total")
        for i in range(10):
            assert c.d.publish(channel, str(i))["nodes"] == 1
        s.wait_messages(10)
        after = routed(c)
        grown = {k: after[k] - before[k] for k in after
                 if after[k] != before[k]}
        assert list(grown.values()) == [10], grown
        assert {k[0] for k in grown} == {"n1"}
        assert c.d.metric("stentor_routed_total") == total + 10
    # nobody listens: nothing is sent at all
    wait_until(lambda: c.d.channel(channel).get("workers", 0) == 0)
    before = routed(c)
    assert c.d.publish(channel, "nobody").get("nodes", 0) == 0
    assert routed(c) == before


def test_list_nodes(cluster22):
    for d in cluster22.dispatchers:
        nodes = d.nodes()
        assert set(nodes) == {"n0", "n1"}
        for name, node in nodes.items():
            assert node["version"]
            port = cluster22.nodes[int(name[1])].port
            assert node["listenAddress"].endswith(f":{port}")
            assert sorted(w.get("index", 0)
                          for w in node["workers"]) == [0, 1]
            assert all(w["state"] == "WORKER_STATE_READY"
                       for w in node["workers"])
        status, answer = d.call("stentor.v1.ClusterService/ListNodes", {})
        assert answer["dispatcher"] == d.name


def test_link_metrics(cluster22):
    for d in cluster22.dispatchers:
        m = d.metrics()
        for n in ("n0", "n1"):
            for w in (0, 1):
                assert m.total("stentor_link_up", node=n, worker=w) == 1
        assert m.total("stentor_nodes", state="ready") in (2, 4)


def test_delivered_counters(cluster22, channel):
    c = cluster22
    subs = spread(c, channel, 3)
    names = ("stentor_messages_delivered_total",
             "stentor_messages_received_total")
    before = {(n.name, x): n.metric(x) for n in c.nodes for x in names}
    c.d.publish(channel, "x")
    for s in subs:
        s.wait_data("x")
    for n in c.nodes:
        wait_until(lambda n=n: n.metric(names[0])
                   == before[n.name, names[0]] + 3, what="3 delivered")
        got = n.metric(names[1]) - before[n.name, names[1]]
        assert 1 <= got <= 2  # once per interested worker
    for s in subs:
        s.close()


def test_connections_reach_list_nodes(cluster22, channel):
    c = cluster22

    def told(count):
        wait_until(lambda: int(c.d.nodes()["n0"].get("connections", 0))
                   == count, 8, f"heartbeats carry the count of {count}")
    told(0)  # the streams of tests before are gone
    subs = [Sse(c.n.port, channel).wait_ready() for _ in range(7)]
    told(7)
    for s in subs:
        s.close()


def test_dispatchers_by_name(make_cluster, channel):
    c = make_cluster(1, 1, 1, start=False)
    c.d.start(settle_ms=200)
    # A name that also resolves to an address where nobody listens.
    c.n.start(dispatchers=f"dns:localhost:{c.d.link_port}", resolve_ms=200)
    c.wait_ready()
    with Sse(c.n.port, channel) as s:
        s.wait_ready()
        c.d.publish(channel, "found")
        assert s.wait_messages(1)
        assert s.data() == ["found"]
    assert c.d.stop() == 0
    wait_until(lambda: c.n.ready() == 503, what="the node to notice")
    c.d.start(settle_ms=200)
    c.wait_ready()
