"""What the built pages weigh and how fast Chromium shows them, served from this machine: `make weigh-pages`.

Bytes are uncompressed. `own` leaves out what theme, Sphinx and MathJax bring (all of _static/ but book.css). Times are
milliseconds after navigation, of one visit; they say whether a page is slow, not how slow.
"""

import json
import shutil
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

from selenium import webdriver

from lggseg_utils import book, config

HTML = book.BUILD / "html"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
)
MEASURE = """
const done = arguments[arguments.length - 1];
let shift = 0, largest = 0;
new PerformanceObserver((list) => list.getEntries().forEach((e) => { if (!e.hadRecentInput) shift += e.value; }))
  .observe({type: "layout-shift", buffered: true});
new PerformanceObserver((list) => list.getEntries().forEach((e) => { largest = e.startTime; }))
  .observe({type: "largest-contentful-paint", buffered: true});
setTimeout(() => done({
  files: [location.href, ...performance.getEntriesByType("resource").map((entry) => entry.name)],
  first_paint_ms: Math.round((performance.getEntriesByName("first-contentful-paint")[0] || {startTime: 0}).startTime),
  largest_paint_ms: Math.round(largest),
  layout_shift: Math.round(1000 * shift) / 1000,
  elements: document.getElementsByTagName("*").length,
}), 1500);
"""


@contextmanager
def served(folder):
    """Serve a folder on this machine; yields its address."""
    handler = partial(QuietHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    """A file server that prints nothing."""

    def log_message(self, *args):
        """Say nothing."""


def size(address):
    """Bytes of a served file."""
    return (HTML / unquote(urlparse(address).path).lstrip("/")).stat().st_size


def from_theme(address):
    """Whether theme, Sphinx or MathJax bring a file."""
    return "/_static/" in address and not urlparse(address).path.endswith("/book.css")


def measure(browser, root, page):
    """Weight and times of one page."""
    browser.get(f"{root}{page}.html")
    found = browser.execute_async_script(MEASURE)
    files = {name for name in found.pop("files") if name.startswith(root)}
    own = sum(size(name) for name in files if not from_theme(name))
    return {"own_kib": round(own / 1024), "all_kib": round(sum(map(size, files)) / 1024), "files": len(files), **found}


def main():
    """Measure every page and write pages.json."""
    options = webdriver.ChromeOptions()
    for flag in FLAGS:
        options.add_argument(flag)
    options.binary_location = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
    )
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    browser.set_window_size(1280, 900)
    with served(HTML) as root:
        pages = {page: measure(browser, root, page) for page in book.pages()}
    result = {"browser": browser.capabilities["browserVersion"], "pages": pages}
    browser.quit()
    config.write_json(Path(__file__).with_suffix(".json"), result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
