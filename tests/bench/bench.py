#!/usr/bin/python3
"""The performance table of Stentor, measured on this machine.

Each row runs Stentor, the bare reference server and, where it is installed,
nginx with nchan in the same session, in turn, several short runs each. Prints
a table and writes build/bench/results.json. See README.md beside this file.
"""

import argparse
import datetime
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time

import reliable
import scale
from measure import (BURST, PRIVATE, SHARED, Load, compare, cpu_seconds,
                     interleave, judge, per_cpu, quantiles, row)
from procs import (Bare, BenchError, Nchan, Session, Stentor, Subscribers,
                   faults, finish, read_cpu_ticks, stolen_share, wait_for)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))


class Plan:
    """How much is measured."""

    def __init__(self, quick):
        self.quick = quick
        self.runs = 1 if quick else 5
        self.seconds = 1.5 if quick else 3
        self.fanout = [1000] if quick else [1000, 5000, 15000]
        self.sizes = [200] if quick else [200, 1024]
        self.fanout_rate = 25000  # deliveries a second
        self.idle = 4000 if quick else 15000
        self.accepts = 3000 if quick else 10000
        self.private = 2000 if quick else 10000
        self.many = 5000 if quick else 50000
        self.many_seconds = 4 if quick else 60
        self.kill_seconds = 20 if quick else 600
        self.resumers = 2000 if quick else 15000
        self.stored = 20000 if quick else 200000  # messages of a run


# --- rows ---------------------------------------------------------------------

def servers_for(session, workers, connections, mode="broadcast"):
    servers = [Stentor(session, workers, connections),
               Bare(session, workers, mode)]
    if Nchan.installed():
        servers.append(Nchan(session, workers))
    return servers


def row_fanout(session, plan):
    results = []
    for count in plan.fanout:
        with Session(session.build) as inner:
            results += fanout_of(inner, plan, count)
    return results


