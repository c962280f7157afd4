"""The experiment: its settings, the named profiles, and the run folder that records it."""

import difflib
import hashlib
import json
import os
import platform
import reprlib
import shlex
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

import yaml
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

# What a run writes into its folder beside run.json.
MADE = (
    "cohort", "slices.csv", "split.csv", "history.csv", "model.keras", "metrics.json", "per_slice.csv", "ablation", "ablation.csv",
    "folds", "notebooks",
)  # fmt: skip
REPOSITORY = Path(__file__).resolve().parent.parent
PROFILES = Path(__file__).resolve().parent / "profiles"
AUGMENTATIONS = (
    "rotation",
    "flip",
    "shift",
    "crop_zoom",
    "crop_pad",
    "shear",
    "noise",
    "gaussian_filter",
    "contrast",
    "brightness",
    "rotate_90",
)
COMPOSITIONS = {"none": (), "report": ("flip", "rotate_90"), "all": AUGMENTATIONS}
RECORDED_LIBRARIES = ("tensorflow", "keras", "numpy", "opencv-python-headless", "scikit-learn", "nilearn")


class UserError(Exception):
    """Something the user can put right; shown as one line, without a traceback."""

    def _render_traceback_(self):
        """Jupyter calls this instead of printing a traceback."""
        return [f"Error: {self}"]


class Experiment(BaseModel):
    """Every setting of one experiment. Frozen; unknown names and values out of range are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: str
    seed: int = Field(0, ge=0, lt=2**31, description="seed of the split, the weights, the order and the augmentation")

    size: int = Field(128, ge=16, le=512, description="side of the slices the model sees, in pixels")
    score_size: int = Field(128, ge=16, le=512, description="side of the grid that scores are taken on, in pixels")
    scaling: Literal["slice", "channel", "volume", "head", "dataset"] = Field(
        "slice", description="what the range of values is taken over"
    )
    context: int = Field(0, ge=0, le=3, description="neighbouring slices shown with each one, on either side")
    split: Literal["slice", "patient"] = Field("slice", description="what is drawn at random into the three sets")
    skip_bad: bool = Field(False, description="go on without the slices that fail the checks")

    filters: int = Field(32, ge=1, le=256, description="filters of the first level, doubled at each level below")
    depth: int = Field(5, ge=2, le=6, description="number of levels")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout rate after each convolution")
    normalization: Literal["none", "batch"] = Field("none", description="normalisation after each convolution")
    output: Literal["sigmoid", "softmax"] = Field("sigmoid", description="one sigmoid channel, or two with softmax")

    loss: Literal["binary_crossentropy", "categorical_crossentropy", "dice_crossentropy"] = Field(
        "binary_crossentropy", description="what training makes small"
    )
    batch_size: int = Field(16, ge=1, le=1024, description="slices a training step")
    epochs: int = Field(100, ge=1, le=10_000, description="passes over the training set, at most")
    learning_rate: float = Field(0.001, gt=0, le=1, description="Adam's learning rate; 0.001 is Keras' default")
    schedule: Literal["constant", "cosine"] = Field("constant", description="course of the learning rate")
    augmentation: str = Field("none", description="a composition, or names joined by +")
    early_stopping: int = Field(
        0, ge=0, description="stop after so many epochs without a lower validation loss; 0: never"
    )
    weights: Literal["last", "best"] = Field(
        "last", description="weights that are scored: last epoch, or lowest validation loss"
    )
    test_time_flips: bool = Field(False, description="average the predictions of four mirror images of a slice")
    largest_component: bool = Field(
        False, description="keep the largest connected piece of a patient's prediction alone"
    )
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "auto", description="arithmetic of the training; auto: what the machine does fastest"
    )

    ablation_conditions: tuple[str, ...] = Field(("none", "report", "all"), description="augmentations compared")
    ablation_seeds: int = Field(1, ge=1, le=20, description="trainings a condition")
    ablation_epochs: int = Field(10, ge=1, description="epochs of each of these trainings")
    ablation_filters: int = Field(16, ge=1, le=256, description="filters of the model used in them")

    phantom_patients: int = Field(
        40, ge=3, le=2000, description="patients of the phantom cohort, where no data are named"
    )
    phantom_slices: int = Field(12, ge=1, le=100, description="slices a phantom patient")


def with_defaults(settings):
    """Recorded settings with the default of those that did not exist yet: what was made then did nothing of the kind."""
    return {name: field.default for name, field in Experiment.model_fields.items()} | settings


def recorded_experiment(folder):
    """The `Experiment` that a run folder, or a record of one, was made with."""
    try:
        return Experiment(**with_defaults(read_record(folder)["experiment"]))
    except ValidationError as error:
        raise UserError(f"{Path(folder, 'run.json')}: {_explain(error.errors()[0])}") from None


def nearest(name, known):
    """Return a sentence that lists `known` names and suggests the one most like `name`."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    suggestion = f" Did you mean '{close[0]}'?" if close else ""
    return f"{suggestion} Known: {', '.join(known)}."


