"""Execute the chapters with papermill, side by side, and none a second time."""

import hashlib
import json
import logging
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import papermill
from ipykernel.kernelspec import write_kernel_spec
from joblib import Parallel, delayed
from joblib.externals.loky.backend import resource_tracker
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm

from lggseg_utils.runs import REPOSITORY, stderr_into
from lggseg_utils.settings import UserError

NOTEBOOKS = REPOSITORY / "notebooks"
# Chapters that read records alone are the same for every run, and are kept here.
OF_RECORDS = REPOSITORY / "_build" / "chapters"
# Chapter 6 scores the network that chapter 5 trains; the training starts first.
IN_ORDER = ("05_training", "06_evaluation")
SIDE_BY_SIDE = 2  # kernels at once; each may need two gigabytes
DIGEST = "lggseg_digest"  # in an executed notebook's metadata: what it was made from


def chapters():
    """Return the paths of the notebooks in reading order."""
    return sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))


def depends_on_run(notebook):
    """Return whether a chapter has parameters; one without reads records alone."""
    return bool(papermill.inspect_notebook(notebook))


@dataclass(frozen=True)
class _Copy:
    """An executed copy of a chapter: how it is made, and where."""

    notebook: Path
    parameters: dict
    folder: Path  # where it appears once it is complete
    logs: Path
    digest: str  # of all that it is made from

    def is_made(self):
        """Return whether the copy is there, and made from the same."""
        try:
            text = (self.folder / self.notebook.name).read_text(encoding="utf-8")
            return json.loads(text)["metadata"].get(DIGEST) == self.digest
        except (OSError, ValueError, KeyError):
            return False


def execute(run, parameters, whole_book=False):
    """Execute the chapters that depend on a run; complete copies alone appear in its folder.

    parameters: values of the notebooks' parameters; whole_book: execute those that read records
    alone meanwhile. Raises `UserError` with the reason when one fails; logs/ holds what it printed.
    """
    state = _digest_of_package() + json.dumps(run.record().get("data"), sort_keys=True)
    own = [notebook for notebook in chapters() if depends_on_run(notebook)]
    copies = _copies(own, parameters, run.path("notebooks"), run.path("logs"), state)
    if whole_book:
        copies += _copies_of_records()
    _execute(copies)


def execute_of_records():
    """Execute the chapters that read records alone, once for a state of package and records."""
    _execute(_copies_of_records())


def _copies_of_records():
    """Return the copies of the chapters that read records alone."""
    state = _digest_of_package() + _digest(sorted((REPOSITORY / "records").rglob("*.*")))
    own = [notebook for notebook in chapters() if not depends_on_run(notebook)]
    return _copies(own, {}, OF_RECORDS, OF_RECORDS / "logs", state)


def _copies(notebooks, parameters, folder, logs, state):
    """Return the copies of some chapters, to be made from a state of package and data."""
    copies = []
    for path in notebooks:
        made_from = state + _digest([path]) + repr(parameters)
        digest = hashlib.sha256(made_from.encode()).hexdigest()
        copies.append(_Copy(path, parameters, folder, logs, digest))
    return copies


def _digest_of_package():
    """Return a digest of the code and the network that chapters use."""
    package = sorted((REPOSITORY / "lggseg_utils").rglob("*.*"))
    files = [path for path in package if "__pycache__" not in path.parts]
    return _digest([*files, *sorted((REPOSITORY / "reference").glob("*.*"))])


def _digest(paths):
    """Return a digest of the contents of files."""
    digest = hashlib.sha256()
    for path in paths:
        if path.is_file():
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _execute(copies):
    """Make those copies that are not made yet, side by side."""
    todo = [copy for copy in copies if not copy.is_made()]
    if not todo:
        return
    in_order = [copy for copy in todo if copy.notebook.stem in IN_ORDER]
    chains = [in_order, *([copy] for copy in todo if copy not in in_order)]
    jobs = [delayed(_execute_chain)(chain) for chain in chains if chain]
    # After Ctrl-C, joblib's resource tracker would report with a traceback what is gone already.
    with stderr_into(os.devnull):
        resource_tracker.ensure_running()
    done = Parallel(n_jobs=SIDE_BY_SIDE, return_as="generator_unordered", batch_size=1)(jobs)
    with tqdm(total=len(todo), desc="chapters", unit="chapter", leave=False) as bar:
        for count in done:
            bar.update(count)


def _execute_chain(chain):
    """Make copies one after another; return how many."""
    for copy in chain:
        _execute_one(copy)
    return len(chain)


def _execute_one(copy):
    """Execute one notebook; its copy appears in its folder once it is complete."""
    for place in (copy.folder, copy.logs):
        place.mkdir(parents=True, exist_ok=True)
    # asyncio would report with a traceback what a stopped notebook left unfinished.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    notebook, unfinished = copy.notebook, copy.logs / copy.notebook.name
    options = {"progress_bar": False, "cwd": NOTEBOOKS, "kernel_name": "python3"}
    try:
        with stderr_into(unfinished.with_suffix(".log")), own_kernel():
            executed = papermill.execute_notebook(notebook, unfinished, copy.parameters, **options)
    except PapermillExecutionError as error:
        reason = f"{error.ename}: {error.evalue} (see {unfinished})"
        if error.ename == "UserError":
            reason = error.evalue
        raise UserError(f"{notebook.stem} failed: {' '.join(str(reason).split())}") from None
    except RuntimeError as error:  # of nbclient or, before the kernel answers, of jupyter_client
        if "Kernel died" not in str(error):
            raise
        raise UserError(
            f"{notebook.stem} failed: its kernel died, perhaps because memory ran out."
        ) from None
    executed.metadata[DIGEST] = copy.digest
    papermill.iorw.write_ipynb(executed, str(unfinished))
    unfinished.replace(copy.folder / notebook.name)


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
