#!/usr/bin/python3
"""Writes deploy/reference.md: every option and every metric, as they are.

  deploy/reference.py [--build DIR] [--output FILE] [--check]

Options come from the programs' own tables (--options-markdown), metrics from
what a dispatcher and a node really serve on /metrics: both are started on free
loopback ports, one message goes all the way so that every family has samples,
and both are ended again. Nothing of this machine or moment gets into the text.
--check writes nothing; it prints what differs from FILE and exits 1 if
anything does.
"""
import argparse
import contextlib
import difflib
import http.client
import json
import os
import pathlib
import random
import re
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
SLOW = float(os.environ.get("STENTOR_SLOW", "1"))
TIMEOUT_S = 20 * SLOW
ATTEMPTS = 3  # a port may be taken between the look and the use
PORTS = range(10000, 14990)
CHANNEL = "reference"

# Labels whose values are not a fixed few: what stands for them.
OPEN_LABELS = {
    "node": "its name", "worker": "its index", "version": "of the build",
    "code": "gRPC status", "grpc_code": "gRPC status",
    "grpc_service": "each", "grpc_method": "each",
}

INTRODUCTION = """\
# Reference: options and metrics

Made by `make reference` from the programs themselves; do not edit.

## Options

`--api-listen X` is also `STENTOR_API_LISTEN=X` in the environment and
`api_listen: X` in the YAML file named by `--config FILE` (or
`STENTOR_CONFIG`). A flag beats the environment, that beats the file, that beats
the default. Sizes take `KiB`, `MiB` and `GiB`. A mistake is one clear message
on stderr and exit code 78 before any socket opens. Both programs also know
`--help` and `--version`.

The file may also hold `rules:`, the same for all processes of a cluster; the
first rule whose pattern matches a channel decides:

```yaml
rules:
  - match: "score:*"       # exact, or a prefix that ends in *
    priority: critical     # critical, normal (default), droppable
    lagging: conflate      # what a reader that cannot keep up gets: close (it
                           # comes back and resumes), conflate (of each
                           # conflation key only the newest), drop_oldest
    history:               # the channel is reliable: readers resume
      size: 200            # messages that are kept, to 100000; 0: none
      ttl: 10m             # and how old each may get:
                           # 1s to 30d, with ms, s, m, h or d
      latest: 1            # of these, for a new reader at once, to 1000
```

A rule without `history` leaves its channels ephemeral: at most once, nothing
stored. `lagging` is `close` for channels with history unless the rule says
otherwise, `drop_oldest` for those without; `latest` is 0.
"""

METRICS = """
## Metrics

Prometheus text on `/metrics` of each admin port; a node adds up its workers.
No label ever holds a channel, a user or an address.
"""


class Failure(Exception):
    """What the user has to know."""


# --- both programs, running -------------------------------------------------

def free_ports(count):
    """The first of `count` consecutive ports that nobody holds now."""
    for _ in range(100):
        first = random.choice(PORTS)
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    s = stack.enter_context(socket.socket())
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    s.bind((HOST, port))
            except OSError:
                continue
            return first
    raise Failure("no free ports")