def place(path):
    """The absolute path behind what a user typed; raises `UserError` for what can't be one."""
    try:
        found = Path(str(path)).expanduser().resolve()
        str(found).encode()
    except (RuntimeError, OSError, ValueError) as problem:
        raise UserError(f"{str(path)!r} can't be used as a path ({problem}); name another one.") from None
    return found


def profile_names():
    """Return the names of the profiles that come with the package, sorted."""
    return sorted(path.stem for path in PROFILES.glob("*.yml"))


def read_profile(profile):
    """Return a profile's settings as a dictionary; `profile` is a name or the path of a YAML file."""
    path = PROFILES / f"{profile}.yml" if str(profile) in profile_names() else place(profile)
    if path.suffix not in (".yml", ".yaml") or not path.is_file():
        raise UserError(
            f"unknown profile '{profile}'.{nearest(profile, profile_names())} A YAML file of yours will do too."
        )
    try:
        settings = read_yaml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"profile {path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(settings, dict | None):
        raise UserError(f"profile {path} must be a list of 'setting: value' lines.")
    return settings or {}


def read_yaml(text):
    """What YAML text says; raises ValueError for text that is none, however its reader fails on it."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise ValueError(str(error)) from None


def load_experiment(profile="demo", seed=0, overrides=None):
    """Return the `Experiment` of a profile with `overrides` applied; raise `UserError` for what does not fit."""
    if not isinstance(overrides, dict | None):
        raise UserError(f"overrides: expected settings and their values, got {reprlib.repr(overrides)}.")
    settings = {**read_profile(profile), **(overrides or {})}
    own = {"profile": Path(str(profile)).stem, "seed": seed}
    known = [name for name in Experiment.model_fields if name not in own]
    for name in settings:
        if name not in known:
            raise UserError(f"unknown setting {reprlib.repr(name)}.{nearest(name, known)}")
    try:
        experiment = Experiment(**settings, **own)
    except ValidationError as error:
        raise UserError(_explain(error.errors()[0])) from None
    _check_together(experiment)
    return experiment


def _explain(problem):
    """Turn pydantic's first finding into one line for a user."""
    name, value = problem["loc"][0], problem["input"]
    choices = getattr(getattr(Experiment.model_fields.get(name), "annotation", None), "__args__", ())
    if problem["type"] == "literal_error":
        return f"setting {name}: unknown value {reprlib.repr(value)}.{nearest(value, choices)}"
    return f"setting {name}: {problem['msg'].lower()}, got {reprlib.repr(value)}."


def _check_together(experiment):
    """Refuse settings that contradict each other."""
    if (experiment.loss == "categorical_crossentropy") != (experiment.output == "softmax"):
        raise UserError("loss categorical_crossentropy and output softmax belong together: set both or neither.")
    if experiment.largest_component and experiment.split != "patient":
        raise UserError("largest_component needs whole patients: set split to patient, or leave it out.")
    multiple = 2 ** (experiment.depth - 1)
    if experiment.size % multiple:
        raise UserError(
            f"setting size: {experiment.size} can't be halved {experiment.depth - 1} times; use a multiple of {multiple}."
        )
    for augmentation in (experiment.augmentation, *experiment.ablation_conditions):
        parse_augmentation(augmentation)


def parse_augmentation(text):
    """Return the names behind a composition ('report') or names joined by + ('flip+noise'), as a tuple."""
    if text in COMPOSITIONS:
        return COMPOSITIONS[text]
    names = tuple(text.split("+"))
    for name in names:
        if name not in AUGMENTATIONS:
            raise UserError(f"unknown augmentation '{name}'.{nearest(name, (*COMPOSITIONS, *AUGMENTATIONS))}")
    if len(set(names)) < len(names):
        raise UserError(f"augmentation {text}: name each one once.")
    return names


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


def write_json(path, content):
    """Write `content` as indented JSON, whole or not at all."""
    with write_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_image(path, pixels, *options):
    """Write pixels, blue first, as an image of the kind that the name's ending says, whole or not at all."""
    import cv2

    # Encoded first: OpenCV itself says nothing of a full disk.
    _, content = cv2.imencode(Path(path).suffix, pixels, options)
    with write_whole(path) as temporary:
        temporary.write_bytes(content)


