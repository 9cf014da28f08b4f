"""Fixtures shared by all system tests."""
import os
import signal
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))

import harness  # noqa: E402
import netns  # noqa: E402
from harness import wait_until  # noqa: E402
from killtest import add_redis  # noqa: E402


def pytest_collection_modifyitems(items):
    if os.environ.get("STENTOR_LONG") != "1":
        skip = pytest.mark.skip(reason="long: set STENTOR_LONG=1")
        for item in items:
            if "long" in item.keywords:
                item.add_marker(skip)


def pytest_sessionstart(session):
    for binary in (harness.DISPATCHER, harness.CONNNODE, harness.CTL):
        if not binary.exists():
            pytest.exit(f"{binary} is missing: run make", returncode=3)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows the tails of its processes' logs."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for c in harness.Cluster.live:
            report.sections.append((f"logs of {c.dir.name}", c.report()))


@pytest.fixture
def lan():
    """A network whose cables the test may cut; it is in there itself. Asked for
    before make_cluster, so that it is there until all processes have ended."""
    why = netns.unavailable()
    if why:
        pytest.skip(why)
    with netns.Lan() as network:
        yield network


@pytest.fixture
def make_cluster():
    """make_cluster(2, 2, 2, ...) for tests that break what they use."""
    made = []

    def make(*args, **kw):
        made.append(harness.Cluster(*args, **kw))
        return made[-1]

    yield make
    _close(made)


def _close(clusters):
    problems = []
    for c in clusters:
        try:
            c.close()
        except AssertionError as e:
            problems.append(f"{e}\n{c.report()}")
        harness.Cluster.live.remove(c)
    assert not problems, "; ".join(problems)


def _shared(request, *args, **kw):
    c = harness.Cluster(*args, **kw)
    yield c
    _close([c])


@pytest.fixture(scope="module")
def cluster(request):
    """One dispatcher, one node of one worker; shared by a module."""
    yield from _shared(request, 1, 1, 1)


@pytest.fixture(scope="module")
def cluster22(request):
    """Two dispatchers, two nodes of two workers; shared by a module."""
    yield from _shared(request, 2, 2, 2)


@pytest.fixture
def channel(request):
    """A channel name that no other test uses."""
    channel.counter = getattr(channel, "counter", 0) + 1
    return f"t:{os.getpid()}:{channel.counter}"


@pytest.fixture(scope="session")
def link_tls(tmp_path_factory):
    return harness.LinkTls(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def redis(make_cluster, request):
    """A cluster of two dispatchers that share a redis-server, and the
    module's RULES."""
    c = make_cluster(2, 1, 1, start=False, rules=request.module.RULES)
    c.redis = add_redis(c)
    for d in c.dispatchers:
        d.options["store_timeout_ms"] = 1000
    c.start()
    return c


@pytest.fixture
def stuck(redis, request):
    """A dispatcher whose store stands still for longer than the test."""
    d = redis.d
    assert d.stop() == 0
    d.close_grpc()
    d.options["store_timeout_ms"] = 60000
    d.options.update(getattr(request, "param", {}))
    d.start(settle_ms=0)
    redis.wait_ready()
    d.publish("log:l", "the connection stands")
    redis.redis.signal(signal.SIGSTOP)
    yield d
    redis.redis.signal(signal.SIGCONT)
    wait_until(lambda: d.metric("stentor_publish_pending") == 0
               and d.metric("stentor_publish_batch_waiting") == 0
               and d.metric("stentor_publish_stream_waiting") == 0
               and d.metric("stentor_channel_reads") == 0, 20,
               "nothing waits any more")
    d.publish("log:l", "and all is well")