def request(port, method, path, body=None):
    """(status, text) of one request."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5 * SLOW)
    with contextlib.closing(connection):
        connection.request(method, path, body and json.dumps(body),
                           {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def is_ready(port):
    try:
        return request(port, "GET", "/readyz")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def wait(condition, what, processes):
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        for name, process in processes.items():
            if process.poll() is not None:
                raise Failure(f"{name} ended with {process.returncode}")
        if time.monotonic() > end:
            raise Failure(f"not within {TIMEOUT_S:g} s: {what}")
        time.sleep(0.02)


@contextlib.contextmanager
def running(arguments, log):
    """Starts {program: arguments}; ends what it started."""
    environment = {k: v for k, v in os.environ.items()
                   if not k.startswith("STENTOR_")}
    processes = {}
    try:
        for program, options in arguments.items():
            processes[program.name] = subprocess.Popen(
                [program, "--auth=none", *options], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env=environment)
        yield processes
    finally:
        for process in reversed(processes.values()):
            process.terminate()
            try:
                process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def scrape(build, log):
    """/metrics of a dispatcher and of a node that have passed a message on."""
    api = free_ports(6)
    link, admin, listen, node_admin, node_link = range(api + 1, api + 6)
    arguments = {
        build / "stentor-dispatcher": [
            "--name=d", "--settle-ms=200",
            f"--api-listen={HOST}:{api}",
            f"--link-listen=tcp://{HOST}:{link}",
            f"--admin-listen={HOST}:{admin}"],
        build / "stentor-connnode": [
            "--name=n", "--workers=1", "--drain-seconds=0",
            f"--listen={HOST}:{listen}",
            f"--admin-listen={HOST}:{node_admin}",
            f"--link-listen=tcp://{HOST}:{node_link}",
            f"--dispatchers=tcp://{HOST}:{link}"],
    }

    def publish():
        return request(api, "POST", "/stentor.v1.PublisherService/Publish",
                       {"channel": CHANNEL, "data": "x"})[1]

    with running(arguments, log) as processes:
        wait(lambda: is_ready(admin) and is_ready(node_admin),
             "both are ready", processes)
        with socket.create_connection((HOST, listen)) as subscriber:
            subscriber.settimeout(TIMEOUT_S)
            subscriber.sendall(
                f"GET /v1/subscribe?channel={CHANNEL} HTTP/1.1\r\n"
                f"Host: {HOST}\r\n\r\n".encode())
            wait(lambda: '"nodes":1' in publish(), "a message is routed",
                 processes)
            return tuple(request(port, "GET", "/metrics")[1]
                         for port in (admin, node_admin))


def scrape_patiently(build):
    for attempt in range(ATTEMPTS):
        with tempfile.TemporaryFile("w+") as log:
            try:
                return scrape(build, log)
            except Failure as failure:
                if attempt == ATTEMPTS - 1:
                    log.seek(0)
                    raise Failure(f"{failure}\n{log.read()}") from failure


# --- the text ---------------------------------------------------------------

def families(text):
    """{name: (type, help, {label: {values}})} of an exposition, in order."""
    found = {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name, meaning = line[7:].split(" ", 1)
            found[name] = ["", meaning, {}]
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            found[name][0] = kind
        elif line:
            # samples follow their head, so theirs is the last one seen
            for label, value in re.findall(r'(\w+)="([^"]*)"', line):
                if label != "le":
                    found[name][2].setdefault(label, {})[value] = True
    return found


def describe(labels):
    return "; ".join(
        f"`{label}`: " + (OPEN_LABELS.get(label) or ", ".join(values))
        for label, values in labels.items())


def metrics_table(text):
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for name, (kind, meaning, labels) in families(text).items():
        lines.append(f"| `{name}` | {kind} | {describe(labels)} | {meaning} |")
    return "\n".join(lines) + "\n"


def options_table(program):
    return subprocess.run([program, "--options-markdown"], check=True,
                          stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=TIMEOUT_S).stdout


def reference(build):
    """The whole document."""
    programs = [build / "stentor-dispatcher", build / "stentor-connnode"]
    text = INTRODUCTION
    for program in programs:
        text += f"\n### {program.name}\n\n{options_table(program)}"
    text += METRICS
    for program, exposition in zip(programs, scrape_patiently(build)):
        text += f"\n### {program.name}\n\n{metrics_table(exposition)}"
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build",
                        help="where the programs are (default: build)")
    parser.add_argument("--output", type=pathlib.Path,
                        default=ROOT / "deploy" / "reference.md")
    parser.add_argument("--check", action="store_true",
                        help="compare with the file instead of writing it")
    args = parser.parse_args()
    try:
        text = reference(args.build.resolve())
    except (Failure, OSError, subprocess.SubprocessError) as failure:
        print(f"deploy/reference.py: {failure}", file=sys.stderr)
        return 2
    if not args.check:
        args.output.write_text(text, encoding="utf-8")
        return 0
    old = args.output.read_text(encoding="utf-8")
    sys.stdout.writelines(difflib.unified_diff(
        old.splitlines(True), text.splitlines(True), str(args.output),
        "as the programs say"))
    return 0 if old == text else 1


if __name__ == "__main__":
    sys.exit(main())