def write_csv(path, table):
    """Write a pandas table without its index, whole or not at all; floats keep nine significant digits."""
    with write_whole(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.9g", lineterminator="\n")


def read_csv(path):
    """Read a table that `write_csv` wrote; names of patients stay text, '01' and 'NA' too. Raises `UserError` for a damaged one."""
    import pandas as pd

    try:
        return pd.read_csv(path, dtype={"patient": str}, keep_default_na=False, na_values=[""])
    except ValueError as problem:
        raise UserError(
            f"{path} is damaged ({' '.join(str(problem).split())}); remove it, and it is made again."
        ) from None


def read_record(folder):
    """The content of a folder's run.json as a dictionary; raises `UserError` where it is missing or damaged."""
    path = Path(folder, "run.json")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        with_defaults(record["experiment"])
        # What is read of it later, where nobody looks for damage any more.
        record["command"].split()[1]
        record.get("data", {}).get("fingerprint")
    except FileNotFoundError:
        raise UserError(f"{folder} is no run folder: run.json is missing.") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise UserError(f"{path} is damaged; remove {folder} or choose another run folder.") from None
    return record


@dataclass(frozen=True)
class Run:
    """One execution: an experiment, the folder that holds all it makes, and the data it reads ('' for the phantom)."""

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
        write_json(self.path("run.json"), {**self.record(), **facts})

    def note_end(self):
        """Add when, and at which commit, the last results were made: an interrupted run may go on at another one."""
        self.note(ended={"time": _now(), "git_commit": _git_commit()})


def default_folder(profile, seed, overrides, data_dir, command="run"):
    """Return runs/PROFILE, with the command and a short digest of what else differs from the profile's own run."""
    different = json.dumps([seed, overrides, str(data_dir)], sort_keys=True, default=str)
    plain = not seed and not overrides and not data_dir
    made_by = "" if command == "run" else f"-{command}"
    suffix = made_by if plain else f"{made_by}-" + hashlib.sha256(different.encode()).hexdigest()[:6]
    return REPOSITORY / "runs" / (Path(str(profile)).stem + suffix)


def open_run(profile="demo", data_dir="", run_dir="", seed=0, overrides=None, command="run"):
    """Open the run folder of an experiment, made when it is missing.

    Empty `data_dir` stands for the phantom cohort, empty `run_dir` for a folder under runs/ named after the
    profile. `command`: the subcommand of lggseg that makes the run again, for the record. A folder that was made with
    other settings, or by another command, is refused with a `UserError`.
    """
    experiment = load_experiment(profile, seed, overrides)
    run = Run(experiment, run_folder(profile, data_dir, run_dir, seed, overrides, command), str(data_dir))
    if run.path("run.json").exists() and "data" in run.record():
        _refuse_other_settings(run, command)
    else:
        write_json(run.path("run.json"), _first_record(run, overrides, command))
    return run


def run_folder(profile="demo", data_dir="", run_dir="", seed=0, overrides=None, command="run"):
    """The folder that `open_run` opens with these arguments, absolute.

    Raises `UserError` for a file, and for a folder that is no run folder but holds what a run would write over.
    """
    folder = place(run_dir) if str(run_dir) else default_folder(profile, seed, overrides, data_dir, command)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"run folder {folder} is a file; name a folder.")
    foreign = [name for name in MADE if folder.joinpath(name).exists()]
    if foreign and not folder.joinpath("run.json").exists():
        raise UserError(
            f"{folder} is no run folder, since it has no run.json, but holds {foreign[0]}, which a run would write over; "
            "choose another run folder."
        )
    return folder


def remove_unfinished(folder):
    """Remove what a killed process left half-written in a run folder; only while the folder's lock is held."""
    for left in Path(folder).rglob(".part-*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def reopen(folder, data_dir):
    """The `Run` of a run folder that exists, with the settings it was made with, on data that may have moved."""
    return Run(recorded_experiment(folder), place(folder), str(place(data_dir)))


def lock(folder):
    """A lock on a run folder, to be entered with `with`; it is released when the process ends, however that happens.

    Makes the folder when it is missing. Raises `UserError` where another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = FileLock(folder / ".lock", timeout=0)
    try:
        return held.acquire()
    except Timeout:
        raise UserError(
            f"run folder {folder} is in use by another run; wait for it to end, or choose another run folder."
        ) from None


def _refuse_other_settings(run, command):
    """Compare a run folder's recorded experiment and command with those asked for."""
    record = run.record()
    then, made_by = with_defaults(record["experiment"]), record["command"]
    if made_by.split()[1] != command:
        raise UserError(f"run folder {run.folder} was made by '{made_by}'; choose another run folder.")
    now = json.loads(run.experiment.model_dump_json())
    for name in sorted(now.keys() | then.keys()):
        if now.get(name) != then.get(name):
            raise UserError(
                f"run folder {run.folder} was made with {name} {then.get(name)!r}, not {now.get(name)!r}; "
                "choose another run folder, or remove this one."
            )


def _first_record(run, overrides, command):
    """What run.json says before anything has run."""
    return {
        "experiment": json.loads(run.experiment.model_dump_json()),
        "command": f"lggseg {command} {_options(run, overrides)}",
        "created": _now(),
        "git_commit": _git_commit(),
        "versions": {
            "python": platform.python_version(),
            "lggseg_utils": metadata.version("lggseg_utils"),
            **{name: _version(name) for name in RECORDED_LIBRARIES},
        },
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "system": platform.system()},
    }


def _now():
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _options(run, overrides):
    """The options that make the run again; the data folder's place differs from machine to machine."""
    pairs = [f"{name}={json.dumps(value)}" for name, value in (overrides or {}).items()]
    sets = "".join(f" --set {shlex.quote(pair)}" for pair in pairs)
    data = " --data DATA_FOLDER" if run.data_dir else ""
    return f"--profile {run.experiment.profile} --seed {run.experiment.seed}{data}{sets}"


def _version(library):
    """Version of an installed library, or None (Colab names some differently)."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _processor():
    """The processor's name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _git_commit():
    """The checkout's commit, with '-dirty' where files differ from it; None outside a checkout."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
