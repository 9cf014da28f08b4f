"""The kill test's faults, as a table: what each does, to which stores, how it
heals, and how often it comes.

A row is a function of Faults that does it once and returns a Fault, or None
where it can't be done now. Everything is chosen by the seed. Faults overlap in
a mixed run; alone (`--only`) one follows another when that has healed.
"""
import collections
import contextlib
import dataclasses
import glob
import heapq
import os
import pathlib
import random
import signal
import subprocess
import time

FAKETIME = next(iter(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")), None)
CLOCK_SECONDS = 10
MARGIN = 0.05  # a store's answer and its loss are told apart no finer


@dataclasses.dataclass
class Fault:
    target: str         # busy until it is healed
    heal: object = None  # what heals it; None: it is over
    low: float = 0.5    # seconds until then
    high: float = 3.0
    lost: bool = False  # the store may have gone back, from now on to the end


@dataclasses.dataclass
class Row:
    name: str
    do: object
    weight: int
    when: object  # test -> may it be?
    text: str


TABLE = {}


def fault(name, weight=2, when=lambda test: True):
    def add(do):
        TABLE[name] = Row(name, do, weight, when, do.__doc__.split("\n\n")[0])
        return do
    return add


def signal_all(pids, signo):
    """The supervisor is the first of a node's: it starts nobody anew."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signo)


class Faults:
    """Chooses, does and heals."""

    def __init__(self, test, only=None, but=None):
        self.test, self.cluster, self.store = test, test.cluster, test.store
        self.rng = random.Random(f"{test.seed} faults")
        self.rows = [r for r in TABLE.values() if r.when(test)
                     and (not only or r.name in only)
                     and r.name not in (but or ())]
        assert self.rows, f"none of {only} with this store"
        self.alone = only is not None and len(self.rows) == 1
        self.heals = []    # heap of (time, number, row name, Fault, begin)
        self.count = 0
        self.busy = set()  # what is down or stands still
        self.done = collections.Counter()
        self.history = []
        self.spans = []    # (name, begin, end, lost)
        self.begun = time.monotonic()

    def run(self, seconds):
        """Faults for so long; then all is well again."""
        end = time.monotonic() + seconds
        due = time.monotonic() + self.rng.uniform(1, 2)
        while time.monotonic() < end:
            wake = min([due, end] + [h[0] for h in self.heals[:1]])
            time.sleep(max(0, wake - time.monotonic()))
            if self.heal_due(time.monotonic()) and self.alone:
                due = time.monotonic() + self.rng.uniform(4, 7)
            if time.monotonic() >= due and not (self.alone and self.heals):
                self.one()
                due = time.monotonic() + (self.rng.uniform(4, 7) if self.alone
                                          else self.rng.uniform(1, 4))
            elif time.monotonic() >= due:
                due = time.monotonic() + 0.1
            self.test.check_producers()
        self.heal_due(float("inf"))

    def choose(self):
        """By weight; but a store that can go back has done so in the shortest
        of runs."""
        loss = TABLE["store-loss"]
        if loss in self.rows and not self.done[loss.name]:
            return loss
        return self.rng.choices(self.rows, [r.weight for r in self.rows])[0]

    def one(self):
        row = self.choose()
        begin = time.monotonic()
        made = row.do(self)
        if made is None:
            return
        self.done[row.name] += 1
        self.history.append(
            f"{begin - self.begun:7.2f} {begin:.2f} {row.name} {made.target}")
        if made.heal is None:
            self.over(row.name, made, begin)
            return
        self.count += 1
        self.busy.add(made.target)
        heapq.heappush(self.heals, (
            time.monotonic() + self.rng.uniform(made.low, made.high),
            self.count, row.name, made, begin))

    def heal_due(self, now):
        any_ = False
        while self.heals and self.heals[0][0] <= now:
            _, _, name, made, begin = heapq.heappop(self.heals)
            self.busy.discard(made.target)
            made.heal()
            self.over(name, made, begin)
            any_ = True
        return any_

    def over(self, name, made, begin):
        self.spans.append((name, begin - MARGIN, time.monotonic() + MARGIN,
                           made.lost))

    # --- what rows use ---

    def pick(self, processes):
        """One that runs and is not being broken; None."""
        free = [p for p in processes
                if p.name not in self.busy and p.running()]
        return self.rng.choice(free) if free else None

    def worker(self):
        """A node and the pid of one of its workers; (None, None)."""
        node = self.pick(self.cluster.nodes)
        workers = node.worker_pids() if node else None
        return (node, self.rng.choice(workers)) if workers else (None, None)

    def killed(self, process, pids, lost=False):
        signal_all(pids, signal.SIGKILL)
        process.popen.wait()
        return Fault(process.name, process.start, lost=lost)

    def stopped(self, process, pids, target=None, low=1, high=6):
        signal_all(pids, signal.SIGSTOP)
        return Fault(target or process.name,
                     lambda: signal_all(pids, signal.SIGCONT), low, high)

    def ended(self, process, start=None):
        """SIGTERM; started again once it has ended, however long that takes."""
        process.signal(signal.SIGTERM)

        def again():
            # One of its workers may stand still; that is not healed meanwhile.
            if process in self.cluster.nodes:
                signal_all(process.worker_pids(), signal.SIGCONT)
            process.wait_exit(20)
            (start or process.start)()
        return Fault(process.name, again)

    def other(self, process, env=None, binary=None):
        """Started again as something else, and healed by being itself."""
        def start(new_env, new_binary):
            process.kill()
            process.env, process.binary = new_env, new_binary
            process.start()
        own = type(process).binary
        start(env, binary or own)
        return Fault(process.name, lambda: start(None, own), 4, 8)

    def network(self, pattern, state, target, low=1, high=6):
        self.test.relay.set(pattern, **state)
        return Fault(target, lambda: self.test.relay.set(pattern), low, high)

    def both(self, a, b, state, target, low, high):
        """The same for what goes from one to another and back."""
        routes = f"{a}>{b}", f"{b}>{a}"
        for route in routes:
            self.test.relay.set(route, **state)
        return Fault(target, lambda: [self.test.relay.set(r) for r in routes],
                     low, high)

    def link(self):
        """A pattern of one node's links with one dispatcher."""
        n = self.rng.choice(self.cluster.nodes).name
        d = self.rng.choice(self.cluster.dispatchers).name
        target = f"{n}-{d}"
        return (n, d, target) if target not in self.busy else None


def shared(test):
    return test.store.shared


def relayed(test):
    return test.store.relayed() is not None


# --- processes ----------------------------------------------------------------

@fault("worker-kill", 3)
def worker_kill(f):
    """SIGKILL of one worker of a node; its supervisor starts another."""
    node, pid = f.worker()
    if node is None:
        return None
    signal_all([pid], signal.SIGKILL)
    return Fault(node.name)


@fault("worker-stop", 3)
def worker_stop(f):
    """SIGSTOP of one worker for 1 to 6 s."""
    node, pid = f.worker()
    if node is None:
        return None
    return f.stopped(node, [pid], f"{node.name} {pid}")


@fault("worker-flicker", 1)
def worker_flicker(f):
    """A worker that stands still 3 s, runs 1 s, and stands still again."""
    node, pid = f.worker()
    if node is None:
        return None
    flicker = subprocess.Popen(["sh", "-c", (
        f"for i in 1 2 3; do kill -STOP {pid}; sleep 3; kill -CONT {pid}; "
        "sleep 1; done 2>/dev/null")], start_new_session=True)

    def heal():
        flicker.wait()
        signal_all([pid], signal.SIGCONT)
    return Fault(f"{node.name} {pid}", heal, 11, 12)


@fault("worker-term", 1)
def worker_term(f):
    """SIGTERM of one worker."""
    node, pid = f.worker()
    if node is None:
        return None
    signal_all([pid], signal.SIGTERM)
    return Fault(node.name)


@fault("node-kill")
def node_kill(f):
    """SIGKILL of a supervisor and its workers; started 0.5 to 3 s later."""
    node = f.pick(f.cluster.nodes)
    return node and f.killed(node, [node.pid, *node.worker_pids()])


@fault("node-stop")
def node_stop(f):
    """SIGSTOP of a whole node for 1 to 6 s."""
    node = f.pick(f.cluster.nodes)
    return node and f.stopped(node, [node.pid, *node.worker_pids()])


@fault("node-term")
def node_term(f):
    """SIGTERM of a node, which drains; started again when it has ended."""
    node = f.pick(f.cluster.nodes)
    return node and f.ended(node)


@fault("node-twin", 1)
def node_twin(f):
    """For a while a second node has the name of another."""
    node = f.pick(f.cluster.nodes)
    twin = f.test.twin
    if node is None or twin.running():
        return None
    twin.options["name"] = node.name
    twin.start()

    def heal():
        twin.stop(20)
    return Fault("twin", heal, 2, 5)


@fault("dispatcher-kill")
def dispatcher_kill(f):
    """SIGKILL of a dispatcher, and of its store if that is its memory."""
    d = f.pick(f.cluster.dispatchers)
    return d and f.killed(d, [d.pid], lost=not f.store.shared)


@fault("dispatcher-stop")
def dispatcher_stop(f):
    """SIGSTOP of a dispatcher for 1 to 6 s."""
    d = f.pick(f.cluster.dispatchers)
    return d and f.stopped(d, [d.pid])


@fault("dispatcher-term")
def dispatcher_term(f):
    """SIGTERM of a dispatcher; started again when it has ended."""
    d = f.pick(f.cluster.dispatchers)
    if d is None:
        return None
    made = f.ended(d)
    made.lost = not f.store.shared
    return made


# --- the store ----------------------------------------------------------------

@fault("store-kill", 2, shared)
def store_kill(f):
    """SIGKILL of a server that has on disk what it answered, or as much of it
    as its settings say."""
    server = f.pick(f.store.servers)
    if server is None or len(f.store.servers) > 1 and (
            f.busy & {s.name for s in f.store.servers}):
        return None
    made = f.killed(server, [server.pid], lost=True)
    if hasattr(f.store, "restarted"):
        made.heal, made.low = lambda: f.store.restarted(server), 2
    return made


@fault("store-stop", 2, shared)
def store_stop(f):
    """SIGSTOP of a server: for 2.25 s, which is just over the time that an
    append may take, or for 1 to 6 s."""
    server = f.pick(f.store.servers)
    if server is None or len(f.store.servers) > 1 and (
            f.busy & {s.name for s in f.store.servers}):
        return None
    low, high = f.rng.choice([(2.25, 2.3), (1, 6)])
    made = f.stopped(server, [server.pid], low=low, high=high)
    made.lost = len(f.store.servers) > 1  # others may be promoted
    return made


@fault("store-term", 1, lambda t: t.store.shared and len(t.store.servers) == 1)
def store_term(f):
    """SIGTERM of the server, which ends in order."""
    server = f.pick(f.store.servers)
    if server is None:
        return None
    made = f.ended(server)
    made.lost = True
    return made


@fault("store-loss", 4, lambda t: t.store.loses)
def store_loss(f):
    """The store forgets what it has acknowledged, in its own way."""
    names = {p.name for p in (*f.store.servers,
                              *(() if f.store.shared
                                else f.cluster.dispatchers))}
    if f.busy & names:
        return None
    f.busy |= names
    f.store.lose(f.rng)
    f.busy -= names
    return Fault("store", lost=True)


@fault("store-failover", 2, lambda t: hasattr(t.store, "failover"))
def store_failover(f):
    """A planned fail-over, now and then there and back at once."""
    if f.busy & {s.name for s in f.store.servers} or not f.store.failover():
        return None
    if f.rng.random() < 0.5:
        time.sleep(f.rng.uniform(0.5, 2))
        with contextlib.suppress(OSError, IndexError):
            f.store.failover()
    return Fault("failover", lambda: None, 1, 2, lost=True)


@fault("store-flush", 1, lambda t: hasattr(t.store, "flush"))
def store_flush(f):
    """FLUSHALL."""
    if f.busy & {s.name for s in f.store.servers}:
        return None
    try:
        f.store.flush()
    except OSError:
        return None
    return Fault("store", lost=True)


@fault("path-stall", 1, relayed)
def path_stall(f):
    """Nothing passes between one dispatcher and Redis, one way or both."""
    d = f.rng.choice(f.cluster.dispatchers).name
    hold = f.rng.choice(["there", "back", "both"])
    return None if f"{d}>store" in f.busy else f.network(
        f"{d}>store", {"hold": hold}, f"{d}>store")


@fault("path-cut", 1, relayed)
def path_cut(f):
    """Connections to Redis are reset, in the middle of a frame."""
    d = f.rng.choice(f.cluster.dispatchers).name
    return Fault(f"{d}>store") if f.test.relay.cut(f"{d}>store") else None


@fault("path-delay", 1, relayed)
def path_delay(f):
    """What goes to and from Redis comes 20 to 200 ms late, some of it more."""
    d = f.rng.choice(f.cluster.dispatchers).name
    return None if f"{d}>store" in f.busy else f.network(
        f"{d}>store", {"delay_ms": f.rng.randint(20, 200), "loss": 0.05},
        f"{d}>store")


def disk_is_small(test):
    return test.small_disk is not None


@fault("disk-full", 2, disk_is_small)
def disk_full(f):
    """The file system of the LMDB store is full for a while."""
    if "disk" in f.busy:
        return None
    ballast = f.test.small_disk / "ballast"
    free = os.statvfs(f.test.small_disk)
    with contextlib.suppress(OSError), open(ballast, "wb") as out:
        for _ in range(free.f_bavail * free.f_bsize // 4096 + 1):
            out.write(bytes(4096))

    def heal():
        ballast.unlink()
    return Fault("disk", heal, 1, 4)


# --- links --------------------------------------------------------------------

@fault("link-drop")
def link_drop(f):
    """One direction of a node's link with a dispatcher drops everything."""
    at = f.link()
    if at is None:
        return None
    n, d, target = at
    route = f.rng.choice([f"{n}>{d}", f"{d}>{n}"])
    return f.network(route, {"hold": "there"}, target)


@fault("link-stall")
def link_stall(f):
    """A node's link with a dispatcher stands still, both ways."""
    at = f.link()
    if at is None:
        return None
    n, d, target = at
    return f.both(n, d, {"hold": "both"}, target, 1, 8)


@fault("link-cut")
def link_cut(f):
    """A node's links with a dispatcher are reset, in the middle of a frame."""
    n, d = (f.rng.choice(p).name
            for p in (f.cluster.nodes, f.cluster.dispatchers))
    for route in (f"{n}>{d}", f"{d}>{n}")[:f.rng.randint(1, 2)]:
        f.test.relay.cut(route)
    return Fault(f"{n}-{d}")


@fault("link-loss")
def link_loss(f):
    """A tenth of what a node and a dispatcher say is 200 to 600 ms late, with
    all that is behind it."""
    at = f.link()
    if at is None:
        return None
    n, d, target = at
    return f.both(n, d, {"loss": 0.1, "delay_ms": 30}, target, 2, 8)


@fault("dispatcher-cut", 2, lambda t: t.store.dispatchers > 1)
def dispatcher_cut(f):
    """A dispatcher is cut off from all nodes, while the other is linked."""
    d = f.rng.choice(f.cluster.dispatchers).name
    if f.busy & {f"cut {x.name}" for x in f.cluster.dispatchers}:
        return None
    state = f.rng.choice([{"hold": "both"}, {"hold": "both", "refuse": True}])
    made = f.both("n*", d, state, f"cut {d}", 2, 9)
    if "refuse" in state:
        for r in (f"n*>{d}", f"{d}>n*"):
            f.test.relay.cut(r)
    return made


@fault("node-cut")
def node_cut(f):
    """A node is cut off from all dispatchers; its readers stay."""
    n = f.rng.choice(f.cluster.nodes).name
    if f"cut {n}" in f.busy:
        return None
    return f.both(n, "*", {"hold": "both"}, f"cut {n}", 1, 9)


# --- configuration, versions, clocks ------------------------------------------

@fault("rules-reload", 1)
def rules_reload(f):
    """A rule that nobody uses comes or goes, with SIGHUP; nodes follow."""
    f.test.spare_rule = not f.test.spare_rule
    f.test.write_rules("d")
    hang_up(f.cluster.dispatchers)
    return Fault("rules", lambda: (f.test.write_rules("n"),
                                   hang_up(f.cluster.nodes)), 0.2, 2)


@fault("rules-roll", 2)
def rules_roll(f):
    """History is given to channels that had none, or taken from them:
    dispatchers know it up to 3 s before nodes do."""
    if "rules" in f.busy:
        return None
    f.test.rolled = not f.test.rolled
    f.test.write_rules("d")
    hang_up(f.cluster.dispatchers)
    return Fault("rules", lambda: (f.test.write_rules("n"),
                                   hang_up(f.cluster.nodes)), 0.5, 3)


def hang_up(processes):
    for p in processes:
        if p.running():
            with contextlib.suppress(ProcessLookupError):
                p.signal(signal.SIGHUP)


@fault("version-skew", 2, lambda t: t.old_build is not None)
def version_skew(f):
    """A dispatcher or a node is started as an older build, and back."""
    p = f.pick(f.cluster.dispatchers + f.cluster.nodes)
    if p is None:
        return None
    made = f.other(p, binary=pathlib.Path(f.test.old_build)
                   / type(p).binary.name)
    made.lost = p in f.cluster.dispatchers and not f.store.shared
    return made


@fault("clock-skew", 1, lambda t: FAKETIME is not None)
def clock_skew(f):
    """A dispatcher or a node is started with a clock that is 10 s ahead or
    behind, and back."""
    p = f.pick(f.cluster.dispatchers + f.cluster.nodes)
    if p is None:
        return None
    sign = f.rng.choice("+-")
    made = f.other(p, env={"LD_PRELOAD": FAKETIME, "FAKETIME":
                           f"{sign}{CLOCK_SECONDS}",
                           "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                           "DONT_FAKE_MONOTONIC": "1"})
    made.lost = p in f.cluster.dispatchers and not f.store.shared
    return made


def listing():
    """The table, for people."""
    return "\n".join(
        f"{row.name:16} {row.weight}  {' '.join(row.text.split())}"
        for row in TABLE.values())