def fanout_of(session, plan, count):
    session.pin()
    loads = [Load(session, server, count, SHARED)
             for server in servers_for(session, 1, count)]
    rate = max(2, plan.fanout_rate // count)
    results = []
    for load in loads:
        load.window(rate, 200, 1, mode="stream")  # warm
    for size in plan.sizes:
        node = []

        def measure(load):
            window = load.window(rate, size, plan.seconds, mode="stream")
            if load.server.name == "stentor":
                node.append(per_cpu(window, 1))
            return per_cpu(window)

        result = row("fanout", f"deliveries per server-CPU-s, 1 channel to "
                     f"{count} connections, {size} B", 0.90, "ratio")
        compare(result, interleave(loads, plan.runs, measure))
        result["note"] = (f"{rate} broadcasts/s; node alone "
                          f"{statistics.median(node):,.0f}")
        results.append(result)
    return results


def row_idle(session, plan):
    result = row("idle", f"user-space bytes of an idle connection "
                 f"({plan.idle} of them)", 1536, "value", "less")
    values = {}
    servers = servers_for(session, 1, plan.idle)
    for server in (s for s in servers if not isinstance(s, Bare)):
        empty = server.node.pss_bytes()
        subscribers = Subscribers(session, server, plan.idle, SHARED)
        subscribers.wait_ready()
        full = server.node.pss_bytes()
        values[server.name] = [(full - empty) / plan.idle]
        if server.name == "stentor":
            result["note"] = f"empty node {empty / 2**20:.1f} MiB PSS"
        subscribers.quit()
    return [compare(result, values)]


def row_accept(session, plan):
    session.pin()
    servers = servers_for(session, 1, plan.accepts)

    def measure(server):
        before = cpu_seconds(server.servers)
        subscribers = Subscribers(session, server, plan.accepts, SHARED)
        subscribers.wait_ready()
        used = cpu_seconds(server.servers) - before
        subscribers.quit()
        wait_for(lambda: server.connections() == 0, 20,
                 f"end of {server.name}'s connections")
        return plan.accepts / used

    values = {server.name: [] for server in servers}
    for server in servers:
        measure(server)  # warm
    for _ in range(plan.runs):
        for server in servers:
            values[server.name].append(measure(server))
    result = row("accept", "connections accepted per server-CPU-s", 0.7,
                 "ratio")
    return [compare(result, values)]


def row_private(session, plan):
    """The rows with a channel of its own for each connection."""
    servers = [Stentor(session, 1, plan.private),
               Bare(session, 1, "private")]
    loads = [Load(session, s, plan.private, PRIVATE) for s in servers]
    if Nchan.installed():
        nchan = Nchan(session, 1)
        loads.append(Load(session, nchan, plan.private, PRIVATE))
    for load in loads:
        load.window(2000, 200, 1, mode="stream")  # warm
    return [private_node(loads, plan, 10000),
            private_node(loads[:2], plan, 20000),
            private_latency(loads, plan),
            dispatcher_stream(loads[0], plan, 15000),
            dispatcher_stream(loads[0], plan, 0),
            dispatcher_unary(loads[0], plan)]


def private_node(loads, plan, rate):
    """At two paces: what a batch costs beyond its messages weighs less the
    more of them it holds."""
    total = []

    def measure(load):
        if load.server.name == "nchan":
            window = load.window(5000, 200, plan.seconds, calls=8)
        else:
            window = load.window(rate, 200, plan.seconds, mode="stream")
        if load.server.name != "stentor":
            return per_cpu(window)
        total.append(per_cpu(window))
        return per_cpu(window, 1)

    result = row("private", f"node: private deliveries per node-CPU-s to "
                 f"{plan.private} channels, {rate:,}/s", 60000, "value")
    compare(result, interleave(loads, plan.runs, measure))
    result["note"] = (f"with the dispatcher's CPU "
                      f"{statistics.median(total):,.0f}")
    return result


def private_latency(loads, plan):
    kept = []

    def measure(load):
        window = load.window(1000, 200, plan.seconds, calls=16)
        latency = window["stats"]["private"]
        if load.server.name == "stentor":
            kept.append(latency)
        return latency["p99_us"] / 1000

    result = row("latency", "publish to first byte, 1,000 private/s: "
                 "p99 in ms", 2.0, "value", "less")
    compare(result, interleave(loads, plan.runs, measure))
    p50 = statistics.median(k["p50_us"] for k in kept) / 1000
    p999 = statistics.median(k["p999_us"] for k in kept) / 1000
    result["note"] = f"p50 {p50:.2f} ms, p99.9 {p999:.2f} ms"
    return result


def dispatcher_stream(load, plan, rate):
    """At a pace that leaves the links idle at times (each batch is small),
    and as fast as answers come (rate 0: a burst)."""
    values = []
    for _ in range(plan.runs):
        window = load.window(rate, 200, plan.seconds, mode="stream",
                             window=1024)
        values.append(window["messages"] / window["cpu"][0])
        reached = window["messages"] / window["report"]["seconds"]
    result = row("stream", f"dispatcher: PublishStream messages per "
                 f"dispatcher-CPU-s, {plan.private} channels, "
                 + (f"{rate:,}/s" if rate else f"burst of {BURST:,}"), 100000, "value")
    compare(result, {"stentor": values})
    result["note"] = f"{reached:,.0f}/s, all delivered"
    return result


def dispatcher_unary(load, plan):
    values = []
    for _ in range(plan.runs):
        window = load.window(0, 200, plan.seconds, calls=64)
        values.append(window["messages"] / window["cpu"][0])
        rate = window["messages"] / window["report"]["seconds"]
        p99 = window["report"]["answers"]["p99_us"] / 1000
    result = row("unary", "dispatcher: unary Publish per dispatcher-CPU-s, "
                 f"64 concurrent calls, burst of {BURST:,}", 25000, "value")
    compare(result, {"stentor": values})
    result["note"] = f"{rate:,.0f}/s, p99 of an answer {p99:.1f} ms"
    return result


def row_many(session, plan):
    count, seconds = plan.many, plan.many_seconds
    server = Stentor(session, 4, count)
    empty = server.node.pss_bytes()
    subscribers = Subscribers(session, server, count, SHARED, PRIVATE)
    subscribers.wait_ready(180)
    subscribers.reset()
    before = [p.cpu_seconds() for p in server.servers]
    began = time.monotonic()
    publishers = [
        server.publisher(SHARED, 1, rate=1, count=seconds, mode="stream",
                         seconds=seconds + 5),
        server.publisher(PRIVATE, count, rate=1000, count=1000 * seconds,
                         calls=16, seconds=seconds + 5)]
    expected = 0
    for publisher, fanout in zip(publishers, (count, 1)):
        expected += finish(publisher, seconds + 30)["sent"] * fanout
    wall = time.monotonic() - began
    cpu = [p.cpu_seconds() - b for p, b in zip(server.servers, before)]
    try:
        wait_for(lambda: subscribers.stats()["messages"] >= expected, 20,
                 "last message")
    except BenchError:
        pass  # lost: the row says how many
    stats = subscribers.stats()
    result = row("many", f"{count} connections, 4 workers, 1 broadcast/s + "
                 f"1,000 private/s, {seconds} s: lost, doubled, closed", 0,
                 "value", "less")
    wrong = faults(stats)
    result["value"] = expected - stats["messages"] + sum(wrong.values())
    result["runs"] = {"stats": stats, "faults": wrong, "cpu": cpu,
                      "wall": wall, "pss": server.node.pss_bytes()}
    pss = server.node.pss_bytes()
    result["note"] = (
        f"CPU node {cpu[1] / wall:.0%} dispatcher {cpu[0] / wall:.0%}; PSS "
        f"{pss / 2**20:.0f} MiB ({(pss - empty) / count:,.0f} B/connection); "
        f"p50/p99/p99.9 ms private {quantiles(stats['private'])}, broadcast "
        f"{quantiles(stats['shared'])}")
    return [judge(result)]


# name -> (function, seconds it may take)
ROWS = {
    "accept": (row_accept, 180),
    "idle": (row_idle, 120),
    "fanout": (row_fanout, 600),
    "private": (row_private, 300),
    "many": (row_many, 300),
    "reliable": (reliable.row_reliable, 900),
    "beside": (reliable.row_beside, 300),
    "resume": (reliable.row_resume, 300),
    "kill": (reliable.row_kill, 6600),
    "scale": (scale.row_scale, 1200),
}


# --- running and reporting ---------------------------------------------------

def on_alarm(_signal, _frame):
    raise BenchError("took too long")


def on_term(_signal, _frame):
    raise KeyboardInterrupt


def run_row(name, build, plan):
    function, limit = ROWS[name]
    ticks = read_cpu_ticks()
    signal.alarm(limit)
    try:
        with Session(build) as session:
            results = function(session, plan)
        for result in results:
            result["stolen"] = stolen_share(ticks)
        return results
    except BenchError as error:
        failed = row(name, name, None, "value")
        failed["note"] = f"not measured: {error}"
        return [failed]
    finally:
        signal.alarm(0)


def machine():
    cpu = [line.split(":")[1].strip() for line in open("/proc/cpuinfo")
           if line.startswith("model name")]
    commit = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty"],
        capture_output=True, text=True).stdout.strip()
    return {"cpu": cpu[0] if cpu else "?", "cpus": os.cpu_count(),
            "kernel": platform.release(), "commit": commit,
            "load_at_start": os.getloadavg()[0],
            "when": datetime.datetime.now().isoformat(timespec="seconds")}


