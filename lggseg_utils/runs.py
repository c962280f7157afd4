"""The run folder: opened, locked, written whole or not at all; and the records kept of finished runs."""

import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from lggseg_utils.settings import Experiment, UserError, load_experiment

REPOSITORY = Path(__file__).resolve().parent.parent
RECORDS = REPOSITORY / "records"
RECORDED_LIBRARIES = ("tensorflow", "keras", "numpy", "opencv-python-headless", "pillow", "scikit-learn")
# The numbers of a run: what a record keeps. Images and weights stay in the run folder.
RECORDED_FILES = (
    "run.json",
    "split.csv",
    "history.csv",
    "metrics.json",
    "per_slice.csv",
    "per_patient.csv",
    "ablation.csv",
    "ablation_patients.csv",
)
FINISHED = ("metrics.json", "ablation.csv")  # one of them is written last


@contextmanager
def write_whole(path):
    """Yield a temporary path beside `path` and rename it when the block ends; on an error nothing is left behind."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".part-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def stderr_into(path):
    """Send what this process and its children write to standard error into a file; yield a stream to the real one.

    TensorFlow writes its start-up messages there past Python, whatever it is told.
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
    """Write `content` as indented JSON, whole or not at all."""
    with write_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_csv(path, table):
    """Write a pandas table without its index, whole or not at all; floats keep nine significant digits."""
    with write_whole(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.9g", lineterminator="\n")


def read_csv(path):
    """Return a table that `write_csv` wrote; patients' names stay text, '01' and 'NA' too."""
    try:
        return pd.read_csv(path, dtype={"patient": str}, keep_default_na=False, na_values=[""])
    except ValueError as problem:
        reason = " ".join(str(problem).split())
        raise UserError(f"{path} is damaged ({reason}); remove it, and it is made again.") from None


def read_record(folder):
    """Return a folder's run.json as a dictionary; raise `UserError` where it is missing or damaged."""
    path = Path(folder, "run.json")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {**record, "subcommand": record["command"].split()[1], "experiment": dict(record["experiment"])}
    except FileNotFoundError:
        raise UserError(f"{folder} is no run folder: run.json is missing.") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise UserError(f"{path} is damaged; remove {folder} or choose another run folder.") from None


def recorded_experiment(folder):
    """Return the `Experiment` that a run folder or a record was made with.

    Settings that did not exist then have their default, which does what was done then; those that exist no more are left out.
    """
    settings = read_record(folder)["experiment"]
    return Experiment(**{name: value for name, value in settings.items() if name in Experiment.model_fields})


@dataclass(frozen=True)
class Run:
    """One execution: an experiment, the folder that holds all it makes, and the data it reads ('' for the sample)."""

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
        """Add facts to run.json."""
        record = {**self.record(), **facts}
        record.pop("subcommand")
        write_json(self.path("run.json"), record)

    def note_end(self):
        """Add the time and the commit at which the results were finished: a resumed run may end at another commit."""
        self.note(ended={"time": _now(), "git_commit": _git_commit()})


def open_run(profile="demo", data_dir="", run_dir="", seed=0, overrides=None, command="run"):
    """Return the `Run` of an experiment; its folder is made when it is missing.

    Empty `data_dir` stands for the sample, empty `run_dir` for a folder under runs/ named after the profile. `command` is
    the subcommand of lggseg that repeats the run. Raises `UserError` for a folder of other settings or another command.
    """
    experiment = load_experiment(profile, seed, overrides)
    run = Run(experiment, run_folder(profile, data_dir, run_dir, seed, overrides, command), str(data_dir))
    if run.path("run.json").exists():
        _refuse_other_settings(run, command)
    else:
        write_json(run.path("run.json"), _first_record(run, overrides, command))
    return run


def run_folder(profile="demo", data_dir="", run_dir="", seed=0, overrides=None, command="run"):
    """Return the absolute path of the folder that `open_run` opens with these arguments.

    Raises `UserError` for a file, and for a folder that holds files but is no run folder.
    """
    folder = Path(run_dir or _default_folder(profile, data_dir, seed, overrides, command)).expanduser().resolve()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"run folder {folder} is a file; name a folder.")
    if folder.is_dir() and not folder.joinpath("run.json").exists():
        found = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        if found:
            raise UserError(f"{folder} is no run folder, but holds {found[0]}; choose another folder.")
    return folder


def _default_folder(profile, data_dir, seed, overrides, command):
    """Return runs/PROFILE, with the command and a digest of whatever else differs from the profile's own run."""
    name = Path(str(profile)).stem + ("" if command == "run" else f"-{command}")
    if seed or overrides or data_dir:
        different = json.dumps([seed, overrides, str(data_dir)], sort_keys=True, default=str)
        name += "-" + hashlib.sha256(different.encode()).hexdigest()[:6]
    return REPOSITORY / "runs" / name


