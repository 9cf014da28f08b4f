#!/usr/bin/python3
"""Reliable delivery through single faults, and what idle channels cost.

  delivery.py [--only refused|late|idle] [--quick]

One line per measure, with what it is to reach, and build/bench/delivery.json.
Real processes on loopback: two dispatchers, two nodes, Redis with every write
on its disk, and relays between dispatchers and nodes. README.md tells the rows.
"""
import argparse
import json
import os
import pathlib
import signal
import sys
import threading
import time

SYSTEM = pathlib.Path(__file__).resolve().parents[1] / "system"
sys.path.insert(0, str(SYSTEM))

import grpc  # noqa: E402

import harness  # noqa: E402
from harness import wait_until  # noqa: E402
from killstores import add_redis  # noqa: E402
from oracle import LATE, Oracle, Rule  # noqa: E402
from relay import Relay  # noqa: E402
from subscribers import Subscribers  # noqa: E402

RULES = "rules:\n- match: 'd:*'\n  history: {size: 10000, ttl: 1h}\n"
CHANNEL = "d:%d"
SLOWEST = 45  # seconds: what has not come by then does not come
SWEEP_MS = 600000  # the default, and longer than a row: it hides no loss


class Stand:
    """What all rows need; `with Stand(channels, readers) as s`."""

    def __init__(self, channels, readers, workers=1, each=1, **dispatcher):
        self.channels = channels
        self.cluster = c = harness.Cluster(
            2, 2, workers, start=False, rules=RULES,
            dispatcher_options=dispatcher,
            node_options={"sweep_ms": SWEEP_MS})
        self.redis = add_redis(c)
        self.relay = Relay()
        for i, n in enumerate(c.nodes):
            n.expect_deaths = True
            n.options["dispatchers"] = ",".join(
                "tcp://127.0.0.1:%d" % self.relay.add(
                    f"{n.name}>{d.name}", ("127.0.0.1", 0),
                    ("127.0.0.1", d.link_port)) for d in c.dispatchers)
            n.options["link_advertise"] = f"127.0.{i + 1}.1"
            for w in range(workers):
                self.relay.add(f"?>{n.name}",
                               (f"127.0.{i + 1}.1", n.link_port + w),
                               ("127.0.0.1", n.link_port + w))
        self.log = c.dir / "events"
        self.count, self.each = readers, each
        self.numbers = [0] * channels
        self.acks, self.refused, self.spans = [], 0, []
        self.lock = threading.Lock()

    def __enter__(self):
        self.cluster.start()
        self.readers = Subscribers(
            self.cluster.dir / "readers.log",
            [f"127.0.0.1:{n.port}" for n in self.cluster.nodes], self.count,
            channel=CHANNEL, channels=self.channels, each=self.each,
            log=self.log, max_seconds=900)
        self.readers.wait_ready()
        return self

    def __exit__(self, kind, *_):
        self.readers.close()
        self.relay.close()
        self.cluster._kill_all()
        harness.Cluster.live.remove(self.cluster)

    def publish(self, channel, dispatcher, size=200, retry=True):
        """With a key, again until it is acknowledged; False: it was refused."""
        with self.lock:
            self.numbers[channel] += 1
            number = self.numbers[channel]
        now = time.monotonic_ns()
        stamp = f"{channel + 1:08d} {number:010d} {now:019d} "
        while True:
            try:
                place = dispatcher.grpc.publish(
                    channel=CHANNEL % channel, data=stamp.ljust(size, "x"),
                    idempotency_key=f"{channel}-{number}",
                    timeout=5).position
                break
            except grpc.RpcError as e:
                with self.lock:
                    self.refused += e.code() == grpc.StatusCode.UNAVAILABLE
                if not retry:
                    return False
                time.sleep(0.1)
        with self.lock:
            self.acks.append((channel, number, place.epoch, place.offset,
                              now / 1e9, time.monotonic()))
        return True

    def publish_all(self, dispatcher, **how):
        threads = [threading.Thread(target=self.publish,
                                    args=(c, dispatcher), kwargs=how)
                   for c in range(self.channels)]
        for t in threads:
            t.start()
        return threads

    def wait_seen(self):
        """Everybody has everything, however late."""
        self.readers.tell_tops(self.numbers)
        wait_until(lambda: not self.readers.stats()["behind"], SLOWEST,
                   "all has been seen")
        self.readers.flush()

    def late(self, during=False):
        """{n, p50, p99, max} of seen after acknowledged, and after the end of
        the fault, unless the fault is not to excuse it."""
        oracle = Oracle([Rule(0, self.channels, 10000)])
        for ack in self.acks:
            oracle.acknowledged(*ack)
        for begin, end in self.spans:
            oracle.fault("fault", begin, begin if during else end)
        oracle.read(self.log)
        verdict = oracle.judge()
        assert not verdict.wrong, verdict.lines()
        return verdict.quantiles()

    def fault(self, seconds, begin, end):
        at = time.monotonic()
        begin()
        time.sleep(seconds)
        end()
        self.spans.append((at, time.monotonic()))


