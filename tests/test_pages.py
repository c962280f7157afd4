"""The built book in headless Chromium, as a reader sees it: `make check-pages`."""

import re
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote

import chromium
import pytest
import yaml
from chromium import HTML
from conftest import pages_of_the_book
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from lggseg_utils import book, plots, records
from lggseg_utils.arms import CLAIMS
from lggseg_utils.predict import REFERENCE

pytestmark = pytest.mark.pages
CHAPTERS = [page for page in pages_of_the_book() if page.startswith("notebooks/")]
LOOKS = [(1280, "light"), (768, "dark"), (420, "light")]
MARKUP = (
    "<a href",
    "$\\mathdefault",
    "{term}",
    "{doc}",
    "{numref}",
    "{download}",
    "Traceback",
    "WARNING:",
)
# What is cut off or scrolls sideways: wider inside than outside, and not simply laid over its edge.
SIDEWAYS = """
return [...document.querySelectorAll('article *')].filter(e =>
  !e.closest('svg, mjx-container, .math, .visually-hidden') && e.clientWidth > 0 && e.scrollWidth > e.clientWidth + 1
  && !['visible', 'clip'].includes(getComputedStyle(e).overflowX)
).map(e => e.tagName + ' ' + e.className + ': ' + e.innerText.slice(0, 60));
"""
# Pixels that one point of a figure's type takes on the screen; figures are `plots.WIDTH` inches wide.
TYPE = """
return [...document.querySelectorAll('article figure img')].map(i => i.clientWidth / arguments[0] / 72 * arguments[1]);
"""


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
    wishes = {
        "prefers-color-scheme": theme,
        "prefers-reduced-motion": "reduce",
    }  # colours at rest are what is judged
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
@pytest.mark.parametrize("page", pages_of_the_book())
def test_a_page_can_be_read_by_everybody(browser, page, width, theme):
    open_page(browser, page, width, theme)
    assert not [
        entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"
    ]
    broken = "return [...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).map(i => i.src)"
    assert browser.execute_script(broken) == []
    unnamed = "return [...document.querySelectorAll('article img')].filter(i => !i.alt || i.alt.startsWith('../_images')).map(i => i.src)"
    assert browser.execute_script(unnamed) == []
    assert (
        browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        <= 1
    )
    assert browser.execute_script(SIDEWAYS) == []
    sizes = browser.execute_script(TYPE, plots.WIDTH, plots.FONT_SIZE)
    assert all(9 <= size <= 16 for size in sizes), sizes
    browser.execute_script(
        files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    )
    script = (
        "axe.run(document, {resultTypes: ['violations']}).then(arguments[arguments.length - 1])"
    )
    found = browser.execute_async_script(script)["violations"]
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    assert not [(each["id"], each["nodes"][0]["html"][:200]) for each in serious]


@pytest.mark.parametrize("page", pages_of_the_book())
def test_a_page_shows_no_markup_and_cuts_no_code(browser, page):
    open_page(browser, page)
    text = browser.execute_script("return document.querySelector('article').innerText")
    assert [markup for markup in MARKUP if markup in text and page != "book/changelog"] == []
    cut = "return [...document.querySelectorAll('article div.highlight pre')].filter(p => p.scrollWidth > p.clientWidth + 1).length"
    assert browser.execute_script(cut) == 0
    assert browser.execute_script("return document.querySelectorAll('mjx-merror').length") == 0
    assert "OWNER" not in text or page == "book/rerun"
    prose = browser.execute_script(
        "return [...document.querySelectorAll('article p, article li, article td')].map(p => p.innerText)"
    )
    assert not [each for each in prose if re.search(r"\{[^}]+:\.\d[f%]\}", each)], (
        "a number was not filled in"
    )
    if page.startswith("notebooks/") or page == "book/index":
        cells = browser.execute_script(
            "return [...document.querySelectorAll('article td, article .output p, article .output li')].map(c => c.innerText.trim())"
        )
        assert not [cell for cell in cells if cell in ("nan", "None", "NaN")]


@pytest.mark.parametrize("page", [page for page in pages_of_the_book() if page != "book/index"])
def test_a_page_ends_with_a_next_step(browser, page):
    open_page(browser, page)
    script = """
    const steps = [...document.querySelectorAll('article p')].filter(p => p.innerText.startsWith('Next.'));
    return steps.length ? steps.at(-1).querySelectorAll('a[href]').length : 0;
    """
    assert browser.execute_script(script) >= 1


