"""How many plausible bugs the tests notice.

Each bug of mutations.yml is put into a copy of the package, one at a time, and the module's own
test file runs there. Name modules to try these alone; options for pytest are read from the
environment, for example PYTEST_ADDOPTS='-k "not killed_training"' to leave out what takes minutes.
"""

import gc
import importlib
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
COPIED = ("lggseg_utils", "tests", "scripts", "pyproject.toml")
# Read, and changed by no bug.
LINKED = (
    "book",
    "notebooks",
    "records",
    "reference",
    "sample",
    "CHANGELOG.md",
    "README.md",
    "_config.yml",
)
# Modules whose tests stand in another module's file.
TESTED_WITH = {"arms": "verdict", "sources": "verdict"}
PRELOADED = (
    "altair",
    "hypothesis",
    "keras",
    "matplotlib.pyplot",
    "pydantic",
    "scipy.stats",
    "sklearn.metrics",
    "sklearn.model_selection",
    "tensorflow",
)
TIMEOUT = 900  # seconds after which a bug counts as noticed: the tests hang


def copy_package(folder):
    """Copy to a folder what the tests of a module need."""
    for name in COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    for name in LINKED:
        (folder / name).symlink_to(REPOSITORY / name)


def tests_of(module):
    """Return the path of a module's own test file."""
    return f"tests/test_{TESTED_WITH.get(module, module)}.py"


def put_in(folder, module, bug):
    """Put a bug into a copy of the package; its old text must occur once."""
    path = folder / "lggseg_utils" / f"{module}.py"
    text = path.read_text(encoding="utf-8")
    if text.count(bug["old"]) != 1:
        sys.exit(f"{module}, {bug['bug']}: the old text occurs {text.count(bug['old'])} times")
    path.write_text(text.replace(bug["old"], bug["new"]), encoding="utf-8")


class QuickestFirst:
    """A plugin for pytest: tests run in the order of their seconds, which a file keeps."""

    def __init__(self, path):
        self.path = path
        self.seconds = json.loads(path.read_text()) if path.exists() else {}

    def pytest_collection_modifyitems(self, items):
        items.sort(key=lambda item: self.seconds.get(item.nodeid, 0))

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration

    def pytest_sessionfinish(self):
        if not self.path.exists():
            self.path.write_text(json.dumps(self.seconds))


def run_tests(folder, module, seconds):
    """Run a module's own test file in a copy, and exit with pytest's status."""
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder)
    sys.path.insert(0, str(folder))
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    options = ["-x", "-q", "-p", "no:cacheprovider", tests_of(module)]
    os._exit(pytest.main(options, plugins=[QuickestFirst(seconds)]))


def is_noticed(module, bug, seconds):
    """Return whether the module's tests fail with a bug, or with None, as they are.

    seconds: the path of what each test takes, written by the first run.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        copy_package(folder)
        if bug:
            put_in(folder, module, bug)
        # A fork has TensorFlow loaded already, which takes longer than most tests.
        process = multiprocessing.get_context("fork").Process(
            target=run_tests, args=(folder, module, seconds)
        )
        process.start()
        process.join(TIMEOUT)
        if process.is_alive():
            process.kill()
            process.join()
            return True
        if process.exitcode not in (0, 1, 2):
            sys.exit((folder / "log.txt").read_text())
        return process.exitcode != 0


def try_module(module, bugs):
    """Print for each bug of a module whether it is noticed; return a list of bool."""
    found = []
    with tempfile.TemporaryDirectory() as kept:
        seconds = Path(kept, "seconds.json")
        if is_noticed(module, None, seconds):
            sys.exit(f"{tests_of(module)} fails without any bug")
        for bug in bugs:
            found.append(is_noticed(module, bug, seconds))
            answer = "noticed" if found[-1] else "UNNOTICED"
            print(f"{module:12} {answer:10} {bug['bug']}", flush=True)
    return found


def main(modules):
    """Try the bugs of some modules, or of all."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # Loaded once for all; the package itself is loaded from each copy.
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()  # or each fork copies all of it where garbage is looked for
    bugs = yaml.safe_load(Path(__file__).with_suffix(".yml").read_text(encoding="utf-8"))
    found = []
    for module in modules or bugs:
        found += try_module(module, bugs[module])
    print(f"{sum(found)} of {len(found)} bugs noticed ({sum(found) / len(found):.0%})")


if __name__ == "__main__":
    main(sys.argv[1:])
