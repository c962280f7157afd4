"""The built book in headless Chromium: every page opens, quietly, with its pictures. `make check-pages`."""

import shutil
from pathlib import Path

import pytest

from lggseg_utils import book, config

pytestmark = pytest.mark.pages
HTML = book.BUILD / "html"
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--allow-file-access-from-files")  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium, driven by selenium."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    options.binary_location = chromium or ""
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


def open_page(browser, page, width=1280):
    """Open a page of the book at a width, and wait for it."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.set_window_size(width, 900)
    browser.get((HTML / f"{page}.html").as_uri())
    WebDriverWait(browser, 20).until(lambda driver: driver.execute_script("return document.readyState") == "complete")


@pytest.mark.parametrize("page", book.pages())
def test_a_page_opens_without_errors_and_its_pictures_load(browser, page):
    assert (HTML / f"{page}.html").exists(), f"{page} was not built; make book"
    open_page(browser, page)
    assert not [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    broken = "return [...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).map(i => i.src)"
    assert browser.execute_script(broken) == []
    unnamed = "return [...document.querySelectorAll('article img')].filter(i => !i.alt || i.alt.startsWith('../_images')).map(i => i.src)"
    assert browser.execute_script(unnamed) == []


@pytest.mark.parametrize("page", book.pages())
def test_a_page_asks_the_network_for_nothing(browser, page):
    open_page(browser, page)
    asked = browser.execute_script("return performance.getEntriesByType('resource').map(r => r.name)")
    assert not [name for name in asked if not name.startswith("file:")]


@pytest.mark.parametrize("page", book.pages())
def test_a_page_is_not_wider_than_a_phone(browser, page):
    open_page(browser, page, width=500)
    assert browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth") <= 1


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
    from selenium.webdriver.support.ui import WebDriverWait

    open_page(browser, "book/metrics")
    script = (
        "return [document.querySelectorAll('.math').length, document.querySelectorAll('.math mjx-container').length]"
    )
    written, _ = browser.execute_script(script)
    assert written >= 2
    WebDriverWait(browser, 20).until(lambda driver: driver.execute_script(script) == [written, written])


@pytest.mark.parametrize("page", [page for page in book.pages() if page.startswith("notebooks/")])
def test_buttons_point_at_files_of_the_repository(browser, page):
    open_page(browser, page)
    links = browser.execute_script(
        "return [...document.querySelectorAll('.dropdown-launch-buttons a[href]')].map(a => a.href)"
    )
    repository = config.repository_url().removeprefix("https://github.com/")
    colab = [link for link in links if "colab.research.google.com" in link]
    assert colab == [f"https://colab.research.google.com/github/{repository}/blob/main/{page}.ipynb"]
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
        assert "phantom cohort" in browser.execute_script("return document.querySelector('article').innerText")
