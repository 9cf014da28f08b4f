#!/usr/bin/python3
"""What `make run` starts: a whole Stentor on this machine, with a live feed.

One dispatcher that keeps history in LMDB, one connection node with two workers,
and the demo's producer, all on loopback; stentor.yaml has their rules. Waits
until both report ready, prints what to open and what to type, and then follows
them: Ctrl-C, or the end of any of them, stops the rest in the order feed, node,
dispatcher.

--port-base N (or DEMO_PORT_BASE) moves every port, for when the usual
ones are taken: API N, links N+1, dispatcher's admin N+2, node's links N+10
and N+11, the page N+20, node's admin N+21.
"""

import argparse
import collections
import ctypes
import glob
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
HOST = "127.0.0.1"
RULES = os.path.join(HERE, "stentor.yaml")
WORKERS = 2
READY_TIMEOUT_S = 20
STOP_TIMEOUT_S = 10  # after SIGTERM; then SIGKILL
DRAIN_S = 2  # how long each takes to end what is under way
POLL_S = 0.1
LOG_TAIL_LINES = 15
PR_SET_PDEATHSIG = 1

Ports = collections.namedtuple("Ports", "api link admin node_link page node_admin")
USUAL_PORTS = Ports(7070, 7071, 7072, 7080, 8080, 8081)


class Failure(Exception):
    """Something that the user has to know; the text says what and what to do."""


class Interrupted(Exception):
    """SIGINT or SIGTERM came."""


def ports_from(base):
    """The ports of the demo; `base` None for the usual ones."""
    if base is None:
        return USUAL_PORTS
    if not 1024 <= base <= 65535 - 21:
        raise Failure(f"--port-base {base}: must be between 1024 and {65535 - 21}")
    return Ports(base, base + 1, base + 2, base + 10, base + 20, base + 21)


# --- is there room ------------------------------------------------------------

