"""Rows of reliable delivery: what it costs, clients that all come back at once,
and the kill test."""

import contextlib
import json
import os
import signal
import sys
import time

from measure import SHARED, Load, compare, interleave, judge, quantiles, row
from procs import Resumers, Session, Stentor, Subscribers, finish, wait_for

HISTORY = "{size: 1000, ttl: 1h}"
BATCH = 100
STORE_CHANNELS = 1000
RESUMED = 100  # messages that each client missed
STORM = "storm:%d"
LIVE = "live"
LIVE_SUBSCRIBERS = 200
LIVE_RATE = 50
REPLAY_MIB = 64  # the default of --replay-bytes-max
KILLTEST = os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), "system", "killtest.py")


# --- what it costs ------------------------------------------------------------

def row_reliable(session, plan):
    results = []
    for count in [n for n in plan.fanout if n >= 5000] or plan.fanout:
        with Session(session.build) as inner:
            results.append(cost(inner, plan, count))
    for store in ("lmdb", "redis"):
        with Session(session.build) as inner:
            server = Stentor(inner, 1, 1000, store=store, history=HISTORY)
            results += [publishing(server, plan, store, "batch", 8, BATCH),
                        publishing(server, plan, store, "stream", 4, 1024),
                        unary(server, plan, store)]
    return results


