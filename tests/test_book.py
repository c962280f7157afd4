"""The book is made of what was executed, and what goes wrong is said."""

import subprocess
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell, new_notebook

from lggseg_utils import book, chapters, runs
from lggseg_utils.settings import UserError


def test_the_book_of_a_cross_validation_is_refused_by_what_it_is(tmp_path):
    for command, what in (("crossval", "a cross-validation"), ("ablate", "an ablation")):
        run = runs.open_run("smoke", run_dir=tmp_path / command, command=command)
        with pytest.raises(UserError, match=f"is {what}, which no chapter shows: the book is made"):
            book.build(run.folder)
    run = runs.open_run("smoke", "/scans", tmp_path / "train", seed=3, command="train")
    command = f"lggseg run --profile smoke --seed 3 --data DATA_FOLDER --out {run.folder}"
    with pytest.raises(UserError, match=f"is missing: execute the notebooks first, {command}$"):
        book.build(run.folder)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A chapter of a run and a chapter of records, executed, and places of their own to build in."""
    own, of_records = tmp_path / "01_data.ipynb", tmp_path / "07_verdict.ipynb"
    monkeypatch.setattr(chapters, "chapters", lambda: [own, of_records])
    monkeypatch.setattr(chapters, "depends_on_run", lambda path: path == own)
    monkeypatch.setattr(chapters, "OF_RECORDS", tmp_path / "kept")
    monkeypatch.setattr(chapters, "execute_of_records", lambda: None)
    monkeypatch.setattr(book, "BUILD", tmp_path / "_build")
    monkeypatch.setattr(book, "STAGE", tmp_path / "_build" / "stage")
    for place, name in (("run/notebooks", own.name), ("kept", of_records.name)):
        (tmp_path / place).mkdir(parents=True)
        notebook = new_notebook(cells=[new_markdown_cell(f"> **Exercise 1.** {place}")])
        nbformat.write(notebook, tmp_path / place / name)
    return tmp_path


def test_pages_and_executed_chapters_are_staged_and_pages_that_are_gone_are_not(places):
    book.stage(places / "run")
    (book.STAGE / "book" / "gone.md").touch()
    book.stage(places / "run")
    staged = {
        path.name: nbformat.read(path, as_version=4).cells[0].source
        for path in (book.STAGE / "notebooks").iterdir()
    }
    box = ":::{{admonition}} Exercise 1\n:class: tip\n{}\n:::"
    assert staged == {
        "01_data.ipynb": box.format("run/notebooks"),
        "07_verdict.ipynb": box.format("kept"),
    }
    assert (book.STAGE / "book" / "_toc.yml").exists()
    assert not (book.STAGE / "book" / "gone.md").exists()


@pytest.mark.parametrize(("status", "writes"), [(0, True), (1, True), (0, False)])
def test_a_book_is_built_where_jupyter_book_says_so_and_leaves_pages(
    places, monkeypatch, status, writes
):
    """A warning is an error; Jupyter Book 2 exits with 0 and leaves none.

    A page of an earlier build does not pass for one of this.
    """
    asked = []
    index = book.BUILD / "html" / "index.html"
    index.parent.mkdir(parents=True)
    index.touch()

    def jupyter_book(command, **_):
        asked.extend(command)
        index.parent.mkdir()
        if writes:
            index.touch()
        return SimpleNamespace(returncode=status, stdout="", stderr="")

    monkeypatch.setattr(subprocess, "run", jupyter_book)
    if status == 0 and writes:
        assert book.build(places / "run") == index
    else:
        with pytest.raises(UserError, match="the book was not built"):
            book.build(places / "run")
    assert "--warningiserror" in asked


def test_building_executes_the_chapters_that_read_records(tmp_path, monkeypatch):
    """Chapters that read records need not have been executed: build does it."""
    own, of_records = tmp_path / "01_data.ipynb", tmp_path / "07_verdict.ipynb"
    monkeypatch.setattr(chapters, "chapters", lambda: [own, of_records])
    monkeypatch.setattr(chapters, "depends_on_run", lambda path: path == own)
    monkeypatch.setattr(chapters, "OF_RECORDS", tmp_path / "kept")
    (tmp_path / "run" / "notebooks").mkdir(parents=True)
    (tmp_path / "run" / "notebooks" / own.name).touch()
    monkeypatch.setattr(chapters, "execute_of_records", lambda: pytest.skip("executed"))
    monkeypatch.setattr(book, "stage", lambda folder: pytest.fail("not executed"))
    with pytest.raises(pytest.skip.Exception):
        book.build(tmp_path / "run")
