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


class Tail:
    """`stentorctl tail` as it runs, its output read as it comes."""

    def __init__(self, cluster, *argv, scheme="http"):
        self.out = self.err = ""
        self.process = subprocess.Popen(
            [str(a) for a in (
                CTL, "--dispatcher", f"http://127.0.0.1:{cluster.d.api_port}",
                "--node", f"{scheme}://127.0.0.1:{cluster.n.port}", "tail",
                *argv)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL, env=clean_env())
        for pipe in (self.process.stdout, self.process.stderr):
            os.set_blocking(pipe.fileno(), False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()

    def read(self):
        self.out += (self.process.stdout.read() or b"").decode()
        self.err += (self.process.stderr.read() or b"").decode()

    def wait(self, cond, what):
        def met():
            self.read()
            return cond()
        try:
            wait_until(met, what=what)
        except harness.Timeout as e:
            raise AssertionError(f"{e}\n{self.out}\n{self.err}") from e

    def wait_subscribed(self):
        self.wait(lambda: "stentor.ready" in self.err, "tail subscribes")

    def wait_printed(self, text):
        self.wait(lambda: text in self.out, f"tail prints {text}")

    def wait_end(self):
        self.wait(lambda: self.process.poll() is not None, "tail ends")
        self.read()
        return self.process.returncode


def test_tail(cluster, channel):
    """tail subscribes at a node and prints until Ctrl-C."""
    with Tail(cluster, channel) as tail:
        tail.wait_subscribed()
        cluster.d.publish(channel, "seen by tail")
        tail.wait_printed("seen by tail")
        tail.process.send_signal(signal.SIGINT)
        tail.wait_end()


RULES = """\
rules:
- match: "kept:*"
  history: {size: 5, ttl: 10m, latest: 2}
"""


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A cluster in which channels kept:* keep five messages."""
    config = tmp_path_factory.mktemp("ctl") / "rules.yaml"
    config.write_text(RULES)
    with harness.Cluster(1, 1, 1, dispatcher_options={"config": config},
                         node_options={"config": config, "retry_min_ms": 50,
                                       "retry_max_ms": 100}) as c:
        yield c
    harness.Cluster.live.remove(c)


@pytest.fixture
def kept_channel(channel):
    return f"kept:{channel}"


def place(answer):
    """A position as people write it."""
    return "{epoch}:{offset}".format(**answer["position"])


def test_history(kept, kept_channel):
    places = [place(kept.d.publish(kept_channel, f"{i} runs", event="ball",
                                   conflationKey="k"))
              for i in range(7)]
    r = ctl(kept, "history", kept_channel)
    assert r.returncode == 0, r.stderr
    lines = r.stdout.splitlines()
    assert lines[0].split() == ["PUBLISHED", "POSITION", "EVENT", "KEY",
                                "DATA"]
    assert [line.split()[2:] for line in lines[1:-1]] == [
        [places[i], "ball", "k", str(i), "runs"] for i in range(2, 7)]
    assert lines[-1] == f"5 messages; kept are {places[2]} to {places[6]}"

    lines = ctl(kept, "history", kept_channel, "--limit",
                "2").stdout.splitlines()
    assert [line.split()[2] for line in lines[1:-1]] == places[2:4]
    assert lines[-1].endswith(f"; more with --after {places[3]}")
    lines = ctl(kept, "history", kept_channel, "--after",
                places[3]).stdout.splitlines()
    assert [line.split()[2] for line in lines[1:-1]] == places[4:]
    lines = ctl(kept, "history", kept_channel, "--latest", "--limit",
                "1").stdout.splitlines()
    assert [line.split()[2] for line in lines[1:-1]] == places[6:]
    lines = ctl(kept, "history", kept_channel, "--after",
                places[0]).stdout.splitlines()
    assert lines[0] == "messages before these are not kept any more"

    r = ctl(kept, "--json", "history", kept_channel)
    assert [m["data"] for m in json.loads(r.stdout)["messages"]] == [
        f"{i} runs" for i in range(2, 7)]


def test_history_of_nothing(kept, kept_channel):
    r = ctl(kept, "history", kept_channel)
    assert r.returncode == 0, r.stderr
    assert r.stdout == "0 messages; nothing is kept\n"


@pytest.mark.parametrize("options", [
    ["--limit", "0"], ["--limit", "1001"], ["--after", "7"],
    ["--after", "1:2", "--latest"]], ids=" ".join)
def test_history_wrong_usage(options):
    r = run([CTL, "history", "c", *options])
    assert r.returncode == 2
    assert options[0] in r.stderr


def test_channel_tells_its_history(kept, kept_channel):
    r = ctl(kept, "channel", kept_channel)
    assert "top          -\n" in r.stdout
    top = place(kept.d.publish(kept_channel, "x"))
    r = ctl(kept, "channel", kept_channel)
    assert f"top          {top}\n" in r.stdout
    assert "  lagging    close\n" in r.stdout
    assert ("  history    5 messages, for 10m 0s; the newest 2 for a new "
            "subscriber\n") in r.stdout
    assert "  history    none\n" in ctl(kept, "channel", "other").stdout


def test_publish_with_a_key_adds_once(kept, kept_channel):
    argv = ["publish", kept_channel, "x", "--idempotency-key", "ball-7",
            "--conflation-key", "score", "--ttl", "10m"]
    first, second = ctl(kept, *argv), ctl(kept, *argv)
    assert first.returncode == second.returncode == 0, second.stderr
    assert first.stdout.startswith("published ")
    assert first.stdout.split()[1] == second.stdout.split()[1]
    assert first.stdout.split()[-1] == second.stdout.split()[-1]
    r = ctl(kept, "--json", "history", kept_channel)
    (message,) = json.loads(r.stdout)["messages"]
    assert message["conflationKey"] == "score"


@pytest.mark.parametrize("ttl", ["10", "0s", "50d", "soon"])
def test_publish_with_a_bad_ttl(ttl):
    r = run([CTL, "publish", "c", "x", "--ttl", ttl])
    assert r.returncode == 2
    assert f"'{ttl}'" in r.stderr


def test_tail_begins_at_a_position(kept, kept_channel):
    places = [place(kept.d.publish(kept_channel, f"m{i}")) for i in range(4)]
    with Tail(kept, kept_channel, "--since", places[0], "--count",
              "3") as tail:
        assert tail.wait_end() == 0, tail.err
        assert [line.split()[-1] for line in tail.out.splitlines()] == [
            "m1", "m2", "m3"]


def test_tail_tells_a_gap(kept, kept_channel):
    places = [place(kept.d.publish(kept_channel, f"m{i}")) for i in range(8)]
    with Tail(kept, kept_channel, "--since", places[0], "--count",
              "5") as tail:
        assert tail.wait_end() == 0, tail.err
        assert f"# gap in {kept_channel}: expired, from " in tail.err


@pytest.mark.parametrize("argv", [["a", "b", "--since", "1:2"],
                                  ["a", "--since", ""],
                                  ["a", "--since", "x y"]], ids=" ".join)
def test_tail_since_nonsense(argv):
    r = run([CTL, "tail", *argv])
    assert r.returncode == 2
    assert "--since" in r.stderr


def test_tail_resumes(kept, kept_channel):
    """The worker dies; what was published meanwhile is not missed, though it
    is more than a new subscriber gets."""
    with Tail(kept, kept_channel, "--count", "5") as tail:
        tail.wait_subscribed()
        kept.d.publish(kept_channel, "before")
        tail.wait_printed("before")
        kept.n.kill_worker(kept.n.worker_pids()[0])
        for i in range(3):
            kept.d.publish(kept_channel, f"away{i}")
        tail.wait_printed("away2")
        tail.wait(lambda: tail.err.count("stentor.ready") == 2,
                  "tail is back")
        kept.d.publish(kept_channel, "after")
        assert tail.wait_end() == 0, tail.err
        assert [line.split()[-1] for line in tail.out.splitlines()] == [
            "before", "away0", "away1", "away2", "after"]
        assert "connection lost" in tail.err


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


@pytest.mark.parametrize("command", ["nodes", "channel", "history", "publish",
                                     "tail"])
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
