#!/usr/bin/python3
"""The kill test: something dies or stands still every few seconds, under load,
and nothing acknowledged is lost, doubled or out of order.

  killtest.py --store redis|lmdb|memory [--seed N] [--seconds N]
              [--subscribers N] [--channels N] [--rate N] [--history N]
              [--json]

Two dispatchers (one, unless they share Redis), three nodes of two workers, and
Redis with an append-only file that is synchronised with every write. Producers
number each channel's messages and publish the next one of a channel only when
the one before is acknowledged, retrying under the same idempotency key through
any dispatcher; so a message's number must be its offset. Subscribers are
tests/bench/resumebench: EventSources that come back with Last-Event-ID and
check every message of every stream. With a --history of a few messages gaps
are told, and each must be true: it begins with what had to come next, and what
comes next is right behind it.

Every 2 to 5 s a worker, a node (its supervisor and its workers), a dispatcher
or Redis is killed with SIGKILL and started again 0.5 to 3 s later, or stands
still (SIGSTOP) for 1 to 6 s; a dispatcher whose store is its memory only stands
still. Faults overlap. At the end all is healed, each channel gets one more
message, and everybody must have had everything.

Prints a report; the exit status is 0 if the promise was kept.
"""
import argparse
import collections
import contextlib
import heapq
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import threading
import time

import grpc

import harness
import rpc
from harness import wait_until
from subscribers import Subscribers

CHANNEL = "kill:%d"
HISTORY_SIZE = 2000  # far more than anybody misses: no gap may be told
DATA_BYTES = 200
GROUPS = 10  # of channels, each with a producer of its own
EACH = 3     # channels of a subscriber with several
CALL_SECONDS = 1.5
RETRYABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED,
             grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.ABORTED,
             grpc.StatusCode.CANCELLED}
RETRYABLE_CODES = {code.value[0] for code in RETRYABLE}