def row(name, value, reach, unit, note=""):
    met = value <= reach
    print(f"{name:66} {value:10.3f} {unit:4} reach {reach:<6} "
          f"{'met' if met else 'NOT'}  {note}", flush=True)
    return {"row": name, "value": value, "reach": reach, "unit": unit,
            "met": met, "note": note}


def late_row(name, table, key="fault"):
    q = table.get(key) or table.get("none") or {
        "n": 0, "p50": LATE, "p99": LATE, "max": LATE}
    return row(name + ": seen after acknowledged, p99", q["p99"], 1.0, "s",
               f"n {q['n']}, p50 {q['p50']:.2f}, max {q['max']:.2f} s")


# --- one worker that stands still (D4) ----------------------------------------

def refused(quick):
    """One worker stands still for 3 s in every 4, and its link fills."""
    with Stand(20, 40) as s:
        pid = s.cluster.nodes[0].worker_pids()[0]
        stop = threading.Event()

        def produce(index):
            d = s.cluster.dispatchers[index % 2]
            channel = index
            while not stop.is_set():
                s.publish(channel % 20, d, size=48000, retry=False)
                channel += 8
                time.sleep(0.012)
        threads = [threading.Thread(target=produce, args=(i,))
                   for i in range(8)]
        for t in threads:
            t.start()
        for _ in range(2 if quick else 8):
            time.sleep(1)
            s.fault(3, lambda: os.kill(pid, signal.SIGSTOP),
                    lambda: os.kill(pid, signal.SIGCONT))
        stop.set()
        for t in threads:
            t.join()
        s.cluster.wait_ready(30)
        for c in range(20):
            s.publish(c, s.cluster.d)
        s.wait_seen()
        total = len(s.acks) + s.refused
        return [row("one worker stopped 3 s in every 4: publishes refused",
                    s.refused, 0, "", f"of {total:,}"),
                late_row("D4, after it ran again", s.late())]


# --- Redis stands still, and a dispatcher is cut off (D3, D8) -----------------

def late(quick):
    results = []
    with Stand(30, 60) as s:
        for channel in range(30):
            s.publish(channel, s.cluster.d)
        for _ in range(1 if quick else 3):
            s.redis.signal(signal.SIGSTOP)
            begin = time.monotonic()
            threads = s.publish_all(s.cluster.d)
            time.sleep(max(0, begin + 2.25 - time.monotonic()))
            s.redis.signal(signal.SIGCONT)
            s.spans.append((begin, time.monotonic()))
            for t in threads:
                t.join()
            s.wait_seen()
        results.append(late_row("D3, Redis stopped 2.25 s, key and retry",
                                s.late()))
    with Stand(30, 60) as s:
        for channel in range(30):
            s.publish(channel, s.cluster.d)
        d0 = s.cluster.d
        before = len(s.acks)

        def cut():
            s.relay.set("*>d0", hold="both")
            s.relay.set("d0>*", hold="both")

        def heal():
            s.relay.set("*>d0")
            s.relay.set("d0>*")
        stop = threading.Event()

        def produce():
            channel = 0
            while not stop.is_set():
                s.publish(channel % 30, d0, retry=False)
                channel += 1
                time.sleep(0.4)
        thread = threading.Thread(target=produce)
        thread.start()
        s.fault(6 if quick else 14, cut, heal)
        stop.set()
        thread.join()
        took = len(s.acks) - before
        s.numbers = [max([a[1] for a in s.acks if a[0] == c], default=0)
                     for c in range(30)]
        s.wait_seen()
        results += [
            late_row("D8, cut off from all nodes, while it lasts",
                     s.late(during=True)),
            late_row("D8, after the cut", s.late())]
        results[-1]["note"] += f"; {took} acknowledged, {s.refused} refused"
    return results


