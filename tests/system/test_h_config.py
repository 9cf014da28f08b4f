"""Options: every mistake is exit 78 before any socket opens."""
import json
import os
import re
import resource
import signal
import socket
import subprocess

import pytest

import harness
from harness import CONNNODE, CTL, DISPATCHER, clean_env, free_ports, run, \
    wait_until
from sse import Sse

PROGRAMS = pytest.mark.parametrize(
    "binary", [DISPATCHER, CONNNODE], ids=["dispatcher", "connnode"])
CONFIG = 78


def names(binary):
    """Option names in --help."""
    return set(re.findall(r"--([a-z][a-z-]+)", run([binary, "--help"]).stdout))


@pytest.mark.parametrize("binary", [DISPATCHER, CONNNODE, CTL],
                         ids=["dispatcher", "connnode", "ctl"])
def test_help(binary):
    r = run([binary, "--help"])
    assert r.returncode == 0
    assert binary.name in r.stdout
    assert r.stderr == ""
    assert max(map(len, r.stdout.splitlines())) <= 100


def test_help_lists_the_contract():
    assert {"api-listen", "link-listen", "admin-listen", "auth", "name",
            "config", "log-format", "help"} <= names(DISPATCHER)
    assert {"listen", "admin-listen", "dispatchers", "link-listen",
            "link-advertise", "workers", "max-connections", "auth", "name",
            "drain-seconds", "config", "log-format"} <= names(CONNNODE)


@PROGRAMS
def test_help_shows_environment_names_and_defaults(binary):
    text = run([binary, "--help"]).stdout
    assert "STENTOR_" in text
    assert "0.0.0.0:" in text


@PROGRAMS
def test_version(binary):
    r = run([binary, "--version"])
    assert r.returncode == 0
    assert re.fullmatch(binary.name + r" \S+\n", r.stdout)


BAD = [
    ["--no-such-option"],
    ["--no-such-option=1"],
    ["--auth=maybe", ],
    ["--auth"],
    ["--log-format=xml", "--auth=none"],
    ["--admin-listen=nonsense", "--auth=none"],
    ["--admin-listen=127.0.0.1:99999", "--auth=none"],
    ["--config=/nonexistent/file.yaml", "--auth=none"],
    ["stray", "--auth=none"],
]


@PROGRAMS
@pytest.mark.parametrize("argv", BAD, ids=lambda a: a[0].strip("-"))
def test_bad_flag(binary, argv):
    r = run([binary, *argv], timeout=5)
    assert r.returncode == CONFIG, r.stderr
    assert r.stderr.strip()
    option, _, value = argv[0].lstrip("-").partition("=")
    assert option in r.stderr or value and value in r.stderr


@pytest.mark.parametrize("argv", [
    ["--workers=0x"], ["--workers=-1"], ["--workers=100000"],
    ["--max-connections=many"], ["--max-connections=0"],
    ["--drain-seconds=1e3"], ["--workers=99999999999999999999"],
    ["--workers="],
], ids=lambda a: a[0].strip("-"))
def test_bad_number(argv):
    r = run([CONNNODE, "--auth=none", *argv], timeout=5)
    assert r.returncode == CONFIG, r.stderr
    assert argv[0].lstrip("-").split("=")[0] in r.stderr


@PROGRAMS
def test_auth_must_be_said_aloud(binary):
    """The default is jwt, which needs keys; nothing is open by accident."""
    r = run([binary], timeout=5)
    assert r.returncode == CONFIG
    assert "auth" in r.stderr


@PROGRAMS
def test_unknown_environment_key(binary):
    r = run([binary, "--auth=none", "--help"],
            env=clean_env(STENTOR_NO_SUCH_THING="1"))
    assert r.returncode in (0, CONFIG)
    r = run([binary, "--auth=none", "--admin-listen=nonsense"], timeout=5,
            env=clean_env(STENTOR_LOG_FORMAT="xml"))
    assert r.returncode == CONFIG
    assert "STENTOR_LOG_FORMAT" in r.stderr or "log-format" in r.stderr \
        or "admin-listen" in r.stderr


