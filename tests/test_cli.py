"""The command line as a user meets it: messages, exit status, a whole smoke run."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lggseg_utils import cli, config

TOKEN = "KGAT_0123456789abcdef-planted"
LGGSEG = Path(sys.executable).with_name("lggseg")
# Shells make what they start in the background deaf to Ctrl-C; this lggseg hears it again.
HEARS_CTRL_C = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from lggseg_utils.cli import main; main()"
)


def call(*arguments, **options):
    """Run lggseg; returns the finished process with its output as text."""
    return subprocess.run(
        [LGGSEG, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=300, **options
    )


@pytest.mark.parametrize(
    "command",
    [(), ("run",), ("book",), ("phantom",), ("fetch",), ("record",), ("predict",), ("ablate",), ("crossval",)],
)
def test_help(command):
    finished = call(*command, "--help")
    assert finished.returncode == 0 and "Usage: lggseg" in finished.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--profile", "demmo"), "lggseg: unknown profile 'demmo'. Did you mean 'demo'?"),
        (("run", "--profile", "smoke", "--set", "epoch=3"), "lggseg: unknown setting 'epoch'. Did you mean 'epochs'?"),
        (("run", "--profile", "smoke", "--set", "epochs"), "lggseg: --set epochs: expected KEY=VALUE."),
        (("run", "--profile", "smoke", "--set", "split=["), "lggseg: --set split=[: the value is not valid YAML"),
        (
            ("run", "--profile", "smoke", "--set", "split=patients"),
            "lggseg: setting split: unknown value 'patients'. Did you mean 'patient'?",
        ),
        (
            ("run", "--profile", "smoke", "--data", "/no/such/folder"),
            "lggseg: data folder /no/such/folder does not exist.",
        ),
        (("book", "--run", "/no/such/run"), "is missing: execute the notebooks first, lggseg run --out /no/such/run."),
        (("record", "/no/such/run", "name"), "lggseg: /no/such/run holds no finished run"),
    ],
)
def test_a_mistake_gets_one_line_and_a_status(tmp_path, arguments, message):
    if arguments[0] == "run":
        arguments += ("--out", tmp_path / "run")
    finished = call(*arguments)
    assert finished.returncode == 1 and message in finished.stderr
    assert "Traceback" not in finished.stderr and len(finished.stderr.strip().splitlines()) == 1


def test_an_unknown_option_is_explained():
    finished = call("run", "--sed", "3")
    assert finished.returncode == 2 and "No such option" in finished.stderr


def test_phantom_writes_a_cohort(tmp_path):
    finished = call("phantom", tmp_path / "out", "--patients", 3, "--slices", 2)
    assert finished.returncode == 0 and len(list((tmp_path / "out").rglob("*.tif"))) == 12


def test_a_full_disk_is_said_in_one_line(monkeypatch, capsys, tmp_path):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lggseg_utils.phantom._write_pair", full)
    monkeypatch.setattr(sys, "argv", ["lggseg", "phantom", str(tmp_path), "--patients", "1", "--slices", "1"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == "lggseg: the disk is full; free some space and run the same command again."


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_disk_that_fills_up_while_the_cohort_is_read(small_disk, phantom_folder):
    finished = call(
        "run", "--profile", "smoke", "--data", phantom_folder, "--out", small_disk / "run", "--set", "size=128"
    )
    assert finished.returncode == 1 and "lggseg: the disk is full; free some space" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert sorted(path.name for path in (small_disk / "run").iterdir()) == [".lock", "run.json"]


@pytest.fixture
def read_only_folder(tmp_path):
    """A folder that nobody may write to, not even root."""
    folder = tmp_path / "sealed"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode:
        folder.chmod(0o555)
    yield folder
    if not mounted.returncode:
        subprocess.run(["umount", folder], check=True)


def test_a_run_folder_that_is_read_only(read_only_folder, phantom_folder):
    for folder in (read_only_folder, read_only_folder / "run"):
        finished = call("run", "--profile", "smoke", "--data", phantom_folder, "--out", folder)
        assert finished.returncode == 1 and len(finished.stderr.strip().splitlines()) == 1
        assert "sealed" in finished.stderr and "choose another folder, or change its permissions." in finished.stderr
    assert list(read_only_folder.iterdir()) == []


@pytest.fixture(scope="module")
def interrupted_run(tmp_path_factory, phantom_folder):
    """A smoke run that Ctrl-C stopped in its second notebook: its command, folder, exit status and error text."""
    folder = tmp_path_factory.mktemp("runs") / "smoke run"
    command = [
        "run",
        "--profile",
        "smoke",
        "--data",
        phantom_folder,
        "--out",
        folder,
        "--set",
        "ablation_conditions=[none]",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", HEARS_CTRL_C, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in process.stdout:
        if line.startswith("[2/"):
            break
    second = call(*command)
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    return (
        command,
        folder,
        process.returncode,
        errors,
        second,
        sorted(path.name for path in (folder / "notebooks").iterdir()),
    )


@pytest.fixture(scope="module")
def hostile_folder(tmp_path_factory):
    """A folder whose Python file would be imported in place of OpenCV by whatever is started there."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "cv2.py").write_text(f"import pathlib\npathlib.Path({str(folder / 'imported')!r}).touch()\n")
    return folder


