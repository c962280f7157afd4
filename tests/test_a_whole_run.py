"""All notebooks in one run that is stopped, killed and resumed. The name lets this long file start first."""

import json
import os
import re
import signal
import subprocess
import sys

import nbformat
import pytest
from conftest import HEARS_CTRL_C, LEFT_BY_A_RUN, LGGSEG, STOPPED, call, stop, wait_for

from lggseg_utils import chapters, data, experiments, runs

TOKEN = "KGAT_0123456789abcdef-planted"


@pytest.fixture(scope="module")
def smoke_run(tmp_path_factory, cohort_folder):
    """A smoke run: stopped with Ctrl-C, killed, then left to end; (folder, error text when stopped, finished process)."""
    folder = tmp_path_factory.mktemp("runs") / "smoke run"
    command = ["run", "--profile", "smoke", "--data", str(cohort_folder), "--out", str(folder)]
    streams = {
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.PIPE,
        "text": True,
        "start_new_session": True,
    }
    process = subprocess.Popen([sys.executable, "-c", HEARS_CTRL_C, *command], **streams)
    wait_for(folder / "notebooks" / "01_data.ipynb", process)
    stopped = stop(process, signal.SIGINT)
    process = subprocess.Popen([LGGSEG, *command], **streams)
    wait_for(folder / "history.csv", process)  # in the middle of the training
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    finished = call(*command, env={**os.environ, "KAGGLE_API_TOKEN": TOKEN, "KAGGLE_KEY": TOKEN})
    assert finished.returncode == 0, finished.stderr
    return folder, stopped, finished


def test_ctrl_c_ends_a_run_with_one_line(smoke_run):
    assert "Traceback" not in smoke_run[1] and smoke_run[1].strip().splitlines()[-1] == STOPPED


def test_a_run_leaves_everything_the_contract_names_and_nothing_unfinished(smoke_run):
    folder, _, finished = smoke_run
    assert not [name for name in LEFT_BY_A_RUN if not (folder / name).exists()] and not list(
        folder.rglob(".part-*")
    )
    assert sorted(path.name for path in (folder / "notebooks").iterdir()) == [
        path.name for path in chapters.chapters() if chapters.depends_on_run(path)
    ]
    assert finished.stdout.splitlines()[-1] == str(folder / "notebooks")


def test_the_text_of_other_data_holds_no_facts_of_the_sample(smoke_run):
    folder, _, _ = smoke_run
    for path in sorted((folder / "notebooks").iterdir()):
        for text in texts_of(path):
            assert not re.search(
                r"CC BY|\bnan\b|\b1 (patients|slices)|sixteen|dozen|16 of", text
            ), path


def texts_of(path):
    """Return what a page says: the text of an executed chapter, and what its code printed."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown" and "remove-cell" not in cell.metadata.get("tags", []):
            yield cell.source
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            yield output.get("text", "") + data.get("text/markdown", "") + data.get("text/html", "")


def test_neither_a_token_nor_tensorflows_messages_get_out(smoke_run):
    folder, _, finished = smoke_run
    left = [path for path in folder.rglob("*") if path.is_file()]
    assert len(left) > 20 and not [path for path in left if TOKEN.encode() in path.read_bytes()]
    printed = finished.stdout + finished.stderr
    assert TOKEN not in printed and "oneDNN" not in printed and "absl" not in printed


def test_a_stopped_and_killed_run_ends_in_the_numbers_of_an_undisturbed_one(
    smoke_run, cohort_folder, tmp_path
):
    run = runs.open_run("smoke", cohort_folder, tmp_path / "run")
    experiments.train_and_score(run, data.load_cohort(run))
    for name in ("metrics.json", "per_slice.csv", "split.csv"):
        assert run.path(name).read_text() == (smoke_run[0] / name).read_text()


def test_executed_notebooks_print_no_warnings(smoke_run):
    for path in (smoke_run[0] / "notebooks").iterdir():
        cells = json.loads(path.read_text())["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        printed = "".join(
            "".join(output["text"]) for output in outputs if output.get("name") == "stderr"
        )
        assert re.findall(r"\w+Warning: .*", printed) == [], path.name
