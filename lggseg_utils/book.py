"""Execute the notebooks with papermill, and publish an executed run as a Jupyter Book."""

import logging
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import papermill
from ipykernel.kernelspec import write_kernel_spec
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from lggseg_utils.runs import REPOSITORY, made_by, stderr_into
from lggseg_utils.settings import UserError

NOTEBOOKS = REPOSITORY / "notebooks"
CONFIG = REPOSITORY / "_config.yml"
BUILD = REPOSITORY / "_build"
STAGE = BUILD / "stage"


def chapters():
    """Return the paths of the notebooks in reading order."""
    return sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))


@contextmanager
def own_kernel():
    """Make `python3` the kernel of this interpreter, whatever Jupyter finds on this machine."""
    others = os.environ.get("JUPYTER_PATH", "")
    with TemporaryDirectory() as folder:
        write_kernel_spec(Path(folder, "kernels", "python3"))
        os.environ["JUPYTER_PATH"] = os.pathsep.join([folder, others])
        try:
            yield
        finally:
            os.environ["JUPYTER_PATH"] = others


def execute(run, parameters):
    """Execute all notebooks in order into the run folder, where complete copies alone appear.

    parameters: values for the notebooks that declare parameters. Raises `UserError` with the reason
    when one fails; logs/ holds what it printed.
    """
    # asyncio would report with a traceback what a stopped notebook left unfinished.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    for folder in ("logs", "notebooks"):
        run.path(folder).mkdir(exist_ok=True)
    for notebook in chapters():
        unfinished = run.path("logs", notebook.name)
        given = parameters if papermill.inspect_notebook(notebook) else {}
        try:
            with stderr_into(unfinished.with_suffix(".log")) as terminal, own_kernel():
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