# --- idle channels ------------------------------------------------------------

def operations(s):
    """{operation: count} of all dispatchers that answer."""
    found = {}
    for d in s.cluster.dispatchers:
        for (name, labels), value in d.metrics().items():
            if name == "stentor_store_op_duration_seconds_count":
                op = dict(labels)["op"]
                found[op] = found.get(op, 0) + value
    return found


def commands(s):
    """What Redis was asked, but for INFO and the like. What a script reads is
    no question of its own."""
    count = 0
    for line in s.redis.ask("INFO", "commandstats").splitlines():
        name, _, text = line.partition(":calls=")
        if name.removeprefix("cmdstat_") in (
                "fcall", "fcall_ro", "eval", "evalsha", "evalsha_ro"):
            count += int(text.split(",")[0])
    return count


def wait_still(s):
    """Nobody has asked Redis for 2 s: what a start costs is over."""
    seen = [commands(s), time.monotonic()]

    def still():
        count = commands(s)
        if count != seen[0]:
            seen[:] = count, time.monotonic()
        return time.monotonic() - seen[1] > 2
    wait_until(still, 30, "nobody asks Redis any more")


def idle(quick):
    channels = 600 if quick else 6000
    with Stand(channels, channels // 10, each=10) as s:
        stubs = s.cluster.d.grpc
        for begin in range(0, channels, 500):
            stubs.publish_batch([
                dict(channel=CHANNEL % c, data=f"{c + 1:08d} {1:010d} "
                     f"{time.monotonic_ns():019d} ".ljust(200, "x"))
                for c in range(begin, min(begin + 500, channels))],
                timeout=30)
        wait_until(lambda: s.readers.stats()["messages"] >= channels, 30,
                   "all have their first message")
        wait_still(s)
        seconds = 10 if quick else 60
        ops, asked = operations(s), commands(s)
        time.sleep(seconds)
        now = operations(s)
        rates = {op: (now[op] - ops.get(op, 0)) / seconds for op in now}
        reads = commands(s) - asked
        results = [row(f"{channels} idle channels: reads of Redis a second",
                       reads / seconds, 0, "1/s", "operations a second: " +
                       ", ".join(f"{k} {v:.1f}" for k, v in rates.items()
                                 if v))]
        d = s.cluster.dispatchers[1]
        before = operations_of(s.cluster.d)
        d.stop()
        asked = commands(s)
        d.start()
        s.cluster.wait_ready(30)
        wait_still(s)
        now = operations_of(s.cluster.d)
        for op, value in operations_of(d).items():
            now[op] = now.get(op, 0) + value
        parts = {op: now[op] - before.get(op, 0) for op in now}
        results.append(row(
            f"{channels} channels, a dispatcher starts again: reads of Redis",
            commands(s) - asked, channels / 100, "", "operations: " +
            ", ".join(f"{k} {v:.0f}" for k, v in parts.items() if v)))
        return results


def operations_of(d):
    return {dict(labels)["op"]: value
            for (name, labels), value in d.metrics().items()
            if name == "stentor_store_op_duration_seconds_count"}


ROWS = {"refused": refused, "late": late, "idle": idle}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", choices=ROWS, action="append")
    parser.add_argument("--quick", action="store_true",
                        help="smaller, a sanity check")
    args = parser.parse_args()
    results = []
    for name in args.only or ROWS:
        results += ROWS[name](args.quick)
    out = harness.BUILD / "bench" / "delivery.json"
    out.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
