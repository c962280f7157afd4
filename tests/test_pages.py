"""The built book in headless Chromium: every page opens, quietly, with its pictures. `make check-pages`."""

from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote

import chromium
import pytest
from chromium import HTML

from lggseg_utils import book, config

pytestmark = pytest.mark.pages


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium, driven by selenium."""
    with chromium.started() as driver:
        yield driver


def open_page(browser, page, width=1280, theme="light"):
    """Open a page of the book at a width, in light or dark, and wait for it."""
    browser.set_window_size(width, 900)
    wishes = {"prefers-color-scheme": theme, "prefers-reduced-motion": "reduce"}  # colours at rest are what is judged
    features = [{"name": name, "value": value} for name, value in wishes.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get((HTML / f"{page}.html").as_uri())
    wait(browser, "return document.readyState === 'complete'")
    assert browser.execute_script("return document.documentElement.dataset.theme") == theme


def wait(browser, condition):
    """Wait until a script says true."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20).until(lambda driver: driver.execute_script(condition))


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
LOOKS = [(width, theme) for width in (1280, 500) for theme in ("light", "dark")]


@pytest.mark.parametrize(("width", "theme"), LOOKS)
@pytest.mark.parametrize("page", book.pages())
def test_a_page_opens_without_errors_and_its_pictures_load(browser, page, width, theme):
    assert (HTML / f"{page}.html").exists(), f"{page} was not built; make book"
    open_page(browser, page, width, theme)
    assert not [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    broken = "return [...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).map(i => i.src)"
    assert browser.execute_script(broken) == []
    unnamed = "return [...document.querySelectorAll('article img')].filter(i => !i.alt || i.alt.startsWith('../_images')).map(i => i.src)"
    assert browser.execute_script(unnamed) == []


@pytest.fixture(scope="module")
def address():
    """The built book, served on this machine."""
    with chromium.served() as root:
        yield root


@pytest.mark.parametrize("page", book.pages())
def test_a_page_asks_the_network_for_nothing_and_is_light(browser, address, page):
    browser.get(f"{address}{page}.html")
    wait(browser, "return document.readyState === 'complete'")
    asked = browser.execute_script("return performance.getEntriesByType('resource').map(r => r.name)")
    assert len(asked) > 3 and not [name for name in asked if not name.startswith(address)]
    own = {name.removeprefix(address) for name in asked if "/_static/" not in name} | {f"{page}.html"}
    weight = sum((HTML / unquote(name)).stat().st_size for name in own)
    assert weight <= (500 if page == "book/index" else 3072) * 1024


@pytest.mark.parametrize(("width", "theme"), LOOKS)
@pytest.mark.parametrize("page", book.pages())
def test_nothing_serious_bars_a_page_to_anybody(browser, page, width, theme):
    open_page(browser, page, width, theme)
    assert browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth") <= 1
    browser.execute_script(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = browser.execute_async_script(
        "axe.run(document, {resultTypes: ['violations']}).then(arguments[arguments.length - 1])"
    )["violations"]
    assert not [
        (violation["id"], violation["nodes"][0]["html"][:200])
        for violation in found
        if violation["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("page", ["notebooks/01_data", "notebooks/06_evaluation"])
def test_the_slider_moves_through_the_volume(browser, page):
    open_page(browser, page)
    browser.execute_script(VIEWER_SHOWS + VIEWER_AT, 0)
    first = browser.execute_script(VIEWER_SHOWS + "return shows()")
    browser.execute_script(VIEWER_SHOWS + VIEWER_AT, 2)
    third = browser.execute_script(VIEWER_SHOWS + "return shows()")
    assert len(first["pictures"]) == 3 and len(set(first["pictures"])) == 3
    assert not set(first["pictures"]) & set(third["pictures"])
    assert first["reading"] != third["reading"] and third["reading"].startswith("slice ")


@pytest.mark.parametrize("page", ["notebooks/01_data", "notebooks/06_evaluation"])
def test_an_outline_can_be_put_away(browser, page):
    open_page(browser, page)
    assert any(browser.execute_script(VIEWER_SHOWS + "return shows()")["truth"])
    browser.execute_script("document.querySelector('.volume-viewer input[name=truth]').click()")
    assert not any(browser.execute_script(VIEWER_SHOWS + "return shows()")["truth"])


def test_without_scripts_a_still_strip_is_left(browser):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get((HTML / "notebooks/01_data.html").as_uri())
        from selenium.webdriver.common.by import By

        assert not browser.find_element(By.CSS_SELECTOR, ".volume-viewer").is_displayed()
        assert browser.find_element(By.CSS_SELECTOR, "#fig-volume img").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.parametrize("page", ["notebooks/05_training", "notebooks/06_evaluation"])
def test_charts_are_drawn_and_answer_to_the_pointer(browser, page):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    open_page(browser, page)
    frame = browser.find_element(By.CSS_SELECTOR, ".chart iframe")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", frame)
    browser.switch_to.frame(frame)
    wait(browser, "return document.querySelectorAll('svg .mark-symbol path, svg .mark-rect path').length > 0")
    marks = browser.find_elements(By.CSS_SELECTOR, "svg .mark-symbol.role-mark path, svg .mark-rect.role-mark path")
    ActionChains(browser).move_to_element(marks[0]).perform()
    wait(browser, "return (document.querySelector('#vg-tooltip-element.visible') || {innerText: ''}).innerText !== ''")
    browser.switch_to.default_content()


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


def test_mathematics_is_set(browser):
    open_page(browser, "book/metrics")
    script = (
        "return [document.querySelectorAll('.math').length, document.querySelectorAll('.math mjx-container').length]"
    )
    written, _ = browser.execute_script(script)
    assert written >= 2
    wait(
        browser,
        "return document.querySelectorAll('.math').length === document.querySelectorAll('.math mjx-container').length",
    )


@pytest.mark.parametrize("page", [page for page in book.pages() if page.startswith("notebooks/")])
def test_buttons_point_at_files_of_the_repository(browser, repository, page):
    open_page(browser, page)
    links = browser.execute_script(
        "return [...document.querySelectorAll('.dropdown-launch-buttons a[href]')].map(a => a.href)"
    )
    name = repository.removeprefix("https://github.com/")
    colab = [link for link in links if "colab.research.google.com" in link]
    assert colab == [f"https://colab.research.google.com/github/{name}/blob/main/{page}.ipynb"]
    assert [link for link in links if "mybinder.org" in link and f"{page}.ipynb" in link]
    assert (config.REPOSITORY / f"{page}.ipynb").exists()


def test_the_first_page_leads_to_the_book(browser):
    browser.get((HTML / "index.html").as_uri())
    open_page(browser, "book/index")
    assert "replicated" in browser.title


def test_every_chapter_says_what_its_data_are(browser):
    for page in (
        "notebooks/01_data",
        "notebooks/03_augmentation_ablation",
        "notebooks/06_evaluation",
        "notebooks/07_replication",
    ):
        open_page(browser, page)
        shown = "return [...document.querySelectorAll('.cell_output')].map(output => output.innerText).join()"
        assert "phantom cohort" in browser.execute_script(shown)
