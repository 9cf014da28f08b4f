"""Stores that have less than they acknowledged: no position is given twice,
what is acknowledged after that reaches everybody, and what is lost is told to those
who have not seen it, exactly, and to nobody else."""
import contextlib
import os
import shutil
import signal
import threading

import grpc
import pytest

import harness
import killstores
from harness import LOOPBACK, wait_until
from killtest import add_redis
from relay import Relay
from sse import Sse, pump_once

RULES = "rules:\n- {match: 'log:*', history: {size: 1000, ttl: 1h}}\n"
CHANNEL = "log:a"


class Log:
    """What was acknowledged on the channel, and where: {data: place}."""

    def __init__(self):
        self.places = {}

    def publish(self, d, *messages):
        for data in messages:
            self.add(data, wait_until(lambda m=data: attempt(d, m), 20,
                                      f"{data} is acknowledged"))

    def add(self, data, answer):
        place = answer.position.epoch, answer.position.offset
        assert place not in self.places.values(), f"{place} is given twice"
        self.places[data] = place


def attempt(d, data):
    """The answer, or None: the store is away."""
    try:
        return d.grpc.publish(channel=CHANNEL, data=data, idempotency_key=data)
    except grpc.RpcError as e:
        assert e.code() == grpc.StatusCode.UNAVAILABLE, e
        return None


def names(prefix, first, last):
    return [f"{prefix}{i}" for i in range(first, last + 1)]


MORE = "and perhaps more"


def gaps(stream):
    """(reason, first, last) of each; MORE: the last can't be known."""
    told = [e.json() for e in stream.events if e.event == "stentor.gap"]
    return [(g["reason"], int(g["from"]["offset"]),
             int(g["to"]["offset"]) if g["to"]
             and g["to"]["epoch"] == g["from"]["epoch"] else MORE)
            for g in told]


def follow(n, resume=None):
    """A reader that has begun, or comes back."""
    headers = {"Last-Event-ID": resume.last_id} if resume else None
    stream = Sse(n.port, CHANNEL, headers=headers)
    stream.wait_ready()
    return stream


def check(stream, data, told=()):
    """It gets these, and then no more, and is told these gaps."""
    stream.wait_messages(len(data))
    pump_once([stream], 0.3)
    assert stream.data() == data
    assert gaps(stream) == list(told)
    assert not stream.end


# --- one Redis that restarts with less than it had (D2) -----------------------

def one_redis(make_cluster, *args):
    c = make_cluster(2, 2, 1, start=False, rules=RULES)
    c.redis = killstores.Redis(c, args=args)
    c.processes.append(c.redis)
    c.redis.start().wait_ready()
    for d in c.dispatchers:
        d.options["store"] = c.redis.url
    c.start()
    return c


def dump(redis):
    redis.ask("SAVE")


def cut_off(redis, size):
    """What came after that had not reached the disk when the power went."""
    os.truncate(newest_part(redis), size)


def newest_part(redis):
    return max((redis.data / "appendonlydir").glob("*.incr.aof"),
               key=lambda p: int(p.name.split(".")[-3]))


@pytest.mark.parametrize("keeps", ["dump", "everysec"])
def test_redis_restarts_with_less(make_cluster, keeps):
    c = one_redis(make_cluster, *(killstores.RedisEverysec.args
                                  if keeps == "everysec"
                                  else killstores.RedisRdb.args))
    log, redis = Log(), c.redis
    log.publish(c.d, *names("a", 1, 6))
    away = follow(c.n)
    level = follow(c.n)
    log.publish(c.d, "a7")
    for s in (away, level):
        check(s, ["a7"])
    away.close()
    if keeps == "dump":
        dump(redis)
    else:
        wait_until(lambda: b"a7" in newest_part(redis).read_bytes(),
                   what="it is in the file")
        size = newest_part(redis).stat().st_size
    log.publish(c.d, *names("a", 8, 10))
    check(level, names("a", 7, 10))
    redis.kill()
    if keeps == "everysec":
        cut_off(redis, size)
    redis.start().wait_ready()
    log.publish(c.d, *names("b", 0, 2))
    log.publish(c.dispatchers[1], *names("b", 3, 4))
    check(level, names("a", 7, 10) + names("b", 0, 4))
    with follow(c.n, away) as back:
        check(back, names("b", 0, 4), [("rewound", 8, 10)])
    with follow(c.nodes[1], away) as back:  # which has seen nothing
        check(back, names("b", 0, 4), [("rewound", 8, MORE)])
    assert log.places["b0"][0] > log.places["a10"][0]
    level.close()


