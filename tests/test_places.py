"""Where people open the project: a fresh machine, Binder, GitHub's runners, an installed package."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from lggseg_utils import runs

ROOT = runs.REPOSITORY
RANGE = SpecifierSet(
    tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
)
PYTHON = """#!{shell}
# A Python of version {version}; `venv` puts a copy of it into .venv, and pip says what it was asked.
case "$1" in
-V) echo "Python {version}" ;;
-c) exec {real} -c "import sys; sys.version_info = tuple(map(int, '{version}'.split('.'))); $2" ;;
-m) test "$2" = venv && mkdir -p .venv/bin && cp "$0" .venv/bin/python || echo "$*" >> asked ;;
esac
"""


@pytest.fixture
def machine(tmp_path):
    """A folder with the Makefile and three Pythons: machine(target, **variables) runs make there."""
    if not shutil.which("make"):
        pytest.skip("needs make")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "requirements.lock").touch()
    (tmp_path / "tools").mkdir()
    for name, version in (("python3", "3.14.0"), ("old", "3.10.13"), ("good", "3.12.4")):
        path = tmp_path / "tools" / name
        path.write_text(
            PYTHON.format(shell=shutil.which("sh"), version=version, real=sys.executable)
        )
        path.chmod(0o755)

    def make(target, **variables):
        command = ["make", target, *(f"{name}={value}" for name, value in variables.items())]
        path = f"{tmp_path / 'tools'}:/usr/bin:/bin"
        environment = {"PATH": path, "HOME": str(tmp_path)}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    return make


def version_of(folder):
    """Return what the Python of a folder's .venv says it is."""
    command = [folder / ".venv" / "bin" / "python", "-V"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("python", "found"),
    [(None, "Python 3.14.0"), ("tools/old", "Python 3.10.13"), ("tools/none", "missing")],
)
def test_another_python_is_refused_first_and_leaves_nothing(machine, tmp_path, python, found):
    refused = machine("install", **({"PYTHON": python} if python else {}))
    said = f"{python or 'python3'} is {found}, and Python 3.11 to 3.13 is needed: install one"
    assert refused.returncode and refused.stderr.startswith(said)
    assert not (tmp_path / ".venv").exists()


def test_the_makefile_knows_the_versions_of_the_package():
    (check,) = re.findall(r"^SUPPORTED = (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for minor in range(9, 16):
        code = f"import sys; sys.version_info = (3, {minor}, 0); {check}"
        ended = subprocess.run([sys.executable, "-c", code], check=False)
        assert (ended.returncode == 0) == RANGE.contains(f"3.{minor}.0")


def test_an_environment_that_fits_is_kept_whatever_python3_is(machine, tmp_path):
    assert machine("install", PYTHON="tools/good").returncode == 0
    assert version_of(tmp_path) == "Python 3.12.4" and (tmp_path / ".venv/installed").exists()
    (tmp_path / ".venv" / "mine").touch()
    again = machine("install")
    assert again.returncode == 0 and again.stdout == "" and (tmp_path / ".venv" / "mine").exists()


@pytest.mark.parametrize("stale", ["another version", "another supported version", "without pip"])
def test_an_environment_that_does_not_fit_is_made_anew(machine, tmp_path, stale):
    machine("install", PYTHON="tools/good")
    python = tmp_path / ".venv" / "bin" / "python"
    version = {"another version": "3.10.1", "another supported version": "3.11.7"}.get(stale)
    text = python.read_text().replace("3.12.4", version or "3.12.4")
    if stale == "without pip":
        text = text.replace("import sys;", "import sys; sys.modules['pip'] = None;")
    python.write_text(text)
    (tmp_path / "asked").unlink()
    assert machine("install", PYTHON="tools/good").returncode == 0
    assert python.read_text() == (tmp_path / "tools" / "good").read_text()
    assert "requirements.lock" in (tmp_path / "asked").read_text()


@pytest.mark.parametrize("target", ["pdf", "check-pages"])
@pytest.mark.parametrize("chromium", ["", "/nonexistent/chrome"])
def test_without_chromium_one_line_comes_first(machine, tmp_path, target, chromium):
    """An empty name made the dash of --headless make's own, and an older PDF passed for the new."""
    (tmp_path / "_build").mkdir()
    (tmp_path / "_build" / "book.pdf").write_text("older")
    refused = machine(target, CHROMIUM=chromium)
    assert refused.returncode and refused.stdout == "" and not (tmp_path / ".venv").exists()
    assert refused.stderr.startswith("Chromium was not found: install it (apt install chromium)")


def test_check_pages_names_a_missing_driver(machine):
    if shutil.which("chromedriver", path="/usr/bin:/bin"):
        pytest.skip("chromedriver is installed")
    refused = machine("check-pages", CHROMIUM="/bin/true")
    assert refused.returncode and refused.stderr.startswith("chromedriver was not found")


def test_binder_is_told_one_version_of_python_that_the_package_allows():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (python,) = [name for name in listed if str(name).startswith("python")]
    assert re.fullmatch(r"python=3\.\d+", python) and RANGE.contains(python.split("=")[1])
    assert {"pip": ["-e .[book]"]} in listed


def test_workflows_do_not_pile_up():
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        assert yaml.safe_load(path.read_text())["concurrency"]["group"], path.name


@pytest.fixture
def installed(tmp_path):
    """The package installed without a clone: installed(*arguments) runs lggseg of it."""
    site = tmp_path / "site-packages"
    shutil.copytree(
        ROOT / "lggseg_utils", site / "lggseg_utils", ignore=shutil.ignore_patterns("__pycache__")
    )
    code = "import sys; sys.argv[0] = 'lggseg'; from lggseg_utils.cli import main; main()"

    def lggseg(*arguments):
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(site)},
        )

    return lggseg


