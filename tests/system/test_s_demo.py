"""The demo of `make run`: its match adds up, and the whole starts and stops."""
import copy
import json
import signal
import socket
import subprocess
import sys

import pytest

import harness
import rpc
from harness import http_get, wait_until
from sse import Sse

DEMO = harness.ROOT / "deploy" / "demo"
sys.path.insert(0, str(DEMO))

import match  # noqa: E402

PORTS = 22  # run.py --port-base N uses ports from N to N + 21
PAGE = 20
API = 0


def test_match_adds_up():
    assert match.check(match.load()) == []


@pytest.mark.parametrize("spoil, expected", [
    (lambda balls: balls[3].update(runs=balls[3]["runs"] + 2), "add up"),
    (lambda balls: balls[3].update(batter=balls[3]["non_striker"],
                                   non_striker=balls[3]["batter"]),
     "should be where"),
    (lambda balls: balls.pop(7), "expected 1.2"),
    (lambda balls: balls.pop(), "before it is over"),
    (lambda balls: balls[9].update(bowler="A stranger"), "does not bowl"),
    (lambda balls: balls[9].update(extras=1), "without their kind"),
])
def test_match_check_finds_faults(spoil, expected):
    spoiled = copy.deepcopy(match.load())
    spoil(spoiled["innings"][0]["balls"])
    assert any(expected in fault for fault in match.check(spoiled))


def test_scorer_tells_the_result():
    played = match.load()
    scorer = match.Scorer(played)
    for innings in played["innings"]:
        scorer.start_innings()
        for ball in innings["balls"]:
            told = scorer.take(ball)
    assert told["over_end"] and told["score"] == "168/6"
    assert match.result_text(played, scorer.innings) == \
        "Larkspur Valley Kestrels win by 4 wickets"


class Demo:
    """run.py on ports of its own, its output read as it comes."""

    def __init__(self, run_dir, ball_seconds=0.2):
        self.base = harness.free_ports(PORTS)
        self.log = run_dir / "run.out"
        self.out = open(self.log, "wb")
        self.process = subprocess.Popen(
            [sys.executable, DEMO / "run.py", "--build", harness.BUILD,
             "--run-dir", run_dir, "--port-base", str(self.base),
             "--ball-seconds", str(ball_seconds)],
            stdin=subprocess.DEVNULL, stdout=self.out,
            stderr=subprocess.STDOUT, env=harness.clean_env())

    def text(self):
        return self.log.read_text()

    def wait_up(self):
        wait_until(lambda: "Ctrl-C stops" in self.text()
                   or self.process.poll() is not None, 30, "the demo is up")
        assert self.process.poll() is None, self.text()

    def publish(self, channel, data):
        status, answer = rpc.connect_json(
            self.base + API, "stentor.v1.PublisherService/Publish",
            {"channel": channel, "data": data})
        assert status == 200, answer
        return answer

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        assert self.wait_exit() == 0, self.text()

    def wait_exit(self):
        return self.process.wait(30 * harness.SLOW)

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.wait_exit()
        self.out.close()


@pytest.fixture
def demo(tmp_path):
    d = Demo(tmp_path)
    yield d
    d.close()


def test_run_and_stop(demo):
    demo.wait_up()
    page = demo.base + PAGE
    assert f"http://127.0.0.1:{page}/" in demo.text()
    status, headers, body = http_get(page, "/")
    assert status == 200 and b"Fictional match" in body
    for asset, kind in (("/demo.js", "javascript"), ("/demo.css", "css")):
        status, headers, _ = http_get(page, asset)
        assert status == 200 and kind in headers["Content-Type"]

    started = harness.children(demo.process.pid)
    assert len(started) == 3
    with Sse(page, "cricket:demo:score", "cricket:demo:commentary",
             "host:cpu", "host:net", query={"format": "json"}) as s:
        s.wait_ready()
        seen = {}

        def all_four():
            s.pump()
            for m in s.messages():
                envelope = m.json()
                seen[envelope["channel"]] = json.loads(envelope["data"])
            return len(seen) == 4
        wait_until(all_four, 10, "a message on each channel of the demo")
    assert seen["cricket:demo:score"]["fictional"] is True
    assert seen["cricket:demo:commentary"]["text"]
    assert 0 <= seen["host:cpu"]["total"] <= 100
    assert seen["host:net"]["loopback"] >= 0

    demo.stop()
    assert "killed" not in demo.text()
    assert not [pid for pid in started if harness.alive(pid)]


def test_a_late_page_shows_the_score_at_once(tmp_path):
    """The match stands still meanwhile: nothing comes but what is kept."""
    slow = Demo(tmp_path, ball_seconds=600)
    try:
        slow.wait_up()
        page = slow.base + PAGE
        with Sse(page, "cricket:demo:score") as early:
            told = early.wait_messages(1)
        with Sse(page, "cricket:demo:score") as late:
            late.wait_messages(1)
            assert late.data() == [m.data for m in told]
            assert late.messages()[0].id
    finally:
        slow.close()


def test_what_is_kept_outlives_the_demo(tmp_path):
    first = Demo(tmp_path)
    try:
        first.wait_up()
        assert "Last-Event-ID" in first.text()
        with Sse(first.base + PAGE, "demo:hello") as s:
            s.wait_ready()
            first.publish("demo:hello", "one")
            place = s.wait_data("one").id
        first.publish("demo:hello", "two")
        first.stop()
    finally:
        first.close()
    second = Demo(tmp_path)
    try:
        second.wait_up()
        with Sse(second.base + PAGE, "demo:hello",
                 headers={"Last-Event-ID": place}) as s:
            s.wait_data("two")
            assert s.data() == ["two"]
            assert not [e for e in s.events if e.event == "stentor.gap"]
    finally:
        second.close()


def test_end_of_a_part_ends_all_and_says_why(demo):
    demo.wait_up()
    started = harness.children(demo.process.pid)
    first = harness.children(demo.process.pid)[0]
    subprocess.run(["kill", "-9", str(first)], check=True)
    assert demo.wait_exit() == 1
    assert "ended (SIGKILL)" in demo.text()
    assert not [pid for pid in started if harness.alive(pid)]


def test_taken_port_is_named(tmp_path):
    with socket.socket() as taken:
        base = harness.free_ports(PORTS)
        taken.bind(("127.0.0.1", base + PAGE))
        taken.listen()
        done = subprocess.run(
            [sys.executable, DEMO / "run.py", "--build", harness.BUILD,
             "--run-dir", tmp_path, "--port-base", str(base)],
            capture_output=True, text=True, timeout=30 * harness.SLOW,
            env=harness.clean_env())
    assert done.returncode == 1
    assert f"Port {base + PAGE}, wanted for the page, is taken" in done.stderr
    assert "DEMO_PORT_BASE" in done.stderr