# --- fail-overs (D1, D2) ------------------------------------------------------

@pytest.fixture
def sentinel(make_cluster):
    def make(**options):
        c = make_cluster(2, 1, 1, start=False, rules=RULES)
        c.store = killstores.Sentinel(c)
        c.store.start()
        for d in c.dispatchers:
            d.options.update(store=c.store.urls()[d.name], **options)
        c.start()
        return c
    return make


def deafen(master, *replicas):
    """They hear nothing more of it, and do not know what they miss."""
    for r in replicas:
        r.signal(signal.SIGSTOP)
    master.ask("CLIENT", "KILL", "TYPE", "replica")


def promoted(c, servers):
    def done():
        with contextlib.suppress(OSError):
            return c.store.master() in servers
    wait_until(done, 30, "one of them is master")
    return c.store.master()


def test_a_replica_that_was_deaf_is_promoted(sentinel):
    """What is acknowledged is with one replica of two; the other one becomes
    master (D1)."""
    c = sentinel(store_replicas=1)
    log, store = Log(), c.store
    master = store.master()
    near, deaf = [r for r in store.servers if r is not master]
    away, level = follow(c.n), follow(c.n)
    log.publish(c.d, *names("a", 1, 6))
    for s in (away, level):
        check(s, names("a", 1, 6))
    away.close()
    wait_until(lambda: deaf.info("replication")["slave_repl_offset"]
               == master.info("replication")["master_repl_offset"],
               what="it has heard of all that")
    deafen(master, deaf)
    log.publish(c.d, *names("a", 7, 9))
    check(level, names("a", 1, 9))
    master.kill()
    near.kill()
    deaf.signal(signal.SIGCONT)
    promoted(c, [deaf])
    for r in (master, near):
        store.restarted(r)
    log.publish(c.d, *names("b", 0, 2))
    log.publish(c.dispatchers[1], *names("b", 3, 4))
    check(level, names("a", 1, 9) + names("b", 0, 4))
    with follow(c.n, away) as back:
        check(back, names("b", 0, 4), [("rewound", 7, 9)])
    level.close()


def test_two_failovers_between_two_messages(sentinel):
    """The first one loses something, the second hides the first (D2 iii)."""
    c = sentinel()
    log, store = Log(), c.store
    master = store.master()
    replicas = [r for r in store.servers if r is not master]
    away, level = follow(c.n), follow(c.n)
    log.publish(c.d, *names("a", 1, 3))
    for s in (away, level):
        check(s, names("a", 1, 3))
    away.close()
    wait_until(lambda: all(r.info("replication")["slave_repl_offset"]
                           == master.info("replication")["master_repl_offset"]
                           for r in replicas), what="they have all that")
    deafen(master, *replicas)
    log.publish(c.d, *names("a", 4, 5))
    check(level, names("a", 1, 5))
    master.kill()
    for r in replicas:
        r.signal(signal.SIGCONT)
    second = promoted(c, replicas)
    store.restarted(master)
    wait_until(lambda: second.info("replication").get("connected_slaves")
               == "2", 30, "the old master follows")
    wait_until(store.failover, 30, "the second fail-over begins")
    promoted(c, [r for r in store.servers if r is not second])
    log.publish(c.d, *names("d", 1, 4))
    check(level, names("a", 1, 5) + names("d", 1, 4))
    with follow(c.n, away) as back:
        check(back, names("d", 1, 4), [("rewound", 4, 5)])
    level.close()


