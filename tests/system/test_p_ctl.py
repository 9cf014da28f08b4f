"""stentorctl, as people use it."""
import json
import os
import signal
import subprocess

import pytest

import harness
from harness import CTL, clean_env, run, wait_until
from sse import Sse


def ctl(cluster, *argv, **kw):
    return run([CTL, "--dispatcher", f"http://127.0.0.1:{cluster.d.api_port}",
                *argv], **kw)


def test_nodes(cluster22):
    r = ctl(cluster22, "nodes")
    assert r.returncode == 0, r.stderr
    assert "n0" in r.stdout and "n1" in r.stdout
    assert "ready" in r.stdout.lower()


def test_channel(cluster, channel):
    with Sse(cluster.n.port, channel) as s:
        s.wait_ready()
        r = ctl(cluster, "channel", channel)
        assert r.returncode == 0, r.stderr
        assert channel in r.stdout and "1" in r.stdout


def test_publish(cluster, channel):
    with Sse(cluster.n.port, channel) as s:
        s.wait_ready()
        r = ctl(cluster, "publish", channel, "from the shell")
        assert r.returncode == 0, r.stderr
        s.wait_data("from the shell")


def test_publish_of_a_bad_channel(cluster):
    r = ctl(cluster, "publish", "not a channel", "x")
    assert r.returncode not in (0, None)
    assert "channel" in r.stderr


def test_tail(cluster, channel):
    """tail subscribes at a node and prints until Ctrl-C."""
    argv = [CTL, "--dispatcher", f"http://127.0.0.1:{cluster.d.api_port}",
            "--node", f"http://127.0.0.1:{cluster.n.port}", "tail", channel]
    p = subprocess.Popen([str(a) for a in argv], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                         env=clean_env())
    try:
        wait_until(lambda: p.poll() is not None or int(
            cluster.d.channel(channel).get("subscribers", 0)) == 1,
            what="tail subscribes")
        assert p.poll() is None, p.stderr.read()
        cluster.d.publish(channel, "seen by tail")
        os.set_blocking(p.stdout.fileno(), False)
        got = b""

        def seen():
            nonlocal got
            got += p.stdout.read() or b""
            return b"seen by tail" in got
        wait_until(seen, what="tail prints it")
        p.send_signal(signal.SIGINT)
        wait_until(lambda: p.poll() is not None, 3, "Ctrl-C ends it")
    finally:
        if p.poll() is None:
            p.kill()
        p.wait()
        p.stdout.close()
        p.stderr.close()


def test_no_dispatcher():
    port = harness.free_ports(1)
    r = run([CTL, "--dispatcher", f"http://127.0.0.1:{port}", "nodes"])
    assert r.returncode not in (0, None)
    assert str(port) in r.stderr


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["publish"],
                                  ["channel"], ["--nonsense"]], ids=str)
def test_wrong_usage(argv):
    r = run([CTL, *argv])
    assert r.returncode not in (0, None)
    assert r.stderr.strip()


@pytest.mark.parametrize("command", ["nodes", "channel", "publish", "tail"])
def test_help_of_each_command(command):
    r = run([CTL, command, "--help"])
    assert r.returncode == 0
    assert command in r.stdout


def test_json_output(cluster22):
    """For scripts, where it is offered."""
    r = ctl(cluster22, "--json", "nodes")
    if r.returncode:
        pytest.skip("no --json")
    assert {n["name"] for n in json.loads(r.stdout)["nodes"]} == {"n0", "n1"}