def cost(session, plan, count):
    """Two nodes with the same load: one's channel keeps history."""
    session.pin()
    loads = [Load(session, server, count, SHARED) for server in (
        Stentor(session, 1, count, name="reliable", history=HISTORY),
        Stentor(session, 1, count, name="ephemeral"))]
    rate = max(2, plan.fanout_rate // count)

    def measure(load):
        window = load.window(rate, 200, plan.seconds, mode="stream")
        return window["cpu"][1] * 1e6 / window["deliveries"]

    for load in loads:
        measure(load)  # warm
    values = interleave(loads, plan.runs, measure)
    result = row("reliable", "node: CPU of a reliable / an ephemeral delivery,"
                 f" 1 channel to {count} connections, us", 1.05, "ratio",
                 "less")
    result["note"] = "the reference is the ephemeral one"
    return compare(result, {"stentor": values["reliable"],
                            "bare": values["ephemeral"]})


def publish_stored(server, mode, calls, window, **options):
    publisher = server.publisher(
        "stored:%d", STORE_CHANNELS, size=200, mode=mode, calls=calls,
        window=window, seconds=60, **options)
    try:
        return finish(publisher, 90)
    finally:
        server.session.stop(publisher)


def publishing(server, plan, store, mode, calls, window):
    values = []
    publish_stored(server, mode, calls, window, count=plan.stored // 10)
    for _ in range(plan.runs):
        before = server.dispatcher.cpu_seconds()
        report = publish_stored(server, mode, calls, window,
                                count=plan.stored)
        used = server.dispatcher.cpu_seconds() - before
        values.append(report["sent"] / used)
        rate = report["sent"] / report["seconds"]
    what = {"batch": f"PublishBatch of {window}",
            "stream": "PublishStream"}[mode]
    result = row("reliable", f"{store}: {what}, messages per "
                 f"dispatcher-CPU-s", 30000, "value")
    result["note"] = (f"{rate:,.0f}/s, p99 of an answer "
                      f"{report['answers']['p99_us'] / 1000:.1f} ms")
    return compare(result, {"stentor": values})


def sync_ms(directory, count):
    """p99 of a write and its fdatasync, with nothing else."""
    times = []
    path = os.path.join(directory, "sync")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for _ in range(count):
            os.write(fd, bytes(4096))
            start = time.monotonic()
            os.fdatasync(fd)
            times.append((time.monotonic() - start) * 1000)
    finally:
        os.close(fd)
        os.unlink(path)
    return sorted(times)[count * 99 // 100]


def unary(server, plan, store):
    values = []
    for _ in range(plan.runs):
        count = int(200 * plan.seconds)
        bare = sync_ms(server.session.dir, count)
        report = publish_stored(server, "unary", 1, 1, rate=200,
                                count=count)
        values.append(report["answers"]["p99_us"] / 1000 - bare)
    result = row("reliable", f"{store}: p99 of a single unary Publish above "
                 "that of a bare fsync, ms", 5, "value", "less")
    result["note"] = (f"fsync {bare:.2f} ms, unary p50 "
                      f"{report['answers']['p50_us'] / 1000:.2f} ms")
    return compare(result, {"stentor": values})


# --- beside one who takes all it can get --------------------------------------

GREEDY = 10000  # messages of a batch: the most that one may have
BESIDE_RATE = 200


def row_beside(session, plan):
    results = []
    for store in ("lmdb", "redis"):
        with Session(session.build) as inner:
            inner.pin()
            server = Stentor(inner, 1, 1000, store=store, history=HISTORY)
            results += [beside(server, plan, store, n) for n in (1, 4)]
    return results


def unary_report(server, plan):
    return publish_stored(server, "unary", 16, 1, rate=BESIDE_RATE,
                          count=int(BESIDE_RATE * plan.seconds))


def beside(server, plan, store, clients):
    """p99 of honest unary calls beside batches of the largest size, one after
    the other from each client, above the same without them."""
    values, quiet, busy = [], [], []
    for _ in range(plan.runs):
        alone = unary_report(server, plan)["answers"]
        greedy = [server.publisher("greedy:%d", STORE_CHANNELS, size=200,
                                   mode="batch", calls=1, window=GREEDY,
                                   seconds=600)
                  for _ in range(clients)]
        for proc in greedy:  # they share a CPU with the one that measures
            os.setpriority(os.PRIO_PROCESS, proc.popen.pid, 10)
        time.sleep(0.5)
        report = unary_report(server, plan)["answers"]
        sent = 0
        for proc in greedy:
            proc.popen.send_signal(signal.SIGTERM)
        for proc in greedy:  # its last batch may not have been answered
            sent += json.loads(proc.read_line(60))["codes"].get("0", 0)
            server.session.stop(proc)
        quiet.append(quantiles(alone))
        busy.append(quantiles(report))
        values.append((report["p99_us"] - alone["p99_us"]) / 1000)
    result = row("beside", f"{store}: p99 of unary Publish beside {clients} "
                 f"client{'s' * (clients > 1)} with batches of {GREEDY}, above "
                 "that without, ms", 10, "value", "less")
    result["note"] = (f"p50/p99/p99.9 alone {quiet[-1]}, beside {busy[-1]} ms; "
                      f"{sent / plan.seconds:,.0f} messages/s in batches")
    return compare(result, {"stentor": values})


# --- all come back at once ----------------------------------------------------

def row_resume(session, plan):
    results = []
    for channels in (10, 1500):
        with Session(session.build) as inner:
            results += storm(inner, plan, channels)
    return results


def rss_mib(proc):
    total = 0
    for pid in proc.tree():
        with contextlib.suppress(OSError):
            total += int(open(f"/proc/{pid}/statm").read().split()[1])
    return total * os.sysconf("SC_PAGE_SIZE") / 2**20


def publish_storm(server, channels, first, each):
    publisher = server.publisher(
        STORM, channels, size=200, mode="stream", window=1024,
        first=first * channels, count=each * channels, seconds=60)
    finish(publisher, 90)
    server.session.stop(publisher)


def storm(session, plan, channels):
    session.pin()
    count = plan.resumers
    server = Stentor(session, 1, count + LIVE_SUBSCRIBERS, store="lmdb",
                     history=HISTORY)
    live = Subscribers(session, server, LIVE_SUBSCRIBERS, LIVE).wait_ready()
    resumers = Resumers(session, server, count, STORM, channels)
    publish_storm(server, channels, 0, 1)
    resumers.expect(1)
    resumers.wait_level(30)
    before = rss_mib(server.node)
    resumers.proc.tell("drop")
    wait_for(lambda: server.connections() == LIVE_SUBSCRIBERS, 20,
             "end of the connections")
    publish_storm(server, channels, 1, RESUMED)
    resumers.expect(1 + RESUMED)

    publisher = server.publisher(LIVE, 1, size=200, mode="stream",
                                 rate=LIVE_RATE, seconds=200)
    live.reset()
    resumers.proc.tell("reset")
    peak, begun = before, time.monotonic()
    resumers.proc.tell("go")
    level = {"behind": count}
    while level["behind"] > 0 and time.monotonic() - begun < 90:
        for _ in range(20):
            peak = max(peak, rss_mib(server.node))
            time.sleep(0.01)
        level = resumers.stats()
    took = time.monotonic() - begun
    publisher.popen.send_signal(signal.SIGTERM)
    sent = finish(publisher, 10)["sent"]
    latency = live.wait_messages(sent * LIVE_SUBSCRIBERS, 10)["shared"]
    time.sleep(3)  # what pages are kept for is over
    after = rss_mib(server.node)

    what = f"{count} clients resume {RESUMED} messages each, " \
           f"{channels} channels: "
    served = row("resume", what + "lost, doubled, not served", 0, "value",
                 "less")
    faults = resumers.faults(level)
    served["value"] = sum(faults.values())
    served["runs"] = {"stats": level, "faults": faults}
    served["note"] = (f"{took:.1f} s, {level['replayed']:,} messages replayed")
    others = row("resume", what + "p99 of others, ms", 50, "value", "less")
    others["value"] = latency["p99_us"] / 1000
    others["note"] = f"p50/p99/p99.9 {quantiles(latency)} ms, {sent} messages"
    memory = row("resume", what + "worker's memory above before, MiB",
                 REPLAY_MIB, "value", "less")
    memory["value"] = peak - before
    memory["note"] = (f"before {before:.0f}, peak {peak:.0f}, after "
                      f"{after:.0f} MiB RSS")
    return [judge(r) for r in (served, others, memory)]


# --- the kill test ------------------------------------------------------------

def row_kill(session, plan):
    return [killed(session, plan, store) for store in (
        "redis", "lmdb", "redis-everysec", "redis-rdb", "sentinel",
        "cluster", "lmdb-copy")]


def killed(session, plan, store):
    os.environ["STENTOR_BUILD"] = os.path.abspath(session.build)
    seconds = plan.kill_seconds
    test = session.start(sys.executable, KILLTEST, "--store", store, "--json",
                         "--seconds", seconds, "--seed",
                         int(time.time()) % 100000)
    report = json.loads(test.read_line(seconds + 180))
    session.stop(test)
    result = row("kill", f"{store}: {seconds} s of faults: promises broken",
                 0, "value", "less")
    result["value"] = len(report["wrong"])
    result["runs"] = report
    subscribers = report["subscribers"]
    result["note"] = "; ".join([
        f"seed {report['seed']}: {report['acknowledged']:,} acknowledged",
        f"{report['retried']:,} retried",
        ", ".join(f"{n} {what}" for what, n in report["faults"].items()),
        f"{subscribers['resumes']:,} resumes",
        f"{subscribers['replayed']:,} of {subscribers['messages']:,} "
        "messages replayed",
        "live p50 " + "/".join(f"{q[0]:.1f}" for q in report["live_ms"])
        + " ms", f"late p99 {max(q['p99'] for q in report['late'].values())}"
        " s", *report["wrong"][:5]])
    return judge(result)
