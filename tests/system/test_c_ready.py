"""After stentor.ready, what is published through any dispatcher arrives."""
import itertools

from harness import wait_until
from sse import Sse, pump_all


def test_publish_right_after_ready_through_each(cluster22, channel):
    """Fresh channel each time, so each time the interest must travel."""
    c = cluster22
    names = (f"{channel}/{i}" for i in itertools.count())
    for turn in range(60):
        name = next(names)
        with Sse(c.nodes[turn % 2].port, name) as s:
            s.wait_ready()
            for i, d in enumerate(c.dispatchers):
                r = d.grpc.publish(channel=name, data=str(i))
                assert r.nodes == 1
            s.wait_messages(2)
            assert sorted(s.data()) == ["0", "1"]


def test_ready_again_after_the_last_left(cluster22, channel):
    """Interest withdrawn and announced again in quick succession."""
    c = cluster22
    for turn in range(60):
        with Sse(c.nodes[turn % 2].port, channel) as s:
            s.wait_ready()
            c.dispatchers[turn % 2].grpc.publish(channel=channel,
                                                 data=str(turn))
            # One that was on its way here, to who was before, may be first.
            s.wait_data(str(turn))


def test_many_at_once(cluster22, channel):
    """200 subscribers of 200 fresh channels, all confirmed, all served."""
    c = cluster22
    subs = {f"{channel}/{i}": None for i in range(200)}
    for i, name in enumerate(subs):
        subs[name] = Sse(c.nodes[i % 2].port, name)
    try:
        pump_all(list(subs.values()), lambda: all(
            any(e.event == "stentor.ready" for e in s.events)
            for s in subs.values()), what="all ready")
        for i, name in enumerate(subs):
            c.dispatchers[i % 2].grpc.publish(channel=name, data=name)
        pump_all(list(subs.values()), lambda: all(
            s.data() == [n] for n, s in subs.items()), what="all served")
    finally:
        for s in subs.values():
            s.close()


def test_latecomer_shares_an_unconfirmed_channel(cluster22, channel):
    """The second subscriber of a channel waits for the same confirmation."""
    c = cluster22
    for turn in range(40):
        name = f"{channel}/{turn}"
        pair = [Sse(c.n.port, name) for _ in range(4)]
        for s in reversed(pair):
            s.wait_ready()
            c.dispatchers[turn % 2].grpc.publish(channel=name, data="x")
            s.wait_data("x")
        for s in pair:
            s.close()


def test_dispatcher_that_comes_later(make_cluster, channel):
    """A new dispatcher routes before it says it is ready."""
    c = make_cluster(2, 1, 2, start=False)
    first, late = c.dispatchers
    first.start()
    c.n.start()
    first.wait_ready()
    c.n.wait_ready()
    subs = [Sse(c.n.port, f"{channel}/{i}").wait_ready() for i in range(50)]
    late.start().wait_ready()
    for i, s in enumerate(subs):
        late.publish(f"{channel}/{i}", str(i))
    for i, s in enumerate(subs):
        s.wait_data(str(i))
        s.close()


def test_dispatcher_that_comes_again(make_cluster, channel):
    """Killed and started: same promise, on the same address."""
    c = make_cluster(2, 1, 2)
    again = c.dispatchers[1]
    subs = [Sse(c.n.port, f"{channel}/{i}").wait_ready() for i in range(50)]
    for life in range(3):
        again.kill()
        again.start().wait_ready()
        for i, s in enumerate(subs):
            again.publish(f"{channel}/{i}", f"{life} {i}")
        for i, s in enumerate(subs):
            s.wait_data(f"{life} {i}")
    for s in subs:
        s.close()


def test_unreachable_node_does_not_hold_up_a_dispatcher(make_cluster,
                                                        channel):
    """One node that nobody can dial back is that node's trouble alone."""
    c = make_cluster(1, 2, 1, start=False)
    lost, well = c.nodes
    lost.options["link_advertise"] = "127.255.0.1"  # nobody listens there
    lost.options["link_listen"] = f"tcp://127.0.0.1:{lost.link_port}"
    for p in (lost, well, c.d):
        p.start()
    well.wait_ready()
    c.d.wait_ready(12)
    with Sse(well.port, channel) as s:
        s.wait_ready()
        c.d.publish(channel, "the others are served")
        s.wait_data("the others are served")
    assert lost.ready() == 503


def test_ready_while_a_dispatcher_is_dead(make_cluster, channel):
    """A dead dispatcher does not hold up a subscriber for ever."""
    c = make_cluster(2, 1, 1)
    c.dispatchers[1].kill()
    with Sse(c.n.port, channel) as s:
        s.wait_event("stentor.ready", timeout=4)
        c.d.publish(channel, "one is enough")
        s.wait_data("one is enough")


def test_node_without_dispatchers_is_not_ready(make_cluster, channel):
    c = make_cluster(1, 1, 1)
    c.d.kill()
    wait_until(lambda: c.n.ready() == 503, what="node is not ready")
    assert c.n.get("/livez")[0] == 200
    c.d.start()
    c.wait_ready()
    with Sse(c.n.port, channel) as s:
        s.wait_ready()
        c.d.publish(channel, "back")
        s.wait_data("back")


def test_no_dispatcher_at_start(make_cluster, channel):
    """Order of start does not matter."""
    c = make_cluster(1, 1, 2, start=False)
    c.n.start()
    wait_until(lambda: c.n.ready() == 503, what="node answers, not ready")
    c.d.start()
    c.wait_ready()
    with Sse(c.n.port, channel) as s:
        s.wait_ready()
        c.d.publish(channel, "hello")
        s.wait_data("hello")
