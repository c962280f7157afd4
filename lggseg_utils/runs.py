"""Run folders, written atomically and used by one process at a time."""

import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from filelock import FileLock, Timeout

from lggseg_utils.settings import Experiment, UserError, load_experiment

REPOSITORY = Path(__file__).resolve().parent.parent
LIBRARIES = [
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "scikit-learn",
]


@contextmanager
def write_whole(path):
    """Yield a temporary path beside `path`, and rename it when the block ends.

    On an error nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".part-{os.getpid()}-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def stderr_into(path):
    """Send what this process and its children write to standard error into a file.

    Yields a stream to the real one. TensorFlow writes its start-up messages to standard error past
    Python, whatever it is told.
    """
    saved = os.dup(2)
    with Path(path).open("a", encoding="utf-8") as log, os.fdopen(os.dup(saved), "w") as terminal:
        os.dup2(log.fileno(), 2)
        try:
            yield terminal
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def write_json(path, content):
    """Write `content` as indented JSON, atomically."""
    with write_whole(path) as temporary:
        temporary.write_text(
            json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def write_csv(path, table):
    """Write a pandas table without its index, atomically; floats keep nine significant digits."""
    with write_whole(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.9g", lineterminator="\n")


def read_csv(path):
    """Return a table that `write_csv` wrote; patients' names stay text, '01' and 'NA' too."""
    try:
        return pd.read_csv(path, dtype={"patient": str}, keep_default_na=False, na_values=[""])
    except ValueError as problem:
        reason = " ".join(str(problem).split())
        raise UserError(
            f"{path} is damaged ({reason}); delete it and run the command that wrote it again."
        ) from None


def read_record(folder):
    """Return a folder's run.json as a dictionary; `UserError` where it is missing or damaged."""
    try:
        return json.loads(Path(folder, "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} is not a run folder: run.json is missing.") from None
    except ValueError:
        raise UserError(
            f"{folder}/run.json is damaged; remove {folder} or choose another run folder."
        ) from None


def recorded_experiment(folder):
    """Return the `Experiment` of a run folder or record.

    Settings that no longer exist are left out, and new ones have their default.
    """
    settings = read_record(folder)["experiment"]
    return Experiment(
        **{name: value for name, value in settings.items() if name in Experiment.model_fields}
    )


class Network(NamedTuple):
    """A trained network, not yet loaded: its experiment, and the files that are averaged."""

    experiment: Experiment
    files: list


def find_network(folder):
    """Return the `Network` of a folder: of a run, a cross-validation, one fold, or the reference.

    Of a cross-validation, all folds are averaged. Raises `UserError` for any other folder.
    """
    folder = home = Path(folder)
    if folder.is_file():
        raise UserError(f"{folder} is a file; name the folder of its run or fold.")
    if (folder / "model.keras").exists() and not (folder / "run.json").exists():
        # A fold, or a training of an ablation, has its settings two folders up.
        home = folder.resolve().parents[1]
    experiment = recorded_experiment(home)
    for name in ("model.keras", "weights.npz"):
        if (folder / name).exists():
            return Network(experiment, [folder / name])
    if not (folder / "folds").is_dir():
        raise UserError(f"{folder} contains no trained network (model.keras); name a finished run.")
    if not (folder / "metrics.json").exists():
        raise UserError(f"{folder} is not finished; the command that began it resumes it.")
    return Network(experiment, _networks_of_folds(folder))


def _networks_of_folds(folder):
    """Return the files of a finished cross-validation's networks; `UserError` if one is missing."""
    folds = read_csv(folder / "split.csv").query("split == 'test'")["fold"].unique()
    files = [folder / "folds" / str(fold) / "model.keras" for fold in sorted(folds)]
    for file in files:
        if not file.exists():
            raise UserError(
                f"{file} is missing; delete {folder / 'metrics.json'} and run the command that "
                "trained it again."
            )
    return files


@dataclass(frozen=True)
class Run:
    """One execution: an experiment, its folder, and the data it reads ('' for the sample)."""

    experiment: Experiment
    folder: Path
    data_dir: str

    def path(self, *parts):
        """Return the path of a file in the run folder."""
        return self.folder.joinpath(*parts)

    def record(self):
        """Return the content of run.json as a dictionary."""
        return read_record(self.folder)

    def note(self, **facts):
        """Add facts to run.json; what it says already is not written again.

        Chapters are executed side by side, and one that repeats what is known must not undo what
        another has just added.
        """
        record = self.record()
        if {**record, **facts} != record:
            write_json(self.path("run.json"), {**record, **facts})

    def note_end(self, **facts):
        """Add facts, and the time and commit at the end: a run may be resumed by other code."""
        self.note(**facts, ended={"time": _now(), "git_commit": git_commit()})


@dataclass(frozen=True)
class Workers:
    """Where independent jobs run: in this process, or in several `processes` of this machine.

    With the address of a Dask `scheduler` (tcp://HOST:8786), they run on its workers.
    """

    processes: int = 1
    scheduler: str = ""


def open_run(profile="demo", data_dir="", run_dir="", seed=0, overrides=None, command="run"):
    """Return the `Run` of an experiment; a missing folder is created.

    Empty `data_dir` stands for the sample, empty `run_dir` for a folder under runs/ named after the
    profile. `command` is the subcommand of lggseg that repeats the run; `run` and `train` share
    their folders. Raises `UserError` for a folder of other settings or of another command.
    """
    experiment = experiment_of(command, profile, seed, overrides)
    folder = run_folder(profile, data_dir, run_dir, seed, overrides, command)
    run = Run(experiment, folder, str(data_dir))
    # Before data are accepted, nothing depends on the first settings.
    if not run.path("run.json").exists() or "data" not in run.record():
        write_json(run.path("run.json"), _first_record(run, overrides, command))
    _check_same_command(run, command)
    _check_same_settings(run)
    return run


def experiment_of(command, profile, seed, overrides):
    """Return the `Experiment` of a profile; `UserError` where a command can't do with it."""
    experiment = load_experiment(profile, seed, overrides)
    if command == "ablate" and (experiment.networks > 1 or not experiment.hold_out):
        raise UserError(
            "settings networks and hold_out: an ablation trains single networks and compares them "
            "on validation patients; set them to 1 and true."
        )
    return experiment


def made_by(folder):
    """Return the subcommand of lggseg that made a run folder; '' where it was none of them."""
    program, _, arguments = read_record(folder)["command"].partition(" ")
    return arguments.split()[0] if program == "lggseg" and arguments else ""


def _check_same_command(run, command):
    """Refuse a folder of another command; `run` and `train` go on with each other's folders."""
    made, shared = made_by(run.folder), ("run", "train")
    if made != command and not (made in shared and command in shared):
        raise UserError(
            f"run folder {run.folder} was made by '{run.record()['command']}'; "
            "choose another run folder."
        )


def _check_same_settings(run):
    """Refuse a folder that was made with other settings than its `Run` has."""
    then, now = recorded_experiment(run.folder).model_dump(), run.experiment.model_dump()
    for name, value in now.items():
        if value != then[name]:
            raise UserError(
                f"run folder {run.folder} was made with {name} {then[name]!r}, not {value!r}; "
                "choose another run folder, or remove this one."
            )


def run_folder(profile="demo", data_dir="", run_dir="", seed=0, overrides=None, command="run"):
    """Return the absolute path of the folder that `open_run` opens with these arguments.

    Raises `UserError` for a file, and for a folder that holds files but is no run folder.
    """
    # papermill's `-p run_dir 7`, say a job's number, passes an integer.
    chosen = str(run_dir) or _default_folder(profile, data_dir, seed, overrides, command)
    folder = Path(chosen).expanduser().resolve()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"run folder {folder} is a file; name a folder.")
    found = next(folder.glob("[!.]*"), None)
    if found and not folder.joinpath("run.json").exists():
        raise UserError(
            f"{folder} is not a run folder but contains {found.name}; choose another folder."
        )
    return folder