def number(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def target_text(result):
    if result["target"] is None:
        return "-"
    sign = "≥" if result["better"] == "more" else "≤"
    unit = "×" if result["unit"] == "ratio" else ""
    return f"{sign} {number(result['target'])}{unit}"


def print_row(result):
    met = {True: "yes", False: "NO", None: "-"}[result["met"]]
    print(f"{result['measure']:<86} {number(result['value']):>9} "
          f"{number(result['reference']):>9} {number(result['ratio']):>6} "
          f"{number(result['nchan']):>9} {target_text(result):>10} {met:>4}")
    notes = [result["note"]] if result["note"] else []
    for what, values in (("ratios", result.get("ratios", [])),
                         ("values", result["runs"].get("stentor", []))):
        if len(values) > 1:
            notes.append(f"{what} {number(min(values))} to "
                         f"{number(max(values))}")
    if notes:
        print("    " + "; ".join(notes))
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true",
                        help="a sanity check under a minute")
    parser.add_argument("--only", action="append", choices=ROWS,
                        metavar="ROW", help=f"one of {', '.join(ROWS)}")
    parser.add_argument("--runs", type=int, metavar="N",
                        help="pairs of runs behind each median")
    parser.add_argument("--sizes", type=int, nargs="+", metavar="N",
                        help="connections of the fan-out rows")
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    args = parser.parse_args()
    signal.signal(signal.SIGALRM, on_alarm)
    signal.signal(signal.SIGTERM, on_term)

    report = {"machine": machine(), "quick": args.quick, "rows": []}
    if report["machine"]["load_at_start"] > 0.5:
        print("warning: the machine is not idle, load "
              f"{report['machine']['load_at_start']:.1f}")
    print(f"{'measure':<86} {'stentor':>9} {'bare':>9} {'ratio':>6} "
          f"{'nchan':>9} {'target':>10} {'met':>4}")
    for name in args.only or ROWS:
        plan = Plan(args.quick)
        plan.runs = args.runs or plan.runs
        plan.fanout = args.sizes or plan.fanout
        for result in run_row(name, args.build, plan):
            report["rows"].append(result)
            print_row(result)
    path = os.path.join(args.build, "bench", "results.json")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as out:
        json.dump(report, out, indent=1)
    print(f"written to {os.path.relpath(path)}")
    return 1 if any(r["met"] is None for r in report["rows"]) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
