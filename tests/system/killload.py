"""The kill test's load: families of channels, their producers and readers.

A family is a rule and the channels that it decides for. Channels have numbers
in stamps and logs from the family's `base` on. Every message has a number that
its channel gives once; a number whose publish failed is published again under
the same idempotency key until it is acknowledged, or, without a key, never.
"""
import collections
import dataclasses
import itertools
import random
import threading
import time

import grpc

import rpc
from oracle import Rule
from subscribers import Subscribers

DATA_BYTES = 200
CALL_SECONDS = 1.5
PRODUCERS = 6     # of the busy family; of the others one
KEYLESS = 0.2     # share of messages without a key
AT_ONCE = (1, 3)  # messages of a channel in one round
RETRYABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED,
             grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.ABORTED,
             grpc.StatusCode.CANCELLED}
RETRYABLE_CODES = {code.value[0] for code in RETRYABLE}


@dataclasses.dataclass
class Family:
    name: str
    base: int
    channels: int
    rate: float          # messages a second, of all its channels
    size: int = 0        # history; 0: ephemeral
    more: str = ""       # of its rule
    lagging: str = "close"
    changes: bool = False
    bytes: int = DATA_BYTES
    keys: bool = True    # some of its messages have keys

    @property
    def template(self):
        return f"{self.name}:%d"

    def yaml(self):
        history = f"{{size: {self.size}, ttl: 1h{self.more}}}"
        return (f"- match: '{self.name}:*'\n" +
                (f"  history: {history}\n" if self.size else "") +
                f"  lagging: {self.lagging}\n")

    def rule(self):
        """For the judge."""
        return Rule(self.base, self.channels, self.size or 1000 *
                    self.changes, self.lagging, self.changes)


