"""Stock clients: grpc-js, connect-es, buf curl, the npm eventsource."""
import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess

import pytest

import harness
import rpc
from harness import clean_env, run, wait_until
from sse import Sse

HERE = pathlib.Path(__file__).resolve().parent / "clients"
NPM = harness.ROOT / "build/npm"
PROTO = harness.ROOT / "proto"

pytestmark = pytest.mark.skipif(
    not (shutil.which("npm") and shutil.which("node")),
    reason="npm or node is not installed")


@pytest.fixture(scope="session")
def npm():
    """node_modules in build/npm, installed once per package.json."""
    NPM.mkdir(parents=True, exist_ok=True)
    wanted = (HERE / "package.json").read_text()
    with open(NPM / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = NPM / "installed.json"
        if not done.exists() or done.read_text() != wanted:
            (NPM / "package.json").write_text(wanted)
            subprocess.run(
                ["npm", "install", "--no-audit", "--no-fund",
                 "--no-package-lock", "--loglevel=error"], cwd=NPM,
                check=True, stdin=subprocess.DEVNULL, timeout=300)
            done.write_text(wanted)
        for script in HERE.glob("*.mjs"):
            text = script.read_bytes()
            copy = NPM / script.name
            if not copy.exists() or copy.read_bytes() != text:
                copy.write_bytes(text)
        (NPM / "all.pb").write_bytes(rpc.descriptor_set())
    return NPM


def node(npm, script, *argv):
    r = run(["node", npm / script, *argv], timeout=40)
    assert r.returncode == 0, r.stderr
    return json.loads(r.stdout)


@pytest.mark.timeout(330)
def test_grpc_js(cluster, channel, npm):
    with Sse(cluster.n.port, channel) as s:
        s.wait_ready()
        got = node(npm, "grpc_js.mjs", PROTO,
                   f"127.0.0.1:{cluster.d.api_port}", channel)
        assert got["messageId"]
        assert got["batch"] == [0, 3]
        assert got["stream"] == [0] * 20
        assert got["refused"] == 3
        assert got["nodes"] == ["n0"]
        assert got["health"] == "SERVING"
        s.wait_messages(22)
        assert s.data() == ["unary", "batch 0"] + [
            f"stream {i}" for i in range(20)]


@pytest.mark.timeout(330)
@pytest.mark.parametrize("kind", ["json", "proto", "connect2", "grpc"])
def test_connect_es(cluster, channel, npm, kind):
    with Sse(cluster.n.port, channel) as s:
        s.wait_ready()
        got = node(npm, "connect_es.mjs", npm / "all.pb",
                   f"http://127.0.0.1:{cluster.d.api_port}", channel, kind)
        assert got["messageId"]
        assert got["batch"] == [0, 3]
        assert got["stream"] == ([0] * 20 if kind == "grpc" else None)
        assert got["refused"] == "InvalidArgument"
        assert got["subscribers"] == 1
        s.wait_messages(22 if kind == "grpc" else 2)


@pytest.mark.timeout(330)
@pytest.mark.parametrize("protocol", ["grpc", "connect"])
def test_buf_curl(cluster, channel, npm, protocol):
    """Reflection on: buf needs no proto file."""
    with Sse(cluster.n.port, channel) as s:
        s.wait_ready()
        argv = [npm / "node_modules/.bin/buf", "curl", "--protocol",
                protocol]
        argv += ["--http2-prior-knowledge"]
        url = f"http://127.0.0.1:{cluster.d.api_port}"
        env = clean_env(BUF_CACHE_DIR=str(npm / "buf-cache"),
                        HOME=str(npm))
        r = run(argv + ["-d", json.dumps({"channel": channel,
                                          "data": "by buf"}),
                        f"{url}/stentor.v1.PublisherService/Publish"],
                env=env, cwd=npm)
        assert r.returncode == 0, r.stderr
        assert json.loads(r.stdout)["messageId"]
        s.wait_data("by buf")
        r = run(argv + ["--list-methods", url], env=env, cwd=npm)
        assert r.returncode == 0, r.stderr
        assert "stentor.v1.PublisherService/PublishStream" in r.stdout


@pytest.mark.timeout(330)
def test_npm_eventsource_survives_a_node(make_cluster, channel, npm):
    c = make_cluster(1, 1, 1)
    url = f"http://127.0.0.1:{c.n.port}/v1/subscribe?channel={channel}"
    p = subprocess.Popen(["node", str(npm / "event_source.mjs"), url, "2"],
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, env=clean_env())
    os.set_blocking(p.stdout.fileno(), False)
    text = b""

    def events():
        nonlocal text
        text += p.stdout.read() or b""
        return [json.loads(x) for x in text.splitlines()
                if x.endswith(b"}")]

    try:
        wait_until(lambda: any("ready" in e for e in events()), 20, "ready")
        c.d.publish(channel, "one")
        wait_until(lambda: {"data": "one"} in events(), what="first message")
        c.n.kill_worker(c.n.worker_pids()[0], signal.SIGKILL)
        wait_until(lambda: sum("ready" in e for e in events()) == 2, 30,
                   "it comes back")
        c.d.publish(channel, "two")
        wait_until(lambda: {"data": "two"} in events(), what="second one")
        assert not any(e.get("closed") for e in events())
    finally:
        p.kill()
        p.wait()
        p.stdout.close()
    c.wait_ready()
