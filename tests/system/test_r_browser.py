"""Chromium's own EventSource, and the demo page in it."""
import pathlib
import signal

import pytest

import chromium
import harness
from chromium import Page
from harness import http_get, wait_until
from tokens import Auth, bearer

pytestmark = chromium.needed


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium.running(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture(scope="module")
def origin():
    with chromium.empty_page() as address:
        yield address


def test_messages(browser, origin, cluster, channel):
    page = Page(browser, origin, cluster.n.port, channel)
    page.wait_ready()
    cluster.d.publish(channel, "ball one\nno run")
    page.wait_data("ball one\nno run")
    cluster.d.publish(channel, "caught", event="wicket")
    page.wait_data("wicket caught")
    for text in ("", " space", "हिन्दी 🏏", "a\r\nb"):
        cluster.d.publish(channel, text)
        page.wait_data(text.replace("\r\n", "\n"))
    assert page.log()["errors"] == 0


def test_comes_back_after_a_worker_is_killed(browser, origin, make_cluster,
                                             channel):
    c = make_cluster(1, 1, 1)
    page = Page(browser, origin, c.n.port, channel)
    page.wait_ready()
    c.n.kill_worker(c.n.worker_pids()[0])
    page.wait_ready(2, 30)
    assert page.state() == 1
    c.d.publish(channel, "welcome back")
    page.wait_data("welcome back")
    c.wait_ready()


@pytest.fixture
def kept(make_cluster, tmp_path):
    """A cluster in which every channel keeps history."""
    config = tmp_path / "rules.yaml"
    config.write_text("rules:\n- match: '*'\n"
                      "  history: {size: 100, ttl: 10m, latest: 1}\n")
    return make_cluster(1, 1, 1, dispatcher_options={"config": config},
                        node_options={"config": config})


def test_resumes_after_a_worker_is_killed(browser, origin, kept, channel):
    """Chromium alone, with two channels: nothing lost, nothing twice."""
    other = channel + ":b"
    page = Page(browser, origin, kept.n.port, f"{channel}&channel={other}")
    page.wait_ready()
    kept.d.publish(channel, "a1")
    kept.d.publish(other, "b1")
    page.wait_data("b1")
    kept.n.kill_worker(kept.n.worker_pids()[0])
    for i in (2, 3, 4):
        kept.d.publish(channel, f"a{i}")
    page.wait_ready(2, 30)
    page.wait_data("a4")
    kept.d.publish(other, "b2")
    page.wait_data("b2")
    assert page.log()["data"] == ["a1", "b1", "a2", "a3", "a4", "b2"]


def test_comes_back_after_drain(browser, origin, make_cluster, channel):
    c = make_cluster(1, 1, 1, node_options={"drain_seconds": 2})
    page = Page(browser, origin, c.n.port, channel)
    page.wait_ready()
    c.n.signal(signal.SIGTERM)
    c.n.wait_exit(6)
    assert page.state() == 0, "connecting again, not CLOSED"
    c.n.start()
    page.wait_ready(2, 40)
    c.d.publish(channel, "after the drain")
    page.wait_data("after the drain")
    c.n.first_pids = None


def test_comes_back_after_overload(browser, origin, make_cluster, channel):
    from sse import Sse
    c = make_cluster(1, 1, 1, node_options={"max_connections": 1})
    with Sse(c.n.port, channel) as first:
        first.wait_ready()
        page = Page(browser, origin, c.n.port, channel)
        wait_until(lambda: page.log()["errors"] >= 1, 20, "sent away")
        assert page.state() == 0, "connecting again, not CLOSED"
    page.wait_ready(1, 60)
    c.d.publish(channel, "a place at last")
    page.wait_data("a place at last")


def test_bad_request_closes(browser, origin, cluster):
    page = Page(browser, origin, cluster.n.port, "not%20valid")
    wait_until(lambda: page.state() == 2, 10, "CLOSED for ever")


FETCH = """
const [url, options, done] = arguments;
fetch(url, options)
    .then(r => r.body.getReader().read().then(
        body => [r.status, new TextDecoder().decode(body.value)]))
    .then(done, e => done(e.name));
"""


def test_a_page_reads_why_it_is_refused(browser, origin, make_cluster):
    """One of an allowed origin; others get neither answers nor reasons."""
    allowed = origin.rstrip("/")
    c = make_cluster(1, 1, 1, auth=Auth(),
                     dispatcher_options={"cors_origin": allowed},
                     node_options={"cors_origins": allowed})
    good, little = c.auth.admin(), c.auth.token(subscribe=["b"], publish=["b"])
    calls = [(f"http://127.0.0.1:{c.n.port}/v1/subscribe?channel=a", {}, {}),
             (f"http://127.0.0.1:{c.d.api_port}/"
              "stentor.v1.PublisherService/Publish",
              {"Content-Type": "application/json"},
              {"method": "POST", "body": '{"channel":"a","data":"x"}'})]
    for url, headers, options in calls:
        def fetch(token, url=url, headers=headers, options=options):
            token = bearer(token) if token else {}
            return browser.execute_async_script(
                FETCH, url, {**options, "headers": {**headers, **token}})
        browser.get(origin)
        status, text = fetch(None)
        assert status == 401 and "a token is needed" in text
        assert fetch("nonsense") == [status, text]
        assert fetch(little)[0] == 403
        assert fetch(good)[0] == 200
        browser.get(origin.replace("127.0.0.1", "localhost"))
        for token in (None, good):
            assert fetch(token) == "TypeError"


def demo_path(port):
    for path in ("/demo", "/demo.html", "/"):
        status, headers, body = http_get(port, path)
        if status == 200 and "html" in (headers["Content-Type"] or ""):
            return path, body
    return None, b""


def test_demo_page(browser, cluster):
    """Renders, loads nothing from elsewhere, and the console is silent."""
    path, body = demo_path(cluster.n.port)
    if path is None:
        if list(pathlib.Path(harness.ROOT, "connnode/web").glob("*.html")):
            pytest.fail("the node does not serve its page")
        pytest.skip("no demo page in this tree")
    browser.get_log("browser")
    browser.get(f"http://127.0.0.1:{cluster.n.port}{path}")
    wait_until(lambda: browser.execute_script(
        "return document.readyState") == "complete", 10, "loaded")
    assert browser.title
    outside = browser.execute_script("""
        return performance.getEntriesByType('resource').map(r => r.name)
               .filter(n => !n.startsWith(location.origin)
                            && !n.startsWith('data:'));""")
    assert outside == []
    wait_until(lambda: cluster.n.metric("stentor_connections") >= 1, 10,
               "the page subscribes")
    severe = [e for e in browser.get_log("browser")
              if e["level"] == "SEVERE"]
    assert severe == []
    text = browser.execute_script("return document.body.innerText")
    assert len(text) > 50
    browser.get("about:blank")


def test_demo_page_resumes(browser, kept):
    """It shows what is kept when it opens, and what it missed, once."""
    def raw():
        return browser.execute_script("return model.raw.map(r => r.text)")

    path, _ = demo_path(kept.n.port)
    kept.d.publish("demo:hello", "long ago")
    kept.d.publish("demo:hello", "just before")
    browser.get(f"http://127.0.0.1:{kept.n.port}{path}")
    wait_until(lambda: raw() == ["just before"], 10, "the latest is shown")
    kept.n.kill_worker(kept.n.worker_pids()[0])
    kept.d.publish("demo:hello", "while away")
    kept.d.publish("demo:hello", "while still away")
    wait_until(lambda: raw() == ["while still away", "while away",
                                 "just before"], 30, "the page resumed")
    browser.get("about:blank")


@pytest.mark.parametrize("script", ["client.js", "widget.js"])
def test_served_scripts(cluster, script):
    status, headers, body = http_get(cluster.n.port, "/" + script)
    if status == 404 and not pathlib.Path(
            harness.ROOT, "connnode/web", script).exists():
        pytest.skip("not in this tree yet")
    assert status == 200
    assert "javascript" in headers["Content-Type"]
    assert b"EventSource" in body
