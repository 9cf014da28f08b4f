"""The processes of a bench: start, ask, measure, end.

Everything that is started is a Proc of one Session; Session.close() ends them
all by pid, whatever happened before. CPU time and memory are always those of a
process and all its descendants.
"""

import contextlib
import ctypes
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

NGINX = "/usr/sbin/nginx"
REDIS = "/usr/bin/redis-server"
NCHAN = "/usr/lib/nginx/modules/ngx_nchan_module.so"
MAX_SECONDS = 900  # no tool of a row outlives this


class BenchError(Exception):
    """A row cannot be measured; says why."""


def wait_for(condition, seconds, what):
    """Waits until condition() is true, and returns what it returned."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise BenchError(f"no {what} within {seconds} s")
        time.sleep(0.02)


def stolen_share(before):
    """Share of CPU time that the host took away since `before`, an earlier
    read_cpu_ticks(): above a few per cent, measure again."""
    after = read_cpu_ticks()
    ticks = [b - a for a, b in zip(before, after)]
    return ticks[7] / max(1, sum(ticks))


def read_cpu_ticks():
    """user, nice, system, idle, iowait, irq, softirq, steal of all CPUs."""
    with open("/proc/stat") as stat:
        return [int(n) for n in stat.readline().split()[1:9]]


def free_ports(count):
    """The first of `count` free ports in a row, below the ephemeral range."""
    low = int(open("/proc/sys/net/ipv4/ip_local_port_range").read().split()[0])
    first = low - 1 - os.getpid() % 1000 * 8
    for base in range(first - count, 1024, -count):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(base, base + count):
                    probe = stack.enter_context(socket.socket())
                    probe.bind(("0.0.0.0", port))
            except OSError:
                continue
        return base
    raise BenchError(f"no {count} free ports")


LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


TOOLS = ("ssebench", "pubbench", "httppush", "resumebench")


# Clients in such numbers are machines of their own: here they must not keep
# waiting those whose latency is measured.
POLITE = ("resumebench",)


def prepare(cpus, polite):
    """In the child, before exec: SIGTERM when the bench dies, even of SIGKILL;
    only the given CPUs."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.sched_setaffinity(0, cpus)
    if polite:
        os.nice(15)


class Proc:
    """One child process with lines on its stdin and stdout."""

    def __init__(self, argv, log, cpus):
        self.name = os.path.basename(argv[0])
        self.log_path = log
        self.buffer = b""
        with open(log, "ab") as err:
            self.popen = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=err, start_new_session=True,
                preexec_fn=lambda: prepare(cpus, self.name in POLITE))

    def fail(self, why):
        with open(self.log_path, errors="replace") as log:
            tail = "".join(log.readlines()[-5:]).strip()
        raise BenchError(f"{self.name}: {why}" + (f": {tail}" if tail else ""))

    def alive(self):
        return self.popen.poll() is None

    def tell(self, line):
        try:
            self.popen.stdin.write(line.encode() + b"\n")
            self.popen.stdin.flush()
        except BrokenPipeError:
            self.fail("ended early")

    def read_line(self, seconds):
        end = time.monotonic() + seconds
        while b"\n" not in self.buffer:
            out = self.popen.stdout
            left = end - time.monotonic()
            if left <= 0 or not select.select([out], [], [], left)[0]:
                self.fail(f"said nothing for {seconds} s")
            more = os.read(out.fileno(), 65536)
            if not more:
                self.fail("ended early")
            self.buffer += more
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.decode()

    def ask(self, line, seconds=10):
        """Sends one line; the JSON object that comes back."""
        self.tell(line)
        return json.loads(self.read_line(seconds))

    def tree(self):
        """The pids of this process and all its descendants."""
        pids, todo = [], [self.popen.pid]
        while todo:
            pid = todo.pop()
            pids.append(pid)
            with contextlib.suppress(OSError):
                for task in os.listdir(f"/proc/{pid}/task"):
                    path = f"/proc/{pid}/task/{task}/children"
                    todo += [int(p) for p in open(path).read().split()]
        return pids

    def cpu_seconds(self):
        """utime + stime of the tree, read from the kernel's process clocks
        (the sum of /proc/PID/stat in nanoseconds instead of ticks)."""
        total = 0.0
        for pid in self.tree():
            with contextlib.suppress(OSError):
                total += time.clock_gettime((~pid << 3) | 2)
        return total

    def pss_bytes(self):
        total = 0
        for pid in self.tree():
            with contextlib.suppress(OSError):
                rollup = open(f"/proc/{pid}/smaps_rollup").read()
                total += int(re.search(r"^Pss:\s+(\d+)", rollup, re.M)[1])
        return total * 1024

    def stop(self, seconds=5):
        """SIGTERM, then SIGKILL to the whole tree."""
        pids = self.tree()
        with contextlib.suppress(OSError):
            self.popen.stdin.close()
        if self.alive():
            self.popen.terminate()
        try:
            self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            for pid in pids:
                with contextlib.suppress(OSError):
                    os.kill(pid, 9)
            self.popen.wait()
        self.popen.stdout.close()


