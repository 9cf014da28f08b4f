"""Tokens of operators: admin ports, and stentorctl."""
import contextlib
import http.client
import time

import pytest

from harness import CTL, SLOW, clean_env, run, wait_until
from test_y_auth import c, cluster_of, publish, revoke  # noqa: F401
from tokens import bearer


# --- operators -------------------------------------------------------------

def own_address():
    """An address of this machine that is not loopback; None: there is none."""
    for address in run(["hostname", "-I"]).stdout.split():
        if ":" not in address:
            return address
    return None


def admin_get(p, path, token=None, host=None):
    """Status and scheme of an answer of an admin port, to another machine's
    eyes unless `host` is loopback."""
    conn = http.client.HTTPConnection(host or own_address(), p.admin_port,
                                      timeout=5 * SLOW)
    conn.request("GET", path, headers=bearer(token) if token else {})
    r = conn.getresponse()
    r.read()
    conn.close()
    return r.status, r.headers.get("WWW-Authenticate")


@contextlib.contextmanager
def open_admin_cluster(workers):
    if own_address() is None:
        pytest.skip("no address but loopback")
    with cluster_of(1, 1, workers, start=False) as c:
        for p in c.processes:
            p.options["admin_listen"] = f"0.0.0.0:{p.admin_port}"
        c.start()
        yield c


def test_admin_ports():
    with open_admin_cluster(1) as c:
        little = c.auth.token(subscribe=["*"], publish=["*"])
        for p in c.processes:
            assert admin_get(p, "/livez") == (200, None)
            assert admin_get(p, "/readyz") == (200, None)
            for path in ("/metrics", "/version", "/debug/config", "/nothing"):
                assert admin_get(p, path) == (401, "Bearer"), path
                assert admin_get(p, path, "x") == (401, "Bearer"), path
                assert admin_get(p, path, little) == (403, None), path
            admin = c.auth.admin()
            assert admin_get(p, "/metrics", admin) == (200, None)
            assert admin_get(p, "/nothing", admin) == (404, None)
            for host in ("127.0.0.1", "127.0.0.9"):
                assert admin_get(p, "/metrics", host=host) == (200, None)


def test_metrics_may_be_open():
    if own_address() is None:
        pytest.skip("no address but loopback")
    with cluster_of(1, 1, 1, start=False) as c:
        for p in c.processes:
            p.options["admin_listen"] = f"0.0.0.0:{p.admin_port}"
            p.options["metrics_open"] = "true"
        c.start()
        for p in c.processes:
            assert admin_get(p, "/metrics") == (200, None)
            for path in ("/version", "/debug/config"):
                assert admin_get(p, path) == (401, "Bearer"), path


def test_admin_ports_hear_of_revocations():
    with open_admin_cluster(2) as c:
        by_sub = c.auth.token(sub="op:1", admin=True)
        by_jti = c.auth.token(sub="op:2", jti="j2", admin=True)
        kept = c.auth.token(sub="op:2", jti="j3", admin=True)

        def statuses(p):
            return [admin_get(p, "/metrics", t)[0]
                    for t in (by_sub, by_jti, kept)]
        for p in c.processes:
            assert statuses(p) == [200, 200, 200]
        at = time.monotonic()
        revoke(c.d, sub="op:1")
        revoke(c.d, jti="j2")
        for p in c.processes:
            wait_until(lambda p=p: statuses(p) == [401, 401, 200],
                       what=f"{p.name} heard of both")
        assert time.monotonic() - at < 1 * SLOW
        # It outlives the workers, who will tell it again, and the node.
        old = c.n.worker_pids()
        for pid in old:
            c.n.kill_worker(pid)
        assert statuses(c.n) == [401, 401, 200]
        c.n.stop()
        c.n.start().wait_ready()
        wait_until(lambda: statuses(c.n) == [401, 401, 200],
                   what="the node hears again")


# --- stentorctl ------------------------------------------------------------

def ctl(c, *argv, **env):
    return run([CTL, "--dispatcher", f"127.0.0.1:{c.d.api_port}", *argv],
               env=clean_env(**env))


def test_ctl(c, tmp_path):
    file = tmp_path / "token"
    file.write_text(c.auth.admin() + "\n")
    assert ctl(c, "nodes").returncode == 1
    assert "unauthenticated" in ctl(c, "nodes").stderr
    assert ctl(c, "nodes", "--token-file", file).returncode == 0
    assert ctl(c, "nodes", STENTOR_TOKEN=c.auth.admin()).returncode == 0
    # A file counts before the environment.
    r = ctl(c, "nodes", "--token-file", file, STENTOR_TOKEN="nonsense")
    assert r.returncode == 0
    for text in ("", " \n", "a b\n", "a\nx-evil: 1\n", "x" * 9000):
        bad = tmp_path / "bad"
        bad.write_text(text)
        r = ctl(c, "nodes", "--token-file", bad)
        assert r.returncode == 2 and "token" in r.stderr, text[:9]
        assert "evil" not in r.stderr
    assert ctl(c, "nodes", "--token-file", tmp_path / "no").returncode == 2
    r = ctl(c, "nodes", "--token", c.auth.admin())
    assert r.returncode == 2 and c.auth.admin() not in r.stderr


def test_ctl_revokes(c):
    token = c.auth.token(sub="user:77", jti="j77", publish=["*"])
    again = c.auth.token(sub="user:77", jti="j78", publish=["*"])
    env = {"STENTOR_TOKEN": c.auth.admin()}
    for argv in ((), ("--sub", "a", "--jti", "b"),
                 ("--sub", "a", "--ttl", "5"), ("--sub", "a", "--ttl", "0s")):
        assert ctl(c, "revoke", *argv, **env).returncode == 2, argv
    assert publish(c.d.api_port, token, "a")[0] == 200
    r = ctl(c, "revoke", "--jti", "j77", "--ttl", "2h", **env)
    assert (r.returncode, r.stdout) == (0, "revoked; 1 worker is told\n")
    assert publish(c.d.api_port, token, "a")[0] == 401
    assert publish(c.d.api_port, again, "a")[0] == 200
    assert ctl(c, "revoke", "--sub", "user:77", **env).returncode == 0
    assert publish(c.d.api_port, again, "a")[0] == 401
    assert ctl(c, "revoke", "--sub", "a", "--ttl", "31d",
               **env).returncode == 1


def test_ctl_tail_shows_it_to_the_node(c, tmp_path):
    file = tmp_path / "token"
    file.write_text(c.auth.token(subscribe=["a"]))
    node = ("--node", f"127.0.0.1:{c.n.port}")
    r = ctl(c, "tail", "b", *node, "--token-file", file)
    assert r.returncode == 1 and "403" in r.stderr
    r = ctl(c, "tail", "a", *node)
    assert r.returncode == 1 and "401" in r.stderr
