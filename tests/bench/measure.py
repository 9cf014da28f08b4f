"""What the rows of the table are made of: windows of publishing to subscribers,
medians over runs that take turns, and the judgement of a result."""

import statistics
import time

from procs import Bare, Subscribers, finish, wait_for

SHARED = "bench"
PRIVATE = "priv:%d"
# Full speed outruns a node on the same two cores: the dispatcher would shed
# what its link queue (16 MiB) cannot hold, and the count would be of messages
# that nobody got. A burst of this many fits, and all of it must arrive.
BURST = 40000


def row(name, measure, target, unit, better="more"):
    """What a row reports, before it is measured."""
    return {"row": name, "measure": measure, "target": target, "unit": unit,
            "better": better, "value": None, "reference": None, "ratio": None,
            "nchan": None, "met": None, "note": "", "runs": {}}


def judge(result):
    """Sets `met`: a target is a limit of the ratio or of the value."""
    subject = result["ratio" if result["unit"] == "ratio" else "value"]
    if result["better"] == "more":
        result["met"] = subject >= result["target"]
    else:
        result["met"] = subject <= result["target"]
    return result


def cpu_seconds(procs):
    return sum(proc.cpu_seconds() for proc in procs)


class Load:
    """Subscribers on a server, and windows of publishing to them."""

    def __init__(self, session, server, count, channel):
        self.server = server
        self.channel = channel
        self.channels = count if channel == PRIVATE else 1
        self.fanout = 1 if channel == PRIVATE else count
        self.published = 0
        self.delivered = 0
        self.subscribers = Subscribers(session, server, count, channel)
        self.subscribers.wait_ready()
        wait_for(lambda: server.connections() == count, 10,
                 f"{count} subscribers at {server.name}")

    def window(self, rate, size, seconds, **options):
        """Publishes for a while. Returns deliveries and CPU seconds of each
        server process, once every delivery has arrived."""
        before = [p.cpu_seconds() for p in self.server.servers]
        self.subscribers.reset()
        if isinstance(self.server, Bare):
            report = self.publish_bare(rate, size, seconds)
        else:
            report = self.publish(rate, size, seconds, options)
        stats = self.subscribers.wait_messages(self.delivered, 20)
        after = [p.cpu_seconds() for p in self.server.servers]
        return {"deliveries": self.delivered - report["before"],
                "messages": report["messages"], "stats": stats,
                "report": report,
                "cpu": [b - a for a, b in zip(before, after)]}

    def publish_bare(self, rate, size, seconds):
        proc = self.server.proc
        before = self.delivered
        proc.tell(f"start {rate} {size}")
        time.sleep(seconds)  # the window itself
        proc.tell("stop")

        def all_sent():
            sends = proc.ask("stats")["sends"]
            time.sleep(0.05)
            return sends == proc.ask("stats")["sends"] and sends
        self.delivered = wait_for(all_sent, 20, "end of sending")
        return {"before": before,
                "messages": (self.delivered - before) // self.fanout}

    def publish(self, rate, size, seconds, options):
        limit = {"count": BURST}
        if rate:
            limit = {"rate": rate, "count": int(rate * seconds)}
        publisher = self.server.publisher(
            self.channel, self.channels, size=size, first=self.published,
            seconds=int(seconds * 3 + 10),
            **limit, **options)
        try:
            report = finish(publisher, seconds * 3 + 40)
        finally:
            self.server.session.stop(publisher)
        report["before"] = self.delivered
        report["messages"] = report["sent"]
        self.published += report["sent"]
        self.delivered += report["sent"] * self.fanout
        return report


def per_cpu(window, which=None):
    """Deliveries per CPU second of all server processes, or of one."""
    cpu = sum(window["cpu"]) if which is None else window["cpu"][which]
    return window["deliveries"] / cpu if cpu else 0


def interleave(loads, runs, measure):
    """runs x each load in turn, to and fro; server name -> list of what
    measure(load) returned."""
    results = {load.server.name: [] for load in loads}
    for turn in range(runs):
        for load in loads if turn % 2 == 0 else reversed(loads):
            results[load.server.name].append(measure(load))
    return results


def compare(result, values):
    """Medians, and the median of the ratios of neighbouring runs."""
    result["value"] = statistics.median(values["stentor"])
    if "bare" in values:
        result["reference"] = statistics.median(values["bare"])
        ratios = [a / b for a, b in zip(values["stentor"], values["bare"])]
        result["ratio"] = statistics.median(ratios)
        result["ratios"] = ratios
    if "nchan" in values:
        result["nchan"] = statistics.median(values["nchan"])
    result["runs"] = values
    return judge(result)


def quantiles(latency):
    return "/".join(f"{latency[k] / 1000:.1f}"
                    for k in ("p50_us", "p99_us", "p999_us"))