class Session:
    """A temporary directory and the processes started in it."""

    def __init__(self, build):
        self.build = build
        self.dir = tempfile.mkdtemp(prefix="stentor-bench-")
        self.procs = []
        self.server_cpus = self.tool_cpus = os.sched_getaffinity(0)

    def pin(self):
        """From here on servers get one CPU and load tools another: where the
        scheduler puts the two decides more than the code that is measured
        (61,000 to 131,000 deliveries a CPU second for the same server)."""
        cpus = sorted(os.sched_getaffinity(0))
        if len(cpus) > 1:
            self.server_cpus, self.tool_cpus = {cpus[0]}, {cpus[1]}

    def start(self, program, *args):
        path = program
        if not program.startswith("/"):
            path = os.path.join(self.build, program)
        if not os.path.exists(path):
            raise BenchError(f"{path} is not built")
        log = os.path.join(self.dir, f"{len(self.procs)}.log")
        tool = os.path.basename(path) in TOOLS
        proc = Proc([path, *map(str, args)], log,
                    self.tool_cpus if tool else self.server_cpus)
        self.procs.append(proc)
        return proc

    def stop(self, proc):
        self.procs.remove(proc)
        proc.stop()

    def close(self):
        while self.procs:
            self.procs.pop().stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def http_get(port, path):
    """Body of a 200 answer, or None."""
    url = f"http://127.0.0.1:{port}{path}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    except (urllib.error.URLError, OSError):
        return None


class Redis:
    """A redis-server that has on disk what it has answered."""

    def __init__(self, session):
        port = free_ports(1)
        self.url = f"redis://127.0.0.1:{port}"
        data = tempfile.mkdtemp(prefix="redis-", dir=session.dir)
        self.proc = session.start(
            REDIS, "--port", port, "--bind", "127.0.0.1", "--dir", data,
            "--save", "", "--appendonly", "yes", "--appendfsync", "always",
            "--logfile", os.path.join(data, "log"))

        def answers():
            if not self.proc.alive():
                self.proc.fail("ended early")
            with contextlib.suppress(OSError):
                with socket.create_connection(("127.0.0.1", port), 1) as s:
                    s.sendall(b"PING\r\n")
                    return s.recv(64).startswith(b"+PONG")
        wait_for(answers, 10, "PONG of redis")


