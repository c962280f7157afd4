"""Execute the notebooks with papermill, and publish an executed run as a Jupyter Book."""

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from lggseg_utils.runs import REPOSITORY, stderr_into
from lggseg_utils.settings import UserError

NOTEBOOKS = REPOSITORY / "notebooks"
CONFIG = REPOSITORY / "_config.yml"
BUILD = REPOSITORY / "_build"
STAGE = BUILD / "stage"


def chapters():
    """Return the paths of the notebooks in reading order."""
    return sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))


def execute(run, parameters):
    """Execute all notebooks in order into the run folder; a copy appears there only once it is complete.

    parameters: values for the notebooks that declare parameters. Raises `UserError` with the reason when one fails; see logs/.
    """
    # asyncio would report with a traceback what a stopped notebook left unfinished.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    for folder in ("logs", "notebooks"):
        run.path(folder).mkdir(exist_ok=True)
    for notebook in chapters():
        unfinished = run.path("logs", notebook.name)
        given = parameters if papermill.inspect_notebook(notebook) else {}
        try:
            with stderr_into(unfinished.with_suffix(".log")) as terminal:
                options = {
                    "progress_bar": {"desc": notebook.stem, "file": terminal},
                    "cwd": NOTEBOOKS,
                }
                papermill.execute_notebook(
                    notebook, unfinished, given, kernel_name="python3", **options
                )
        except PapermillExecutionError as error:
            reason = (
                error.evalue
                if error.ename == "UserError"
                else f"{error.ename}: {error.evalue} (see {unfinished})"
            )
            raise UserError(f"{notebook.stem} failed: {' '.join(str(reason).split())}") from None
        except DeadKernelError:
            raise UserError(
                f"{notebook.stem} failed: its kernel died, perhaps because memory ran out."
            ) from None
        unfinished.replace(run.path("notebooks", notebook.name))


def stage(run_folder):
    """Copy prose pages and executed notebooks to _build/stage."""
    executed = [Path(run_folder, "notebooks", notebook.name) for notebook in chapters()]
    missing = [path for path in executed if not path.exists()]
    if missing:
        raise UserError(
            f"{missing[0]} is missing: execute the notebooks first, lggseg run --out {run_folder}."
        )
    shutil.rmtree(STAGE, ignore_errors=True)
    shutil.copytree(REPOSITORY / "book", STAGE / "book")
    shutil.copy(REPOSITORY / "CHANGELOG.md", STAGE)
    # A chapter shows source from the package itself, never a copy of it.
    shutil.copytree(
        REPOSITORY / "lggseg_utils",
        STAGE / "lggseg_utils",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    (STAGE / "notebooks").mkdir()
    for path in executed:
        shutil.copy(path, STAGE / "notebooks")


def build(run_folder):
    """Build the book from an executed run; return the path of its index.html. Warnings, such as a missing page, are errors."""
    stage(run_folder)
    command = [Path(sys.executable).with_name("jupyter-book"), "build", STAGE, "--config", CONFIG]
    command += ["--toc", REPOSITORY / "book" / "_toc.yml", "--path-output", REPOSITORY]
    command += ["--warningiserror", "--keep-going", "--all", "--quiet"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    index = BUILD / "html" / "index.html"
    # Jupyter Book 2 makes no page from these files, and still exits with 0.
    if finished.returncode or not index.exists():
        print(finished.stdout, finished.stderr, file=sys.stderr)
        raise UserError("the book was not built; the reason is shown above.")
    return index
