"""The kill test, short: nothing acknowledged is lost, doubled or reordered on a
resumed stream, whatever dies. The long one is `make bench` (row `kill`)."""
import killtest


def check(report):
    assert not report["wrong"], report
    # That something was at stake:
    assert report["acknowledged"] > 1000
    assert sum(report["faults"].values()) >= report["seconds"] / 6
    assert report["subscribers"]["resumes"] > 0
    assert report["subscribers"]["replayed"] > 0


def test_kill_redis():
    check(killtest.run(store="redis", seed=20260, seconds=60,
                       subscribers=600, channels=100, rate=600))


def test_kill_lmdb():
    check(killtest.run(store="lmdb", seed=20261, seconds=30,
                       subscribers=600, channels=100, rate=600))