class Load:
    """Publishes all the time, each message until it is acknowledged."""

    def __init__(self, d, log):
        self.d, self.log = d, log
        self.over = threading.Event()
        self.count, self.fault = 0, None
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            while not self.over.is_set():
                self.log.publish(self.d, f"m{self.count + 1}")
                self.count += 1
        except BaseException as e:
            self.fault = e

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def more(self, count=200):
        """Until so many more are acknowledged."""
        have = self.count
        wait_until(lambda: self.fault or self.count >= have + count, 60,
                   "it goes on")
        assert self.fault is None, self.fault


def under_failovers(c, failovers):
    """Planned fail-overs under load: nothing breaks, and nobody misses or is
    told anything that is not true."""
    log = Log()
    with follow(c.n) as level:
        with Load(c.d, log) as load:
            load.more()
            for failover in failovers:
                wait_until(failover, 30, "the fail-over begins")
                load.more()
        data = names("m", 1, load.count)
        assert list(log.places) == data
        level.wait(lambda s: data[-1] in s.data(), 20, "the last has come")
        order = sorted(log.places, key=log.places.get)
        # Each once, in the order of positions. A message that was lost with
        # its master, and was appended anew, has been seen twice.
        assert [m for m in dict.fromkeys(level.data()) if m in log.places] \
            == data == order
        assert len(set(e.id for e in level.messages())) \
            == len(level.messages())
        assert not gaps(level)


def test_planned_failovers_with_replicas(sentinel):
    """Positions were given twice in each (D2 v)."""
    c = sentinel(store_replicas=1)
    under_failovers(c, [c.store.failover] * 2)


def test_fail_back_to_a_server_whose_connection_stands(make_cluster):
    """Of a Redis Cluster, there and back while what was known of the server is
    no older than its answers may be (D2 iv)."""
    c = make_cluster(2, 1, 1, start=False, rules=RULES)
    c.store = killstores.Cluster(c)
    c.store.start()
    for d in c.dispatchers:
        d.options["store"] = c.store.urls()[d.name]
    c.start()
    slot = int(c.store.servers[0].ask("CLUSTER", "KEYSLOT", CHANNEL))

    def owner():
        for line in c.store.servers[0].ask("CLUSTER", "NODES").splitlines():
            words = line.split()
            for part in words[8:]:
                first, _, last = part.partition("-")
                if "master" in words[2] and first.isdigit() and \
                        int(first) <= slot <= int(last or first):
                    return int(words[1].partition("@")[0].rpartition(":")[2])

    def moves(master):
        """Within a while; a fail-over may be given up."""
        with contextlib.suppress(harness.Timeout):
            return wait_until(lambda: owner() not in (None, master), 6)

    def failover():
        master = owner()
        for r in c.store.role("slave"):
            if r.info("replication").get("master_port") == str(master):
                return "OK" in r.ask("CLUSTER", "FAILOVER") and moves(master)
    under_failovers(c, [failover] * 4)


# --- what is remembered beside the log ----------------------------------------

@pytest.mark.parametrize("first", ["the retry", "another"])
@pytest.mark.parametrize("kind", [killstores.OneRedis,
                                  killstores.RedisEverysec])