def families(channels, rate, history):
    """Busy channels, and of every other kind some."""
    few = max(2, channels // 10)
    return {f.name: f for f in (
        Family("kill", 0, channels, rate, history),
        Family("quiet", 10000000, 2 * few, 2 * few / 6, history),
        Family("new", 20000000, few, few * 2.0, history, ", latest: 3"),
        Family("drop", 30000000, 2, 40, history, lagging="drop_oldest",
               bytes=8000),
        Family("conf", 31000000, 2, 40, history, lagging="conflate",
               bytes=8000),
        Family("roll", 40000000, few, few * 2.0, changes=True, keys=False),
        Family("eph", 50000000, channels, rate / 10, lagging="drop_oldest",
               keys=False),
    )}


def rules(table, rolled=False):
    """The text of rules.yaml; `rolled`: channels that change have history."""
    text = "rules:\n"
    for f in table.values():
        if f.changes and rolled:
            f = dataclasses.replace(f, size=1000)
        text += f.yaml()
    return text


def readers(table, count, **common):
    """[(name, options of Subscribers)] of about so many."""
    few = max(8, count // 20)

    def of(name, family, count, also=None, **options):
        f = table[family]
        options.update(channel=f.template, channels=f.channels, base=f.base)
        if also:
            options.update(also=table[also].template,
                           also_base=table[also].base)
        return name, {"count": count, **common, **options}
    return [
        of("one", "kill", count - 6 * few, join_ms=6000),
        of("several", "kill", 2 * few, "eph", each=3),
        of("quiet", "quiet", few),
        of("new", "new", few, join_ms=3000),
        of("drop", "drop", max(8, few // 2), slow_ms=3000),
        of("conf", "conf", max(8, few // 2), slow_ms=3000),
        of("roll", "roll", few, "eph"),
    ]


def start_readers(table, count, cluster, **common):
    started = {}
    for name, options in readers(table, count, **common):
        started[name] = Subscribers(
            cluster.dir / f"readers-{name}.log",
            [f"127.0.0.1:{n.port}" for n in cluster.nodes],
            options.pop("count"), log=cluster.dir / f"events-{name}",
            **options)
    return started


@dataclasses.dataclass
class Message:
    channel: int
    number: int
    request: object
    keyed: bool
    sent: float
    tried: float = 0


class Producer(threading.Thread):
    """Publishes to some channels of a family, several messages of each at a
    time: by PublishStream, PublishBatch or Publish."""

    def __init__(self, test, family, index, channels, mode):
        super().__init__(daemon=True)
        self.test, self.family, self.mode = test, family, mode
        self.channels = channels  # from the family's base on
        self.rng = random.Random(f"{test.seed} {family.name} {index}")
        # A quiet channel has its turn alone, all others come at once.
        self.quiet = family.name == "quiet"
        self.turns = itertools.cycle(channels)
        self.interval = 1 / family.rate if self.quiet else \
            sum(AT_ONCE) / 2 * family.channels / family.rate
        self.stubs = [rpc.Stubs(f"127.0.0.1:{d.api_port}")
                      for d in test.cluster.dispatchers]
        self.calls = [self.call_of(s.channel) for s in self.stubs]
        self.numbers = dict.fromkeys(channels, 0)
        self.tops = {}   # channel -> number of its last message
        self.acks = []   # (channel, number, epoch, offset, sent, acked, tried)
        self.codes = collections.Counter()
        self.acknowledged = self.retried = 0
        self.seconds = []  # from the first attempt to the last answer
        self.more = threading.Event()  # one round beyond the end
        self.failure = None

    def run(self):
        try:
            due = time.monotonic() + self.rng.uniform(0, self.interval)
            while not self.test.stop.is_set():
                self.test.stop.wait(max(0, due - time.monotonic()))
                self.round()
                due = max(due + self.interval, time.monotonic() - 1)
            self.more.wait()
            if self.family.size:
                self.round(last=True)
        except Exception as e:  # shown by the test's own thread
            self.failure = e
        for s in self.stubs:
            s.close()

    def message(self, channel, keyed):
        self.numbers[channel] += 1
        number, f = self.numbers[channel], self.family
        now = time.monotonic_ns()
        stamp = f"{f.base + channel + 1:08d} {number:010d} {now:019d} "
        key = f"{self.test.seed}-{f.name}-{channel}-{number}"
        return Message(channel, number, rpc.PublishRequest(
            channel=f.template % channel, data=stamp.ljust(f.bytes, "x"),
            idempotency_key=key if keyed else "",
            conflation_key="k" if f.lagging == "conflate" else ""),
            keyed, now / 1e9)

    def round(self, last=False):
        """Some messages of each channel, until those with keys are
        acknowledged; the last round is one message of each."""
        pending = []
        for channel in ([next(self.turns)] if self.quiet and not last
                        else self.channels):
            for _ in range(1 if last or self.quiet else
                           self.rng.randint(*AT_ONCE)):
                keyed = self.family.keys and (
                    last or self.rng.random() >= KEYLESS)
                pending.append(self.message(channel, keyed))
                if last:
                    self.tops[channel] = pending[-1].number
        if not last and self.mode != "stream":
            # Any channel first, but of each one after the other.
            order = self.rng.sample(self.channels, len(self.channels))
            pending.sort(key=lambda m: (order.index(m.channel), m.number))
        start = time.monotonic()
        while pending and not (self.test.stop.is_set() and not last
                               and time.monotonic() - start > 30):
            pending = [m for m in self.attempt(pending) if m.keyed]
            if pending:
                self.retried += len(pending)
                time.sleep(self.rng.uniform(0.02, 0.1))
        self.seconds.append(time.monotonic() - start)

    def call_of(self, channel):
        """messages -> an iterable of results. Calls wait for a connection:
        where they fail at once grpcio hardly ever looks at the connection
        that it is making, and gives it up."""
        how = {"timeout": CALL_SECONDS, "wait_for_ready": True}
        if self.mode == "stream":
            stream = channel.stream_stream(
                f"/{rpc.PUBLISHER}/PublishStream",
                rpc.PublishRequest.SerializeToString,
                rpc.PublishResult.FromString)
            return lambda requests: stream(iter(requests), **how)
        if self.mode == "unary":
            unary = channel.unary_unary(
                f"/{rpc.PUBLISHER}/Publish",
                rpc.PublishRequest.SerializeToString,
                rpc.PublishResponse.FromString)
            return lambda request: unary.future(request, **how)
        batch = channel.unary_unary(
            f"/{rpc.PUBLISHER}/PublishBatch",
            rpc.PublishBatchRequest.SerializeToString,
            rpc.PublishBatchResponse.FromString)
        return lambda requests: batch(
            rpc.PublishBatchRequest(messages=requests), **how).results

    def attempt(self, pending):
        """What is left of it to be tried again."""
        now = time.monotonic()
        for m in pending:
            m.tried = max(now, m.sent)
        if self.mode == "unary":
            return self.attempt_unary(pending)
        call = self.rng.choice(self.calls)
        left, done = [], 0
        try:
            for result in call([m.request for m in pending]):
                m, done = pending[done], done + 1
                if result.code == 0:
                    self.answered(m, result.response)
                elif result.code in RETRYABLE_CODES:
                    self.codes[f"result {result.code}"] += 1
                    left.append(m)
                else:
                    raise AssertionError(f"{m.request.channel}: {result}")
        except grpc.RpcError as e:
            self.failed(e)
        return left + pending[done:]

    def attempt_unary(self, pending):
        """All at once, each through any dispatcher."""
        calls = [(m, self.rng.choice(self.calls)(m.request))
                 for m in pending]
        left = []
        for m, future in calls:
            try:
                self.answered(m, future.result())
            except grpc.RpcError as e:
                self.failed(e)
                left.append(m)
        return left

    def failed(self, e):
        if e.code() not in RETRYABLE:
            raise e
        self.codes[f"call {e.code().name}"] += 1

    def answered(self, m, response):
        self.acknowledged += 1
        self.acks.append((
            self.family.base + m.channel, m.number, response.position.epoch,
            response.position.offset, m.sent, time.monotonic(), m.tried))


def producers(test, table):
    """Of the busy family several, of each other one."""
    made = []
    modes = ("stream", "batch", "unary")
    for family in table.values():
        count = min(PRODUCERS if family.name == "kill" else 1,
                    family.channels)
        for i in range(count):
            mode = modes[i % 3] if count > 1 else (
                "unary" if family.name in ("quiet", "roll") else "batch")
            made.append(Producer(test, family, i,
                                 range(i, family.channels, count), mode))
    return made