def lock(folder):
    """Return a held lock on a run folder, for `with`; the end of the process releases it. Makes a missing folder.

    Raises `UserError` where another process holds it. What a killed process left half-written is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(folder / ".lock", timeout=0).acquire()
    except Timeout:
        raise UserError(
            f"run folder {folder} is in use by another run; wait for it, or choose another folder."
        ) from None
    for left in folder.rglob(".part-*"):
        left.unlink()
    return held


def _refuse_other_settings(run, command):
    """Compare a run folder's recorded experiment and command with those asked for."""
    record = run.record()
    if record["subcommand"] != command:
        raise UserError(f"run folder {run.folder} was made by '{record['command']}'; choose another run folder.")
    then, now = recorded_experiment(run.folder).model_dump(), run.experiment.model_dump()
    for name, value in now.items():
        if value != then[name]:
            raise UserError(
                f"run folder {run.folder} was made with {name} {then[name]!r}, not {value!r}; "
                "choose another run folder, or remove this one."
            )


def _first_record(run, overrides, command):
    """Return what run.json says before anything has run."""
    return {
        "experiment": json.loads(run.experiment.model_dump_json()),
        "command": f"lggseg {command} {_options(run, overrides)}",
        "created": _now(),
        "git_commit": _git_commit(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in RECORDED_LIBRARIES}},
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "system": platform.system()},
    }


def _now():
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _options(run, overrides):
    """Return the options that repeat the run; the data folder's place differs from machine to machine."""
    pairs = [f"{name}={json.dumps(value)}" for name, value in (overrides or {}).items()]
    sets = "".join(f" --set {shlex.quote(pair)}" for pair in pairs)
    data = " --data DATA_FOLDER" if run.data_dir else ""
    return f"--profile {run.experiment.profile} --seed {run.experiment.seed}{data}{sets}"


def _version(library):
    """Return the version of an installed library, or None (Colab names some differently)."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _processor():
    """Return the processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _git_commit():
    """Return the checkout's commit, with '-dirty' where files differ from it; None outside a checkout."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


@dataclass(frozen=True)
class Record:
    """The numbers of one finished run, cross-validation or ablation; what it does not have is None.

    run: run.json; metrics: metrics.json, set -> score -> {"value", "low", "high"}; the others are the tables of that name.
    own_grid: per_slice on the grid of a network that works on another one than 128x128.
    """

    name: str
    run: dict
    metrics: dict | None
    per_slice: pd.DataFrame | None
    per_patient: pd.DataFrame | None
    history: pd.DataFrame | None
    split: pd.DataFrame | None
    ablation: pd.DataFrame | None
    own_grid: pd.DataFrame | None

    @property
    def epochs(self):
        """Epochs of each training; older ablations had a setting of their own for it."""
        settings = self.run["experiment"]
        return settings.get("ablation_epochs" if self.metrics is None else "epochs", settings["epochs"])


def load_record(name):
    """Return the `Record` of that name under records/, or of a finished run folder, given by its path."""
    folder = RECORDS / name
    if not any((folder / file).exists() for file in FINISHED):
        raise UserError(f"{folder} holds no finished run: metrics.json is missing. Run the evaluation first.")
    metrics = folder / "metrics.json"
    scores = json.loads(metrics.read_text(encoding="utf-8")) if metrics.exists() else None
    files = ("per_slice", "per_patient", "history", "split", "ablation_patients", "per_slice_own_grid")
    paths = [folder / f"{file}.csv" for file in files]
    tables = [read_csv(path) if path.exists() else None for path in paths]
    return Record(folder.name, read_record(folder), scores, *tables)


def record_names():
    """Return the names of all records, sorted."""
    return sorted(path.parent.name for path in RECORDS.glob("*/run.json"))


def record(folder, name):
    """Copy a finished run's numbers to records/NAME and return that folder; images and weights are left out."""
    load_record(Path(folder).resolve())
    target = RECORDS / name
    if not re.fullmatch(r"[\w-]+", name):
        raise UserError(f"'{name}' can't name a record: use letters, digits and hyphens.")
    if target.exists():
        raise UserError(f"{target} is there already; remove it first, or choose another name.")
    temporary = Path(tempfile.mkdtemp(prefix=".part-", dir=RECORDS))
    for file in RECORDED_FILES:
        if Path(folder, file).exists():
            shutil.copyfile(Path(folder, file), temporary / file)
    temporary.chmod(0o755)
    temporary.replace(target)
    return target
