"""Containers of the image without an engine: for tests, as root.

A Network is a bridge in a network namespace of its own; `with network:` moves
the calling thread into it, so that its sockets reach the containers' addresses.
A Container runs a command of an image's root file system there, as a kubelet
would: process 1 of its own pid namespace, with its own address and /etc/hosts,
an unprivileged user, no new privileges, a read-only root, and what is mounted.
"""
import contextlib
import ctypes
import hashlib
import http.client
import json
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import tarfile

import harness

UID = 65532
_CLONE_NEWNET = 0x40000000


def unpack(archive, root):
    """The root file system of an OCI archive; returns its configuration."""
    with tarfile.open(archive) as tar:
        def blob(digest):
            return tar.extractfile("blobs/" + digest.replace(":", "/"))

        index = json.load(tar.extractfile("index.json"))
        manifest = json.load(blob(index["manifests"][0]["digest"]))
        for layer in manifest["layers"]:
            data = blob(layer["digest"])
            with tarfile.open(fileobj=data, mode="r:*") as files:
                files.extractall(root)
        return json.load(blob(manifest["config"]["digest"]))["config"]


def _ip(*args):
    subprocess.run(["ip", *args], check=True, stdin=subprocess.DEVNULL)


class Network:
    """Containers' addresses are 10.99.0.10, .11 and so on."""

    def __init__(self, directory):
        self.dir = pathlib.Path(directory)
        unique = hashlib.sha256(str(directory).encode()).hexdigest()[:6]
        self.prefix = f"st{unique}"
        self.containers = []
        self.names = {}  # name: addresses
        self._spaces = []
        self.space = self._space("net")
        _ip("-n", self.space, "link", "add", "br0", "type", "bridge")
        _ip("-n", self.space, "addr", "add", "10.99.0.1/24", "dev", "br0")
        _ip("-n", self.space, "link", "set", "br0", "up")

    def _space(self, name):
        space = f"{self.prefix}-{name}"
        _ip("netns", "add", space)
        self._spaces.append(space)
        _ip("-n", space, "link", "set", "lo", "up")
        return space

    def join(self):
        """(namespace, address) for one more container."""
        index = len(self._spaces) + 9
        space = self._space(index)
        port, address = f"{self.prefix}p{index}", f"10.99.0.{index}"
        _ip("-n", self.space, "link", "add", port, "type", "veth", "peer",
            "name", "eth0", "netns", space)
        _ip("-n", self.space, "link", "set", port, "master", "br0", "up")
        _ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
        _ip("-n", space, "link", "set", "eth0", "up")
        return space, address

    def name(self, name, *addresses):
        """`name` resolves to these in every container, and to no others."""
        self.names[name] = addresses
        lines = ["127.0.0.1 localhost"] + [
            f"{a} {n}" for n, all_ in self.names.items() for a in all_]
        hosts = self.dir / "hosts"
        hosts.touch()
        hosts.write_text("\n".join(lines) + "\n")

    def __enter__(self):
        self._outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        inside = os.open(f"/run/netns/{self.space}", os.O_RDONLY)
        self._set(inside)
        os.close(inside)
        return self

    def __exit__(self, *_):
        self._set(self._outside)
        os.close(self._outside)

    @staticmethod
    def _set(fd):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(fd, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")

    def close(self):
        for c in self.containers:
            c.kill()
        for space in self._spaces:
            _ip("netns", "del", space)


class Container:
    """`mounts` is {path inside: path outside}; a directory of UID's is
    writable. Without a root file system the command is this machine's own."""

    def __init__(self, network, name, root, command, env=None, mounts=None,
                 uid=UID):
        self.network, self.name = network, name
        self.space, self.address = network.join()
        self.root, self.command, self.uid = root, command, uid
        self.env, self.mounts = env or {}, mounts or {}
        self.log_path = network.dir / f"{name}.log"
        self.popen = None
        network.containers.append(self)

    def _script(self, command):
        """What makes the container of an unshared process, and becomes it."""
        command = shlex.join(command)
        if self.root is None:
            return f"mount --bind {self.network.dir}/hosts /etc/hosts; " \
                f"exec {command}"
        lines = ["set -e", f"cd {self.root}",
                 # a mount of its own, so that it can be read-only
                 f"mount --bind {self.root} {self.root}", f"cd {self.root}"]
        mounts = {"/etc/hosts": self.network.dir / "hosts",
                  "/dev/null": "/dev/null", "/dev/urandom": "/dev/urandom",
                  **self.mounts}
        for inside, outside in mounts.items():
            target = pathlib.Path(f"{self.root}{inside}")
            if os.path.isdir(outside):
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.touch()
            lines.append(f"mount --bind {outside} .{inside}")
            if os.stat(outside).st_uid != UID and not inside.startswith("/dev"):
                lines.append(f"mount -o remount,bind,ro .{inside}")
        (pathlib.Path(self.root) / "proc").mkdir(exist_ok=True)
        lines += ["mount -t proc proc proc", "mount -o remount,bind,ro .",
                  "exec setpriv --no-new-privs chroot --userspec="
                  f"{self.uid}:{self.uid} {self.root} {command}"]
        return "\n".join(lines)

    def _argv(self, command):
        return ["ip", "netns", "exec", self.space, "unshare", "--mount",
                "--pid", "--fork", "--kill-child", "sh", "-c",
                self._script(command)]

    def _env(self):
        path = os.environ["PATH"] if self.root is None else "/usr/local/bin"
        # `ip`, `mount` and the like stand in the outer one
        return {"PATH": f"{path}:/usr/sbin:/usr/bin:/sbin:/bin", **self.env}

    def start(self):
        with open(self.log_path, "ab") as log:
            self.popen = subprocess.Popen(
                self._argv(self.command), stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, env=self._env(), start_new_session=True)
        return self

    def run(self, *command, timeout=20):
        """A command in a container like this one: its CompletedProcess."""
        return subprocess.run(
            self._argv(command), stdin=subprocess.DEVNULL, env=self._env(),
            capture_output=True, text=True, timeout=timeout * harness.SLOW)

    def stop(self, timeout):
        """SIGTERM to process 1; its exit status."""
        process_1 = harness.children(self.popen.pid)[0]
        os.kill(process_1, signal.SIGTERM)
        harness.wait_until(lambda: self.popen.poll() is not None, timeout,
                           f"{self.name} ends")
        return self.popen.returncode

    def kill(self):
        """Process 1, and with it all in its container. (--kill-child does not
        outlive the change of user.)"""
        if self.popen is not None and self.popen.poll() is None:
            for process_1 in harness.children(self.popen.pid):
                os.kill(process_1, signal.SIGKILL)
            self.popen.wait()

    def log(self):
        return self.log_path.read_text(errors="replace")

    def get(self, port, path, method="GET", body=None, headers=None):
        """(status, body) of a request from within the network; None while
        nobody answers."""
        if self.popen.poll() is not None:
            raise AssertionError(f"{self.name} ended with "
                                 f"{self.popen.returncode}:\n{self.log()}")
        conn = http.client.HTTPConnection(self.address, port,
                                          timeout=5 * harness.SLOW)
        with self.network, contextlib.closing(conn):
            try:
                conn.request(method, path, body, headers or {})
                answer = conn.getresponse()
                return answer.status, answer.read().decode()
            except (OSError, http.client.HTTPException):
                return None

    def publish(self, port, channel, data, token=None):
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return self.get(port, "/stentor.v1.PublisherService/Publish", "POST",
                        json.dumps({"channel": channel, "data": data}),
                        headers)

    def subscribe(self, port, channel, token=None):
        """An open event stream, past its stentor.ready."""
        return Stream(self, port, channel, token)


class Stream:
    """Lines of an event stream, by a stock HTTP client."""

    def __init__(self, container, port, channel, token):
        with container.network:
            sock = socket.create_connection((container.address, port),
                                            timeout=10 * harness.SLOW)
        self._conn = http.client.HTTPConnection(container.address, port)
        self._conn.sock = sock
        headers = {"Accept": "text/event-stream"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._conn.request("GET", f"/v1/subscribe?channel={channel}",
                           headers=headers)
        self._answer = self._conn.getresponse()
        assert self._answer.status == 200, self._answer.read()
        self.until("event: stentor.ready")

    def until(self, wanted):
        """Reads up to this line; a time-out or the end is an error."""
        while line := self._answer.readline():
            if line.decode().rstrip() == wanted:
                return
        raise AssertionError(f"the stream ended before {wanted!r}")

    def close(self):
        self._conn.close()
