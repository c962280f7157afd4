"""Chapters are executed side by side, in order where one needs another, and once for a state."""

import json

import nbformat
import pytest
from nbformat.v4 import new_notebook

from lggseg_utils import chapters
from lggseg_utils.settings import UserError


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    """Three short chapters in a folder of their own; each writes its name into a file."""

    def write(name, code, parameters=False):
        cells = [nbformat.v4.new_code_cell(code)]
        if parameters:
            cell = nbformat.v4.new_code_cell("run_dir = ''", metadata={"tags": ["parameters"]})
            cells.insert(0, cell)
        kernel = {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        }
        notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
        nbformat.write(notebook, tmp_path / "notebooks" / f"{name}.ipynb")

    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(chapters, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(chapters, "OF_RECORDS", tmp_path / "kept")
    note = f"open({str(tmp_path / 'log')!r}, 'a').write('{{}}\\n')"
    write("05_training", note.format("training"), parameters=True)
    write("06_evaluation", note.format("evaluation"), parameters=True)
    write("07_verdict", note.format("verdict"))
    return write, note


class Run:
    """What a chapter needs of a run: a folder and the facts of its data."""

    def __init__(self, folder, fingerprint="x"):
        self.folder = folder
        self.fingerprint = fingerprint

    def path(self, *parts):
        return self.folder.joinpath(*parts)

    def record(self):
        return {"data": {"fingerprint": self.fingerprint}}


def test_a_run_executes_its_own_chapters_in_order_and_once(notebooks, tmp_path):
    write, note = notebooks
    run, log = Run(tmp_path / "run"), tmp_path / "log"
    chapters.execute(run, {"run_dir": "here"})
    assert log.read_text().split() == ["training", "evaluation"]
    assert sorted(path.name for path in run.path("notebooks").iterdir()) == [
        "05_training.ipynb",
        "06_evaluation.ipynb",
    ]
    chapters.execute(run, {"run_dir": "here"})
    assert log.read_text().split() == ["training", "evaluation"], "nothing a second time"
    write("06_evaluation", note.format("changed"), parameters=True)
    chapters.execute(run, {"run_dir": "here"})
    assert log.read_text().split()[2:] == ["changed"], "only what has changed"
    executed = json.loads(run.path("notebooks", "06_evaluation.ipynb").read_text())
    assert "here" in "".join(executed["cells"][1]["source"]), "the parameters are handed over"


def test_chapters_of_records_are_executed_once_for_a_state(notebooks, tmp_path, monkeypatch):
    log = tmp_path / "log"
    chapters.execute_of_records()
    chapters.execute_of_records()
    assert log.read_text().split() == ["verdict"]
    monkeypatch.setattr(chapters, "_digest_of_package", lambda: "another package")
    chapters.execute_of_records()
    assert log.read_text().split() == ["verdict", "verdict"]


def test_the_whole_book_has_both_kinds_of_chapters_in_folders_of_their_own(notebooks, tmp_path):
    run = Run(tmp_path / "run")
    chapters.execute(run, {"run_dir": "here"}, whole_book=True)
    assert sorted(path.stem for path in run.path("notebooks").iterdir()) == [
        "05_training",
        "06_evaluation",
    ]
    assert [path.name for path in (tmp_path / "kept").glob("*.ipynb")] == ["07_verdict.ipynb"]
    chapters.execute_of_records()
    assert (tmp_path / "log").read_text().split().count("verdict") == 1, "kept for the book"


def test_a_chapter_that_fails_says_which_and_why_and_leaves_no_copy(notebooks, tmp_path):
    write, _ = notebooks
    write("07_verdict", "1 / 0")
    with pytest.raises(UserError, match="07_verdict failed: ZeroDivisionError: division by zero"):
        chapters.execute_of_records()
    assert not (tmp_path / "kept" / "07_verdict.ipynb").exists()


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        ("Kernel died", UserError, "01_a failed: its kernel died, perhaps because memory"),
        ("Kernel died before replying", UserError, "01_a failed: its kernel died"),
        ("another mistake", RuntimeError, "another mistake"),
    ],
)
def test_a_kernel_that_dies_gets_one_line(tmp_path, monkeypatch, said, kind, message):
    def die(*_, **__):
        raise RuntimeError(said)

    monkeypatch.setattr(chapters.papermill, "execute_notebook", die)
    path = tmp_path / "01_a.ipynb"
    with pytest.raises(kind, match=message):
        chapters._execute_one(chapters._Copy(path, {}, tmp_path, tmp_path / "logs", ""))


# A file of each kind on which chapters depend.
OF_CHAPTERS = (
    "lggseg_utils/a.py",
    "lggseg_utils/profiles/demo.yml",
    "lggseg_utils/claims.yml",
    "reference/weights.npz",
    "records/x/run.json",
    "records/cohort.csv",
)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A repository with a file of each kind on which chapters depend."""
    for name in OF_CHAPTERS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "notebooks").mkdir()
    nbformat.write(new_notebook(), tmp_path / "notebooks" / "07_verdict.ipynb")
    monkeypatch.setattr(chapters, "REPOSITORY", tmp_path)
    monkeypatch.setattr(chapters, "NOTEBOOKS", tmp_path / "notebooks")
    return tmp_path


@pytest.mark.parametrize("name", OF_CHAPTERS)
def test_a_chapter_depends_on_package_network_and_records(clone, name):
    (before,) = chapters._copies_of_records()
    (clone / name).write_text("changed")
    (after,) = chapters._copies_of_records()
    assert before.digest != after.digest


def test_compiled_files_change_no_digest(clone):
    before = chapters._digest_of_package()
    (clone / "lggseg_utils" / "__pycache__").mkdir()
    (clone / "lggseg_utils" / "__pycache__" / "a.pyc").write_text("compiled")
    assert chapters._digest_of_package() == before


def test_a_chapter_depends_on_data_and_parameters(clone, monkeypatch):
    digests = []
    monkeypatch.setattr(chapters, "depends_on_run", lambda path: True)
    monkeypatch.setattr(chapters, "_execute", lambda copies: digests.append(copies[0].digest))
    for fingerprint, seed in (("x", 0), ("y", 0), ("x", 1), ("x", 0)):
        run = Run(clone, fingerprint)
        chapters.execute(run, {"seed": seed})
    assert len(set(digests)) == 3 and digests[0] == digests[3]


def test_chapters_are_executed_in_their_folder(notebooks, tmp_path):
    write, _ = notebooks
    write("07_verdict", "import os; print(os.getcwd())")
    path = tmp_path / "notebooks" / "07_verdict.ipynb"
    chapters._execute_one(chapters._Copy(path, {}, tmp_path / "kept", tmp_path / "logs", "d"))
    executed = nbformat.read(tmp_path / "kept" / "07_verdict.ipynb", 4)
    assert executed.cells[0].outputs[0].text == f"{tmp_path / 'notebooks'}\n"


def test_a_users_mistake_in_a_chapter_is_told_alone(notebooks, tmp_path):
    write, _ = notebooks
    write("07_verdict", "class UserError(Exception): pass\nraise UserError('name a folder')")
    path = tmp_path / "notebooks" / "07_verdict.ipynb"
    with pytest.raises(UserError, match="^07_verdict failed: name a folder$"):
        chapters._execute_one(chapters._Copy(path, {}, tmp_path / "kept", tmp_path / "logs", "d"))
