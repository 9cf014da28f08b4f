#!/usr/bin/python3
"""A producer as its users write it: stock grpcio, several dispatchers in
rotation, retries by service config and not by code.

  producer.py --to ipv4:A:P,B:P --channel 'fleet:%d' --channels N --rate N

Publishes numbered messages to each channel in turn, N a second in all, each
with an idempotency key, until a line (or the end) of its input; then prints
one JSON object: acknowledged, tops (each channel's last number), errors (what
was seen of calls that failed) and misplaced (a message's number must be its
offset). A message whose call failed is published again, so that the channel's
numbers stay whole. Messages have the stamps of tests/bench/resumebench.c.
"""
import argparse
import json
import sys
import threading
import time

import grpc

import rpc

THREADS = 4
DATA_BYTES = 200
RETRYABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    # no call to a dispatcher that is starting or draining
    "healthCheckConfig": {"serviceName": ""},
    "methodConfig": [{
        "name": [{"service": rpc.PUBLISHER}],
        "retryPolicy": {
            "maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "1s",
            "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]},
    }],
}


class Loop(threading.Thread):
    """Its channels' next messages, one after the other."""

    def __init__(self, stubs, args, index, stop):
        super().__init__()
        self.stubs, self.args, self.stop = stubs, args, stop
        self.tops = dict.fromkeys(range(index, args.channels, THREADS), 0)
        self.errors, self.misplaced = [], []

    def run(self):
        interval = THREADS / self.args.rate
        due = time.monotonic()
        while not self.stop.is_set():
            for channel in self.tops:
                self.publish(channel)
                due = max(due + interval, time.monotonic() - 1)
                time.sleep(max(0, due - time.monotonic()))

    def publish(self, channel):
        number = self.tops[channel] + 1
        name = self.args.channel % channel
        stamp = f"{channel + 1:08d} {number:010d} {time.monotonic_ns():019d} "
        while True:
            try:
                answer = self.stubs.publish(
                    channel=name, data=stamp.ljust(DATA_BYTES, "x"),
                    idempotency_key=f"{name}-{number}")
                break
            except grpc.RpcError as e:
                if e.code() not in RETRYABLE:
                    raise
                self.errors.append(f"{e.code().name}: {e.details()}")
                time.sleep(0.1)
        self.tops[channel] = number
        if answer.position.offset != number:
            self.misplaced.append(f"{name} {number} at {answer.position}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--to", required=True)
    parser.add_argument("--channel", required=True)
    parser.add_argument("--channels", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    args = parser.parse_args()
    stubs = rpc.Stubs(args.to, [
        ("grpc.service_config", json.dumps(SERVICE_CONFIG))])
    stop = threading.Event()
    loops = [Loop(stubs, args, i, stop) for i in range(THREADS)]
    for loop in loops:
        loop.start()
    sys.stdin.readline()
    stop.set()
    for loop in loops:
        loop.join()
    tops = {c: t for loop in loops for c, t in loop.tops.items()}
    print(json.dumps({
        "acknowledged": sum(tops.values()),
        "tops": [tops[c] for c in range(args.channels)],
        "errors": [e for loop in loops for e in loop.errors],
        "misplaced": [m for loop in loops for m in loop.misplaced]}))


if __name__ == "__main__":
    main()
