"""A network of a test's own, in network namespaces: hosts with addresses and
cables that can be cut.

    with Lan() as lan:
        host = lan.host("n1")
        subprocess.run([*host.wrapper, "ping", "-c1", lan.front])
        host.cut("back")

Two switches: `front`, where clients and producers are, and `back`, for links
and stores. Each host is a namespace with a cable to each. The switches are
bridges in a namespace of their own, which is also where the thread that entered
the Lan finds itself, with the threads and processes that it starts: so sockets
of a test, and a browser, reach all hosts and nothing else. Nothing of it exists
outside these namespaces, whose names hold the test's pid.

Needs root, with the capabilities of NET_ADMIN and SYS_ADMIN.
"""
import contextlib
import ctypes
import itertools
import os
import shutil
import subprocess

NETWORKS = {"front": "10.1.0", "back": "10.2.0"}
_PREFIX = "stentor-"
_CLONE_NEWNET = 0x40000000
_count = itertools.count()


def ip(*args, batch=None):
    """One call of ip, or a list of commands in a namespace."""
    r = subprocess.run(["ip", *args], capture_output=True, text=True,
                       input="\n".join(batch or []), timeout=20)
    if r.returncode != 0:
        raise OSError(f"ip {' '.join(args)}: {r.stderr.strip()}")
    return r.stdout


def unavailable():
    """Why there can be no Lan here; None: there can."""
    if shutil.which("ip") is None:
        return "iproute2 is not installed"
    name = f"{_PREFIX}{os.getpid()}-try"
    try:
        ip("netns", "add", name)
        try:
            ip("-n", name, "link", "add", "name", "br", "type", "bridge")
        finally:
            ip("netns", "del", name)
    except OSError as e:
        return f"no network namespaces (root and NET_ADMIN?): {e}"
    return None


def _remove(which):
    """Every namespace of ours with which(name); others may do it too."""
    for line in ip("netns", "list").splitlines():
        name = line.split()[0]
        if name.startswith(_PREFIX) and which(name):
            with contextlib.suppress(OSError):
                ip("netns", "del", name)


def _left_behind(name):
    """By a run that was killed."""
    pid = name.removeprefix(_PREFIX).split("-")[0]
    return pid.isdigit() and not os.path.exists(f"/proc/{pid}")


def _move_thread(fd):
    """Into another network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Host:
    """One machine: a place for processes of the harness."""

    def __init__(self, lan, name, number):
        self.lan, self.name = lan, name
        self.namespace = f"{lan.namespace}-{name}"
        self.front, self.back = (
            f"{net}.{number}" for net in NETWORKS.values())
        self.wrapper = ("ip", "netns", "exec", self.namespace)
        ip("netns", "add", self.namespace)
        for net in NETWORKS:
            ip("-n", lan.namespace, "-batch", "-", batch=[
                f"link add {name}-{net} type veth peer name {net}"
                f" netns {self.namespace}",
                f"link set {name}-{net} master {net} up"])
        ip("-n", self.namespace, "-batch", "-", batch=[
            "link set lo up",
            *(f"addr add {getattr(self, net)}/24 dev {net}"
              for net in NETWORKS),
            *(f"link set {net} up" for net in NETWORKS)])

    def cut(self, net):
        """Pulls the cable out of the switch."""
        self._set(net, "down")

    def heal(self, net):
        self._set(net, "up")

    def _set(self, net, state):
        ip("-n", self.lan.namespace, "link", "set", f"{self.name}-{net}",
           state)


class Lan:
    """The switches. front, back: the test's own addresses on them."""

    front, back = (f"{net}.1" for net in NETWORKS.values())

    def __init__(self):
        self.namespace = f"{_PREFIX}{os.getpid()}-{next(_count)}"
        self.hosts = {}

    def __enter__(self):
        _remove(_left_behind)
        self._outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            ip("netns", "add", self.namespace)
            ip("-n", self.namespace, "-batch", "-", batch=[
                "link set lo up",
                *(f"link add name {net} type bridge" for net in NETWORKS),
                *(f"addr add {getattr(self, net)}/24 dev {net}"
                  for net in NETWORKS),
                *(f"link set {net} up" for net in NETWORKS)])
            with open(f"/run/netns/{self.namespace}") as inside:
                _move_thread(inside.fileno())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        _move_thread(self._outside)
        os.close(self._outside)
        _remove(lambda name: f"{name}-".startswith(f"{self.namespace}-"))

    def host(self, name):
        """The host of this name, made when it is first asked for."""
        if name not in self.hosts:
            self.hosts[name] = Host(self, name, len(self.hosts) + 2)
        return self.hosts[name]