@pytest.mark.parametrize(
    "arguments",
    [
        "run --profile smoke --out run",
        "run --profile smoke",
        "train --profile smoke --out run",
        "crossval --profile smoke --data data",
        "book --run run",
        "record run name",
        "predict . --out masks",
    ],
)
def test_without_a_clone_one_line_says_what_is_needed(installed, tmp_path, arguments):
    ended = installed(*arguments.split())
    assert ended.returncode == 1 and len(ended.stderr.splitlines()) == 1, ended.stderr
    assert "lggseg needs a clone of the repository, and it is installed without one" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["site-packages"]
    assert [path.name for path in (tmp_path / "site-packages").iterdir()] == ["lggseg_utils"]


def in_colab(content, address):
    """Run the cell of Colab in IPython with other places than Colab's; return what it printed."""
    cells = json.loads((ROOT / "notebooks" / "01_data.ipynb").read_text())["cells"]
    (cell,) = [source for source in map("".join, (c["source"] for c in cells)) if "%pip" in source]
    preparation = (
        "import sys, os, types\n"
        "sys.modules['google.colab'] = types.ModuleType('google.colab')\n"
        "def pip(line):\n    print('pip in', os.getcwd())\n"
        "get_ipython().register_magic_function(pip)\n"
    )
    (clone,) = re.findall(r"git clone -q --depth 1 (\S+)", cell)
    script = content / "cell.ipy"
    script.write_text(preparation + cell.replace("/content", str(content)).replace(clone, address))
    command = [Path(sys.executable).with_name("ipython"), "--no-banner", script]
    home = {**os.environ, "IPYTHONDIR": str(content / "ipython")}
    finished = subprocess.run(command, capture_output=True, text=True, env=home, check=False)
    return finished.stdout + finished.stderr


def test_the_cell_of_colab_stops_where_the_clone_fails_and_can_be_run_again(tmp_path):
    origin = tmp_path / "a-fork"
    failed = in_colab(tmp_path, f"file://{origin}")
    assert "Not cloned, see above. Run this cell again." in failed and "fatal: " in failed
    assert "pip in" not in failed
    origin.mkdir()
    git = ["git", "-C", origin, "-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    (origin / "pyproject.toml").touch()
    subprocess.run([*git, "add", "pyproject.toml"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "A project"], check=True)
    for _ in range(2):
        printed = in_colab(tmp_path, f"file://{origin}")
        assert f"pip in {tmp_path / 'lggseg-book'}" in printed and "fatal" not in printed
