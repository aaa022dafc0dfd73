"""What every test shares: the picture check for notebooks, and the folder of the project."""

import re
import sys
from pathlib import Path

import pictures
import pytest
from browser import CHROMIUM, QUIET, SCREENS

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "book/_ext"), str(ROOT / "book/_tools")]

# Chapters, the longest first; a wrong order costs time, nothing else.
LONGEST = "28 31 18 22 15 13 24 21 17 25 11 32 16 14 12 27 23 26".split()


def scope(nodeid):
    """What stays together on one worker: a notebook's cells, a file's tests; but each page of the site by itself."""
    page = re.search(r"\[(\S+?\.html)\b", nodeid)
    return page[1] if page else nodeid.split("::")[0]


class NotebookPictures:
    """Add to nbval what it leaves out: pictures are compared, and a cell that was never run fails.

    Registered as a plugin, because hooks in a conftest below tests/ do not reach notebooks/.
    """

    def pytest_collection_modifyitems(self, items):
        """Start with the longest work, so that no worker ends alone."""

        def place(item):
            name = item.path.stem[:2]
            return (item.path.suffix != ".ipynb", LONGEST.index(name) if name in LONGEST else -1)

        items.sort(key=place)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config, log):
        """Hand out scopes in the order of collection."""
        from xdist.scheduler import LoadScopeScheduling

        config.option.loadscopereorder = False
        scheduler = LoadScopeScheduling(config, log)
        scheduler._split_scope = scope
        return scheduler

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        """After a notebook cell ran, compare what it drew with what the notebook stores."""
        result = yield
        cell = getattr(item, "cell", None)
        if cell is None or not hasattr(item, "test_outputs"):
            return result
        if cell.source.strip() and cell.execution_count is None:
            pytest.fail(f"{item.name} stores no run: make execute NB={item.path}", pytrace=False)
        if item.options["check"]:
            wrong = pictures.compare(cell.outputs, item.test_outputs or [])
            if wrong:
                pytest.fail(f"{item.path.name}, {item.name}:\n" + "\n".join(wrong), pytrace=False)
        return result


def pytest_configure(config):
    """Register the plugin once."""
    if not config.pluginmanager.has_plugin("notebook-pictures"):
        config.pluginmanager.register(NotebookPictures(), "notebook-pictures")


@pytest.fixture(scope="session")
def root():
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium, or a skip that says why."""
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine: install one, or set CHROMIUM to its path, to run the browser tests")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser):
    """Open an address on a given screen; gives the page and what went wrong, also later."""
    contexts = []

    def open_page(address, screen="wide"):
        scheme, width = SCREENS[screen]
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
        contexts.append(context)
        page, wrong = context.new_page(), []
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda request: wrong.append(f"not loaded: {request.url}"))
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith(("file:", "data:", "blob:")) else wrong.append(f"leaves: {request.url}")
            ),
        )
        page.goto(address, wait_until="load")
        return page, wrong

    yield open_page
    for context in contexts:
        context.close()