@pytest.mark.parametrize(
    "page", [page for page in pages_of_the_book() if page.startswith("notebooks/")] + ["book/walk"]
)
def test_functions_in_code_lead_to_their_descriptions(browser, page):
    open_page(browser, page)
    links = browser.find_elements(By.CSS_SELECTOR, "article div.highlight a.sphinx-codeautolink-a")
    assert (
        len(
            {
                link.get_attribute("href")
                for link in links
                if "book/package.html#lggseg_utils" in link.get_attribute("href")
            }
        )
        >= 3
    )


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapter_is_no_longer_than_nine_thousand_pixels(browser, page):
    open_page(browser, page)
    height = "return document.querySelector('article').scrollHeight"
    assert browser.execute_script(height) <= 9000


@pytest.mark.parametrize("page", [page for page in CHAPTERS if "14_" not in page])
def test_a_chapter_opens_with_its_picture(browser, page):
    open_page(browser, page)
    top = "return document.querySelector('article figure img').getBoundingClientRect().top"
    assert browser.execute_script(top) < 800


# Words that a line break cuts: in a table's head, or a name in code. A hyphen is a place to break.
CUT = """
const cut = [];
for (const place of document.querySelectorAll('article th, article p code, article li code')) {
  const walker = document.createTreeWalker(place, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    for (const word of walker.currentNode.data.matchAll(/[a-z0-9]+/gi)) {
      const range = document.createRange();
      range.setStart(walker.currentNode, word.index);
      range.setEnd(walker.currentNode, word.index + word[0].length);
      const lines = new Set([...range.getClientRects()].map(r => Math.round(r.top)));
      if (lines.size > 1 && word[0].length < 25) cut.push(word[0]);
    }
  }
}
return cut;
"""


@pytest.mark.parametrize("page", pages_of_the_book())
def test_no_word_of_a_head_or_a_code_is_cut_on_a_phone(browser, page):
    open_page(browser, page, width=420)
    assert browser.execute_script(CUT) == []


REPORT = "https://github.com/Samin-Solouki/U-Net-Semantic-Segmentation"
COHORT = "https://www.kaggle.com/datasets/mateuszbuda/lgg-mri-segmentation"
PAPER = "https://arxiv.org/abs/2210.13336"


@pytest.mark.parametrize(
    ("page", "addresses"),
    [
        ("book/index", (REPORT, COHORT, PAPER)),
        ("notebooks/01_data", (REPORT, COHORT)),
        ("book/sources", (REPORT, COHORT, PAPER)),
        ("book/bibliography", (REPORT, PAPER)),
    ],
)
def test_pages_link_what_they_are_about(page, addresses):
    text = (HTML / f"{page}.html").read_text(encoding="utf-8")
    assert all(f'href="{address}"' in text for address in addresses)


def test_solutions_unfold(browser):
    open_page(browser, "notebooks/06_evaluation")
    solution = browser.find_elements(By.CSS_SELECTOR, "div.cell details.hide")[0]
    code = solution.find_element(By.CSS_SELECTOR, "div.highlight")
    assert not code.is_displayed()
    browser.execute_script("arguments[0].click()", solution.find_element(By.TAG_NAME, "summary"))
    WebDriverWait(browser, 10).until(lambda driver: code.is_displayed())


CHART_SAYS = "return document.querySelector('.vega-chart svg').outerHTML"


def chart_says(browser):
    """Wait for a page's chart and return its drawing."""
    wait(browser, "return document.querySelector('.vega-chart svg') !== null")
    return browser.execute_script(CHART_SAYS)


@pytest.mark.parametrize(
    ("page", "change"),
    [
        (
            "notebooks/06_evaluation",
            "const i = chart.querySelector('input[type=range]'); i.value = 0.8;",
        ),
        (
            "notebooks/09_definitions",
            "const i = chart.querySelector('select'); i.selectedIndex = 0;",
        ),
        (
            "notebooks/10_test_sets",
            "const i = chart.querySelector('input[type=checkbox]'); i.click();",
        ),
    ],
)
def test_charts_answer_to_their_controls(browser, page, change):
    open_page(browser, page)
    before = chart_says(browser)
    assert (
        browser.execute_script("return document.querySelector('.vega-chart').ariaLabel").count(" ")
        > 5
    )
    events = "i.dispatchEvent(new Event('input', {bubbles: true})); i.dispatchEvent(new Event('change', {bubbles: true}));"
    browser.execute_script(
        f"const chart = document.querySelector('.vega-chart'); {change} {events}"
    )
    WebDriverWait(browser, 10).until(lambda driver: driver.execute_script(CHART_SAYS) != before)


