"""Chromium, headless, and a page of another origin that listens in it."""
import contextlib
import http.server
import shutil
import threading

import pytest

from harness import wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")

needed = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER),
                       reason="chromium or chromedriver is not installed"),
    pytest.mark.timeout(150),
]

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
         "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync",
         "--disable-dev-shm-usage", "--window-size=1280,900"]


@contextlib.contextmanager
def running(profile):
    """A driver of a Chromium of its own; profile: an empty directory."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(service=Service(DRIVER), options=options)
    try:
        yield driver
    finally:
        driver.quit()


@contextlib.contextmanager
def empty_page():
    """Its address, on another origin: a customer's site."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = (b"<!doctype html><title>app</title>"
                    b"<link rel=icon href=data:,>")
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


SUBSCRIBE = """
window.log = {data: [], ready: 0, errors: 0, gaps: 0, closed: 0};
window.source = new EventSource(arguments[0]);
source.onmessage = e => { log.data.push(e.data); };
source.addEventListener('wicket', e => log.data.push('wicket ' + e.data));
source.addEventListener('stentor.ready', () => log.ready++);
source.addEventListener('stentor.gap', () => log.gaps++);
source.onerror = () => {
    log.errors++;
    log.closed += source.readyState == EventSource.CLOSED;
};
"""


class Page:
    def __init__(self, browser, origin, port, channel, host="127.0.0.1"):
        self.browser = browser
        browser.get(origin)
        browser.execute_script(
            SUBSCRIBE,
            f"http://{host}:{port}/v1/subscribe?channel={channel}")

    def log(self):
        return self.browser.execute_script("return window.log")

    def state(self):
        """0 connecting, 1 open, 2 closed for ever."""
        return self.browser.execute_script("return source.readyState")

    def wait_ready(self, times=1, timeout=20):
        wait_until(lambda: self.log()["ready"] >= times, timeout,
                   f"ready {times} times in the browser")

    def wait_data(self, text):
        wait_until(lambda: text in self.log()["data"], 10,
                   f"{text!r} in the browser")
