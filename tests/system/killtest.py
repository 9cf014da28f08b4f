#!/usr/bin/python3
"""The kill test: something dies, stands still, is cut off, changes or goes back
every few seconds, under load, and nothing acknowledged is lost, doubled or out
of order without a true gap.

  killtest.py --store STORE [--seed N] [--seconds N] [--only FAULT[,FAULT]]
              [--but FAULT[,FAULT]] [--subscribers N] [--channels N] [--rate N]
              [--history N] [--old-build DIR] [--json]
  killtest.py --list

Two dispatchers (one, where the store is embedded), three nodes of two workers,
and a store (killstores.py); relays (relay.py) between all of them. Faults
(killfaults.py) are chosen by the seed; with --only, of those, with --but, of
all others; one alone has time to heal before it comes again. The load
(killload.py): busy channels with several messages in flight, by PublishStream,
batches and single calls, with idempotency keys and without; quiet ones, one
message in 6 s; such with `latest`, such that drop or conflate, ephemeral ones,
and some that change between the two. Readers are tests/bench/resumebench:
EventSources that come back with Last-Event-ID; some join anew all the time,
some are slow. What each of them saw is judged at the end (oracle.py).

At the end all is healed, each channel gets one more message, and everybody must
have had everything, or have been told what not. Prints a report; the exit
status is 0 if every promise was kept.
"""
import argparse
import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import harness
import killfaults
import killload
import rpc
from harness import wait_until
from killstores import STORES, add_redis  # noqa: F401 (others take it here)
from oracle import Oracle
from relay import Relay
from subscribers import Subscribers

HISTORY_SIZE = 2000  # far more than anybody misses: nothing expires
LATE_SECONDS = 1.0  # p99 after a fault that was alone
# The sweep comes round, looks again a second later, and what it found is seen.
QUIET_SECONDS = 2 * harness.SWEEP_MS / 1000 + 5
SMALL_DISK = 192 << 20
STORED = 1000  # most that the store is asked for of a channel, and
STORED_BYTES = 800000  # less than an answer may have