@PROGRAMS
@pytest.mark.parametrize("text", [
    "no_such_key: 1\n",
    "auth: [none\n",
    "auth: none\nauth: none\nauth: {a: b}\n",
    "just text\n",
    "auth: none\nlog_format: xml\n",
    "auth: none\nrules: 5\n",
    "auth: none\nrules:\n  - matc: 'a*'\n",
    "auth: none\nrules:\n  - match: 'a*'\n    priority: urgent\n",
    "auth: none\nrules:\n  - match: 'a*'\n    lagging: never\n",
    "auth: none\nrules:\n  - match: 'a b'\n",
    "auth: none\nrules:\n  - match: 'a*b'\n",
    "\x00\xff",
], ids=range(12))
def test_bad_file(binary, tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    r = run([binary, f"--config={path}", "--auth=none"], timeout=5)
    assert r.returncode == CONFIG, (r.returncode, r.stderr)
    assert r.stderr.strip()
    assert "bad.yaml" in r.stderr, "the message names the file"


def admin_name(dispatcher):
    """--name as the running process has it."""
    status, answer = dispatcher.call("stentor.v1.ClusterService/ListNodes",
                                     {})
    assert status == 200
    return answer["dispatcher"]


@pytest.mark.parametrize("flag,env,file,expect", [
    ("by-flag", "by-env", "by-file", "by-flag"),
    (None, "by-env", "by-file", "by-env"),
    (None, None, "by-file", "by-file"),
])
def test_precedence(make_cluster, tmp_path, monkeypatch, flag, env, file,
                    expect):
    """flag > environment > file."""
    path = tmp_path / "c.yaml"
    path.write_text(f"name: {file}\n")
    c = make_cluster(1, 0, start=False, dispatcher_options={"config": path})
    if flag:
        c.d.options["name"] = flag
    else:
        del c.d.options["name"]
    if env:
        real = harness.clean_env
        monkeypatch.setattr(harness, "clean_env", lambda **kw: real(
            STENTOR_NAME=env, **kw))
    c.d.start().wait_ready()
    assert admin_name(c.d) == expect


def test_busy_port_is_a_clear_error(make_cluster):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        for binary, flag in ((DISPATCHER, "api-listen"), (CONNNODE, "listen"),
                             (DISPATCHER, "admin-listen"),
                             (CONNNODE, "admin-listen")):
            base = free_ports(8)
            options = {"admin-listen": f"127.0.0.1:{base}",
                       "link-listen": f"tcp://127.0.0.1:{base + 2}",
                       flag: f"127.0.0.1:{port}"}
            r = run([binary, "--auth=none"]
                    + [f"--{k}={v}" for k, v in options.items()], timeout=10)
            assert r.returncode not in (0, None), flag
            assert str(port) in r.stderr, (flag, r.stderr)


def run_limited(argv, soft, hard, env=None):
    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return subprocess.Popen(
        [str(a) for a in argv], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=limit, env=env or clean_env())


def node_argv(base):
    return [CONNNODE, "--auth=none", f"--listen=127.0.0.1:{base}",
            f"--admin-listen=127.0.0.1:{base + 1}", "--workers=1",
            f"--link-listen=tcp://127.0.0.1:{base + 2}",
            f"--dispatchers=tcp://127.0.0.1:{base + 3}"]


def test_connections_that_files_do_not_allow():
    """Asked for and can't be had: an error that names the limit."""
    base = free_ports(4)
    p = run_limited(node_argv(base) + ["--max-connections=5000"], 1024, 1024)
    out, err = p.communicate(timeout=10)
    assert p.returncode == CONFIG, err
    assert "max-connections" in err or "max_connections" in err
    assert "1024" in err


def test_default_connections_are_lowered_with_a_warning():
    base = free_ports(4)
    p = run_limited(node_argv(base), 256, 512)
    try:
        def up():
            try:
                return harness.http_get(base + 1, "/metrics")
            except OSError:
                assert p.poll() is None, p.stderr.read()
        _, _, body = wait_until(up, what="admin port answers")
        maximum = wait_until(lambda: harness.metrics.parse(
            harness.http_get(base + 1, "/metrics")[2].decode()).total(
                "stentor_connections_max"), what="a maximum")
        assert 64 <= maximum <= 512
    finally:
        p.send_signal(signal.SIGTERM)
        out, err = p.communicate(timeout=10)
    assert "512" in err, "it says what it got"


def test_logs_are_json(cluster):
    for p in (cluster.d, cluster.n):
        for line in p.log().splitlines():
            record = json.loads(line)
            assert {"ts", "level", "id"} <= set(record), line


def test_log_format_text(make_cluster):
    c = make_cluster(1, 0, dispatcher_options={"log_format": "text"})
    log = c.d.log()
    assert log.strip()
    assert not log.lstrip().startswith("{")


def test_bad_rules_on_sighup_change_nothing(make_cluster, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("rules:\n  - match: 'a*'\n    lagging: close\n")
    c = make_cluster(1, 1, 1, dispatcher_options={"config": path},
                     node_options={"config": path})
    rule = c.d.channel("abc")["rule"]
    assert rule["pattern"] == "a*" and rule["lagging"] == "close"
    path.write_text("rules: nonsense\n")
    c.d.signal(signal.SIGHUP)
    c.n.signal(signal.SIGHUP)
    path2 = tmp_path / "other"
    path2.write_text("")
    wait_until(lambda: "rules" in c.d.log(), 5, "the mistake is logged")
    assert c.d.channel("abc")["rule"] == rule
    path.write_text("rules:\n  - match: 'ab*'\n    lagging: drop_oldest\n")
    c.d.signal(signal.SIGHUP)
    c.n.signal(signal.SIGHUP)
    wait_until(lambda: c.d.channel("abc")["rule"]["pattern"] == "ab*", 5,
               "new rules are in force")
    assert c.d.ready() == 200 and c.n.ready() == 200


def test_changed_file_is_read_by_itself(make_cluster, tmp_path, channel):
    """As a ConfigMap changes: another file under the same name, no signal, and
    no stream notices."""
    files = [tmp_path / "d.yaml", tmp_path / "n.yaml"]
    for path in files:
        path.write_text("rules:\n  - match: 'a*'\n")
    c = make_cluster(1, 1, 1, dispatcher_options={"config": files[0]},
                     node_options={"config": files[1]})

    def differs():
        return [p.metric("stentor_config_differs") for p in (c.d, c.n)]

    def change(path):
        fresh = tmp_path / "fresh"
        fresh.write_text("rules:\n  - match: 't*'\n    priority: critical\n")
        fresh.rename(path)
    with Sse(c.n.port, channel) as s:
        s.wait_ready()
        assert differs() == [0, 0]
        change(files[0])
        wait_until(lambda: c.d.channel(channel)["rule"]["pattern"] == "t*")
        wait_until(lambda: differs() == [1, 1], what="a rollout under way")
        change(files[1])
        wait_until(lambda: differs() == [0, 0], what="and it is over")
        c.d.publish(channel, "m")
        s.wait_data("m")


def test_sighup_without_a_file(cluster):
    """Reload with nothing to reload must not end a process."""
    os.kill(cluster.d.pid, signal.SIGHUP)
    os.kill(cluster.n.pid, signal.SIGHUP)
    cluster.wait_ready()


def test_version_endpoint(cluster):
    for p in (cluster.d, cluster.n):
        status, _, body = p.get("/version")
        assert status == 200 and p.binary.name.encode() in body
        assert p.get("/livez")[0] == 200
        assert p.get("/nothing")[0] == 404
        assert harness.http_get(p.admin_port, "/metrics",
                                "POST")[0] in (404, 405)
