"""What holds the repository together: notebooks, dependencies, addresses, the book's parts."""

import html
import importlib
import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from markdown_it import MarkdownIt
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lggseg_utils import book, config, plots

ROOT = config.REPOSITORY
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def tracked():
    """Paths of all tracked or new files that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestNotebook:
    def cells(self, path):
        return json.loads(path.read_text(encoding="utf-8"))["cells"]

    def test_has_no_output(self, path):
        assert not [cell for cell in self.cells(path) if cell.get("outputs") or cell.get("execution_count")]

    def test_declares_the_parameters_of_the_contract(self, path):
        (parameters,) = [cell for cell in self.cells(path) if "parameters" in cell["metadata"].get("tags", [])]
        scope = {}
        exec("".join(parameters["source"]), scope)
        assert {name: value for name, value in scope.items() if not name.startswith("__")} == {
            "profile": "demo",
            "data_dir": "",
            "run_dir": "",
            "seed": 0,
            "overrides": {},
        }

    def test_opens_and_ends_like_the_others(self, path):
        cells = self.cells(path)
        opening = "".join(cells[0]["source"])
        assert all(
            words in opening
            for words in (
                "**What this chapter asks.**",
                "**What the report said.**",
                "**What you will learn.**",
                "**What it needs.**",
            )
        )
        assert "google" not in opening and "COLAB_JUPYTER_IP" in "".join(cells[2]["source"])
        assert [cell for cell in cells if "".join(cell["source"]).startswith("## What was found")]

    def test_figures_have_captions_names_and_alternative_text(self, path):
        drawn = [
            cell for cell in self.cells(path) if re.search(r"plots\.mark\(|records\.figure\(", "".join(cell["source"]))
        ]
        for cell in drawn:
            meta = cell["metadata"]["mystnb"]
            assert (
                meta["figure"]["caption"]
                and meta["figure"]["name"].startswith("fig-")
                and len(meta["image"]["alt"]) > 30
            )

    def test_figures_are_referred_to(self, path):
        cells = self.cells(path)
        text = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        names = [cell["metadata"]["mystnb"]["figure"]["name"] for cell in cells if "mystnb" in cell["metadata"]]
        assert names
        assert [name for name in names if f"{{numref}}`{name}`" not in text] == []

    def test_keeps_its_kernel(self, path):
        assert json.loads(path.read_text(encoding="utf-8"))["metadata"]["kernelspec"]["name"] == "python3"

    def test_cells_are_short(self, path):
        assert max(len(cell["source"]) for cell in self.cells(path) if cell["cell_type"] == "code") <= 30


def test_recorded_figures_are_few_small_shown_once_and_carry_their_terms():
    figures = sorted(path.stem for path in (ROOT / "results" / "figures").iterdir())
    assert 0 < len(figures) <= 12
    assert sum(path.stat().st_size for path in (ROOT / "results" / "figures").iterdir()) < 1_000_000
    shown = {}
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for name in re.findall(r'records\.figure\("(.*?)"\)', "".join(cell["source"])):
                shown.setdefault(name, []).append(cell["metadata"]["mystnb"]["figure"]["caption"])
    assert sorted(shown) == figures
    for captions in shown.values():
        (caption,) = captions
        assert "CC BY-NC-SA 4.0" in caption and "buda2019" in caption


def test_environment_is_in_step_with_the_package():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"python{project['requires-python']}" in environment["dependencies"]
    assert {"pip": ["-e .[book]"]} in environment["dependencies"]


def test_every_dependency_is_locked_within_its_range():
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        Requirement(text) for text in project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    ]
    locked = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if "==" in line:
            name, version = line.split(";")[0].strip().split("==")
            locked.setdefault(name.replace("_", "-").lower(), []).append(version)
    for requirement in wanted:
        versions = locked[requirement.name.replace("_", "-").lower()]
        assert all(requirement.specifier.contains(version) for version in versions), requirement


def test_jupyter_book_stays_below_2():
    assert "jupyter-book>=1.0.4,<2" in (ROOT / "pyproject.toml").read_text()


def test_the_repositorys_address_stands_in_one_place(repository):
    address = repository.removeprefix("https://")
    assert [
        path.name
        for path in tracked()
        if path.suffix not in (".png", ".jpg", ".npz") and address in path.read_text(encoding="utf-8")
    ] == ["_config.yml"]


def test_every_page_of_the_contents_has_a_source():
    for page in book.pages():
        assert (ROOT / f"{page}.md").exists() or (ROOT / f"{page}.ipynb").exists(), page
    assert [page for page in book.pages() if page.startswith("notebooks/")].__len__() == len(NOTEBOOKS) == 12


def test_nothing_large_and_no_cohort_is_tracked():
    for path in tracked():
        # The reference model's weights are the one large file.
        limit = 5_000_000 if path == ROOT / "reference" / "weights.npz" else 1_000_000
        assert path.stat().st_size < limit, path
        assert not re.search(r"TCGA_.*\.(tif|npy|npz|png)$", path.name), path


def test_no_import_goes_in_circles():
    graph = {}
    for path in (ROOT / "lggseg_utils").glob("*.py"):
        top = [
            line
            for line in path.read_text().splitlines()
            if line.startswith(("from lggseg_utils", "import lggseg_utils"))
        ]
        names = {
            name.strip()
            for line in top
            for name in re.findall(r"from lggseg_utils import (.*)", line)
            for name in name.split(",")
        }
        names |= {name for line in top for name in re.findall(r"from lggseg_utils\.(\w+) import", line)}
        graph[path.stem] = names
    while graph:
        free = [name for name, needs in graph.items() if not needs & graph.keys()]
        assert free, f"circle among {sorted(graph)}"
        for name in free:
            del graph[name]


def test_importing_the_package_and_its_help_loads_nothing_heavy():
    code = "import sys, lggseg_utils, lggseg_utils.cli; print([m for m in ('tensorflow', 'keras', 'pandas', 'cv2', 'matplotlib') if m in sys.modules])"
    import sys

    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_workflows_call_the_commands_of_the_readme():
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        assert yaml.safe_load(path.read_text())["jobs"]
    ci, readme = (ROOT / ".ci" / "run").read_text(), (ROOT / "README.md").read_text()
    for command in ("make test", "make book", "make check-pages"):
        assert command in ci and command in readme


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", ".github/workflows/*.yml"),
        ("vendor.dependabot", ".github/dependabot.yml"),
        ("vendor.citation-file-format", "CITATION.cff"),
    ],
)
def test_files_for_others_keep_to_their_schema(schema, files):
    paths = sorted(map(str, ROOT.glob(files)))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *paths]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert paths and not checked.returncode, checked.stdout


def test_updates_hold_jupyter_book_below_2():
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    held = {entry["dependency-name"]: entry["versions"] for entry in updates[0]["ignore"]}
    assert held["jupyter-book"] == [">=2"]


def test_workflows_cover_every_supported_python():
    matrix = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())["jobs"]["test"]["strategy"][
        "matrix"
    ]
    supported = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert matrix["python"] == ["3.11", "3.12", "3.13"] and supported == ">=3.11,<3.14"


def test_spelling():
    texts = [
        str(path) for path in tracked() if path.suffix in (".md", ".py", ".ipynb", ".yml", ".cff", ".html", ".css")
    ]
    checked = subprocess.run(
        [sys.executable, "-m", "codespell_lib", "--ignore-words-list", "jacard,buda,alll", *texts],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert texts and not checked.returncode, checked.stdout


def test_citation_is_complete():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "version"} <= citation.keys()
    from lggseg_utils import __version__

    assert citation["version"] == __version__


class TestColab:
    """The first cell must leave what Colab has installed as it is."""

    INSTALLED = dict(
        line.split("==") for line in (ROOT / "tests" / "colab.txt").read_text().splitlines() if "==" in line
    )

    def test_what_colab_has_is_within_the_packages_ranges_and_the_rest_is_known(self):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        needed = [Requirement(text) for text in project["dependencies"]]
        missing = {requirement.name for requirement in needed if requirement.name not in self.INSTALLED}
        assert missing == {"nilearn", "papermill", "vl-convert-python"}
        for requirement in needed:
            if requirement.name not in missing:
                assert requirement.specifier.contains(self.INSTALLED[requirement.name]), requirement

    @pytest.mark.parametrize("name", ["nilearn", "papermill", "vl-convert-python"])
    def test_what_is_added_asks_for_nothing_that_would_have_to_change(self, name):
        for text in metadata.requires(name) or []:
            requirement = Requirement(text)
            version = self.INSTALLED.get(canonicalize_name(requirement.name))
            if version and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
                assert requirement.specifier.contains(version), requirement

    def test_the_first_cell_installs_from_where_the_notebook_was_opened(self, monkeypatch, tmp_path, capsys):
        source = json.loads((ROOT / "notebooks" / "01_data.ipynb").read_text(encoding="utf-8"))["cells"][2]["source"]
        importlib.import_module("lggseg_utils.train")  # what it starts itself is not the cell's
        commands = []
        opened = [{"path": "fileId=https%3A//github.com/someone/their-fork/blob/main/notebooks/01_data.ipynb"}]
        monkeypatch.setenv("COLAB_JUPYTER_IP", "172.28.0.12")
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        monkeypatch.setattr("requests.get", lambda *_, **__: SimpleNamespace(json=lambda: opened))
        monkeypatch.setattr("subprocess.run", lambda command, check: commands.append(command))
        scope = {"data_dir": ""}
        exec("".join(source), scope)
        assert commands[0][-2:] == ["https://github.com/someone/their-fork", "/content/lggseg-book"]
        assert commands[1][1:] == ["-m", "pip", "install", "-q", "-e", "/content/lggseg-book"]
        assert capsys.readouterr().out.startswith(("No GPU found", "GPU: ")) and scope["data_dir"] == ""

    def test_the_first_cell_asks_for_the_repository_where_it_cannot_know(self, monkeypatch):
        source = json.loads((ROOT / "notebooks" / "01_data.ipynb").read_text(encoding="utf-8"))["cells"][2]["source"]
        monkeypatch.setenv("COLAB_JUPYTER_IP", "172.28.0.12")
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        monkeypatch.setattr("requests.get", lambda *_, **__: SimpleNamespace(json=lambda: [{"path": "Untitled.ipynb"}]))
        with pytest.raises(SystemExit, match="Set repository above"):
            exec("".join(source), {"data_dir": ""})


def test_names_are_text_in_tables_and_in_prose():
    name = "<img src=x onerror=alert(1)>`$x$` *b*"
    shown = plots.table(pd.DataFrame({name: [name]}), name, name).to_html()
    assert "<img" not in shown and shown.count("&lt;img") == 4
    prose = MarkdownIt().render(f"Dice of {plots.plain(name)} is 0.5")
    assert prose == f"<p>Dice of {html.escape(name)} is 0.5</p>\n"