def _default_folder(profile, data_dir, seed, overrides, command):
    """Return the folder under runs/ of these arguments; others have another one."""
    require_clone("to run without --out")
    name = Path(str(profile)).stem + ("" if command in ("run", "train") else f"-{command}")
    if seed or overrides or data_dir:
        different = json.dumps([seed, overrides, str(data_dir)], sort_keys=True, default=str)
        name += "-" + hashlib.sha256(different.encode()).hexdigest()[:6]
    return REPOSITORY / "runs" / name


def require_clone(purpose):
    """Raise `UserError` where the package is installed without the repository around it."""
    if not (REPOSITORY / "notebooks").is_dir():
        raise UserError(
            f"{purpose}, lggseg needs a clone of the repository, and it is installed without one; "
            "clone it and run 'pip install -e .' there."
        )


def lock(folder):
    """Return a lock on a run folder, for `with`; it ends with the process.

    A missing folder is created, and what a killed process left half-written is removed. Raises
    `UserError` where another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(folder / ".lock", timeout=0).acquire()
    except Timeout:
        raise UserError(
            f"{folder} is in use by another run; wait for it, or choose another folder."
        ) from None
    for left in folder.rglob(".part-*"):
        left.unlink(missing_ok=True)
    return held


def _first_record(run, overrides, command):
    """Return the first content of run.json, which names no place of this machine."""
    data = " --data DATA_FOLDER" if run.data_dir else ""
    options = f"--profile {shlex.quote(run.experiment.profile)} --seed {run.experiment.seed}{data}"
    pairs = [f"{name}={json.dumps(value)}" for name, value in (overrides or {}).items()]
    return {
        "experiment": json.loads(run.experiment.model_dump_json()),
        "command": f"lggseg {command} {options}"
        + "".join(f" --set {shlex.quote(pair)}" for pair in pairs),
        "created": _now(),
        "git_commit": git_commit(),
        "versions": {"python": platform.python_version(), **_versions()},
        "machine": {
            "processor": _processor(),
            "gpu": _gpu(),
            "cores": os.cpu_count(),
            "system": platform.system(),
        },
    }


def _now():
    """Return the time in UTC, to the second, as text."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions():
    """Return the versions of the LIBRARIES that are installed, and of Keras' backend."""
    names = dict.fromkeys([*LIBRARIES, os.environ.get("KERAS_BACKEND", "tensorflow")])
    return {
        name: found.version
        for name in names
        if (found := next(metadata.distributions(name=name), None))
    }


def _gpu():
    """Return the name of the machine's NVIDIA GPU, a line each for several; '' for none."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    told = shutil.which(query[0]) and subprocess.run(
        query, capture_output=True, text=True, check=False
    )
    return told.stdout.strip() if told and told.returncode == 0 else ""


def _processor():
    """Return the processor's name, where the system tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return (names or [platform.processor() or platform.machine()])[0]


def git_commit():
    """Return the checkout's commit, with '-dirty' where files differ from it.

    Returns '' outside a checkout, and without git.
    """
    if not shutil.which("git"):
        return ""
    # git refuses a clone that another user owns, since its settings can run programs. This process
    # runs that clone's code already.
    trusted = ["git", "-c", f"safe.directory={REPOSITORY}", "-C", str(REPOSITORY)]
    described = ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    told = subprocess.run([*trusted, *described], capture_output=True, text=True, check=False)
    return told.stdout.strip()
