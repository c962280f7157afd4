"""Execute the notebooks with papermill, and publish an executed run as a Jupyter Book."""

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import yaml

from lggseg_utils.config import PROFILES, REPOSITORY, Experiment, UserError, profile_names

NOTEBOOKS = REPOSITORY / "notebooks"
BUILD = REPOSITORY / "_build"
STAGE = BUILD / "stage"


def chapters():
    """Paths of the notebooks in reading order."""
    found = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    if not found:
        raise UserError(f"no notebooks in {NOTEBOOKS}: lggseg works from a checkout of the repository.")
    return found


def execute(run, parameters):
    """Execute all notebooks in order into the run folder; a copy appears only when it is whole.

    parameters: values of the notebooks' parameters cell. Raises `UserError` with the reason when a notebook fails;
    what it had printed stays under logs/.
    """
    import papermill

    # Of a notebook that is stopped, asyncio would report what nobody waits for any more, with a traceback.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
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
        with log.open("w", encoding="utf-8") as stream, _errors_into(stream) as terminal:
            papermill.execute_notebook(
                str(notebook),
                str(unfinished),
                parameters=parameters,
                kernel_name="python3",
                # Python imports from the folder it is started in before all others: never from one that holds data.
                cwd=str(NOTEBOOKS),
                progress_bar=False,
                stderr_file=_Progress(stream, terminal),
            )
    except PapermillExecutionError as error:
        reason = error.evalue if error.ename == "UserError" else f"{error.ename}: {error.evalue} (see {unfinished})"
        raise UserError(f"{notebook.stem} failed: {' '.join(str(reason).split())}") from None
    except DeadKernelError:
        raise UserError(f"{notebook.stem} failed: its kernel died, perhaps for want of memory (see {log}).") from None
    unfinished.replace(target)


@contextmanager
def _errors_into(log):
    """Send what this process and its children write to standard error into a log; yields the real one.

    TensorFlow and the kernel write there past Python, whatever they are told.
    """
    saved = os.dup(2)
    sys.stderr.flush()
    os.dup2(log.fileno(), 2)
    try:
        with os.fdopen(os.dup(saved), "w") as terminal:
            yield terminal
    finally:
        os.dup2(saved, 2)
        os.close(saved)


class _Progress:
    """A notebook's error stream: all of it into the log, its progress bars on to the terminal."""

    def __init__(self, log, terminal):
        self.log, self.terminal = log, terminal

    def write(self, text):
        self.log.write(text)
        if "\r" in text and self.terminal.isatty():
            self.terminal.write(text)
            self.terminal.flush()

    def flush(self):
        self.log.flush()


def stage(run_folder):
    """Lay the prose pages, the executed notebooks and what is made from the records side by side under _build/stage."""
    from lggseg_utils import records

    executed = [Path(run_folder, "notebooks", notebook.name) for notebook in chapters()]
    missing = [path for path in executed if not path.exists()]
    if missing:
        raise UserError(f"{missing[0]} is missing: execute the notebooks first, lggseg run --out {run_folder}.")
    shutil.rmtree(STAGE, ignore_errors=True)
    shutil.copytree(REPOSITORY / "book", STAGE / "book")
    shutil.copy(REPOSITORY / "CHANGELOG.md", STAGE)
    (STAGE / "notebooks").mkdir()
    for path in executed:
        (STAGE / "notebooks" / path.name).write_text(
            json.dumps(_tidy(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8"
        )
    _write_generated(STAGE / "book" / "generated", records.load_evidence(run_folder))
    return STAGE


def _tidy(notebook):
    """Leave out the cell in which papermill set the parameters: they stand in the run's record."""
    cells = [cell for cell in notebook["cells"] if "injected-parameters" not in cell["metadata"].get("tags", [])]
    return {**notebook, "cells": cells}


def _write_generated(folder, evidence):
    """Write the parts of prose pages that are made from files: the records at a glance, this build's own run, the settings."""
    from lggseg_utils import evaluate, predict, records, results

    folder.mkdir(parents=True)
    (folder / "glance.md").write_text(records.at_a_glance() + "\n", encoding="utf-8")
    (folder / "short.md").write_text(results.in_short(records.load_records()) + "\n", encoding="utf-8")
    record, scores = evidence.record, evidence.evaluation.metrics["test"]
    text = (
        f"The live chapters of this build were executed on the **{evidence.kind}** ({record['data']['patients']} patients, "
        f"{record['data']['slices']} slices) with the profile `{record['experiment']['profile']}`, seed "
        f"{record['experiment']['seed']}; the test Dice, pooled over all pixels, is "
        f"{evaluate.number(scores['dice_pooled']['value'])} ({evaluate.interval(scores['dice_pooled'])})."
    )
    (folder / "live.md").write_text(text + "\n", encoding="utf-8")
    (folder / "leak.md").write_text(records.leak_by_slice() + "\n", encoding="utf-8")
    (folder / "reference.md").write_text(predict.about_reference() + "\n", encoding="utf-8")
    (folder / "settings.md").write_text(_settings_table(), encoding="utf-8")
    (folder / "profiles.md").write_text(_profiles_text(), encoding="utf-8")


def _settings_table():
    """Every setting as a Markdown table: name, default, allowed values, meaning."""
    lines = ["| setting | default | allowed | meaning |", "|---|---|---|---|"]
    for name, entry in Experiment.model_json_schema()["properties"].items():
        if name in ("profile", "seed"):
            continue
        allowed = ", ".join(f"`{value}`" for value in entry.get("enum", [])) or entry["type"]
        lines.append(f"| `{name}` | `{json.dumps(entry['default'])}` | {allowed} | {entry['description']} |")
    return "\n".join(lines) + "\n"


def _profiles_text():
    """Every profile as it stands in its file."""
    parts = [
        f"### `{name}`\n\n```yaml\n{(PROFILES / f'{name}.yml').read_text(encoding='utf-8')}```\n"
        for name in profile_names()
    ]
    return "\n".join(parts)


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
        str(Path(sys.executable).with_name("jupyter-book")),
        "build",
        str(STAGE),
        "--config",
        str(REPOSITORY / "_config.yml"),
        "--toc",
        str(REPOSITORY / "book" / "_toc.yml"),
        "--path-output",
        str(REPOSITORY),
        "--warningiserror",
        "--keep-going",
        "--all",
        "--quiet",
    ]
    with tempfile.TemporaryFile("w+") as output:
        finished = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
        output.seek(0)
        printed = output.read()
    html = BUILD / "html"
    missing = [page for page in pages() if not (html / f"{page}.html").exists()]
    if finished.returncode or missing:
        print(printed, file=sys.stderr)
        raise UserError(
            f"the book was not built{': ' + missing[0] + ' has no page' if missing else ''}; the reason stands above."
        )
    return html / "index.html"
