"""The built book in headless Chromium, as a reader sees it: `make check-pages`."""

from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote

import chromium
import pytest
import yaml
from chromium import HTML
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from lggseg_utils import book

pytestmark = pytest.mark.pages
LOOKS = [(1280, "light"), (768, "dark"), (420, "light")]
MARKUP = ("<a href", "$\\mathdefault", "{term}", "{doc}", "{numref}", "Traceback", "WARNING:")


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium, driven by selenium."""
    with chromium.started() as driver:
        yield driver


@pytest.fixture(scope="module")
def address():
    """The built book, served on this machine."""
    with chromium.served() as root:
        yield root


def open_page(browser, page, width=1280, theme="light"):
    """Open a page of the book at a width, in light or dark, and wait for it."""
    wishes = {"prefers-color-scheme": theme, "prefers-reduced-motion": "reduce"}  # colours at rest are what is judged
    features = [{"name": name, "value": value} for name, value in wishes.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    # Chromium's window is never narrower than 500 pixels; the page in it can be.
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get_log("browser")  # axe, run on an earlier page, leaves messages of its own
    browser.get((HTML / f"{page}.html").as_uri())
    wait(browser, "return document.readyState === 'complete'")
    assert browser.execute_script("return document.documentElement.dataset.theme") == theme


def wait(browser, condition):
    """Wait until a script says true."""
    WebDriverWait(browser, 20).until(lambda driver: driver.execute_script(condition))


@pytest.mark.parametrize(("width", "theme"), LOOKS)
@pytest.mark.parametrize("page", book.pages())
def test_a_page_can_be_read_by_everybody(browser, page, width, theme):
    open_page(browser, page, width, theme)
    assert not [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    broken = "return [...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).map(i => i.src)"
    assert browser.execute_script(broken) == []
    unnamed = "return [...document.querySelectorAll('article img')].filter(i => !i.alt || i.alt.startsWith('../_images')).map(i => i.src)"
    assert browser.execute_script(unnamed) == []
    assert browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth") <= 1
    browser.execute_script(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    script = "axe.run(document, {resultTypes: ['violations']}).then(arguments[arguments.length - 1])"
    found = browser.execute_async_script(script)["violations"]
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    assert not [(each["id"], each["nodes"][0]["html"][:200]) for each in serious]


@pytest.mark.parametrize("page", book.pages())
def test_a_page_shows_no_markup_and_cuts_no_code(browser, page):
    open_page(browser, page)
    text = browser.execute_script("return document.querySelector('article').innerText")
    assert [markup for markup in MARKUP if markup in text and page != "book/changelog"] == []
    cut = "return [...document.querySelectorAll('article div.highlight pre')].filter(p => p.scrollWidth > p.clientWidth + 1).length"
    assert browser.execute_script(cut) == 0
    if page.startswith("notebooks/"):
        cells = browser.execute_script(
            "return [...document.querySelectorAll('article td, article .output p, article .output li')].map(c => c.innerText.trim())"
        )
        assert not [cell for cell in cells if cell in ("nan", "None", "NaN")]
        assert not browser.find_elements(By.CSS_SELECTOR, "div.cell details.hide")


@pytest.mark.parametrize("page", book.pages())
def test_a_page_asks_the_network_for_nothing_and_is_light(browser, address, page):
    browser.get(f"{address}{page}.html")
    wait(browser, "return document.readyState === 'complete'")
    asked = browser.execute_script("return performance.getEntriesByType('resource').map(r => r.name)")
    assert len(asked) > 3 and not [name for name in asked if not name.startswith(address)]
    own = {name.removeprefix(address) for name in asked if "/_static/" not in name} | {f"{page}.html"}
    weight = sum((HTML / unquote(name)).stat().st_size for name in own)
    assert weight <= (500 if page == "book/index" else 2048) * 1024


@pytest.mark.parametrize("page", book.pages())
def test_links_inside_the_book_lead_somewhere(browser, page):
    open_page(browser, page)
    script = (
        "return [...document.querySelectorAll('article a[href]')].map(a => a.href).filter(h => h.startsWith('file:'))"
    )
    for link in set(browser.execute_script(script)):
        path, _, anchor = link.removeprefix("file://").partition("#")
        assert Path(path).exists(), link
        if anchor and path.endswith(".html"):
            assert f'id="{anchor}"' in Path(path).read_text(encoding="utf-8"), link


VIEWER_SHOWS = """
const viewer = document.querySelector(".volume-viewer");
const shows = () => ({
  pictures: [...viewer.querySelectorAll("image")].map((image) => image.getAttribute("href")),
  truth: [...viewer.querySelectorAll(".panel path.truth")].map((path) => path.getAttribute("d")),
  reading: viewer.querySelector(".reading").textContent,
});
"""
VIEWER_AT = """
const slider = viewer.querySelector("input[type=range]");
slider.value = arguments[0];
slider.dispatchEvent(new Event("input"));
"""


@pytest.mark.parametrize("page", ["notebooks/01_data", "notebooks/06_evaluation"])
def test_the_slider_moves_through_the_volume_and_outlines_can_be_put_away(browser, page):
    open_page(browser, page)
    assert any(browser.execute_script(VIEWER_SHOWS + "return shows()")["truth"])
    browser.execute_script(VIEWER_SHOWS + VIEWER_AT, 0)
    first = browser.execute_script(VIEWER_SHOWS + "return shows()")
    browser.execute_script(VIEWER_SHOWS + VIEWER_AT, 2)
    third = browser.execute_script(VIEWER_SHOWS + "return shows()")
    assert len(first["pictures"]) == 3 and len(set(first["pictures"])) == 3
    assert not set(first["pictures"]) & set(third["pictures"])
    assert first["reading"] != third["reading"] and third["reading"].startswith("slice ")
    browser.execute_script("document.querySelector('.volume-viewer input[name=truth]').click()")
    assert not any(browser.execute_script(VIEWER_SHOWS + "return shows()")["truth"])


def test_without_scripts_still_slices_are_left(browser):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get((HTML / "notebooks/01_data.html").as_uri())
        assert not browser.find_element(By.CSS_SELECTOR, ".volume-viewer").is_displayed()
        assert browser.find_element(By.CSS_SELECTOR, "#fig-volume img").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.parametrize("page", ["notebooks/05_training", "notebooks/06_evaluation"])
def test_mathematics_is_set(browser, page):
    open_page(browser, page)
    wait(browser, "return document.querySelectorAll('.math').length > 1")
    wait(
        browser,
        "return document.querySelectorAll('.math').length === document.querySelectorAll('.math mjx-container').length",
    )


def test_the_verdicts_questions_unfold(browser):
    open_page(browser, "notebooks/07_verdict")
    cards = browser.find_elements(By.CSS_SELECTOR, "details.answer")
    assert len(cards) == 14
    evidence = cards[0].find_element(By.TAG_NAME, "p")
    assert not evidence.is_displayed()
    cards[0].find_element(By.TAG_NAME, "summary").click()
    assert evidence.is_displayed() and "Claimed:" in evidence.text


@pytest.mark.parametrize("page", [page for page in book.pages() if page.startswith("notebooks/")])
def test_buttons_point_at_files_of_the_repository(browser, page):
    open_page(browser, page)
    script = "return [...document.querySelectorAll('.dropdown-launch-buttons a[href]')].map(a => a.href)"
    links = browser.execute_script(script)
    address = yaml.safe_load(book.CONFIG.read_text())["repository"]["url"]
    name = address.removeprefix("https://github.com/")
    colab = [link for link in links if "colab.research.google.com" in link]
    assert colab == [f"https://colab.research.google.com/github/{name}/blob/main/{page}.ipynb"]
    assert [link for link in links if "mybinder.org" in link and f"{page}.ipynb" in link]


def test_the_first_page_leads_to_the_book_and_is_short(browser):
    browser.get((HTML / "index.html").as_uri())
    open_page(browser, "book/index")
    assert "replicated" in browser.title
    prose = browser.execute_script("return [...document.querySelectorAll('article p')].map(p => p.innerText).join(' ')")
    assert len(prose.split()) < 250
