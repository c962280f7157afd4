"""Execute the notebooks with papermill, and publish an executed run as a Jupyter Book."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from lggseg_utils import results
from lggseg_utils.config import REPOSITORY, UserError

NOTEBOOKS = REPOSITORY / "notebooks"
BUILD = REPOSITORY / "_build"
STAGE = BUILD / "stage"
PARAMETERS = ("profile", "data_dir", "run_dir", "seed", "overrides")


def chapters():
    """Paths of the notebooks in reading order."""
    found = sorted(NOTEBOOKS.glob("0*.ipynb"))
    if not found:
        raise UserError(f"no notebooks in {NOTEBOOKS}: lggseg works from a checkout of the repository.")
    return found


def execute(run, parameters):
    """Execute all notebooks in order into the run folder; a copy appears only when it is whole.

    parameters: values of the notebooks' parameters cell. Raises `UserError` with the reason when a notebook fails;
    what it had printed stays under logs/.
    """
    import papermill

    started = time.perf_counter()
    for position, notebook in enumerate(chapters(), start=1):
        declared = papermill.inspect_notebook(str(notebook))
        missing = [name for name in parameters if name not in declared]
        if missing:
            raise UserError(
                f"{notebook.name} does not declare the parameter {missing[0]}; restore its parameters cell."
            )
        print(f"[{position}/{len(chapters())}] {notebook.stem}", flush=True)
        _execute_one(run, notebook, parameters)
    run.note(wall_seconds=round(time.perf_counter() - started, 1))


def _execute_one(run, notebook, parameters):
    """Execute one notebook beside its place and move it there when it is done."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    target, log = run.path("notebooks", notebook.name), run.path("logs", f"{notebook.stem}.log")
    for folder in (target.parent, log.parent):
        folder.mkdir(parents=True, exist_ok=True)
    unfinished = log.with_name(f"{notebook.stem}-unfinished.ipynb")
    try:
        with log.open("w", encoding="utf-8") as stream:
            papermill.execute_notebook(
                str(notebook),
                str(unfinished),
                parameters=parameters,
                kernel_name="python3",
                progress_bar=False,
                stderr_file=_Progress(stream),
                log_output=False,
            )
    except PapermillExecutionError as error:
        reason = error.evalue if error.ename == "UserError" else f"{error.ename}: {error.evalue} (see {unfinished})"
        raise UserError(f"{notebook.stem} failed: {' '.join(str(reason).split())}") from None
    except DeadKernelError:
        raise UserError(f"{notebook.stem} failed: its kernel died, perhaps for want of memory (see {log}).") from None
    unfinished.replace(target)


class _Progress:
    """A notebook's error stream: all of it into the log, its progress bars on to the terminal."""

    def __init__(self, log):
        self.log = log

    def write(self, text):
        self.log.write(text)
        if "\r" in text and sys.stderr.isatty():
            sys.stderr.write(text)

    def flush(self):
        self.log.flush()
        sys.stderr.flush()


def stage(run_folder):
    """Lay the prose pages, the executed notebooks and what is made from the records side by side under _build/stage."""
    executed = [Path(run_folder, "notebooks", notebook.name) for notebook in chapters()]
    missing = [path for path in executed if not path.exists()]
    if missing:
        raise UserError(f"{missing[0]} is missing: execute the notebooks first, lggseg run --out {run_folder}.")
    shutil.rmtree(STAGE, ignore_errors=True)
    shutil.copytree(REPOSITORY / "book", STAGE / "book")
    (STAGE / "notebooks").mkdir()
    for path in executed:
        (STAGE / "notebooks" / path.name).write_text(
            json.dumps(_tidy(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8"
        )
    _write_generated(STAGE / "book" / "generated", results.load_evidence(run_folder))
    return STAGE


def _tidy(notebook):
    """Hide the cell in which papermill set the parameters: they stand in the run's record."""
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags", [])
        if "injected-parameters" in tags:
            cell["metadata"]["tags"] = [*tags, "remove-cell"]
    return notebook


def _write_generated(folder, evidence):
    """Write the parts of prose pages that are made from files: the records at a glance, and this build's own run."""
    folder.mkdir(parents=True)
    (folder / "glance.md").write_text(results.at_a_glance() + "\n", encoding="utf-8")
    record, scores = evidence.record, evidence.evaluation.metrics["test"]
    text = (
        f"The live chapters of this build were executed on the **{evidence.kind}** ({record['data']['patients']} patients, "
        f"{record['data']['slices']} slices) with the profile `{record['experiment']['profile']}`, seed "
        f"{record['experiment']['seed']}; the test Dice, pooled over all pixels, is "
        f"{results.evaluate.number(scores['dice_pooled']['value'])} ({results.evaluate.interval(scores['dice_pooled'])})."
    )
    (folder / "live.md").write_text(text + "\n", encoding="utf-8")


def pages():
    """Names of all pages of the table of contents, without suffix, as they stand under the built book's root."""
    toc = yaml.safe_load((REPOSITORY / "book" / "_toc.yml").read_text(encoding="utf-8"))

    def files(node):
        if isinstance(node, list):
            return [name for item in node for name in files(item)]
        if isinstance(node, dict):
            own = [node[key] for key in ("root", "file") if key in node]
            return own + [name for value in node.values() for name in files(value) if isinstance(value, list)]
        return []

    return files(toc)


def build(run_folder):
    """Build the book from an executed run; return the path of its index.html.

    Warnings are errors, and every page of the table of contents must be there: Jupyter Book's exit status alone
    can't be trusted.
    """
    stage(run_folder)
    command = [
        sys.executable,
        "-m",
        "jupyter_book",
        "build",
        str(STAGE),
        "--config",
        str(REPOSITORY / "_config.yml"),
        "--toc",
        str(REPOSITORY / "book" / "_toc.yml"),
        "--path-output",
        str(BUILD),
        "--warningiserror",
        "--keep-going",
        "--all",
        "--quiet",
    ]
    with tempfile.TemporaryFile("w+") as output:
        finished = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
        output.seek(0)
        printed = output.read()
    html = BUILD / "_build" / "html"
    missing = [page for page in pages() if not (html / f"{page}.html").exists()]
    if finished.returncode or missing:
        print(printed, file=sys.stderr)
        raise UserError(
            f"the book was not built{': ' + missing[0] + ' has no page' if missing else ''}; the reason stands above."
        )
    return html / "index.html"
