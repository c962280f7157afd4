"""Execute the chapters with papermill, side by side, and none a second time."""

import hashlib
import json
import logging
import os
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import papermill
from ipykernel.kernelspec import write_kernel_spec
from joblib import Parallel, delayed
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm

from lggseg_utils.runs import REPOSITORY, stderr_into
from lggseg_utils.settings import UserError

NOTEBOOKS = REPOSITORY / "notebooks"
# Chapters that read records alone are the same for every run, and are kept here.
OF_RECORDS = REPOSITORY / "_build" / "chapters"
# The last chapter scores the network that the one before it trains; the training starts first.
IN_ORDER = ("05_training", "06_evaluation")
SIDE_BY_SIDE = 2  # kernels at once; each may need two gigabytes
DIGEST = "lggseg_digest"  # in an executed notebook's metadata: what it was made from


def chapters():
    """Return the paths of the notebooks in reading order."""
    return sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))


def depends_on_run(notebook):
    """Return whether a chapter has parameters; one without reads records alone."""
    return bool(papermill.inspect_notebook(notebook))


def execute(run, parameters):
    """Execute the chapters that depend on a run; complete copies alone appear in its folder.

    parameters: values of the notebooks' parameters. Raises `UserError` with the reason when one
    fails; logs/ holds what it printed.
    """
    state = _digest_of_package() + json.dumps(run.record().get("data"), sort_keys=True)
    own = [notebook for notebook in chapters() if depends_on_run(notebook)]
    _execute(own, parameters, run.path("notebooks"), run.path("logs"), state)


def execute_of_records():
    """Execute the chapters that read records alone, once for a state of package and records."""
    state = _digest_of_package() + _digest(sorted((REPOSITORY / "records").rglob("*.*")))
    own = [notebook for notebook in chapters() if not depends_on_run(notebook)]
    _execute(own, {}, OF_RECORDS, OF_RECORDS / "logs", state)


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


def _execute(notebooks, parameters, folder, logs, state):
    """Execute those notebooks whose copy in `folder` was made from another state, side by side."""
    for place in (folder, logs):
        place.mkdir(parents=True, exist_ok=True)
    digests = {
        path: hashlib.sha256((state + _digest([path]) + repr(parameters)).encode()).hexdigest()
        for path in notebooks
    }
    todo = [path for path in notebooks if _made_from(folder / path.name) != digests[path]]
    if not todo:
        return
    in_order = [path for path in todo if path.stem in IN_ORDER]
    chains = [in_order, *([path] for path in todo if path not in in_order)]
    jobs = [
        delayed(_execute_chain)([(path, digests[path]) for path in chain], parameters, folder, logs)
        for chain in chains
        if chain
    ]
    done = Parallel(n_jobs=SIDE_BY_SIDE, return_as="generator_unordered", batch_size=1)(jobs)
    with tqdm(total=len(todo), desc="chapters", unit="chapter", leave=False) as bar:
        for count in done:
            bar.update(count)


def _made_from(executed):
    """Return the digest in an executed notebook's metadata; '' where there is none."""
    try:
        return json.loads(executed.read_text(encoding="utf-8"))["metadata"].get(DIGEST, "")
    except (OSError, ValueError, KeyError):
        return ""


def _execute_chain(chain, parameters, folder, logs):
    """Execute notebooks one after another; return how many."""
    for notebook, digest in chain:
        _execute_one(notebook, digest, parameters, folder, logs)
    return len(chain)


def _execute_one(notebook, digest, parameters, folder, logs):
    """Execute one notebook; its copy appears in `folder` once it is complete."""
    # asyncio would report with a traceback what a stopped notebook left unfinished.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    unfinished = logs / notebook.name
    options = {"progress_bar": False, "cwd": NOTEBOOKS, "kernel_name": "python3"}
    try:
        with stderr_into(unfinished.with_suffix(".log")), own_kernel():
            executed = papermill.execute_notebook(notebook, unfinished, parameters, **options)
    except PapermillExecutionError as error:
        reason = f"{error.ename}: {error.evalue} (see {unfinished})"
        if error.ename == "UserError":
            reason = error.evalue
        raise UserError(f"{notebook.stem} failed: {' '.join(str(reason).split())}") from None
    except DeadKernelError:
        raise UserError(
            f"{notebook.stem} failed: its kernel died, perhaps because memory ran out."
        ) from None
    executed.metadata[DIGEST] = digest
    papermill.iorw.write_ipynb(executed, str(unfinished))
    unfinished.replace(folder / notebook.name)


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
