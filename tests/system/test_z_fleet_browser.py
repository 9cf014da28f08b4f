"""A page stays up while all nodes are restarted under it."""
import chromium
from fleet import fleet
from harness import wait_until

pytestmark = chromium.needed
CHANNELS = 2


def numbers(data, channel):
    """Of a channel's messages, in the order that they came."""
    return [int(d.split()[1]) for d in data if int(d.split()[0]) == channel]


def test_page_through_a_rolling_restart(lan, make_cluster, tmp_path):
    with (fleet(make_cluster, lan) as f,
          chromium.running(tmp_path) as browser,
          chromium.empty_page() as origin):
        page = chromium.Page(browser, origin, f.balancer.port,
                             "fleet:0&channel=fleet:1", host=lan.front)
        page.wait_ready()
        f.produce(channels=CHANNELS, rate=50)
        wait_until(lambda: len(page.log()["data"]) > 5)
        f.roll_nodes()
        f.roll_dispatchers()
        report = f.producer.finish()
        wait_until(lambda: len(page.log()["data"])
                   >= report["acknowledged"], what="all is in the page")
        log = page.log()
        for channel, top in enumerate(report["tops"], 1):
            assert numbers(log["data"], channel) == list(range(1, top + 1))
        assert log["closed"] == log["gaps"] == 0
        assert log["errors"] >= 1, "it had to move"
        assert page.state() == 1
