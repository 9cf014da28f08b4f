"""The kill test's stores, and how each of them goes back.

A Store starts what it needs, gives dispatchers their URL, and can `lose`: do
what makes it forget what it has acknowledged, as its settings allow. Each lost
state is one that really happens: a file put back (`lmdb-copy`), a dump loaded
after a crash (`redis-rdb`), the end of an append-only file that had not reached
the disk when the power went (`redis-everysec`), a replica promoted that had not
heard of it (`sentinel`, `cluster`).
"""
import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

import harness
from harness import wait_until

REDIS = pathlib.Path("/usr/bin/redis-server")
ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")
TAIL_BYTES = (500, 60000)  # what the power loss takes off the append-only file


class Redis(harness.Process):
    """A redis-server that has on disk what it has answered."""

    binary = REDIS

    def __init__(self, cluster, name="redis", args=ALWAYS):
        super().__init__(cluster, name, {})
        self.port = harness.free_ports(2)  # the next is a Cluster's bus
        self.address = f"{self.place.front}:{self.port}"
        self.url = f"redis://{self.address}"
        self.data = cluster.dir / name
        self.data.mkdir()
        self.args = list(args)

    def start(self, **_):
        argv = [*self.wrapper, str(self.binary)]
        if self.args and self.args[0].startswith("/"):
            argv.append(self.args[0])  # a Sentinel's file
        argv += ["--port", str(self.port), "--bind", self.place.front,
                 "--protected-mode", "no", "--dir", str(self.data)]
        if "--sentinel" not in self.args:
            argv += ["--save", ""]
        with open(self.log_path, "ab") as log:
            self.popen = subprocess.Popen(
                argv + [a for a in self.args if not a.startswith("/")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=harness.clean_env(
                    **{harness._MARK: self.cluster.mark}),
                start_new_session=True)
        return self

    def ready(self):
        if not self.running():
            raise AssertionError("redis ended:\n" + self.log()[-2000:])
        with contextlib.suppress(OSError):
            return 200 if self.ask("PING") == "PONG" else 503
        return None

    def ask(self, *words):
        """One command; its answer as text, arrays as their parts' lines."""
        with socket.create_connection(
                (self.place.front, self.port), 2) as s:
            s.settimeout(5)
            s.sendall(b"*%d\r\n" % len(words) + b"".join(
                b"$%d\r\n%s\r\n" % (len(w), w)
                for w in (str(x).encode() for x in words)))
            with s.makefile("rb") as f:
                return self._answer(f)

    def _answer(self, f):
        line = f.readline().decode().rstrip("\r\n")
        kind, text = line[:1], line[1:]
        if kind == "$":
            if int(text) < 0:
                return ""
            return f.read(int(text) + 2)[:-2].decode(errors="replace")
        if kind == "*":
            return "\n".join(self._answer(f) for _ in range(int(text)))
        return line if kind == "-" else text

    def info(self, section):
        return dict(line.split(":", 1)
                    for line in self.ask("INFO", section).splitlines()
                    if ":" in line)


def add_redis(cluster):
    """Starts one, the store of a cluster's dispatchers that do not run yet."""
    redis = Redis(cluster)
    cluster.processes.append(redis)
    redis.start().wait_ready()
    for d in cluster.dispatchers:
        d.options["store"] = redis.url
    return redis


# --- stores -------------------------------------------------------------------

class Store:
    """What all have; the embedded ones are in their dispatcher."""

    dispatchers = 1
    shared = False       # its servers are processes of their own
    loses = False        # lose() can make it forget
    keeps_kill = True    # what it acknowledged survives its own kill -9
    options = {}         # of dispatchers

    def __init__(self, cluster):
        self.cluster = cluster
        self.servers = []  # processes

    def start(self):
        pass

    def urls(self):
        """{dispatcher's name: its --store}"""

    def relayed(self):
        """The address that dispatchers reach it by, if a relay may stand
        before it."""


class Memory(Store):
    keeps_kill = False

    def urls(self):
        return {d.name: "memory:" for d in self.cluster.dispatchers}


class Lmdb(Store):
    def __init__(self, cluster):
        super().__init__(cluster)
        self.path = cluster.dir / "lmdb"

    def urls(self):
        return {d.name: f"lmdb:{self.path}" for d in self.cluster.dispatchers}


class LmdbCopy(Lmdb):
    """An operator puts a copy back that was made a moment before."""

    loses = True

    def lose(self, rng):
        d = self.cluster.d
        copy = self.cluster.dir / "lmdb-copy"
        shutil.rmtree(copy, ignore_errors=True)
        d.signal(signal.SIGSTOP)  # a whole copy
        try:
            shutil.copytree(self.path, copy)
        finally:
            d.signal(signal.SIGCONT)
        time.sleep(rng.uniform(0.05, 1.0))
        d.kill()
        shutil.rmtree(self.path)
        shutil.copytree(copy, self.path)
        time.sleep(rng.uniform(0, 1.0))
        d.start()


class OneRedis(Store):
    dispatchers = 2
    shared = True
    args = ALWAYS

    def __init__(self, cluster):
        super().__init__(cluster)
        self.redis = Redis(cluster, args=self.args)
        self.servers = [self.redis]

    def start(self):
        self.cluster.processes.append(self.redis)
        self.redis.start().wait_ready()

    def urls(self):
        return {d.name: self.redis.url for d in self.cluster.dispatchers}

    def relayed(self):
        return self.redis.place.front, self.redis.port

    def flush(self):
        self.redis.ask("FLUSHALL")


class RedisEverysec(OneRedis):
    """Power goes: what was written in the last second is not on the disk."""

    args = ("--appendonly", "yes", "--appendfsync", "everysec",
            "--auto-aof-rewrite-percentage", "0")
    loses = True

    def lose(self, rng):
        self.redis.kill()
        part = max((self.redis.data / "appendonlydir").glob("*.incr.aof"),
                   key=lambda p: int(p.name.split(".")[-3]))
        size = part.stat().st_size
        os.truncate(part, max(0, size - rng.randint(*TAIL_BYTES)))
        time.sleep(rng.uniform(0.1, 1.5))
        self.redis.start()


class RedisRdb(OneRedis):
    """No append-only file: what came after the last dump goes with it."""

    args = ("--appendonly", "no")
    loses = True
    keeps_kill = False

    def start(self):
        super().start()
        self.redis.ask("SAVE")

    def lose(self, rng):
        self.redis.ask("SAVE")
        time.sleep(rng.uniform(0.02, 1.0))
        self.redis.kill()
        time.sleep(rng.uniform(0.1, 1.5))
        self.redis.start()


class Sentinel(Store):
    """A master and two replicas, of which one must have what is
    acknowledged."""

    dispatchers = 2
    shared = True
    loses = True
    options = {"store_replicas": 1}

    def __init__(self, cluster):
        super().__init__(cluster)
        fast = (*ALWAYS, "--repl-diskless-sync-delay", "0",
                "--replica-read-only", "yes")
        self.servers = [Redis(cluster, "redis0", fast)]
        for i in (1, 2):
            self.servers.append(Redis(cluster, f"redis{i}", (
                *fast, "--replicaof", harness.LOOPBACK,
                str(self.servers[0].port))))
        self.sentinel = Redis(cluster, "sentinel")
        path = self.sentinel.data / "sentinel.conf"
        self.sentinel.args = [str(path), "--sentinel"]
        path.write_text(
            f"sentinel monitor m 127.0.0.1 {self.servers[0].port} 1\n"
            "sentinel down-after-milliseconds m 500\n"
            "sentinel failover-timeout m 3000\n")

    def start(self):
        self.cluster.processes += [*self.servers, self.sentinel]
        for r in self.servers:
            r.start().wait_ready()
            # A replica that starts again asks Sentinel's config of its own.
            r.args = [a for a in r.args]
        wait_until(lambda: self.servers[0].info("replication").get(
            "connected_slaves") == "2", 20, "two replicas")
        self.sentinel.start().wait_ready()
        wait_until(lambda: self.knows_replicas() == 2, 20,
                   "the Sentinel knows two replicas")

    def knows_replicas(self):
        text = self.sentinel.ask("SENTINEL", "MASTERS").splitlines()
        return int(text[text.index("num-slaves") + 1])

    def urls(self):
        return {d.name: f"redis://{self.sentinel.address}?sentinel=m"
                for d in self.cluster.dispatchers}

    def master(self):
        port = self.sentinel.ask(
            "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "m").splitlines()[1]
        return next(r for r in self.servers if r.port == int(port))

    def failover(self):
        """Planned; False: one is under way."""
        return "OK" in self.sentinel.ask("SENTINEL", "FAILOVER", "m")

    def restarted(self, server):
        """As a replica of who is master now, as Sentinel would say a moment
        later: else it would be a second master for that moment."""
        master = self.master()
        at = server.args.index("--replicaof") if "--replicaof" in \
            server.args else len(server.args)
        server.args[at:] = []
        if master is not server:
            server.args += ["--replicaof", harness.LOOPBACK,
                            str(master.port)]
        server.start()

    def lose(self, rng):
        """D1: one replica hears nothing; what is acknowledged is with the
        other. That one and the master die, and the deaf one is promoted."""
        master = self.master()
        near, deaf = [r for r in self.servers if r is not master]
        if rng.random() < 0.5:
            near, deaf = deaf, near
        deaf.signal(signal.SIGSTOP)
        master.ask("CLIENT", "KILL", "TYPE", "replica")
        time.sleep(rng.uniform(1.5, 2.5))
        master.kill()
        near.kill()
        deaf.signal(signal.SIGCONT)
        wait_until(lambda: self.master() is deaf, 30,
                   "the replica that heard nothing is promoted")
        time.sleep(rng.uniform(0.5, 1.5))
        for r in (master, near):
            self.restarted(r)

    def flush(self):
        self.master().ask("FLUSHALL")


class Cluster(Store):
    """Three masters with a replica each, which may be behind."""

    dispatchers = 2
    shared = True
    loses = True

    def __init__(self, cluster):
        super().__init__(cluster)
        for i in range(6):
            r = Redis(cluster, f"redis{i}", (
                *ALWAYS, "--repl-diskless-sync-delay", "0",
                "--cluster-enabled", "yes", "--cluster-node-timeout", "1000",
                "--cluster-replica-validity-factor", "0"))
            r.args += ["--cluster-port", str(r.port + 1)]
            self.servers.append(r)

    def start(self):
        self.cluster.processes += self.servers
        for r in self.servers:
            r.start()
        for r in self.servers:
            r.wait_ready()
        harness.run(["redis-cli", "--cluster", "create",
                     *(r.address for r in self.servers),
                     "--cluster-replicas", "1", "--cluster-yes"],
                    timeout=60)
        wait_until(lambda: all(
            "cluster_state:ok" in r.ask("CLUSTER", "INFO")
            for r in self.servers), 30, "the Cluster is whole")
        wait_until(lambda: all(
            "master_link_status:up" in r.ask("INFO", "replication")
            or "role:master" in r.ask("INFO", "replication")
            for r in self.servers), 20, "all replicas are there")

    def urls(self):
        some = ",".join(r.address for r in self.servers[:3])
        return {d.name: f"redis://{some}" for d in self.cluster.dispatchers}

    def role(self, role):
        found = []
        for r in self.servers:
            with contextlib.suppress(OSError, AssertionError):
                if r.running() and r.info("replication")["role"] == role:
                    found.append(r)
        return found

    def failover(self, rng=None):
        """Planned, by a replica; twice is there and back."""
        replicas = self.role("slave")
        if not replicas:
            return False
        replica = rng.choice(replicas) if rng else replicas[0]
        return "OK" in replica.ask("CLUSTER", "FAILOVER")

    def lose(self, rng):
        """A master dies with what its replica, deaf for a moment, has not
        heard."""
        masters = self.role("master")
        master = rng.choice(masters)
        port = str(master.port)
        replica = next((r for r in self.role("slave") if r.info(
            "replication").get("master_port") == port), None)
        if replica is None:
            return
        replica.signal(signal.SIGSTOP)
        master.ask("CLIENT", "KILL", "TYPE", "replica")
        time.sleep(rng.uniform(0.2, 0.6))  # less than the node timeout
        master.kill()
        replica.signal(signal.SIGCONT)
        wait_until(lambda: replica.info("replication")["role"] == "master",
                   30, "the replica is promoted")
        time.sleep(rng.uniform(0, 1))
        master.start()

    def flush(self):
        for r in self.role("master"):
            r.ask("FLUSHALL")


STORES = {"memory": Memory, "lmdb": Lmdb, "lmdb-copy": LmdbCopy,
          "redis": OneRedis, "redis-everysec": RedisEverysec,
          "redis-rdb": RedisRdb, "sentinel": Sentinel, "cluster": Cluster}
