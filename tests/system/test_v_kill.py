"""The kill test, short: nothing acknowledged is lost, doubled or reordered
without a true gap, whatever dies, is cut off, changes or goes back. Stores run
side by side. The long ones are `make bench` (row `kill`)."""
import concurrent.futures
import json
import pathlib
import subprocess
import sys

import pytest

import harness
from killstores import STORES

KILLTEST = pathlib.Path(__file__).with_name("killtest.py")
SECONDS = 30


def start(store, seed, *args):
    """One in a process of its own: (exit status, its report)."""
    p = subprocess.run(
        [sys.executable, KILLTEST, f"--store={store}", f"--seed={seed}",
         f"--seconds={SECONDS}", "--subscribers=240", "--channels=40",
         "--rate=200", "--json", *args],
        capture_output=True, text=True, timeout=(SECONDS + 150) * harness.SLOW)
    lines = p.stdout.splitlines()
    return p.returncode, json.loads(lines[-1]) if lines else p.stderr[-4000:]


def check(stores, seed):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        results = dict(zip(stores, pool.map(lambda s: start(s, seed),
                                            stores)))
    for store, (status, report) in results.items():
        assert isinstance(report, dict), report
        assert status == 0 and not report["wrong"], (
            store, report["wrong"], report["history"], report["broken"])
        # That something was at stake:
        assert report["acknowledged"] > 1000
        assert sum(report["faults"].values()) >= SECONDS / 6
        assert report["judged"]["resumes"] > 0
        assert report["judged"]["owed"] > 10000
        if STORES[store].loses:
            assert report["faults"]["store-loss"] > 0


@pytest.mark.timeout(300)
def test_kill():
    check(["redis", "lmdb"], 20260)


@pytest.mark.timeout(300)
def test_kill_stores_that_go_back():
    check(["redis-everysec", "sentinel", "lmdb-copy"], 20261)
