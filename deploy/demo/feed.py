#!/usr/bin/python3
"""The demo's producer: publishes through the real gRPC API of a dispatcher.

    cricket:demo:commentary  one JSON message per ball of the fictional match
    cricket:demo:score       the whole score, after every ball; the channel's rule
                             gives the newest to a page opened mid-match
    host:cpu                 this machine's CPU use, in all and per core, once a second
    host:net                 bytes per second in and out, once a second

Every message carries `at`, milliseconds since 1970 when it was published, from
which the page computes the latency. A dispatcher that is away is no reason to
end: publishes are retried with growing, randomised pauses, under the same
idempotency key, so that one whose answer was lost is not told twice. SIGTERM
and SIGINT end the feed cleanly with exit code 0.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid

import grpc

import match as cricket

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PUBLISH = "/stentor.v1.PublisherService/Publish"
CALL_TIMEOUT_S = 3.0
RETRY_FIRST_S = 0.2
RETRY_MAX_S = 3.0
PAUSE_BREAK_S = 8.0
PAUSE_RESULT_S = 12.0
RETRYABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED,
             grpc.StatusCode.RESOURCE_EXHAUSTED)


def load_messages(out):
    """Generates the Python classes of the public API into `out`; imports them."""
    os.makedirs(out, exist_ok=True)
    subprocess.run(["protoc", f"-I{ROOT}/proto", f"--python_out={out}",
                    "stentor/v1/publisher.proto"], check=True)
    sys.path.insert(0, out)
    from stentor.v1 import publisher_pb2
    return publisher_pb2


class Producer:
    """A gRPC channel to one dispatcher. Used from several threads."""

    def __init__(self, target, pb, stop):
        self.pb = pb
        self.stop = stop
        self.target = target
        self.lock = threading.Lock()
        self.away = False  # the last publish failed
        self.channel = grpc.insecure_channel(target, options=[
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.min_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 2000),
        ])
        self.call = self.channel.unary_unary(
            PUBLISH, request_serializer=pb.PublishRequest.SerializeToString,
            response_deserializer=pb.PublishResponse.FromString)

    def publish(self, channel, value, retry, **fields):
        """Publishes `value` as JSON. With `retry` returns only once it is
        accepted or the feed stops; without, a failure is the end of it,
        because newer data follows."""
        pause = RETRY_FIRST_S
        if retry:
            fields["idempotency_key"] = str(uuid.uuid4())
        while not self.stop.is_set():
            data = json.dumps(dict(value, at=round(time.time() * 1000, 1)), ensure_ascii=False)
            try:
                self.call(self.pb.PublishRequest(channel=channel, data=data, **fields),
                          timeout=CALL_TIMEOUT_S)
                self._say(False, "")
                return
            except grpc.RpcError as e:
                if self.stop.is_set():
                    return
                self._say(True, f"{e.code().name}: {e.details()}")
                if e.code() not in RETRYABLE:
                    raise
                if not retry:
                    return
            self.stop.wait(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, RETRY_MAX_S)

    def _say(self, away, why):
        with self.lock:
            if away == self.away:
                return
            self.away = away
        print(f"feed: {self.target} does not answer ({why}), retrying" if away
              else f"feed: {self.target} answers again", flush=True)


class MatchFeed:
    """Plays the match for ever: commentary and score."""

    def __init__(self, producer, match, ball_s):
        self.producer = producer
        self.match = match
        self.ball_s = ball_s
        self.stop = producer.stop

    def run(self):
        while not self.stop.is_set():
            self._play()

    def _play(self):
        scorer = cricket.Scorer(self.match, play=round(time.time()))
        for number, innings in enumerate(self.match["innings"]):
            scorer.start_innings()
            side = self.match["teams"][innings["batting"]]["name"]
            self._pause(scorer, "live", f"{side} come out to bat", self.ball_s)
            for ball in innings["balls"]:
                told = scorer.take(ball)
                self.producer.publish("cricket:demo:commentary", told, retry=True)
                self._pause(scorer, "live", self._note(scorer),
                            self.ball_s * random.uniform(0.75, 1.25))
                if self.stop.is_set():
                    return
            if number == 0:
                chasing = self.match["teams"][1 - innings["batting"]]["name"]
                self._pause(scorer, "break",
                            f"Innings break. {chasing} need {scorer.innings[0].runs + 1} to win",
                            PAUSE_BREAK_S)
        self._pause(scorer, "result", cricket.result_text(self.match, scorer.innings),
                    PAUSE_RESULT_S)

    def _note(self, scorer):
        innings = scorer.innings[-1]
        if innings.target is None:
            rate = innings.runs * cricket.BALLS_PER_OVER / max(innings.balls, 1)
            return f"Run rate {rate:.2f}"
        need = innings.target - innings.runs
        left = cricket.OVERS * cricket.BALLS_PER_OVER - innings.balls
        if need <= 0 or innings.ended():
            return cricket.result_text(self.match, scorer.innings)
        side = self.match["teams"][innings.batting]["name"]
        return (f"{side} need {need} run{'s' * (need != 1)}"
                f" from {left} ball{'s' * (left != 1)}")

    def _pause(self, scorer, phase, note, seconds):
        """Tells the score and waits."""
        self.producer.publish("cricket:demo:score", scorer.score(phase, note), retry=True,
                              conflation_key="score")
        self.stop.wait(seconds)


def read_cpu():
    """(busy, total) ticks: of all cores first, then of each."""
    rows = []
    with open("/proc/stat", encoding="ascii") as f:
        for line in f:
            if not line.startswith("cpu"):
                break
            ticks = [int(x) for x in line.split()[1:9]]  # guest time is in user time already
            rows.append((sum(ticks) - ticks[3] - ticks[4], sum(ticks)))  # idle, iowait
    return rows


def read_net():
    """(received, sent) bytes since boot: of the network, and of loopback.
    Virtual interfaces are left out: their bytes are counted a second time
    on the interface that carries them."""
    network, loopback = [0, 0], [0, 0]
    with open("/proc/net/dev", encoding="ascii") as f:
        for line in f.readlines()[2:]:
            name, _, fields = line.partition(":")
            name = name.strip()
            if name.startswith(("veth", "docker", "br-", "virbr", "cni", "flannel", "tun", "tap")):
                continue
            fields = fields.split()
            into = loopback if name == "lo" else network
            into[0] += int(fields[0])
            into[1] += int(fields[8])
    return network, loopback


def percent(before, after):
    """CPU use between two readings of read_cpu(), as percentages."""
    return [round(100 * (b[0] - a[0]) / max(b[1] - a[1], 1), 1) for a, b in zip(before, after)]


def run_host(producer):
    """Publishes this machine's CPU and network use once a second."""
    cpu, (net, lo), then = read_cpu(), read_net(), time.monotonic()
    while not producer.stop.wait(1.0):
        cpu_now, (net_now, lo_now), now = read_cpu(), read_net(), time.monotonic()
        used = percent(cpu, cpu_now)
        per_s = [max(0, round((b - a) / (now - then)))
                 for a, b in zip(net + lo, net_now + lo_now)]
        producer.publish("host:cpu", {"total": used[0], "cores": used[1:]}, retry=False)
        producer.publish("host:net", {"rx": per_s[0], "tx": per_s[1], "loopback": per_s[3]},
                         retry=False)
        cpu, net, lo, then = cpu_now, net_now, lo_now, now


def guarded(stop, failure, run, *args):
    """Runs a thread's work; an unexpected end stops the whole feed. Once it
    stops, errors are those of calls cut off by the closing channel."""
    try:
        run(*args)
    except Exception as e:
        if not stop.is_set():
            failure.append(e)
            stop.set()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--api", default="127.0.0.1:7070", help="the dispatcher's API")
    parser.add_argument("--generated", default=os.path.join(ROOT, "build", "run", "python"),
                        help="where generated Python goes")
    parser.add_argument("--ball-seconds", type=float, default=3.0,
                        help="mean time between two balls")
    args = parser.parse_args()

    stop, failure = threading.Event(), []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    producer = Producer(args.api, load_messages(args.generated), stop)
    match_feed = MatchFeed(producer, cricket.load(), args.ball_seconds)
    threads = [
        threading.Thread(target=guarded, args=(stop, failure, match_feed.run)),
        threading.Thread(target=guarded, args=(stop, failure, run_host, producer)),
    ]
    for t in threads:
        t.start()
    stop.wait()
    producer.channel.close()  # ends a call that is under way
    for t in threads:
        t.join()
    if failure:
        sys.exit(f"feed: {failure[0]!r}")


if __name__ == "__main__":
    main()
