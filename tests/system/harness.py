"""Real processes for system tests: a cluster of dispatchers and nodes.

A Cluster starts the binaries of $STENTOR_BUILD (default: build/) on free
loopback ports, waits on conditions (never on time), keeps every process's log
and ends every process by its pid. close() fails the test when a process was
left behind, a worker died that nobody killed, a sanitizer complained, an
orderly end was not orderly, or a message was found by the slow sweep alone,
which is there for what nobody thought of.
"""
import contextlib
import fcntl
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time
import uuid

import metrics
import rpc

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = (ROOT / os.environ.get("STENTOR_BUILD", "build")).resolve()
SCRATCH = BUILD / "system"
DISPATCHER = BUILD / "stentor-dispatcher"
CONNNODE = BUILD / "stentor-connnode"
CTL = BUILD / "stentorctl"

# Sanitized and instrumented builds are slower: every time-out grows with it.
SLOW = float(os.environ.get("STENTOR_SLOW", "1"))
TIMEOUT = 10.0

# The slow sweep comes round in the life of most tests, and finds nothing.
SWEEP_MS = 5000

LOOPBACK = "127.0.0.1"
_MARK = "TEST_CLUSTER"
_PORTS = (15000, 32000)  # under the kernel's range for outgoing connections
_SANITIZER = ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer",
              "WARNING: ThreadSanitizer", "runtime error:")


class Timeout(AssertionError):
    """A condition did not come true in time."""


def wait_until(cond, timeout=TIMEOUT, what=None):
    """Returns cond()'s first true value; raises Timeout naming `what`."""
    end = time.monotonic() + timeout * SLOW
    pause = 0.002
    while True:
        value = cond()
        if value:
            return value
        if time.monotonic() > end:
            raise Timeout(f"not within {timeout * SLOW:g} s: "
                          f"{what or getattr(cond, '__name__', cond)}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def _port_free(port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def free_ports(count=1):
    """The first of `count` consecutive free ports, given to nobody else.

    A counter in a locked file is shared by all test processes of this user, so
    that two of them never settle on the same port before either binds it.
    """
    path = pathlib.Path(tempfile.gettempdir(),
                        f"stentor-test-ports.{os.getuid()}")
    with open(path, "a+") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        f.seek(0)
        text = f.read().strip()
        port = int(text) if text.isdigit() else _PORTS[0]
        for _ in range(_PORTS[1] - _PORTS[0]):
            if not _PORTS[0] <= port <= _PORTS[1] - count:
                port = _PORTS[0]
            busy = [p for p in range(port, port + count) if not _port_free(p)]
            if not busy:
                break
            port = busy[-1] + 1
        else:
            raise RuntimeError("no free ports")
        f.seek(0)
        f.truncate()
        f.write(str(port + count))
    return port


def http_get(port, path, method="GET", headers=None, body=None, timeout=5,
             host=LOOPBACK):
    """(status, headers, body) of one request on a connection of its own."""
    conn = http.client.HTTPConnection(host, port, timeout=timeout * SLOW)
    try:
        conn.request(method, path, body=body, headers=headers or {})
        r = conn.getresponse()
        return r.status, r.headers, r.read()
    finally:
        conn.close()


def children(pid):
    """Pids of the direct children of a process."""
    found = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            text = pathlib.Path(f"/proc/{pid}/task/{task}/children")
            with contextlib.suppress(OSError):
                found += [int(p) for p in text.read_text().split()]
    return sorted(found)


def alive(pid):
    """True while the process runs; a zombie does not, but one whose other
    threads are still ending has its sockets, and so its ports, as before."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        threads = len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X") or threads > 1


def rss_kib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def rss_room(mib):
    """KiB by which a process may grow in a test that wants it bounded.

    Sanitizers keep what was freed, so there only the order of size counts.
    """
    return mib * 1024 * (20 if BUILD.name in ("asan", "tsan") else 1)


def open_fds(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def marked_pids(mark):
    """Every live process that carries this cluster's mark."""
    needle = f"{_MARK}={mark}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(OSError):
                env = pathlib.Path(f"/proc/{entry}/environ").read_bytes()
                if needle in env.split(b"\0") and alive(int(entry)):
                    found.append(int(entry))
    return found


def clean_env(**extra):
    """The environment without anybody's STENTOR_ settings."""
    env = {k: v for k, v in os.environ.items()
           if not k.startswith("STENTOR_")}
    env["LSAN_OPTIONS"] = ("print_suppressions=0:suppressions="
                           f"{ROOT / 'tests/system/lsan.supp'}")
    env.update(extra)
    return env


def option_list(options):
    """{'drain_seconds': 3} -> ['--drain-seconds=3']."""
    return [f"--{k.replace('_', '-')}={v}" for k, v in options.items()]


class Place:
    """Where a process runs, unless its cluster has a Lan: on loopback."""

    front = LOOPBACK  # clients, producers and admin ports
    back = LOOPBACK   # links
    wrapper = ()      # argv of a program that becomes the process


class Process:
    """One program of the cluster; may be started again after its end."""

    binary = None

    def __init__(self, cluster, name, options):
        self.cluster = cluster
        self.name = name
        self.place = cluster.place(name)
        self.wrapper = self.place.wrapper
        self.options = options
        if os.getuid() != 0:
            # a test looks into processes, as only root and debuggers may
            self.options.setdefault("core_dumps", "true")
        self.log_path = cluster.dir / f"{name}.log"
        self.popen = None
        self.env = None  # more of its environment
        self.expect_exit = 0     # what close() must see after SIGTERM
        self.expect_deaths = False  # workers may be killed in this test

    @property
    def pid(self):
        return self.popen.pid

    def start(self, **override):
        assert self.popen is None or self.popen.poll() is not None
        options = {**self.options, **override}
        with open(self.log_path, "ab") as log:
            self.popen = subprocess.Popen(
                [*self.wrapper, str(self.binary)] + option_list(options),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=clean_env(**{_MARK: self.cluster.mark,
                                 **(self.env or {})}),
                start_new_session=True)
        return self

    def running(self):
        return self.popen is not None and self.popen.poll() is None

    def signal(self, signo):
        os.kill(self.pid, signo)

    def kill(self):
        """kill -9"""
        self.popen.kill()
        self.popen.wait()

    def wait_exit(self, timeout=TIMEOUT):
        wait_until(lambda: self.popen.poll() is not None, timeout,
                   f"{self.name} ends")
        return self.popen.returncode

    def stop(self, timeout=TIMEOUT):
        """SIGTERM and its end; returns the exit status."""
        if self.running():
            self.signal(signal.SIGTERM)
        return self.wait_exit(timeout)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def log_lines(self):
        """Log records as dictionaries (JSON lines only)."""
        for line in self.log().splitlines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)

    def get(self, path):
        return http_get(self.admin_port, path, host=self.place.front)

    def ready(self):
        """Status of /readyz, None while nobody answers."""
        if not self.running():
            raise AssertionError(
                f"{self.name} ended with {self.popen.returncode}:\n"
                + self.log()[-2000:])
        try:
            return self.get("/readyz")[0]
        except OSError:
            return None
        except http.client.HTTPException:
            return None

    def wait_ready(self, timeout=TIMEOUT):
        wait_until(lambda: self.ready() == 200, timeout,
                   f"{self.name} is ready")
        return self

    def metrics(self):
        status, _, body = self.get("/metrics")
        assert status == 200
        return metrics.parse(body.decode())

    def metric(self, name, **labels):
        """Sum of a metric's samples that have these labels."""
        return self.metrics().total(name, **labels)


