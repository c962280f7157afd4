"""The command line as a user meets it: messages, exit status, a run that is stopped, killed and resumed."""

import errno
import json
import os
import re
import signal
import subprocess
import sys

import click
import pandas as pd
import pytest
from conftest import (
    LGGSEG,
    STOPPED,
    assert_one_line,
    call,
    stop,
    wait_for,
    write_ellipses,
    write_slice,
)

from lggseg_utils import chapters, cli, data, predict, runs
from lggseg_utils.settings import UserError


@pytest.mark.parametrize(
    "command", ["", "run", "train", "book", "fetch", "record", "predict", "ablate", "crossval"]
)
def test_help(command):
    finished = call(*command.split(), "--help")
    assert finished.returncode == 0 and "Usage: lggseg" in finished.stdout and not finished.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run --profile demmo", "lggseg: unknown profile 'demmo'. Did you mean 'demo'?"),
        (
            "run --profile smoke --set epoch=3",
            "lggseg: unknown setting 'epoch'. Did you mean 'epochs'?",
        ),
        ("train --profile nosuch.yml", "nosuch.yml does not exist; name a YAML file, or one of: "),
        (
            "train --profile smoke --set early_stopping=true",
            "lggseg: setting early_stopping: input should be a number, got true.",
        ),
        ("run --profile smoke --set epochs", "lggseg: --set epochs: expected KEY=VALUE."),
        ("run --profile smoke --set split=[", "lggseg: --set split=[: the value is not valid YAML"),
        (
            "run --profile smoke --set split=patients",
            "setting split: unknown value 'patients'. Did you mean 'patient'?",
        ),
        (
            "run --profile smoke --data /no/such/folder",
            "lggseg: data folder /no/such/folder does not exist.",
        ),
        ("crossval --profile smoke --data /dev/null", "/dev/null is neither a folder nor a zip"),
        ("book --run /no/such/run", "/no/such/run is not a run folder: run.json is missing."),
        (
            "record /no/such/run name",
            "lggseg: /no/such/run is not a run folder: run.json is missing.",
        ),
        ("predict /no/such/image.tif --out masks", "lggseg: /no/such/image.tif does not exist."),
    ],
)
def test_a_mistake_gets_one_line_and_a_status(tmp_path, arguments, message):
    trains = arguments.startswith(("run", "train", "crossval"))
    out = ["--out", tmp_path / "run"] if trains else []
    assert_one_line(call(*arguments.split(), *out, cwd=tmp_path), message)


def test_settings_are_read_as_yaml_up_to_the_first_equals_sign():
    pairs = ("epochs=010", "kept_epochs=[1, 2]", "augmentation=a=b")
    read = {"epochs": 10, "kept_epochs": [1, 2], "augmentation": "a=b"}
    assert cli._overrides(pairs, False) == read
    assert cli._overrides((), True) == {"skip_bad": True}


def test_notebooks_are_given_absolute_paths(tmp_path, monkeypatch):
    """They are executed in another folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yml").write_text("epochs: 1\n")
    with click.Context(cli.commands):
        opened = cli._open("run", "mine.yml", "data", "run", 0, (), False)
    paths = {"profile": "mine.yml", "data_dir": "data", "run_dir": "run"}
    for parameter, name in paths.items():
        assert opened.parameters[parameter] == str(tmp_path / name)


def test_workers_are_processes_or_those_of_a_scheduler():
    assert cli._workers(3, "") == runs.Workers(3, "")
    assert cli._workers(1, "tcp://host:8786").scheduler == "tcp://host:8786"
    with pytest.raises(UserError, match="--jobs counts processes of this machine; leave it out"):
        cli._workers(2, "tcp://host:8786")


@pytest.mark.parametrize(
    ("options", "folder"), [((), predict.REFERENCE), (("--run", "mine"), "mine")]
)
def test_predict_uses_the_network_that_is_named(monkeypatch, options, folder):
    seen = []
    monkeypatch.setattr(predict, "predict", lambda *given: seen.append(given) or pytest.skip())
    with pytest.raises(pytest.skip.Exception):
        cli.commands(["predict", "A_1.tif", *options, "--out", "masks"], standalone_mode=False)
    assert seen == [(["A_1.tif"], folder, "masks")]


def test_an_unknown_option_is_explained():
    finished = call("run", "--sed", "3")
    assert finished.returncode == 2 and "No such option" in finished.stderr


def test_a_file_for_the_masks_is_refused_before_anything_is_predicted(tmp_path):
    image, mask = write_slice(tmp_path, "A", 1)
    finished = call("predict", image, "--out", mask)
    assert finished.returncode == 2 and finished.stderr.splitlines()[-1].endswith(
        "A_1_mask.tif' is a file."
    )


def test_predict_says_what_it_wrote_and_nothing_else(tmp_path):
    """TensorFlow's start-up messages must not reach the terminal."""
    write_slice(tmp_path / "scans", "A", 1, suffix=".png")
    finished = call("predict", tmp_path / "scans", "--out", tmp_path / "masks")
    assert finished.returncode == 0 and finished.stderr == ""
    assert finished.stdout.splitlines() == [
        "patient  slices  dice",
        "      A       1   1.0",
        "Mean Dice over 1 patient: 1.000.",
        f"1 slice, 0 with tumour; masks: {tmp_path / 'masks'}",
        "Not for clinical use: tested on the LGG cohort alone; nobody has validated it on other scanners.",
    ]


