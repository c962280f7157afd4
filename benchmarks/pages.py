"""What the built pages weigh and how fast Chromium shows them, served from this machine: `make weigh-pages`.

Bytes are uncompressed. `own` leaves out what theme, Sphinx and MathJax bring (all of _static/ but book.css). Times are
milliseconds after navigation, of one visit; they say whether a page is slow, not how slow.
"""

import json
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

from lggseg_utils import book, config

sys.path.insert(0, str(config.REPOSITORY / "tests"))
from chromium import HTML, served, started

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
    with started() as browser, served() as root:
        browser.set_window_size(1280, 900)
        pages = {page: measure(browser, root, page) for page in book.pages()}
        result = {"browser": browser.capabilities["browserVersion"], "pages": pages}
    config.write_json(Path(__file__).with_suffix(".json"), result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