class Dispatcher(Process):
    binary = DISPATCHER

    def __init__(self, cluster, index, extra):
        self.api_port = free_ports(3)
        self.link_port = self.api_port + 1
        self.admin_port = self.api_port + 2
        super().__init__(cluster, f"d{index}", {})
        scheme = "tls+tcp" if cluster.tls else "tcp"
        self.link_url = f"{scheme}://{self.place.back}:{self.link_port}"
        self.api = f"{self.place.front}:{self.api_port}"
        self.options.update({
            "api_listen": self.api,
            "link_listen": self.link_url,
            "admin_listen": f"{self.place.front}:{self.admin_port}",
            "auth": "none",
            "name": self.name,
            **extra,
        })
        self._stubs = None

    @property
    def grpc(self):
        """Stubs on one long-lived channel (rpc.Stubs)."""
        if self._stubs is None:
            self._stubs = rpc.Stubs(self.api)
        return self._stubs

    def close_grpc(self):
        if self._stubs is not None:
            self._stubs.close()
            self._stubs = None

    def call(self, method, message, headers=None):
        """Connect JSON: (status, answer). As an administrator, if the cluster
        wants tokens and `headers` hold none."""
        if self.cluster.auth:
            headers = {"Authorization": f"Bearer {self.cluster.auth.admin()}",
                       **(headers or {})}
        return rpc.connect_json(self.api_port, method, message,
                                headers=headers, host=self.place.front)

    def publish(self, channel, data, **fields):
        """One message by Connect JSON; the answer, or AssertionError."""
        status, answer = self.call(
            "stentor.v1.PublisherService/Publish",
            dict(channel=channel, data=data, **fields))
        assert status == 200, (status, answer)
        return answer

    def nodes(self):
        status, answer = self.call("stentor.v1.ClusterService/ListNodes", {})
        assert status == 200, (status, answer)
        return {n["name"]: n for n in answer.get("nodes", [])}

    def ready_workers(self):
        """{(node, worker index)} in the routing table."""
        return {(name, w.get("index", 0))
                for name, node in self.nodes().items()
                for w in node.get("workers", [])
                if w.get("state") == "WORKER_STATE_READY"}

    def channel(self, name):
        status, answer = self.call("stentor.v1.ChannelService/GetChannel",
                                   {"channel": name})
        assert status == 200, (status, answer)
        return answer

    def history(self, name, **fields):
        status, answer = self.call("stentor.v1.ChannelService/GetHistory",
                                   dict(channel=name, **fields))
        assert status == 200, (status, answer)
        return answer