DICE = r"Dice 0\.\d{3}( \(95% interval 0\.\d{3} to \d\.\d{3}\))?, "


def test_train_says_how_good_it_is_and_run_reads_what_it_left(tmp_path, cohort_folder):
    """The average of two networks, as the profile ensemble has three; no notebook is executed."""
    options = ["--profile", "smoke", "--data", cohort_folder, "--out", tmp_path / "run"]
    options += ["--set", "networks=2", "--set", "hold_out=false", "--set", "epochs=1"]
    finished = call("train", *options)
    assert finished.returncode == 0, finished.stderr
    said, path = finished.stdout.splitlines()
    assert re.fullmatch(DICE + r"mean over 1 patient; trained for \d+ s\.", said)
    assert path == str(tmp_path / "run" / "metrics.json")
    assert not (tmp_path / "run" / "notebooks").exists()
    assert len(list((tmp_path / "run").glob("network_*"))) == 2
    assert len(runs.find_network(tmp_path / "run").files) == 1
    parameters = {"profile": "smoke", "data_dir": str(cohort_folder), "run_dir": tmp_path / "run"}
    overrides = {"networks": 2, "hold_out": False, "epochs": 1}
    opened = runs.open_run(**parameters, overrides=overrides)  # as every notebook does
    assert opened.path("metrics.json").exists() and opened.record()["training"]["epochs"] == 2


def test_what_a_command_says_of_its_scores(tmp_path, capsys):
    run = runs.open_run("smoke", run_dir=tmp_path / "run")
    run.note(training={"epochs": 2, "seconds": 12.3})
    run.path("per_patient.csv").write_text("patient,split\nA,test\nB,test\nC,train\n")
    for scores, said in (
        (
            {"dice_patient_mean": {"value": 0.8034, "low": 0.71, "high": 0.9}},
            "Dice 0.803 (95% interval 0.710 to 0.900), mean over 2 patients; trained for 12 s.",
        ),
        (
            {"dice_pooled": {"value": 0.5, "low": None, "high": None}},
            "Dice 0.500, all test slices, of 2 patients; trained for 12 s.",
        ),
    ):
        run.path("metrics.json").write_text(json.dumps({"test": scores}))
        cli._print_scores(run)
        assert capsys.readouterr().out == said + "\n"
    run.path("folds").mkdir()
    cli._print_scores(run)
    assert capsys.readouterr().out.endswith("; the folds trained for 12 s in all.\n")
    rows = [
        ("none", 0, "A", 0.2),
        ("none", 1, "A", 0.4),
        ("none", 0, "B", 0.7),
        ("none", 1, "B", 0.7),
    ]
    rows += [("flip", 0, "A", 0.5), ("flip", 0, "B", 0.5)]
    columns = ["condition", "seed", "patient", "dice"]
    cli._print_conditions(run, pd.DataFrame(rows, columns=columns))
    none, flip, last = capsys.readouterr().out.splitlines()
    assert none == "none                 Dice 0.500 (95% interval 0.300 to 0.700)"
    assert flip == "flip                 Dice 0.500 (95% interval 0.500 to 0.500)"
    assert last == "Mean over 2 validation patients; trained for 12 s in all."


@pytest.mark.parametrize(
    ("command", "patients", "message"),
    [
        ("run", 2, "splitting by patient needs at least 3 patients, but the data contain 2."),
        ("train", 2, "splitting by patient needs at least 3 patients, but the data contain 2."),
        ("crossval", 6, "splitting by patient needs at least 10 patients, but the data contain 6."),
    ],
)
def test_a_split_that_cannot_be_made_is_refused_before_anything_runs(
    tmp_path, command, patients, message
):
    folder = write_ellipses(tmp_path / "data", patients, 3)
    refused = call(command, "--profile", "smoke", "--data", folder, "--out", tmp_path / "run")
    assert_one_line(refused, message)
    # The folder can be used as soon as the data suffice.
    assert [path.name for path in (tmp_path / "run").glob("[!.]*")] == ["run.json"]
    assert "data" not in runs.read_record(tmp_path / "run")


def test_a_run_without_a_commit_says_so(tmp_path):
    folder = write_ellipses(tmp_path / "data", 2, 3)
    tools = {**os.environ, "PATH": ""}
    refused = call("train", "--data", folder, "--out", tmp_path / "run", env=tools)
    assert refused.stderr.startswith("lggseg: no commit is recorded: git, or the clone's history")


FOREIGN = {
    "argv": ["/no/such/python", "{connection_file}"],
    "display_name": "x",
    "language": "python",
}