class KillTest:
    """KillTest(store="redis", seed=1, seconds=60, ...).run() -> report."""

    def __init__(self, store, seed=1, seconds=60, subscribers=2000,
                 channels=200, rate=2000, history=HISTORY_SIZE, only=None,
                 but=(), old_build=None):
        self.seed, self.seconds = seed, seconds
        self.only, self.but = only, but
        self.history, self.old_build = history, old_build
        self.subscriber_count = subscribers
        self.families = killload.families(channels, rate, history)
        self.rolled = self.spare_rule = False
        self.stop = threading.Event()
        self.producers, self.readers = [], {}
        self.wrong = []
        self.cluster = harness.Cluster(
            STORES[store].dispatchers, 3, 2, start=False,
            node_options={"retry_min_ms": 200, "retry_max_ms": 1500,
                          "drain_seconds": 1})
        self.relay = Relay(seed)
        self.store_name, self.store = store, STORES[store](self.cluster)
        self.small_disk = self.mount() if store == "lmdb" else None
        self.set_options()
        # A node that is started now and then under another's name.
        self.twin = self.cluster.add_node()
        self.cluster.nodes.remove(self.twin)
        self.twin.options["config"] = self.cluster.dir / "rules-n.yaml"

    def mount(self):
        """A file system that can be full; None: it can't be had."""
        path = self.cluster.dir / "lmdb"
        path.mkdir()
        if os.getuid() != 0 or subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}",
                 "stentor-kill", path], capture_output=True).returncode != 0:
            return None
        return path

    def set_options(self):
        c, relay = self.cluster, self.relay
        for kind, processes in (("d", c.dispatchers), ("n", c.nodes)):
            self.write_rules(kind)
            for p in processes:
                p.options["config"] = c.dir / f"rules-{kind}.yaml"
        urls = self.store.urls()
        for d in c.dispatchers:
            d.options.update(store=urls[d.name], drain_seconds=2,
                             **self.store.options)
            if self.store.relayed():
                port = relay.add(f"{d.name}>store", (harness.LOOPBACK, 0),
                                 self.store.relayed())
                d.options["store"] = f"redis://{harness.LOOPBACK}:{port}"
        for i, n in enumerate(c.nodes):
            n.expect_deaths = True
            n.options["dispatchers"] = ",".join(
                "tcp://%s:%d" % (harness.LOOPBACK, relay.add(
                    f"{n.name}>{d.name}", (harness.LOOPBACK, 0),
                    (harness.LOOPBACK, d.link_port))) for d in c.dispatchers)
            n.options["link_advertise"] = f"127.0.{i + 1}.1"
            for w in range(n.workers):
                relay.add(f"?>{n.name}",
                          (f"127.0.{i + 1}.1", n.link_port + w),
                          (harness.LOOPBACK, n.link_port + w))

    def write_rules(self, kind):
        """Of dispatchers ("d") or nodes ("n"), as they are to be now."""
        path = self.cluster.dir / f"rules-{kind}.yaml"
        text = killload.rules(self.families, self.rolled)
        if self.spare_rule:
            text += "- match: 'spare:*'\n  history: {size: 5, ttl: 1h}\n"
        new = path.with_suffix(".new")
        new.write_text(text)
        new.rename(path)

    def run(self):
        try:
            self.start()
            faults = killfaults.Faults(self, self.only, self.but)
            faults.run(self.seconds)
            self.settle()
            return self.report(faults)
        finally:
            for s in self.readers.values():
                s.close()
            self.stop.set()
            for p in self.producers:
                p.more.set()
            self.relay.close()

    def unmount(self):
        if self.small_disk:
            subprocess.run(["umount", "-l", self.small_disk])

    def close(self):
        """All processes end, in order."""
        try:
            self.cluster.close()
        finally:
            harness.Cluster.live.remove(self.cluster)
            self.unmount()

    def abort(self):
        self.relay.close()
        for pid in harness.marked_pids(self.cluster.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.cluster._kill_all()
        harness.Cluster.live.remove(self.cluster)
        self.unmount()

    def start(self):
        self.store.start()
        for d in self.cluster.dispatchers:
            d.start(settle_ms=200)
        for n in self.cluster.nodes:
            n.start()
        self.cluster.wait_ready(20)
        self.readers = killload.start_readers(
            self.families, self.subscriber_count, self.cluster,
            format="mixed", silence_ms=4000, seed=self.seed,
            max_seconds=int(self.seconds + 300))
        for s in self.readers.values():
            s.wait_ready()
        self.producers = killload.producers(self, self.families)
        for p in self.producers:
            p.start()

    def check_producers(self):
        for p in self.producers:
            if p.failure:
                raise p.failure

    @contextlib.contextmanager
    def may_fail(self, what):
        """What does not come to be in time is wrong, and said; the judge may
        know more."""
        try:
            yield
        except (harness.Timeout, AssertionError) as e:
            self.wrong.append(f"{what}: {str(e).splitlines()[0]}")

    def settle(self):
        """All is up, everybody is connected, the last message is published
        and has had time to arrive."""
        with self.may_fail("not well after all faults"):
            self.cluster.wait_ready(30)
        self.stop.set()
        for s in self.readers.values():
            s.tell("patient")
        with self.may_fail("readers"):
            wait_until(lambda: all(s.stats()["ready"] == s.count
                                   for s in self.readers.values()), 30,
                       "every subscriber is connected")
        for p in self.producers:
            p.more.set()
        for p in self.producers:
            p.join(40 * harness.SLOW)
            assert p.failure or not p.is_alive(), "a producer is stuck"
        self.check_producers()
        tops = collections.defaultdict(dict)
        for p in self.producers:
            tops[p.family.name].update(p.tops)
        for name, s in self.readers.items():
            family = {"one": "kill", "several": "kill"}.get(name, name)
            s.tell_tops(tops[family].get(i, 0) for i in range(
                self.families[family].channels))
        self.wait_level()
        for s in self.readers.values():
            s.flush()

    def wait_level(self):
        """Everybody has everything, or nothing comes any more, also not by
        the slow sweep; the judge says who lacks what."""
        came, quiet_at = -1, 0
        while True:
            stats = [s.stats() for s in self.readers.values()]
            if not any(s["behind"] for s in stats):
                return
            total = sum(s["messages"] for s in stats)
            if total != came:
                came, quiet_at = total, time.monotonic()
            if time.monotonic() - quiet_at > QUIET_SECONDS * harness.SLOW:
                return
            time.sleep(0.2)

    # --- the judgement ---

    def oracle(self, faults):
        oracle = Oracle(f.rule() for f in self.families.values())
        for p in self.producers:
            for ack in p.acks:
                oracle.acknowledged(*ack)
        for name, begin, end, lost in faults.spans:
            oracle.fault(name, begin, end)
            if lost:
                oracle.lost(name, begin, end)
        for name in self.readers:
            oracle.read(self.cluster.dir / f"events-{name}", name)
        self.read_store(oracle)
        return oracle

    def read_store(self, oracle):
        """What it holds of the channels that keep history."""
        call = self.cluster.d.grpc.unary(
            rpc.CHANNEL + "/GetHistory", "stentor.v1.GetHistoryRequest",
            "stentor.v1.GetHistoryResponse")
        request = rpc.messages("stentor.v1.GetHistoryRequest")
        for family in self.families.values():
            for i in range(family.channels if family.size else 0):
                answer = call(request(
                    channel=family.template % i, latest=True,
                    limit=min(STORED, STORED_BYTES // family.bytes)),
                    timeout=rpc.TIMEOUT)
                oracle.stored(
                    family.base + i,
                    (answer.top.epoch, answer.top.offset),
                    [(m.position.epoch, m.position.offset,
                      int(m.data[9:19])) for m in answer.messages],
                    answer.first.offset)

    def report(self, faults):
        stats = {name: s.stats() for name, s in self.readers.items()}
        begun = time.monotonic()
        verdict = self.oracle(faults).judge()
        total = collections.Counter()
        for s in stats.values():
            total.update({k: v for k, v in s.items() if isinstance(v, int)})
        rounds = sorted(t for p in self.producers for t in p.seconds)
        codes = sum((p.codes for p in self.producers), collections.Counter())
        wrong = self.wrong + verdict.lines()
        wrong += [f"{name}: {total[name]}" for name in Subscribers.FAULTS
                  if total[name] and name not in ("behind", "beyond")]
        if faults.alone:
            wrong += [f"late: {name} p99 {q['p99']:.3f} s"
                      for name, q in verdict.quantiles().items()
                      if q["p99"] > LATE_SECONDS]
        swept = sum(n.metric("stentor_log_swept_total")
                    for n in self.cluster.nodes)
        if swept:  # since the last restarts
            wrong.append(f"swept: {swept}")
        return {
            "store": self.store_name, "seed": self.seed,
            "seconds": self.seconds,
            "acknowledged": sum(p.acknowledged for p in self.producers),
            "retried": sum(p.retried for p in self.producers),
            "codes": dict(codes),
            "round_seconds": {f"p{q}": rounds[len(rounds) * q // 100]
                              for q in (50, 90, 99)} if rounds else {},
            "faults": dict(faults.done), "subscribers": dict(total),
            "judged": dict(verdict.seen),
            "judged_seconds": round(time.monotonic() - begun, 1),
            "broken": dict(verdict.wrong),
            "late": verdict.quantiles(), "latest": [
                str(x) for x in verdict.latest],
            "live_ms": [[s["live"][q] / 1000 for q in (
                "p50_us", "p99_us", "p999_us")] for s in stats.values()],
            "resume_ms": [[s["resume"][q] / 1000 for q in (
                "p50_us", "p99_us")] for s in stats.values()],
            "wrong": wrong, "history": faults.history,
            "told": [line for s in self.readers.values()
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
    try:
        test.close()
    except AssertionError as e:
        report["wrong"].append(f"at the end: {e}")
    return report


def show(report):
    for key, value in report.items():
        if key == "late":
            value = [f"{name:16} n {q['n']:8}  p50 {q['p50']:.3f}  "
                     f"p99 {q['p99']:.3f}  max {q['max']:.3f} s"
                     for name, q in value.items()]
        text = "\n    ".join(["", *value]) if isinstance(
            value, list) and value and isinstance(value[0], str) else value
        print(f"{key}: {text}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--list", action="store_true",
                        help="the faults, and how often each comes")
    parser.add_argument("--store", choices=STORES)
    parser.add_argument("--only", help="these faults, with commas between")
    parser.add_argument("--but", help="not these", default="")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--subscribers", type=int, default=2000)
    parser.add_argument("--channels", type=int, default=200)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--history", type=int, default=HISTORY_SIZE)
    parser.add_argument("--old-build", help="a build of the version before")
    parser.add_argument("--json", action="store_true",
                        help="the report as one line")
    args = vars(parser.parse_args())
    if args.pop("list"):
        print(killfaults.listing())
        return 0
    if not args["store"]:
        parser.error("--store is missing")
    for name in ("only", "but"):
        args[name] = args[name].split(",") if args[name] else None
        unknown = set(args[name] or ()) - set(killfaults.TABLE)
        if unknown:
            parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    as_line = args.pop("json")
    report = run(**args)
    if as_line:
        print(json.dumps(report))
    else:
        show(report)
    return 1 if report["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