def test_a_retry_after_the_master_has_died(make_cluster, kind, first):
    """It has appended the message, but nobody has heard so: the retry finds
    the answer, and the message is where the answer says (D23). It has lost
    nothing either way; without fsync nobody can know that."""
    with Relay() as relay:
        c = make_cluster(1, 1, 1, start=False, rules=RULES)
        redis = killstores.Redis(c, args=kind.args)
        c.processes.append(redis)
        redis.start().wait_ready()
        port = relay.add("store", (LOOPBACK, 0), (LOOPBACK, redis.port))
        c.d.options["store"] = f"redis://{LOOPBACK}:{port}"
        c.start()
        log = Log()
        with follow(c.n) as level:
            log.publish(c.d, "1", "2")
            check(level, ["1", "2"])
            relay.set("store", hold="back")
            codes = []

            def publish():
                codes.append(attempt(c.d, "3"))
            caller = threading.Thread(target=publish)
            caller.start()
            wait_until(lambda: length(redis) == 3, what="it is appended")
            redis.kill()
            relay.cut("store")
            relay.set("store", hold="")
            caller.join()
            assert codes == [None]
            redis.start().wait_ready()
            later = ["3", "4"] if first == "the retry" else ["4", "3"]
            log.publish(c.d, *later)
            check(level, ["1", "2", "3", "4"])
        kept = {m["data"]: m for m in c.d.history(CHANNEL)["messages"]}
        assert sorted(kept) == ["1", "2", "3", "4"]
        assert [m["data"] for m in c.d.history(CHANNEL)["messages"]] == [
            "1", "2", "3", "4"]
        for data in later:
            assert int(kept[data]["position"]["offset"]) \
                == log.places[data][1]


def length(redis):
    """Messages of the only log."""
    for key in redis.ask("KEYS", "*").splitlines():
        if redis.ask("TYPE", key) == "stream":
            return int(redis.ask("XLEN", key))
    return 0


# --- an embedded store that is put back to a copy -----------------------------

class Copy:
    """Of an LMDB store's directory, as it is now."""

    def __init__(self, c):
        self.c = c
        self.path, self.copy = c.dir / "store", c.dir / "copy"
        c.d.signal(signal.SIGSTOP)
        try:
            shutil.copytree(self.path, self.copy)
        finally:
            c.d.signal(signal.SIGCONT)

    def put_back(self, **start):
        self.c.d.kill()
        shutil.rmtree(self.path)
        shutil.copytree(self.copy, self.path)
        self.c.d.close_grpc()
        self.c.d.start(**start)
        self.c.d.wait_ready()


def test_pages_of_what_is_lost_are_not_served(make_cluster):
    """A node has read what others missed, and keeps it for a while: not when
    the store goes back behind it (D9)."""
    c = make_cluster(1, 1, 1, store="lmdb:", rules=RULES)
    log = Log()
    away, level = follow(c.n), follow(c.n)
    log.publish(c.d, *names("m", 1, 5))
    for s in (away, level):
        check(s, names("m", 1, 5))
    away.close()
    log.publish(c.d, *names("m", 6, 7))
    copy = Copy(c)
    log.publish(c.d, *names("m", 8, 9))
    check(level, names("m", 1, 9))
    with follow(c.n, away) as other:
        check(other, names("m", 6, 9))  # the pages are read
    assert c.n.metric("stentor_replay_pages_total") == 1
    copy.put_back()
    log.publish(c.d, *names("n", 8, 10))
    # The link has ended with the dispatcher: there may have been a tenth.
    check(level, names("m", 1, 9) + names("n", 8, 10), [("rewound", 10, MORE)])
    with follow(c.n, away) as back:
        check(back, names("m", 6, 7) + names("n", 8, 10),
              [("rewound", 8, MORE)])
    level.close()


@pytest.fixture
def apart(make_cluster):
    """apart(2, 2): nodes and dispatchers with a relay between each two."""
    with contextlib.ExitStack() as stack:
        relay = stack.enter_context(Relay())

        def make(dispatchers, nodes, **kw):
            c = make_cluster(dispatchers, nodes, 1, start=False, rules=RULES,
                             **kw)
            c.relay = relay
            for i, n in enumerate(c.nodes):
                n.options["dispatchers"] = ",".join(
                    "tcp://%s:%d" % (LOOPBACK, relay.add(
                        f"{n.name}>{d.name}", (LOOPBACK, 0),
                        (LOOPBACK, d.link_port))) for d in c.dispatchers)
                n.options["link_advertise"] = f"127.0.{i + 1}.1"
                relay.add(f"?>{n.name}", (f"127.0.{i + 1}.1", n.link_port),
                          (LOOPBACK, n.link_port))
            return c
        yield make