def test_each_click_draws_other_patients_and_their_mean_is_right(browser):
    open_page(browser, "notebooks/10_test_sets")
    chart_says(browser)
    means = set()
    for _ in range(4):
        browser.find_element(By.CSS_SELECTOR, ".vega-chart .vega-bind label").click()
        script = "return [...document.querySelectorAll('.vega-chart text')].map(t => t.textContent).find(t => t.startsWith('mean of'))"
        means.add(float(browser.execute_script(script).rpartition(": ")[2]))
    dice = records.load_record("new-patients").per_patient["dice"].sort_values()
    assert len(means) > 1 and all(
        dice.iloc[:11].mean() <= mean <= dice.iloc[-11:].mean() for mean in means
    )
    assert (
        browser.execute_script(CHART_SAYS).count("#0072B2".lower())
        + browser.execute_script(CHART_SAYS).count("#0072B2")
        >= 11
    )


def test_charts_follow_dark_mode_and_slices_do_not(browser):
    open_page(browser, "notebooks/01_data", theme="dark")
    filters = "return [...document.querySelectorAll('article figure img')].map(i => [i.classList.contains('photo'), getComputedStyle(i).filter])"
    found = browser.execute_script(filters)
    assert {photo for photo, _ in found} == {True, False}
    assert all((kind == "none") == photo for photo, kind in found)


def test_every_recorded_file_can_be_downloaded(browser):
    open_page(browser, "book/downloads")
    links = browser.find_elements(By.CSS_SELECTOR, "article a.download")
    paths = [unquote(link.get_attribute("href").removeprefix("file://")) for link in links]
    offered = {(Path(path).name, Path(path).read_bytes()) for path in paths}
    files = [*records.RECORDS.rglob("*.csv"), *records.RECORDS.rglob("*.csv.gz")]
    files += [*records.RECORDS.rglob("*.json"), REFERENCE / "weights.npz"]
    assert [path for path in files if (path.name, path.read_bytes()) not in offered] == []


@pytest.mark.parametrize("page", pages_of_the_book())
def test_a_page_asks_the_network_for_nothing_and_is_light(browser, address, page):
    browser.get(f"{address}{page}.html")
    wait(browser, "return document.readyState === 'complete'")
    asked = browser.execute_script(
        "return performance.getEntriesByType('resource').map(r => r.name)"
    )
    assert len(asked) > 3 and not [name for name in asked if not name.startswith(address)]
    own = {name.removeprefix(address) for name in asked if "/_static/" not in name} | {
        f"{page}.html"
    }
    weight = sum((HTML / unquote(name)).stat().st_size for name in own)
    assert weight <= (500 if page == "book/index" else 2048) * 1024


@pytest.mark.parametrize("page", pages_of_the_book())
def test_links_inside_the_book_lead_somewhere(browser, page):
    open_page(browser, page)
    script = "return [...document.querySelectorAll('article a[href]')].map(a => a.href).filter(h => h.startsWith('file:'))"
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
        assert browser.find_element(By.CSS_SELECTOR, "article figure img").is_displayed()
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
    card = browser.find_element(By.ID, "test-scores")
    assert "Reported:" in card.text
    assert "Found:" in card.text
    evidence = next(p for p in card.find_elements(By.TAG_NAME, "p"))
    assert not evidence.is_displayed()
    card.find_element(By.TAG_NAME, "summary").click()
    assert evidence.is_displayed()
    assert evidence.text.startswith("Evidence.")


@pytest.mark.parametrize(
    "page", [page for page in pages_of_the_book() if page.startswith("notebooks/")]
)
def test_buttons_point_at_files_of_the_repository(browser, page):
    open_page(browser, page)
    script = (
        "return [...document.querySelectorAll('.dropdown-launch-buttons a[href]')].map(a => a.href)"
    )
    links = browser.execute_script(script)
    address = yaml.safe_load(book.CONFIG.read_text())["repository"]["url"]
    name = address.removeprefix("https://github.com/")
    colab = [link for link in links if "colab.research.google.com" in link]
    assert colab == [f"https://colab.research.google.com/github/{name}/blob/main/{page}.ipynb"]
    assert [link for link in links if "mybinder.org" in link and f"{page}.ipynb" in link]


def test_the_first_page_answers_and_links_to_cards_that_exist(browser):
    browser.get((HTML / "index.html").as_uri())
    open_page(browser, "book/index")
    assert "replicated" in browser.title
    links = browser.execute_script(
        "return [...document.querySelectorAll('article a[href*=\"07_verdict.html#\"]')]"
        ".map(a => a.href.split('#')[1])"
    )
    questions = [question["id"] for question in CLAIMS["questions"]]
    assert set(links) == set(questions)
    table = browser.find_element(By.CSS_SELECTOR, "table.answers")
    assert not table.is_displayed()
    browser.find_element(By.CSS_SELECTOR, "details.all-questions summary").click()
    assert table.is_displayed()
    open_page(browser, "notebooks/07_verdict")
    cards = browser.execute_script(
        "return [...document.querySelectorAll('details.answer')].map(card => card.id)"
    )
    assert cards == questions