def test_a_foreign_kernel_of_the_same_name_is_not_used(tmp_path, monkeypatch):
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps(FOREIGN))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    run = runs.open_run("smoke", run_dir=tmp_path / "run")
    write_notebook(tmp_path / "01_own.ipynb", "import sys\nprint(sys.executable)")
    monkeypatch.setattr(chapters, "chapters", lambda: [tmp_path / "01_own.ipynb"])
    chapters.execute(run, {"profile": "smoke", "run_dir": str(run.folder)})
    executed = json.loads(run.path("notebooks", "01_own.ipynb").read_text())
    assert executed["cells"][-1]["outputs"][0]["text"] == [f"{sys.executable}\n"]
    assert executed["metadata"]["kernelspec"]["name"] == "python3"
    assert os.environ["JUPYTER_PATH"] == str(tmp_path / "jupyter")


def write_notebook(path, source):
    """Write a notebook with the parameters of the chapters and one more cell."""
    notebook = json.loads((chapters.NOTEBOOKS / "01_data.ipynb").read_text())
    kept = [cell for cell in notebook["cells"] if cell["metadata"].get("tags") == ["parameters"]]
    notebook["cells"] = [*kept, {**kept[0], "id": "last", "metadata": {}, "source": source}]
    path.write_text(json.dumps(notebook))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            OSError(errno.ENOSPC, "No space left"),
            "the disk is full; free some space and run the same command again.",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/x"),
            "/x: permission denied; choose another folder",
        ),
    ],
)
def test_faults_of_the_disk_are_said_in_one_line(monkeypatch, fault, message):
    def fail(folder):
        raise fault

    monkeypatch.setattr(data, "fetch", fail)
    monkeypatch.setattr(sys, "argv", ["lggseg", "fetch", "x"])
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)  # pytest keeps its own
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code.startswith(f"lggseg: {message}")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_disk_that_fills_up_leaves_nothing_half_written(small_disk, cohort_folder):
    finished = call(
        "ablate", "--profile", "smoke", "--data", cohort_folder, "--out", small_disk / "run"
    )
    assert (
        finished.returncode == 1
        and "lggseg: the disk is full; free some space" in finished.stderr
        and "Traceback" not in finished.stderr
    )
    assert not list(small_disk.rglob(".part-*")) and not list(small_disk.rglob("*.keras"))


def test_a_refused_folder_has_not_been_touched(tmp_path):
    with runs.lock(tmp_path / "run"):
        refused = call("ablate", "--profile", "smoke", "--out", tmp_path / "run", "--seed", 1)
    assert_one_line(refused, "is in use by another run; wait for it, or choose another folder.")
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_training_stopped_at_a_time_limit_ends_in_one_line(tmp_path, cohort_folder):
    command = ["ablate", "--profile", "smoke", "--data", cohort_folder, "--out", tmp_path / "run"]
    command += ["--set", "epochs=500"]
    process = subprocess.Popen([LGGSEG, *map(str, command)], stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "run" / "ablation" / "none-0" / "history.csv", process)
    errors = stop(process, signal.SIGTERM)
    assert process.returncode == 1
    assert "Traceback" not in errors
    assert errors.strip().splitlines()[-1] == STOPPED


SWALLOWS = """
import os, signal, time
from lggseg_utils import cli

class Dropping:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)

def command(standalone_mode):
    try:
        Dropping()
        time.sleep(30)
    except:
        print("swallowed", flush=True)
    try:
        time.sleep(30)
    finally:
        time.sleep(2)
        print("left in order", flush=True)
        raise ValueError("another error")

cli.main(command)
"""


def test_a_stop_that_is_swallowed_is_repeated():
    """Python drops what a destructor raises, Keras has an `except:`, zipfile makes another error of it; SIGTERM comes only once."""
    finished = subprocess.run(
        [sys.executable, "-c", SWALLOWS], capture_output=True, text=True, check=False, timeout=20
    )
    assert finished.stdout == "swallowed\nleft in order\n"
    assert_one_line(finished, STOPPED)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("1 / 0", "01_broken failed: ZeroDivisionError: division by zero"),
        (
            "import os; os.kill(os.getpid(), 9)",
            "01_broken failed: its kernel died, perhaps because memory ran out",
        ),
    ],
)
def test_a_notebook_that_fails_is_named_and_its_last_success_stays(
    tmp_path, monkeypatch, source, message
):
    run = runs.open_run("smoke", run_dir=tmp_path / "run")
    success = run.path("notebooks", "01_broken.ipynb")
    success.parent.mkdir()
    success.write_text("as it was")
    write_notebook(tmp_path / "01_broken.ipynb", source)
    monkeypatch.setattr(chapters, "chapters", lambda: [tmp_path / "01_broken.ipynb"])
    with pytest.raises(UserError, match=message) as error:
        chapters.execute(run, {"profile": "smoke", "run_dir": str(run.folder)})
    assert "\n" not in str(error.value) and success.read_text() == "as it was"
