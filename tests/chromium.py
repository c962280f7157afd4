"""The built book and the Chromium that opens it, for the page tests and the page benchmark."""

import os
import shutil
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

from selenium import webdriver

from lggseg_utils import book

HTML = book.BUILD / "html"
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--allow-file-access-from-files")  # fmt: skip


@contextmanager
def started():
    """Start a headless Chromium, driven by selenium; yields the driver."""
    options = webdriver.ChromeOptions()
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    options.binary_location = next(filter(None, map(shutil.which, names)), "")
    driver = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(shutil.which("chromedriver"))
    )
    # axe reads the page of the whole package for minutes on a slow machine.
    driver.set_script_timeout(300)
    try:
        yield driver
    finally:
        driver.quit()


class QuietHandler(SimpleHTTPRequestHandler):
    """A file server that prints nothing."""

    def log_message(self, *args):
        """Say nothing."""


@contextmanager
def served():
    """Serve the built book on this machine; yields its address. Only then does Chromium tell what a page asked for."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=HTML)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