class Node(Process):
    binary = CONNNODE

    def __init__(self, cluster, index, workers, extra):
        self.workers = workers
        self.port = free_ports(2 + workers)
        self.admin_port = self.port + 1
        self.link_port = self.port + 2  # worker i: link_port + i
        super().__init__(cluster, f"n{index}", {})
        scheme = "tls+tcp" if cluster.tls else "tcp"
        self.options.update({
            "listen": f"{self.place.front}:{self.port}",
            "admin_listen": f"{self.place.front}:{self.admin_port}",
            "link_listen": f"{scheme}://{self.place.back}:{self.link_port}",
            "dispatchers": ",".join(d.link_url for d in cluster.dispatchers),
            "workers": workers,
            "auth": "none",
            "name": self.name,
            "sweep_ms": SWEEP_MS,
            **extra,
        })
        self.first_pids = None

    def swept(self):
        """Messages that only the slow sweep found; 0 of a node that ends."""
        auth = self.cluster.auth
        headers = {"Authorization": f"Bearer {auth.admin()}"} if auth else {}
        try:
            status, _, body = http_get(self.admin_port, "/metrics",
                                       headers=headers, host=self.place.front)
        except OSError:
            return 0
        assert status == 200, (self.name, status, body)
        return metrics.parse(body.decode()).total("stentor_log_swept_total")

    def worker_pids(self):
        return [p for p in children(self.pid) if alive(p)]

    def worker_names(self):
        return {(self.name, i) for i in range(self.workers)}

    def kill(self):
        """kill -9 of the supervisor; its workers must end by themselves."""
        workers = self.worker_pids()
        super().kill()
        wait_until(lambda: not any(alive(p) for p in workers), 5,
                   f"workers of {self.name} end with their supervisor")

    def kill_worker(self, pid, signo=signal.SIGKILL):
        self.expect_deaths = True
        os.kill(pid, signo)