def holder_of(port):
    """Who listens on a TCP port, as far as /proc lets this user see."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not os.path.exists(table):
            continue
        with open(table, encoding="ascii") as f:
            for fields in (line.split() for line in f.readlines()[1:]):
                if fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    for link in glob.glob("/proc/[0-9]*/fd/*"):
        try:
            if os.readlink(link) in inodes:
                pid = link.split("/")[2]
                with open(f"/proc/{pid}/comm", encoding="utf-8") as f:
                    return f"{f.read().strip()}, process {pid}"
        except OSError:
            continue  # gone, or not ours to see
    return "another program"


def check_ports(ports):
    """Fails with a clear message when one is taken."""
    wanted = {ports.api: "the dispatcher's API", ports.link: "the dispatcher's links",
              ports.admin: "the dispatcher's admin port", ports.page: "the page",
              ports.node_admin: "the node's admin port"}
    wanted.update({ports.node_link + i: f"the links of worker {i}" for i in range(WORKERS)})
    for port, use in wanted.items():
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind((HOST, port))
            except OSError as e:
                raise Failure(
                    f"Port {port}, wanted for {use}, is taken ({holder_of(port)}).\n"
                    "Stop that program, or move the whole demo elsewhere:\n"
                    "    DEMO_PORT_BASE=17000 make run") from e


# --- the children -------------------------------------------------------------

def end_with_parent():
    """In the child: gets SIGTERM when this script dies, however it dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """One process of the demo, its output going to a log file."""

    def __init__(self, name, argv, run_dir):
        self.name = name
        self.log = os.path.join(run_dir, name + ".log")
        with open(self.log, "wb") as log:
            # A session of its own: Ctrl-C at the terminal reaches this script
            # alone, which then stops the children in order.
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, preexec_fn=end_with_parent)

    def check(self):
        """Fails when the process has ended."""
        code = self.process.poll()
        if code is not None:
            how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
            raise Failure(f"{self.name} ended ({how}). The end of {shown(self.log)}:\n{self.tail()}")

    def tail(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return "".join("    " + line for line in f.readlines()[-LOG_TAIL_LINES:]).rstrip()

    def stop(self):
        """SIGTERM, patience, SIGKILL. Returns True when it left by itself."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
            return True
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return False


def shown(path):
    """A path as people want to read it."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def program(build, name):
    path = os.path.join(build, name)
    if not os.access(path, os.X_OK):
        raise Failure(f"{shown(path)} is not there. `make` builds it.")
    return path


def ready(port):
    """True when the admin port says so."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/readyz", timeout=1) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError):
        return False


def wait_ready(waiting, children):
    """`waiting` maps a child to its admin port."""
    end = time.monotonic() + READY_TIMEOUT_S
    waiting = dict(waiting)
    while waiting:
        for child in children:
            child.check()
        for child, port in list(waiting.items()):
            if ready(port):
                del waiting[child]
        if waiting and time.monotonic() > end:
            child, port = next(iter(waiting.items()))
            raise Failure(f"{child.name} is not ready after {READY_TIMEOUT_S} s"
                          f" (http://{HOST}:{port}/readyz says why). The end of"
                          f" {shown(child.log)}:\n{child.tail()}")
        time.sleep(POLL_S if waiting else 0)


def start(args, ports, children):
    """Starts everything; what has started is in `children` even on failure."""
    dispatcher_program = program(args.build, "stentor-dispatcher")
    node_program = program(args.build, "stentor-connnode")
    run_dir = args.run_dir
    os.makedirs(run_dir, exist_ok=True)
    check_ports(ports)

    dispatcher = Child("dispatcher", [
        dispatcher_program, "--config", RULES,
        "--log-format", "text", "--auth", "none", "--name", "demo-dispatcher",
        "--store", "lmdb:" + os.path.join(run_dir, "store"),
        "--api-listen", f"{HOST}:{ports.api}",
        "--link-listen", f"tcp://{HOST}:{ports.link}",
        "--admin-listen", f"{HOST}:{ports.admin}",
        "--drain-seconds", str(DRAIN_S)], run_dir)
    children.append(dispatcher)
    node = Child("connnode", [
        node_program, "--config", RULES,
        "--log-format", "text", "--auth", "none", "--name", "demo-node",
        "--listen", f"{HOST}:{ports.page}",
        "--admin-listen", f"{HOST}:{ports.node_admin}",
        "--dispatchers", f"tcp://{HOST}:{ports.link}",
        "--link-listen", f"tcp://{HOST}:{ports.node_link}",
        "--workers", str(WORKERS), "--drain-seconds", str(DRAIN_S)], run_dir)
    children.append(node)
    wait_ready({dispatcher: ports.admin, node: ports.node_admin}, children)
    children.append(Child("feed", [
        sys.executable, os.path.join(HERE, "feed.py"), "--api", f"{HOST}:{ports.api}",
        "--generated", os.path.join(run_dir, "python"),
        "--ball-seconds", str(args.ball_seconds)], run_dir))


def stop(children):
    """Stops the children, the last started first."""
    for child in reversed(children):
        if not child.stop():
            print(f"{child.name} did not end in {STOP_TIMEOUT_S} s and was killed.", flush=True)


def greet(args, ports):
    page = f"http://{HOST}:{ports.page}/"
    ctl_option = ""
    if ports.api != USUAL_PORTS.api:
        page += f"?api={ports.api}"
        ctl_option = f" --dispatcher {HOST}:{ports.api}"
    print(f"""
Stentor is up: one dispatcher, one node with {WORKERS} workers, a live feed.

  Open       {page}

  Subscribe  curl -N 'http://{HOST}:{ports.page}/v1/subscribe?channel=demo:hello'

  Publish    curl -H 'Content-Type: application/json' \\
               -d '{{"channel":"demo:hello","data":"Hello from my terminal"}}' \\
               http://{HOST}:{ports.api}/stentor.v1.PublisherService/Publish

  Resume     curl -N -H 'Last-Event-ID: ID' \\
               'http://{HOST}:{ports.page}/v1/subscribe?channel=demo:hello'
             with the id: of the last message you saw: the stream goes on
             right behind it, also after a restart of everything.

  Look back  {shown(os.path.join(args.build, "stentorctl"))}{ctl_option} history demo:hello

  Metrics    http://{HOST}:{ports.admin}/metrics  http://{HOST}:{ports.node_admin}/metrics
  Logs       {shown(args.run_dir)}/*.log

Ctrl-C stops everything.
""", flush=True)


def on_signal(*_):
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # once is enough: stopping is bounded
    raise Interrupted


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=os.path.join(ROOT, "build"),
                        help="where the programs are (default: build)")
    parser.add_argument("--run-dir",
                        help="where logs and the store go (default: run in the build directory)")
    parser.add_argument("--port-base", type=int,
                        default=os.environ.get("DEMO_PORT_BASE"),
                        help="move every port (default: the usual ones)")
    parser.add_argument("--ball-seconds", type=float, default=3.0,
                        help="mean time between two balls of the match (default: 3)")
    args = parser.parse_args()
    args.run_dir = args.run_dir or os.path.join(args.build, "run")

    children = []
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, on_signal)
        ports = ports_from(args.port_base)
        start(args, ports, children)
        greet(args, ports)
        while True:
            for child in children:
                child.check()
            time.sleep(POLL_S * 5)
    except Interrupted:
        print("\nStopping.", flush=True)
        code = 0
    except Failure as e:
        print(f"\n{e}", file=sys.stderr, flush=True)
        code = 1
    stop(children)
    sys.exit(code)


if __name__ == "__main__":
    main()