class Redis(harness.Process):
    """A redis-server that has on disk what it has answered."""

    binary = pathlib.Path("/usr/bin/redis-server")

    def __init__(self, cluster):
        super().__init__(cluster, "redis", {})
        self.port = harness.free_ports(1)
        self.url = f"redis://{self.place.front}:{self.port}"
        self.data = cluster.dir / "redis"
        self.data.mkdir()

    def start(self, **_):
        with open(self.log_path, "ab") as log:
            self.popen = subprocess.Popen(
                [*self.wrapper, str(self.binary), "--port", str(self.port),
                 "--bind", self.place.front, "--protected-mode", "no",
                 "--dir", str(self.data),
                 "--save", "", "--appendonly", "yes",
                 "--appendfsync", "always"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=harness.clean_env(
                    **{harness._MARK: self.cluster.mark}),
                start_new_session=True)
        return self

    def ready(self):
        if not self.running():
            raise AssertionError("redis ended:\n" + self.log()[-2000:])
        with contextlib.suppress(OSError):
            with socket.create_connection(
                    (self.place.front, self.port), 1) as s:
                s.settimeout(1)
                s.sendall(b"PING\r\n")
                return 200 if s.recv(64).startswith(b"+PONG") else 503
        return None


def add_redis(cluster):
    """Starts one, the store of a cluster's dispatchers that do not run yet."""
    redis = Redis(cluster)
    cluster.processes.append(redis)
    redis.start().wait_ready()
    for d in cluster.dispatchers:
        d.options["store"] = redis.url
    return redis


# --- producers ----------------------------------------------------------------

class Producer(threading.Thread):
    """Publishes to its channels, one message of each at a time."""

    def __init__(self, test, index, channels):
        super().__init__(daemon=True)
        self.test = test
        self.channels = channels
        self.stream = index == 0  # by PublishStream; the others by batch
        self.rng = random.Random(f"{test.seed} producer {index}")
        self.interval = test.channels / test.rate
        self.stubs = [rpc.Stubs(f"127.0.0.1:{d.api_port}")
                      for d in test.cluster.dispatchers]
        self.calls = [self.call_of(s.channel) for s in self.stubs]
        self.tops = dict.fromkeys(channels, 0)
        self.epochs = {}
        self.codes = collections.Counter()
        self.acknowledged = self.retried = 0
        self.seconds = []  # from the first attempt to the last answer
        self.wrong = []
        self.more = threading.Event()  # one round beyond the end
        self.last = False
        self.failure = None

    def run(self):
        try:
            due = time.monotonic()
            while not self.test.stop.is_set():
                self.round()
                due = max(due + self.interval, time.monotonic() - 1)
                self.test.stop.wait(max(0, due - time.monotonic()))
            self.more.wait()
            self.round()
        except Exception as e:  # shown by the test's own thread
            self.failure = e
        for s in self.stubs:
            s.close()

    def request(self, channel):
        number = self.tops[channel] + 1
        stamp = f"{channel + 1:08d} {number:010d} {time.monotonic_ns():019d} "
        return channel, rpc.PublishRequest(
            channel=CHANNEL % channel, data=stamp.ljust(DATA_BYTES, "x"),
            idempotency_key=f"{self.test.seed}-{channel}-{number}")

    def round(self):
        """The next message of each channel, until all are acknowledged."""
        pending = [self.request(c) for c in self.channels]
        start = time.monotonic()
        while pending:
            pending = self.attempt(pending)
            if pending:
                self.retried += len(pending)
                time.sleep(self.rng.uniform(0.02, 0.1))
        self.seconds.append(time.monotonic() - start)

    def call_of(self, channel):
        """requests -> an iterable of results. Calls wait for a connection:
        where they fail at once grpcio hardly ever looks at the connection
        that it is making, and gives it up."""
        how = {"timeout": CALL_SECONDS, "wait_for_ready": True}
        if self.stream:
            stream = channel.stream_stream(
                f"/{rpc.PUBLISHER}/PublishStream",
                rpc.PublishRequest.SerializeToString,
                rpc.PublishResult.FromString)
            return lambda requests: stream(iter(requests), **how)
        batch = channel.unary_unary(
            f"/{rpc.PUBLISHER}/PublishBatch",
            rpc.PublishBatchRequest.SerializeToString,
            rpc.PublishBatchResponse.FromString)
        return lambda requests: batch(
            rpc.PublishBatchRequest(messages=requests), **how).results

    def attempt(self, pending):
        """What is left of it to be tried again."""
        call = self.rng.choice(self.calls)
        left, results = [], []
        try:
            for result in call([request for _, request in pending]):
                results.append(result)
        except grpc.RpcError as e:
            if e.code() not in RETRYABLE:
                raise
            self.codes[f"call {e.code().name}"] += 1
        for (channel, request), result in zip(pending, results):
            if result.code == 0:
                self.answered(channel, result.response)
            elif result.code in RETRYABLE_CODES:
                self.codes[f"result {result.code}"] += 1
                left.append((channel, request))
            else:
                raise AssertionError(f"{CHANNEL % channel}: {result}")
        return left + pending[len(results):]

    def answered(self, channel, response):
        self.tops[channel] += 1
        self.acknowledged += 1
        epoch = self.epochs.setdefault(channel, response.position.epoch)
        if (response.position.epoch, response.position.offset) != (
                epoch, self.tops[channel]):
            self.wrong.append(
                f"{CHANNEL % channel}: number {self.tops[channel]} was "
                f"acknowledged at {response.position.epoch}/"
                f"{response.position.offset}, epoch was {epoch}")


# --- faults -------------------------------------------------------------------

class Faults:
    """Chooses, does and heals; everything by the seed."""

    def __init__(self, test):
        self.test = test
        self.rng = random.Random(f"{test.seed} faults")
        self.heals = []  # heap of (time, number, name, heal)
        self.count = 0
        self.busy = set()  # names of what is down or stands still
        self.done = collections.Counter()
        self.history = []
        self.begun = time.monotonic()
        self.kinds = ["worker"] * 3 + ["node"] * 2 + ["dispatcher"] * 2
        if test.redis:
            self.kinds += ["redis"] * 2

    def run(self, seconds):
        """Faults for so long; then all is well again."""
        end = time.monotonic() + seconds
        due = time.monotonic() + self.rng.uniform(1, 2)
        while time.monotonic() < end:
            wake = min([due, end] + [h[0] for h in self.heals[:1]])
            time.sleep(max(0, wake - time.monotonic()))
            self.heal_due(time.monotonic())
            if time.monotonic() >= due:
                self.one()
                due += self.rng.uniform(2, 5)
            self.test.check_producers()
        self.heal_due(float("inf"))

    def heal_due(self, now):
        while self.heals and self.heals[0][0] <= now:
            _, _, name, heal = heapq.heappop(self.heals)
            self.busy.discard(name)
            heal()

    def note(self, what, name):
        self.done[what] += 1
        self.history.append(
            f"{time.monotonic() - self.begun:7.2f} {what} {name}")

    def later(self, low, high, name, heal):
        self.count += 1
        self.busy.add(name)
        heapq.heappush(self.heals, (
            time.monotonic() + self.rng.uniform(low, high), self.count, name,
            heal))

    def one(self):
        kind = self.rng.choice(self.kinds)
        kill = self.rng.random() < 0.6
        if kind == "dispatcher" and self.test.store == "memory":
            kill = False
        process = self.rng.choice(
            {"worker": self.test.cluster.nodes,
             "node": self.test.cluster.nodes,
             "dispatcher": self.test.cluster.dispatchers,
             "redis": [self.test.redis]}[kind])
        if process.name in self.busy:
            return  # it is down as it is
        pids = [process.pid]
        if kind in ("worker", "node"):
            workers = process.worker_pids()
            if not workers:
                return
            pids = ([self.rng.choice(workers)] if kind == "worker"
                    else pids + workers)
        if kill:
            self.note(f"{kind} killed", process.name)
            self.kill(kind, process, pids)
        else:
            self.note(f"{kind} stopped", process.name)
            self.pause(kind, process, pids)

    def kill(self, kind, process, pids):
        signal_all(pids, signal.SIGKILL)
        if kind == "worker":
            return  # its supervisor starts another
        process.popen.wait()
        self.later(0.5, 3, process.name, process.start)

    def pause(self, kind, process, pids):
        signal_all(pids, signal.SIGSTOP)
        name = f"{process.name} {pids}" if kind == "worker" else process.name
        self.later(1, 6, name, lambda: signal_all(pids, signal.SIGCONT))


def signal_all(pids, signo):
    """The supervisor is the first of a node's: it starts nobody anew."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signo)


# --- the test -----------------------------------------------------------------

class KillTest:
    """KillTest(store="redis", seed=1, seconds=60, ...).run() -> report."""

    def __init__(self, store, seed=1, seconds=60, subscribers=2000,
                 channels=200, rate=2000, history=HISTORY_SIZE):
        self.store, self.seed, self.seconds = store, seed, seconds
        self.channels, self.rate, self.history = channels, rate, history
        self.subscriber_count = subscribers
        self.stop = threading.Event()
        self.producers, self.subscribers = [], []
        self.cluster = harness.Cluster(
            2 if store == "redis" else 1, 3, 2, start=False,
            node_options={"retry_min_ms": 200, "retry_max_ms": 1500})
        self.redis = Redis(self.cluster) if store == "redis" else None
        rules = self.cluster.dir / "rules.yaml"
        rules.write_text("rules:\n  - match: 'kill:*'\n    history: "
                         f"{{size: {history}, ttl: 1h}}\n")
        url = {"redis": self.redis and self.redis.url, "memory": "memory:",
               "lmdb": f"lmdb:{self.cluster.dir / 'lmdb'}"}[store]
        for p in self.cluster.processes:
            p.options["config"] = rules
        for d in self.cluster.dispatchers:
            d.options["store"] = url
        for n in self.cluster.nodes:
            n.expect_deaths = True

    def run(self):
        try:
            self.start()
            faults = Faults(self)
            faults.run(self.seconds)
            self.settle()
            return self.report(faults)
        finally:
            for s in self.subscribers:
                s.close()
            self.stop.set()
            for p in self.producers:
                p.more.set()

    def close(self):
        """All processes end, in order."""
        self.cluster.close()
        harness.Cluster.live.remove(self.cluster)

    def abort(self):
        self.cluster._kill_all()
        harness.Cluster.live.remove(self.cluster)

    def start(self):
        if self.redis:
            self.cluster.processes.append(self.redis)
            self.redis.start().wait_ready()
        self.cluster.start()
        several = self.subscriber_count // 10
        self.subscribers = [
            self.subscribe("one", self.subscriber_count - several, 1),
            self.subscribe("several", several, EACH)]
        for s in self.subscribers:
            s.wait_ready()
        self.producers = [
            Producer(self, i, range(i, self.channels, GROUPS))
            for i in range(min(GROUPS, self.channels))]
        for p in self.producers:
            p.start()

    def subscribe(self, name, count, each):
        return Subscribers(
            self.cluster.dir / f"{name}.log",
            [f"127.0.0.1:{n.port}" for n in self.cluster.nodes], count,
            channel=CHANNEL, channels=self.channels, each=each,
            format="mixed", silence_ms=4000, seed=self.seed,
            max_seconds=int(self.seconds + 300))

    def check_producers(self):
        for p in self.producers:
            if p.failure:
                raise p.failure

    def settle(self):
        """All is up, everybody is connected, the last message is published
        and has had time to arrive."""
        self.cluster.wait_ready(30)
        self.stop.set()
        for s in self.subscribers:
            s.tell("patient")
        wait_until(lambda: all(s.stats()["ready"] == s.count
                               for s in self.subscribers), 30,
                   "every subscriber is connected")
        for p in self.producers:
            p.more.set()
            p.join(30 * harness.SLOW)
            assert p.failure or not p.is_alive(), "a producer is stuck"
        self.check_producers()
        self.tops = {c: t for p in self.producers for c, t in p.tops.items()}
        for s in self.subscribers:
            s.tell_tops(self.tops[c] for c in range(self.channels))
        with contextlib.suppress(harness.Timeout):  # the report says who
            wait_until(lambda: not any(s.stats()["behind"]
                                       for s in self.subscribers), 30,
                       "every subscriber has everything")

    def stored_wrong(self):
        """Does the store hold each channel's last messages, once and in
        order?"""
        stubs = self.cluster.d.grpc
        call = stubs.unary(rpc.CHANNEL + "/GetHistory",
                           "stentor.v1.GetHistoryRequest",
                           "stentor.v1.GetHistoryResponse")
        request = rpc.messages("stentor.v1.GetHistoryRequest")
        wrong = []
        for c, top in self.tops.items():
            answer = call(request(channel=CHANNEL % c, limit=1000,
                                  latest=True), timeout=rpc.TIMEOUT)
            offsets = [m.position.offset for m in answer.messages]
            numbers = [int(m.data[9:19]) for m in answer.messages]
            # It may keep more than it must.
            least = max(1, top + 1 - min(self.history, 1000))
            want = list(range(min([least, *offsets[:1]]), top + 1))
            if not offsets == numbers == want or answer.top.offset != top:
                wrong.append(
                    f"{CHANNEL % c}: {top} were acknowledged, the store has "
                    f"{len(numbers)}, up to {answer.top.offset}")
        return wrong

    def report(self, faults):
        stats = [s.stats() for s in self.subscribers]
        rounds = sorted(t for p in self.producers for t in p.seconds)
        total = collections.Counter()
        for s in stats:
            total.update({k: v for k, v in s.items() if isinstance(v, int)})
        codes = sum((p.codes for p in self.producers),
                    collections.Counter())
        duplicates = sum(d.metric("stentor_store_duplicates_total")
                         for d in self.cluster.dispatchers)
        wrong = [w for p in self.producers for w in p.wrong]
        wrong += [f"{name}: {total[name]}" for name in Subscribers.FAULTS
                  if total[name]]
        if self.history >= HISTORY_SIZE and total["gaps_told"]:
            wrong.append(f"gaps_told: {total['gaps_told']}")
        wrong += self.stored_wrong()
        return {
            "seed": self.seed, "seconds": self.seconds,
            "acknowledged": sum(p.acknowledged for p in self.producers),
            "retried": sum(p.retried for p in self.producers),
            "codes": dict(codes),
            "duplicates_answered": duplicates,  # since the last restarts
            "round_seconds": {f"p{q}": rounds[len(rounds) * q // 100]
                              for q in (50, 90, 99)} if rounds else {},
            "faults": dict(faults.done), "subscribers": dict(total),
            "live_ms": [[s["live"][q] / 1000 for q in (
                "p50_us", "p99_us", "p999_us")] for s in stats],
            "resume_ms": [[s["resume"][q] / 1000 for q in (
                "p50_us", "p99_us")] for s in stats],
            "wrong": wrong, "history": faults.history,
            "told": [line for s in self.subscribers
                     for line in s.log().splitlines()[:20]],
        }


def run(**options):
    """The report of one test; its processes have ended."""
    test = KillTest(**options)
    try:
        report = test.run()
    except BaseException:
        print(test.cluster.report(15), file=sys.stderr)
        test.abort()
        raise
    test.close()
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--store", choices=("redis", "lmdb", "memory"),
                        required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--subscribers", type=int, default=2000)
    parser.add_argument("--channels", type=int, default=200)
    parser.add_argument("--rate", type=int, default=2000)
    parser.add_argument("--history", type=int, default=HISTORY_SIZE)
    parser.add_argument("--json", action="store_true",
                        help="the report as one line")
    args = vars(parser.parse_args())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    as_line = args.pop("json")
    report = run(**args)
    if as_line:
        print(json.dumps(report))
    else:
        for key, value in report.items():
            text = "\n    ".join(value) if key in (
                "wrong", "history", "told") else value
            print(f"{key}: {text}")
    return 1 if report["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