class Cluster:
    """Use as a context manager; `with Cluster(2, 2, 2) as c: ...`."""

    live = []  # for the failure report

    def __init__(self, dispatchers=1, nodes=1, workers=1, tls=None,
                 dispatcher_options=None, node_options=None, start=True,
                 store=None, rules=None, auth=None, lan=None):
        self.mark = uuid.uuid4().hex
        self.place = lan.host if lan else lambda name: Place
        self.tls = tls
        self.auth = auth  # tokens.Auth: --auth jwt with its keys
        SCRATCH.mkdir(parents=True, exist_ok=True)
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="cluster-",
                                                 dir=SCRATCH))
        common = tls.options() if tls else {}
        dispatcher_options = dict(dispatcher_options or {})
        if store:  # "lmdb:" alone: in the cluster's own directory
            dispatcher_options["store"] = (
                f"lmdb:{self.dir / 'store'}" if store == "lmdb:" else store)
        if auth:
            rules = auth.install(self.dir) + (rules or "")
            common["auth"] = "jwt"
        if rules:  # the text of rules.yaml, for all processes
            self.config = self.dir / "rules.yaml"
            self.config.write_text(rules)
            common["config"] = self.config
        self.dispatchers = [
            Dispatcher(self, i, {**common, **dispatcher_options})
            for i in range(dispatchers)]
        self.workers = workers
        self.node_options = {**common, **(node_options or {})}
        self.nodes, self.processes = [], list(self.dispatchers)
        for _ in range(nodes):
            self.add_node()
        Cluster.live.append(self)
        if start:
            try:
                self.start()
            except BaseException:
                self._kill_all()
                raise

    def start(self):
        # Nobody waits for a cluster that is only being set up, so it need not
        # wait for workers; a test's own restarts do, as in real life.
        for d in self.dispatchers:
            d.start(settle_ms=200)
        for n in self.nodes:
            n.start()
        self.wait_ready()
        for n in self.nodes:
            n.first_pids = n.worker_pids()
            assert len(n.first_pids) == n.workers, n.first_pids

    def add_node(self):
        """One more, like the others; the caller starts it."""
        node = Node(self, len(self.nodes), self.workers, self.node_options)
        self.nodes.append(node)
        self.processes.append(node)
        return node

    def wait_ready(self, timeout=TIMEOUT):
        """Everything that runs is ready and knows everybody else."""
        up = [p for p in self.processes if p.running()]
        for p in up:
            p.wait_ready(timeout)
        want = set().union(*(n.worker_names() for n in up
                             if isinstance(n, Node)), set())
        for d in (p for p in up if isinstance(p, Dispatcher)):
            wait_until(lambda d=d: d.ready_workers() == want, timeout,
                       f"{d.name} routes to {sorted(want)}")

    @property
    def d(self):
        return self.dispatchers[0]

    @property
    def n(self):
        return self.nodes[0]

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is None:
            self.close()
        else:
            self._kill_all()
        return False

    def _kill_all(self):
        for d in self.dispatchers:
            d.close_grpc()
        for p in self.processes:
            if p.running():
                p.kill()
        for pid in marked_pids(self.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def problems(self):
        """What went wrong that no test asked for."""
        found = []
        for n in self.nodes:
            if (n.running() and n.first_pids and not n.expect_deaths
                    and n.worker_pids() != n.first_pids):
                found.append(f"{n.name}: workers {n.first_pids} became "
                             f"{n.worker_pids()}")
            if n.running() and n.swept() > 0:
                found.append(f"{n.name}: only the sweep found what was there")
        return found

    def close(self):
        for p in self.processes:
            if p.running():
                p.signal(signal.SIGCONT)
        found = self.problems()
        for d in self.dispatchers:
            d.close_grpc()
        for p in self.processes:
            if not p.running():
                continue
            with contextlib.suppress(ProcessLookupError):
                p.signal(signal.SIGCONT)
                p.signal(signal.SIGTERM)
        for p in self.processes:
            if p.popen is None:
                continue
            try:
                code = p.wait_exit(TIMEOUT)
            except Timeout as e:
                found.append(str(e))
                continue
            if code not in (p.expect_exit, -signal.SIGKILL):
                found.append(f"{p.name} ended with {code}, "
                             f"not {p.expect_exit}")
        try:
            wait_until(lambda: not marked_pids(self.mark), 5,
                       "no process left behind")
        except Timeout:
            found.append(f"left behind: {marked_pids(self.mark)}")
        self._kill_all()
        for p in self.processes:
            if p.log_path.exists():
                log = p.log()
                found += [f"{p.name}: {s}" for s in _SANITIZER if s in log]
        assert not found, "; ".join(found)

    def report(self, lines=40):
        """Tails of all logs, for a failed test."""
        text = []
        for p in self.processes:
            if p.log_path.exists():
                tail = p.log().splitlines()[-lines:]
                text.append(f"--- {p.log_path}")
                text += tail
        return "\n".join(text)


class LinkTls:
    """A throw-away EC P-256 CA and one certificate for all links."""

    NAME = "stentor.test"

    def __init__(self, directory):
        self.dir = pathlib.Path(directory)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.ca, self.key, self.cert = (
            self.dir / n for n in ("ca.pem", "link.key", "link.pem"))
        ca_key, csr, ext = (self.dir / n for n in
                            ("ca.key", "link.csr", "link.ext"))
        ext.write_text(f"subjectAltName=DNS:{self.NAME}\n")
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                 "-nodes"]
        self._openssl("req", "-x509", *curve, "-keyout", ca_key, "-out",
                      self.ca, "-days", "2", "-subj", "/CN=Stentor test CA")
        self._openssl("req", *curve, "-keyout", self.key, "-out", csr,
                      "-subj", f"/CN={self.NAME}")
        self._openssl("x509", "-req", "-in", csr, "-CA", self.ca, "-CAkey",
                      ca_key, "-CAcreateserial", "-out", self.cert, "-days",
                      "2", "-extfile", ext)

    @staticmethod
    def _openssl(*args):
        subprocess.run(["openssl", *map(str, args)], check=True,
                       stdin=subprocess.DEVNULL, capture_output=True)

    def options(self):
        return {"link_tls_cert": self.cert, "link_tls_key": self.key,
                "link_tls_ca": self.ca, "link_tls_name": self.NAME}


def run(argv, timeout=20, env=None, **kw):
    """A short-lived program: CompletedProcess with text output."""
    return subprocess.run([str(a) for a in argv], capture_output=True,
                          text=True, timeout=timeout * SLOW,
                          stdin=subprocess.DEVNULL,
                          env=env or clean_env(), **kw)