@pytest.fixture(scope="module")
def smoke_run(interrupted_run, hostile_folder):
    """The same command again, killed with all it started at three drawn moments, then left to end; its folder and process."""
    command, folder, *_ = interrupted_run
    draw = random.Random(0)
    for _ in range(3):
        process = subprocess.Popen(
            [LGGSEG, *map(str, command)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(draw.uniform(2, 15))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    tokens = {"KAGGLE_API_TOKEN": TOKEN, "KAGGLE_KEY": TOKEN}
    finished = call(*command, env={**os.environ, **tokens}, cwd=hostile_folder)
    assert finished.returncode == 0, finished.stderr
    return folder, finished


def test_ctrl_c_ends_a_run_with_one_line(interrupted_run):
    _, _, status, errors, _, executed = interrupted_run
    assert status != 0 and "Traceback" not in errors
    assert errors.strip().splitlines()[-1] == "lggseg: stopped; the same command goes on from here."
    assert executed == ["01_data.ipynb"]


def test_a_second_run_on_the_same_folder_is_refused(interrupted_run):
    second = interrupted_run[4]
    assert second.returncode == 1 and "Traceback" not in second.stderr
    assert "smoke run is in use by another run; wait for it to end, or choose another run folder." in second.stderr


def test_nothing_is_imported_from_where_a_run_is_started(smoke_run, hostile_folder):
    assert smoke_run[1].returncode == 0 and not (hostile_folder / "imported").exists()


def test_a_run_leaves_nothing_unfinished(smoke_run):
    assert not list(smoke_run[0].rglob(".part-*"))


def test_who_is_refused_a_folder_has_not_touched_it(tmp_path):
    with config.lock(tmp_path / "run"):
        refused = call("ablate", "--profile", "smoke", "--out", tmp_path / "run", "--seed", 1)
    assert refused.returncode == 1 and "is in use by another run" in refused.stderr
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_cohort_without_tumour_teaches_nothing(tmp_path, write_slice):
    for patient in "ABC":
        write_slice(tmp_path / "cohort", patient, 1)
    refused = call("run", "--profile", "smoke", "--data", tmp_path / "cohort", "--out", tmp_path / "run")
    assert refused.returncode == 1 and "shows tumour, so there is nothing to learn." in refused.stderr


def test_a_polite_request_to_end_is_followed_as_ctrl_c_is(tmp_path, phantom_folder):
    command = [LGGSEG, "ablate", "--profile", "smoke", "--data", phantom_folder, "--out", tmp_path / "run"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "run" / "slices.csv").exists():
        time.sleep(0.05)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in errors
    assert errors.strip().splitlines()[-1] == "lggseg: stopped; the same command goes on from here."


def test_a_token_reaches_nothing_that_a_run_leaves(smoke_run):
    folder, finished = smoke_run
    left = [path for path in folder.rglob("*") if path.is_file()]
    assert len(left) > 20 and not [path for path in left if TOKEN.encode() in path.read_bytes()]
    assert TOKEN not in finished.stdout + finished.stderr


def test_a_run_leaves_everything_the_contract_names(smoke_run):
    folder, finished = smoke_run
    files = [
        "run.json",
        "slices.csv",
        "split.csv",
        "history.csv",
        "model.keras",
        "metrics.json",
        "per_slice.csv",
        "per_patient.csv",
        "ablation.csv",
    ]
    assert not [name for name in files if not (folder / name).exists()]
    assert sorted(path.name for path in (folder / "notebooks").iterdir()) == sorted(
        path.name for path in (config.REPOSITORY / "notebooks").glob("*.ipynb")
    )
    assert finished.stdout.splitlines()[-1] == str(folder / "notebooks")
    assert json.loads((folder / "run.json").read_text())["wall_seconds"] > 0
    assert not list(folder.rglob(".part-*"))


@pytest.mark.parametrize(("seed", "same"), [(0, True), (1, False)])
def test_the_same_seed_gives_the_same_metrics_though_one_run_was_stopped_and_killed(
    smoke_run, phantom_folder, tmp_path, seed, same
):
    from lggseg_utils import evaluate

    run = config.open_run("smoke", phantom_folder, tmp_path / "run", seed, {"ablation_conditions": ["none"]})
    evaluate.evaluate(run)
    for name in ("metrics.json", "per_slice.csv"):
        assert (run.path(name).read_text() == (smoke_run[0] / name).read_text()) == same


def test_executed_notebooks_have_no_errors_and_took_seconds(smoke_run):
    folder, _ = smoke_run
    for path in (folder / "notebooks").iterdir():
        notebook = json.loads(path.read_text())
        outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
        assert outputs and not [output for output in outputs if output["output_type"] == "error"]
        assert not [output for output in outputs if output.get("name") == "stdout"], path.name


def test_the_same_folder_with_other_settings_is_refused(smoke_run, phantom_folder):
    finished = call("run", "--profile", "smoke", "--data", phantom_folder, "--out", smoke_run[0], "--seed", 5)
    assert (
        finished.returncode == 1
        and "was made with" in finished.stderr
        and "choose another run folder" in finished.stderr
    )


@pytest.mark.parametrize(
    ("source", "earlier", "message"),
    [
        ("1 / 0", None, "01_broken failed: ZeroDivisionError: division by zero"),
        (
            "import os; os.kill(os.getpid(), 9)",
            "as it was",
            "01_broken failed: its kernel died, perhaps for want of memory",
        ),
    ],
)
def test_a_notebook_that_fails_is_named_and_its_last_success_stays(
    tmp_path, phantom_folder, monkeypatch, source, earlier, message
):
    from lggseg_utils import book
    from lggseg_utils.config import UserError

    run = config.open_run("smoke", str(phantom_folder), tmp_path / "run")
    success = run.path("notebooks", "01_broken.ipynb")
    success.parent.mkdir()
    if earlier:
        success.write_text(earlier)
    broken = tmp_path / "01_broken.ipynb"
    notebook = json.loads((config.REPOSITORY / "notebooks" / "01_data.ipynb").read_text())
    kept = [cell for cell in notebook["cells"] if cell["metadata"].get("tags") == ["parameters"]]
    notebook["cells"] = [*kept, {**kept[0], "id": "last", "metadata": {}, "source": source}]
    broken.write_text(json.dumps(notebook))
    monkeypatch.setattr(book, "chapters", lambda: [broken])
    with pytest.raises(UserError, match=message) as error:
        book.execute(run, {"profile": "smoke", "data_dir": str(phantom_folder), "run_dir": str(run.folder)})
    assert "\n" not in str(error.value)
    assert (success.read_text() if success.exists() else None) == earlier
    assert not list(run.folder.rglob(".part-*"))


def test_a_parameter_that_a_notebook_does_not_declare_is_refused(tmp_path):
    from lggseg_utils import book
    from lggseg_utils.config import UserError

    with pytest.raises(UserError, match="01_data.ipynb does not declare the parameter sead"):
        book.execute(config.open_run("smoke", run_dir=tmp_path), {"sead": 1})


HOSTILE = "'); open('stolen', 'w') #\" \\ {x} ü \n../.. "


def test_parameters_are_data_whatever_they_hold(tmp_path, phantom_folder, monkeypatch):
    import papermill
    from papermill.exceptions import PapermillExecutionError

    monkeypatch.chdir(tmp_path)
    data = tmp_path / "the 'cohort' \"ü\" {x}"
    data.symlink_to(phantom_folder)
    notebook = str(config.REPOSITORY / "notebooks" / "02_preprocessing.ipynb")
    parameters = {"profile": "smoke", "data_dir": str(data), "run_dir": str(tmp_path / f"run {HOSTILE[:-8]}")}
    before = set(tmp_path.iterdir())
    papermill.execute_notebook(notebook, str(tmp_path / "done.ipynb"), parameters, progress_bar=False)
    assert {path.name for path in set(tmp_path.iterdir()) - before} == {"done.ipynb", Path(parameters["run_dir"]).name}
    assert (Path(parameters["run_dir"]) / "split.csv").exists()
    with pytest.raises(PapermillExecutionError, match="unknown profile"):
        papermill.execute_notebook(
            notebook, str(tmp_path / "bad.ipynb"), {"profile": HOSTILE, "run_dir": "x"}, progress_bar=False
        )
    assert not list(tmp_path.rglob("stolen"))