def cut_links(c, n, d, **state):
    """Both directions of a node's link with a dispatcher."""
    for route in (f"{n.name}>{d.name}", f"{d.name}>{n.name}"):
        c.relay.set(route, **state)


def test_a_client_ahead_of_what_its_node_has(apart):
    """It has seen 9 on another node; this one is at 5 when the store loses 8
    and 9, and gives others to those who come then (D10)."""
    c = apart(1, 2, store="lmdb:")
    c.start()
    log, behind = Log(), c.nodes[1]
    ahead, level = follow(c.n), follow(behind)
    log.publish(c.d, *names("m", 1, 5))
    for s in (ahead, level):
        check(s, names("m", 1, 5))
    cut_links(c, behind, c.d, hold="both")
    c.relay.cut(f"*{behind.name}*")  # what is on its way is lost, too
    log.publish(c.d, *names("m", 6, 7))
    copy = Copy(c)
    log.publish(c.d, *names("m", 8, 9))
    check(ahead, names("m", 1, 9))
    ahead.close()
    moved = Sse(behind.port, CHANNEL,
                headers={"Last-Event-ID": ahead.last_id})
    copy.put_back()
    log.publish(c.d, *names("n", 8, 9))
    cut_links(c, behind, c.d, hold="")
    moved.wait_ready()
    check(moved, names("n", 8, 9), [("rewound", 10, MORE)])
    check(level, names("m", 1, 7) + names("n", 8, 9), [("rewound", 8, MORE)])
    moved.close()
    level.close()


# --- a store that is emptied (D21) --------------------------------------------

@pytest.mark.parametrize("looks", [False, True])
@pytest.mark.parametrize("link", ["ends", "recovers"])
def test_emptied_while_a_dispatcher_is_out_of_reach(apart, link, looks):
    """What it has acknowledged, and nobody has seen, is gone: that no news came
    does not prove that there was none. It is told when the link has ended, by
    which the message may have been on its way; or exactly, when it comes. Also
    where the node has looked before there was a log again."""
    c = apart(2, 1)
    near, far = c.dispatchers
    redis = add_redis(c)
    for d in c.dispatchers:
        port = c.relay.add(f"{d.name}>store", (LOOPBACK, 0),
                           (LOOPBACK, redis.port))
        d.options["store"] = f"redis://{LOOPBACK}:{port}"
    if looks:
        c.n.options["sweep_ms"] = 1000
        c.may_sweep = True
    c.start()
    log = Log()
    level = follow(c.n)
    log.publish(near, "1")
    log.publish(far, "2")
    check(level, ["1", "2"])
    if looks:
        # The next one is asked of the near one, and is answered.
        asked = far.metric("stentor_history_questions_total")
        wait_until(lambda: far.metric("stentor_history_questions_total")
                   > asked, what="its turn is over")
        moved = c.n.metric("stentor_log_moved_total")
    cut_links(c, c.n, far, hold="both")
    c.relay.set(f"{near.name}>store", hold="both", refuse=True)
    c.relay.cut(f"{near.name}>store")
    log.publish(far, "3")
    redis.ask("FLUSHALL")
    c.relay.set(f"{near.name}>store", hold="", refuse=False)
    if looks:
        wait_until(lambda: c.n.metric("stentor_log_moved_total") > moved,
                   what="it has seen that there is none")
    log.publish(near, "4")
    level.wait_data("4", 20)
    if link == "recovers":
        cut_links(c, c.n, far, hold="")
    level.wait_event("stentor.gap")
    told = gaps(level)
    # Exactly, unless the node was in doubt before.
    assert told == [("epoch", 3, MORE)] or \
        link == "recovers" and told == [("epoch", 3, 3)], told
    check(level, ["1", "2", "4"], told)
    cut_links(c, c.n, far, hold="")
    c.wait_ready(20)
    log.publish(far, "5")
    check(level, ["1", "2", "4", "5"], told)
    level.close()
