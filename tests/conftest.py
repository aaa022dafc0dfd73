"""What every test shares: the picture check for notebooks, and the folder of the project."""

import sys
from pathlib import Path

import pictures
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "book/_ext"), str(ROOT / "book/_tools")]

# Seconds of the chapters that take longest; a wrong number here costs time, nothing else.
LONG = {"22": 60, "32": 50, "13": 45, "17": 40, "15": 35, "14": 35, "24": 30, "25": 30, "26": 30}


class NotebookPictures:
    """Add to nbval what it leaves out: pictures are compared, and a cell that was never run fails.

    Registered as a plugin, because hooks in a conftest below tests/ do not reach notebooks/.
    """

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items):
        """Keep a notebook's cells on one worker and start the longest work first, so that no worker ends alone.

        A file of tests stays on one worker too, for its fixtures; but each page of the site goes for itself.
        """
        for item in items:
            page = getattr(item, "callspec", None) and item.callspec.params.get("page")
            file = item.nodeid.split("::")[0]
            item.add_marker(pytest.mark.xdist_group(f"{file}:{page}" if page else file))
        items.sort(key=lambda item: -LONG.get(item.path.stem[:2], item.path.suffix == ".ipynb"))

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