class Stentor:
    """One dispatcher and one node of `workers` workers. With `history`, the
    fields of a rule's history in YAML, every channel is reliable; the store is
    `lmdb`, `redis` or a URL."""

    ready_event = "stentor.ready"

    def __init__(self, session, workers, connections, name="stentor",
                 store="memory:", history=None):
        self.name = name
        rules = []
        if history:
            path = os.path.join(session.dir, f"{name}.yaml")
            with open(path, "w") as out:
                out.write("rules:\n  - match: '*'\n"
                          f"    history: {history}\n")
            rules = ["--config", path]
        if store == "lmdb":
            store = f"lmdb:{session.dir}/{name}.lmdb"
        elif store == "redis":
            store = Redis(session).url
        base = free_ports(workers + 5)
        api, link, admin, listen, node_admin = range(base, base + 5)
        self.api = f"127.0.0.1:{api}"
        self.to = f"127.0.0.1:{listen}"
        self.node_admin = node_admin
        self.dispatcher = session.start(
            "stentor-dispatcher", "--auth", "none", "--store", store, *rules,
            "--api-listen", self.api,
            "--link-listen", f"tcp://127.0.0.1:{link}",
            "--admin-listen", f"127.0.0.1:{admin}", "--name", "bench-d")
        self.wait_ready(self.dispatcher, admin)
        # The kernel spreads connections unevenly: room for a fifth more.
        self.node = session.start(
            "stentor-connnode", "--auth", "none", *rules, "--listen", self.to,
            "--admin-listen", f"127.0.0.1:{node_admin}",
            "--dispatchers", f"tcp://127.0.0.1:{link}",
            "--link-listen", f"tcp://127.0.0.1:{base + 5}",
            "--workers", workers, "--name", "bench-n",
            "--max-connections", max(1000, connections * 6 // 5))
        self.wait_ready(self.node, node_admin)
        self.servers = [self.dispatcher, self.node]
        self.session = session

    @staticmethod
    def wait_ready(proc, admin):
        def ready():
            if not proc.alive():
                proc.fail("ended early")
            return http_get(admin, "/readyz") is not None
        wait_for(ready, 20, f"/readyz of {proc.name}")

    def path(self, *channels):
        query = "".join(f"&channel={c}" for c in channels)
        return "/v1/subscribe?format=raw" + query

    def metric(self, name):
        """The node's, summed over its labels; None: it has no such metric."""
        metrics = http_get(self.node_admin, "/metrics") or ""
        rows = re.findall(rf"^stentor_{name}(?:{{[^}}]*}})? (\S+)", metrics,
                          re.M)
        return int(sum(map(float, rows))) if rows else None

    def connections(self):
        return self.metric("connections")

    def publisher(self, channel, channels, **options):
        return self.session.start(
            "bench/pubbench", "--to", self.api, "--channel", channel,
            "--channels", channels, *flags(options))


class Bare:
    """The reference: one send() per delivery and nothing else."""

    name = "bare"
    ready_event = "stentor.ready"

    def __init__(self, session, workers, mode="broadcast"):
        port = free_ports(1)
        self.to = f"127.0.0.1:{port}"
        self.proc = session.start(
            "bench/barecast", "--listen", self.to, "--workers", workers,
            "--mode", mode, "--max-seconds", MAX_SECONDS)
        self.proc.read_line(10)
        self.node = self.proc
        self.servers = [self.proc]

    def path(self, *channels):
        return "/?" + "&".join(channels)

    def connections(self):
        return self.proc.ask("stats")["connections"]


NGINX_CONF = """
load_module {module};
daemon off;
user root;
worker_processes {workers};
worker_rlimit_nofile 20000;
pid {dir}/nginx.pid;
error_log {dir}/nginx.log warn;
events {{ worker_connections 19900; }}
http {{
	access_log off;
	client_body_temp_path {dir}/body;
	proxy_temp_path {dir}/proxy;
	fastcgi_temp_path {dir}/fastcgi;
	uwsgi_temp_path {dir}/uwsgi;
	scgi_temp_path {dir}/scgi;
	keepalive_requests 1000000000;
	tcp_nodelay on;
	nchan_shared_memory_size 256M;
	nchan_message_buffer_length 1;
	nchan_message_timeout 5s;
	server {{
		listen {to} backlog=4096;
		location ~ ^/sub/(.+)$ {{
			nchan_subscriber eventsource;
			nchan_channel_id $1;
			nchan_subscriber_first_message newest;
		}}
		location ~ ^/pub/(.+)$ {{
			nchan_publisher http;
			nchan_channel_id $1;
		}}
		location /stat {{ nchan_stub_status; }}
	}}
}}
"""


class Nchan:
    """nginx with nchan, a peer of the same kind, where it is installed."""

    name = "nchan"
    ready_event = "head"

    def __init__(self, session, workers):
        self.port = free_ports(1)
        self.to = f"127.0.0.1:{self.port}"
        conf = os.path.join(session.dir, "nginx.conf")
        with open(conf, "w") as out:
            out.write(NGINX_CONF.format(
                module=NCHAN, workers=workers, dir=session.dir, to=self.to))
        self.node = session.start(NGINX, "-p", session.dir, "-c", conf)
        self.servers = [self.node]
        self.session = session
        wait_for(lambda: http_get(self.port, "/stat"), 10, "answer of nginx")

    @staticmethod
    def installed():
        return os.path.exists(NGINX) and os.path.exists(NCHAN)

    def path(self, *channels):
        return "/sub/" + channels[0]

    def connections(self):
        text = http_get(self.port, "/stat") or ""
        found = re.search(r"^subscribers: (\d+)", text, re.M)
        return int(found[1]) if found else None

    def publisher(self, channel, channels, **options):
        options.pop("mode", None)
        options.pop("window", None)
        return self.session.start(
            "bench/httppush", "--to", self.to, "--channel", "/pub/" + channel,
            "--channels", channels, *flags(options))


def flags(options):
    return [part for key, value in options.items()
            for part in (f"--{key}", value)]


def finish(publisher, seconds):
    """Waits for a producer's report; every message must be answered OK."""
    report = json.loads(publisher.read_line(seconds))
    good = report["codes"].get("0", 0)
    if report["sent"] == 0 or good != report["sent"]:
        raise BenchError(f"{publisher.name}: {json.dumps(report)}")
    return report


class Subscribers:
    """ssebench on one server."""

    def __init__(self, session, server, count, *channels, rate=0):
        self.count = count
        self.session = session
        extra = ["--rate", rate] if rate else []
        self.proc = session.start(
            "bench/ssebench", "--to", server.to, "--path",
            server.path(*channels), "--ready", server.ready_event,
            "--connections", count, "--max-seconds", MAX_SECONDS, *extra)

    def wait_ready(self, seconds=90):
        if self.proc.read_line(seconds) != "ready":
            stats = self.stats()
            raise BenchError(f"only {stats['ready']} of {self.count} "
                             f"connections stand, {stats['failed']} failed")
        return self

    def stats(self):
        return self.proc.ask("stats")

    def reset(self):
        self.proc.tell("reset")

    def wait_messages(self, count, seconds):
        """Until `count` messages came in all, checked for loss and order."""
        def complete():
            return self.stats()["messages"] >= count
        try:
            wait_for(complete, seconds, f"{count} messages")
        except BenchError as error:
            raise BenchError(f"{error}: {faults(self.stats())}") from None
        stats = self.stats()
        if faults(stats):
            raise BenchError(f"faults: {faults(stats)}")
        return stats

    def quit(self):
        self.session.stop(self.proc)


class Resumers:
    """resumebench on one server: subscribers that go and come back."""

    FAULTS = ("holes", "doubles", "reorders", "gaps_told", "bad_status",
              "malformed", "strays", "misplaced", "behind", "beyond")

    def __init__(self, session, server, count, channel, channels):
        self.count = count
        self.channels = channels
        self.proc = session.start(
            "bench/resumebench", "--to", server.to, "--subscribers", count,
            "--channel", channel, "--channels", channels, "--retry-ms", 1000,
            "--max-seconds", MAX_SECONDS)
        if self.proc.read_line(60) != "ready":
            self.proc.fail("not all are ready")

    def stats(self):
        return self.proc.ask("stats")

    def expect(self, top):
        """What every channel's last number is."""
        self.proc.tell("tops " + " ".join([str(top)] * self.channels))

    def wait_level(self, seconds):
        """Until everybody has everything; its statistics."""
        def level():
            stats = self.stats()
            return stats["behind"] == 0 and stats
        return wait_for(level, seconds, "every subscriber's last message")

    def faults(self, stats):
        return {name: stats[name] for name in self.FAULTS if stats[name]}


FAULTS = ("failed", "closed", "notices", "gaps", "doubles", "reorders",
          "strays", "malformed")


def faults(stats):
    """What of the things that must not happen did: name -> count."""
    return {name: stats[name] for name in FAULTS if stats[name]}
