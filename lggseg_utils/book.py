"""Publish an executed run as a Jupyter Book."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

from lggseg_utils import chapters, myst
from lggseg_utils.runs import REPOSITORY, made_by, read_record
from lggseg_utils.settings import UserError

CONFIG = REPOSITORY / "_config.yml"
BUILD = REPOSITORY / "_build"
STAGE = BUILD / "stage"


def stage(run_folder):
    """Copy prose pages and executed notebooks to _build/stage."""
    executed = [_executed(notebook, run_folder) for notebook in chapters.chapters()]
    shutil.rmtree(STAGE, ignore_errors=True)
    shutil.copytree(REPOSITORY / "book", STAGE / "book")
    shutil.copy(REPOSITORY / "CHANGELOG.md", STAGE)
    (STAGE / "notebooks").mkdir()
    terms = myst.read_terms((STAGE / "book" / "glossary.md").read_text(encoding="utf-8"))
    sources = myst.read_sources((STAGE / "book" / "references.bib").read_text(encoding="utf-8"))
    for path in executed:
        notebook = nbformat.read(path, as_version=4)
        myst.to_myst(notebook, path.stem, terms, sources)
        nbformat.write(notebook, STAGE / "notebooks" / path.name)


def _require_executed(run_folder):
    """Refuse a folder in which a chapter that depends on the run is missing."""
    own = filter(chapters.depends_on_run, chapters.chapters())
    missing = [path for path in own if not _executed(path, run_folder).exists()]
    if missing:
        command = read_record(run_folder)["command"].replace("lggseg train", "lggseg run", 1)
        raise UserError(
            f"{_executed(missing[0], run_folder)} is missing: execute the notebooks first, "
            f"{command} --out {run_folder}"
        )


def _executed(notebook, run_folder):
    """Return where a chapter's executed copy is: with the run, or with those that read records."""
    if chapters.depends_on_run(notebook):
        return Path(run_folder, "notebooks", notebook.name)
    return chapters.OF_RECORDS / notebook.name


def _refuse_other_commands(run_folder):
    """Refuse a folder that no run of the notebooks can be made of, and say what it is."""
    kinds = {"crossval": "a cross-validation", "ablate": "an ablation"}
    if Path(run_folder, "run.json").exists() and (kind := kinds.get(made_by(run_folder))):
        raise UserError(
            f"{run_folder} is {kind}, which no chapter shows: the book is made of a folder of "
            f"lggseg run. 'lggseg record {run_folder} NAME' keeps its numbers with the book's."
        )


def build(run_folder):
    """Build the book from an executed run; return the path of its index.html.

    Warnings, such as a missing page, are errors.
    """
    _refuse_other_commands(run_folder)
    _require_executed(run_folder)
    chapters.execute_of_records()
    stage(run_folder)
    command = [Path(sys.executable).with_name("jupyter-book"), "build", STAGE, "--config", CONFIG]
    command += ["--toc", REPOSITORY / "book" / "_toc.yml", "--path-output", REPOSITORY]
    command += ["--warningiserror", "--keep-going", "--all", "--quiet"]
    # A page that is no more would stay, and an earlier first page would pass for this build's.
    shutil.rmtree(BUILD / "html", ignore_errors=True)
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    index = BUILD / "html" / "index.html"
    # Jupyter Book 2 makes no page from these files, and still exits with 0.
    if finished.returncode or not index.exists():
        print(finished.stdout, finished.stderr, file=sys.stderr)
        raise UserError("the book was not built; the reason is shown above.")
    return index
