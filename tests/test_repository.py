"""What holds the repository together: notebooks, dependencies, addresses, sizes."""

import ast
import inspect
import json
import pkgutil
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from conftest import pages_of_the_book
from nbconvert import HTMLExporter
from packaging.requirements import Requirement

from lggseg_utils import __version__, chapters, myst, runs
from lggseg_utils.arms import CLAIMS

ROOT = runs.REPOSITORY
NOTEBOOKS = chapters.chapters()
ADDRESS = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
HEADS = ("**What this chapter asks.**", "**What was found.**", "**What you will learn.**")


def tracked():
    """Return the paths of all tracked or new files that git does not ignore."""
    if not (ROOT / ".git").exists():
        pytest.skip("a download without git does not say which files are the project's")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def cells_of(path, kind=None):
    """Return a notebook's cells as (source, metadata)."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [
        ("".join(cell["source"]), cell["metadata"])
        for cell in cells
        if kind in (None, cell["cell_type"])
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestNotebook:
    def test_has_no_output_and_keeps_its_kernel(self, path):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        assert not [
            cell for cell in notebook["cells"] if cell.get("outputs") or cell.get("execution_count")
        ]
        assert notebook["metadata"]["kernelspec"]["name"] == "python3"

    def test_functions_of_the_package_that_it_shows_fit_on_the_page(self, path):
        for name in re.findall(r"getsource\((\w+\.\w+)\)", path.read_text(encoding="utf-8")):
            lines = inspect.getsource(pkgutil.resolve_name(f"lggseg_utils.{name}")).splitlines()
            assert max(map(len, lines)) <= 78, name

    def test_takes_the_parameters_of_the_contract_or_none(self, path):
        declared = [
            source
            for source, meta in cells_of(path, "code")
            if "parameters" in meta.get("tags", [])
        ]
        wanted = {"profile": "demo", "data_dir": "", "run_dir": "", "seed": 0, "overrides": {}}
        scope = {}
        for source in declared:
            exec(source, {}, scope)
        assert scope == (wanted if path.stem < "07" else {})

    def test_opens_with_its_finding_and_ends_like_the_others(self, path):
        texts = [source for source, _ in cells_of(path, "markdown")]
        assert texts[0].startswith("# ") and "*" in texts[0]
        if path.stem not in ("07_verdict", "14_tried"):
            opening = next(text for text in texts if HEADS[0] in text)
            assert all(head in opening for head in HEADS)
            assert any("## In short" in text for text in texts)
        assert any(text.startswith("**Next.**") for text in texts[-2:])

    def test_shows_its_picture_before_it_asks(self, path):
        cells = [source for source, _ in cells_of(path)]
        if path.stem != "14_tried":
            asked = next(n for n, source in enumerate(cells) if HEADS[0] in source)
            assert any("**Figure.**" in source for source in cells[:asked])

    def test_has_one_colab_cell_that_names_the_address(self, path):
        (source,) = [source for source, _ in cells_of(path, "code") if "google.colab" in source]
        (first, *_) = NOTEBOOKS
        assert source in [text for text, _ in cells_of(first, "code")]
        assert f"git clone -q --depth 1 {ADDRESS} lggseg-book\n" in source

    def test_is_plain_markdown(self, path):
        for source, meta in cells_of(path, "markdown"):
            assert not re.search(r"\{[a-z:]+\}`|^:::|^```\{|^\([\w-]+\)=|\$\$ *\(", source, re.M)
            assert set(meta) <= {"tags"}, "what a viewer does not show"

    def test_a_viewer_shows_no_markup(self, path):
        page, _ = HTMLExporter().from_filename(path)
        text = re.sub(r"<(pre|script|style).*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL)
        assert not re.search(r"\{[a-z:]+\}`|:::|\]\(", text)

    def test_its_links_lead_to_files(self, path):
        for source, _ in cells_of(path, "markdown"):
            for target in re.findall(r"\]\((?!https?:)([^)#]+)", source):
                assert (path.parent / target).exists(), target

    def test_figures_have_captions_and_alternative_text(self, path):
        cells = cells_of(path)
        for number, (source, meta) in enumerate(cells):
            if re.search(r"plt\.subplots|plots\.(slices|forest|dice_bars|paired)|\.jpg", source):
                caption, _ = cells[number + 1]
                assert re.search(r"\*\*Figure\.\*\* .{35}", caption, re.DOTALL), source[:80]
                assert len(meta["mystnb"]["image"]["alt"]) > 30

    def test_exercises_lead_to_a_sentence_and_fold_their_solutions(self, path):
        cells = cells_of(path)
        asked = [n for n, (source, _) in enumerate(cells) if source.startswith("> **Exercise")]
        folded = [n for n, (_, meta) in enumerate(cells) if "solution" in meta.get("tags", [])]
        assert folded == [number + 1 for number in asked]
        assert len(asked) in (2, 3) or path.stem == "14_tried"
        for number in asked:
            assert re.search(r"\bSo .*(\.\.\.|\?)", cells[number][0])
            assert '"So ' in cells[number + 1][0]

    def test_knows_the_tags_of_its_cells(self, path):
        tags = {tag for _, meta in cells_of(path) for tag in meta.get("tags", [])}
        assert tags <= {"remove-cell", "remove-input", *myst.FOLDED}


def test_every_function_says_what_it_does():
    for path in (ROOT / "lggseg_utils").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.FunctionDef)
                and not node.name.startswith(("on_", "__"))
                and node.col_offset == 0
            ):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"


def test_no_import_goes_in_circles():
    graph = {}
    for path in (ROOT / "lggseg_utils").glob("*.py"):
        nodes = [
            node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)
        ]
        own = [node for node in nodes if (node.module or "").startswith("lggseg_utils")]
        names = {
            alias.name for node in own if node.module == "lggseg_utils" for alias in node.names
        }
        graph[path.stem] = names | {node.module.split(".")[1] for node in own if "." in node.module}
    while graph:
        free = [name for name, needs in graph.items() if not needs & graph.keys()]
        assert free, f"circle among {sorted(graph)}"
        for name in free:
            del graph[name]


def loaded_by(module, heavy):
    """Return those modules of `heavy` that importing a module of the package loads."""
    code = f"import sys, lggseg_utils.{module}; print([m for m in {heavy} if m in sys.modules])"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_help_loads_nothing_heavy():
    assert loaded_by("cli", ("tensorflow", "keras", "pandas", "cv2", "matplotlib")) == "[]"


@pytest.mark.parametrize("name", ["verdict", "self_test", "predictions", "records", "stats"])
def test_what_judges_records_loads_nothing_that_it_does_not_need(name):
    heavy = ("tensorflow", "keras", "matplotlib", "cv2", "scipy.stats")
    assert loaded_by(name, heavy) == "[]"


def test_the_address_is_where_one_command_sets_it():
    address = ADDRESS.removeprefix("https://")
    text = [
        path for path in tracked() if path.suffix not in (".png", ".jpg", ".npz", ".zip", ".gz")
    ]
    found = {path.name for path in text if address in path.read_text(encoding="utf-8")}
    assert found == {"_config.yml", *(path.name for path in NOTEBOOKS)}


def test_every_page_of_the_contents_has_a_source_and_chapters_come_in_order():
    pages = pages_of_the_book()
    assert all(
        (ROOT / f"{page}.md").exists() or (ROOT / f"{page}.ipynb").exists() for page in pages
    )
    assert [page for page in pages if page.startswith("notebooks/")] == [
        f"notebooks/{path.stem}" for path in NOTEBOOKS
    ]


def test_the_repository_is_light_and_holds_no_slices_but_the_sample():
    large = {"sample/lgg-sample.zip": 12e6, "reference/weights.npz": 5e6}
    for path in tracked():
        assert path.stat().st_size < large.get(path.relative_to(ROOT).as_posix(), 1e6), path
        assert not re.search(r"TCGA_.*\.(tif|npy|npz|png)$", path.name), path
    assert sum(path.stat().st_size for path in tracked()) < 40e6


def test_recorded_figures_are_shown_with_their_terms():
    shown = {}
    for path in [*NOTEBOOKS, ROOT / "book" / "index.md"]:
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"(\w+)\.jpg", text):
            shown[name] = ("CC BY-NC-SA 4.0" in text and "Buda" in text) or "buda2019" in text
    drawn = [path.stem for path in (ROOT / "records" / "figures").glob("*.jpg")]
    assert sorted(shown) == sorted(drawn)
    assert all(shown.values())


def test_every_dependency_is_locked_within_its_range_and_used():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = {}
    lock = (ROOT / "requirements.lock").read_text()
    for line in lock.splitlines():
        if "==" in line:
            name, version = line.split(";")[0].removesuffix("\\").strip().split("==")
            locked.setdefault(name.replace("_", "-").lower(), []).append(version)
    assert lock.count("==") < lock.count("--hash=sha256:")
    for text in project["dependencies"] + sum(project["optional-dependencies"].values(), []):
        requirement = Requirement(text)
        versions = locked[requirement.name.replace("_", "-").lower()]
        assert all(requirement.specifier.contains(version) for version in versions), requirement
    imported = {
        "opencv-python-headless": "cv2",
        "pyyaml": "yaml",
        "scikit-learn": "sklearn",
        "pillow": "PIL",
        "ipython": "IPython",
        "matplotlib-inline": "matplotlib_inline",
    }
    sources = "".join(path.read_text() for path in tracked() if path.suffix in (".py", ".ipynb"))
    for requirement in map(Requirement, project["dependencies"]):
        name = imported.get(requirement.name, requirement.name)
        assert name == "ipykernel" or re.search(rf"(import|from) {name}\b", sources), name


def test_what_colab_has_is_within_the_packages_ranges():
    lines = (ROOT / "tests" / "colab.txt").read_text().splitlines()
    installed = dict(line.split("==") for line in lines if "==" in line)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [Requirement(text) for text in project["dependencies"]]
    lacking = {requirement.name for requirement in needed if requirement.name not in installed}
    assert lacking == {"papermill", "pydicom"}
    for requirement in needed:
        version = installed.get(requirement.name)
        assert version is None or requirement.specifier.contains(version), requirement


def test_ci_calls_the_commands_of_the_readme():
    called = re.findall(r"^make [\w-]+$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    told = re.findall(
        r"^make [\w-]+$|(?<=`)make [\w-]+(?=`)", (ROOT / "README.md").read_text(), re.M
    )
    assert {"make test", "make book", "make check-pages"} <= set(called) <= set(told)


def test_workflows_call_commands_of_the_makefile():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        assert set(re.findall(r"\bmake ([\w-]+)", path.read_text())) <= set(targets), path.name


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


def test_prose_passes_its_linters_and_they_find_faults(monkeypatch):
    checked = subprocess.run(
        [sys.executable, ROOT / "scripts" / "prose.py"], capture_output=True, text=True, check=False
    )
    assert not checked.returncode, checked.stdout
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import prose

    assert prose.translated("A mean Dice a patient stands beside it.") != []
    monkeypatch.setattr(prose, "texts", lambda: {"page.md": "This is a very unique thing."})
    with pytest.raises(SystemExit) as ended:
        prose.main()
    assert ended.value.code == 1


def test_the_walk_through_the_code_runs_and_is_thirty_lines():
    walk = ROOT / "book" / "walk.py"
    finished = subprocess.run([sys.executable, walk], capture_output=True, text=True, check=False)
    assert not finished.returncode and "does it generalise well?" in finished.stdout, (
        finished.stderr
    )
    lines = [
        line
        for line in walk.read_text().splitlines()
        if line.strip() and not line.startswith(("#", '"""'))
    ]
    assert len(lines) <= 30


def test_spelling(monkeypatch):
    kinds = (".md", ".py", ".ipynb", ".yml", ".cff", ".html", ".css")
    texts = [str(path) for path in tracked() if path.suffix in kinds]
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import prose

    command = [
        sys.executable,
        "-m",
        "codespell_lib",
        "--ignore-words-list",
        prose.NOT_ENGLISH,
        *texts,
    ]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert texts and not checked.returncode, checked.stdout


def test_citation_and_package_have_one_version():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__


def test_the_readmes_table_and_the_opening_page_follow_the_verdict(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    import generated_pages

    groups = generated_pages.groups()
    assert "{" not in groups
    assert not re.search(r"\bnan\b", groups)
    for group in CLAIMS["groups"]:
        assert group["title"] in groups
    assert generated_pages.answers_table() in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_bug_that_the_tests_are_tried_with_can_be_put_in():
    listed = yaml.safe_load((ROOT / "benchmarks" / "mutations.yml").read_text(encoding="utf-8"))
    for module, bugs in listed.items():
        text = (ROOT / "lggseg_utils" / f"{module}.py").read_text(encoding="utf-8")
        assert [bug["bug"] for bug in bugs if text.count(bug["old"]) != 1] == [], module
