"""The settings of an experiment, and the named profiles that choose them."""

import difflib
import re
import reprlib
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

PROFILES = Path(__file__).resolve().parent / "profiles"
# The place of a name is its random stream in `all`: a new one goes to the end.
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
OWN = ("flair_only",)  # the others are the report's
Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
COMPOSITIONS = {"none": (), "report": ("flip", "rotate_90"), "all": AUGMENTATIONS}


class UserError(Exception):
    """A mistake that the user can correct; shown as one line, without a traceback."""

    def _render_traceback_(self):
        """Jupyter calls this instead of printing a traceback."""
        return [f"Error: {self}"]


class _Loader(yaml.SafeLoader):
    """YAML in which a number is what it looks like.

    In YAML 1.1, which PyYAML reads, 010 is 8, 1:30 is 90 and 0x10 is 16. Here, as in JSON, only
    decimal digits are a whole number, and the rest is text.
    """


_INTEGER = "tag:yaml.org,2002:int"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _INTEGER]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_INTEGER, re.compile(r"[-+]?\d+$"), list("-+0123456789"))
_Loader.add_constructor(_INTEGER, lambda loader, node: int(node.value))


def read_yaml(text):
    """Return what a YAML text means, 010 being ten. Raises `yaml.YAMLError`."""
    return yaml.load(text, _Loader)


class Experiment(BaseModel):
    """Every setting of one experiment. Frozen; refuses unknown names and values out of range."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: str
    seed: int = Field(
        0,
        ge=0,
        lt=2**31,
        description="seed of the split, the weights, the order and the augmentation",
    )
    size: int = Field(
        128, ge=16, le=512, description="side of the slices the network sees, in pixels"
    )
    score_size: int = Field(
        128, ge=16, le=512, description="side of the grid that scores are taken on, in pixels"
    )
    scaling: Literal["slice", "channel", "head", "dataset"] = Field(
        "slice", description="what values are scaled over"
    )
    split: Literal["slice", "patient"] = Field(
        "slice", description="what is drawn at random into the three sets"
    )
    skip_bad: bool = Field(False, description="leave out the slices that fail the checks")
    filters: int = Field(
        32, ge=1, le=256, description="filters of the first level, doubled at each level below"
    )
    depth: int = Field(5, ge=2, le=6, description="number of levels")
    dropout: float = Field(0.1, ge=0, le=0.9, description="dropout rate after each convolution")
    normalization: Literal["none", "batch"] = Field(
        "none", description="normalisation after each convolution"
    )
    loss: Literal["binary_crossentropy", "dice_crossentropy"] = Field(
        "binary_crossentropy", description="minimised"
    )
    batch_size: int = Field(16, ge=1, le=1024, description="slices per training step")
    epochs: int = Field(100, ge=1, le=10_000, description="passes over the training set")
    learning_rate: float = Field(
        0.001, gt=0, le=1, description="Adam's learning rate; 0.001 is Keras' default"
    )
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="course of the learning rate"
    )
    hold_out: bool = Field(
        True, description="false: train on the validation slices too, whose scores then say nothing"
    )
    augmentation: str = Field(
        "none", description="`none`, `report`, `all` (the report's eleven), or names joined by +"
    )
    early_stopping: int = Field(
        0, ge=0, description="stop after this many epochs without a lower val_loss; 0: never"
    )
    weights: Literal["last", "best"] = Field(
        "last", description="scored epoch: the last, or that of lowest val_loss"
    )
    networks: int = Field(
        1, ge=1, le=20, description="networks trained and averaged, in a cross-validation per fold"
    )
    mirrored: bool = Field(
        False, description="average the predictions of a slice and its mirror images"
    )
    kept_epochs: tuple[int, ...] = Field(
        (), description="epochs after which the network is kept in a file of its own"
    )
    precision: Precision = Field(
        "auto", description="arithmetic of the training; auto: the machine's fastest"
    )
    ablation_conditions: tuple[str, ...] = Field(
        ("none", "report", "all"), description="augmentations compared"
    )
    ablation_seeds: int = Field(1, ge=1, le=20, description="trainings per augmentation")


def nearest(name, known):
    """Return a sentence that lists `known` names and suggests the one most like `name`."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    suggestion = f" Did you mean '{close[0]}'?" if close else ""
    return f"{suggestion} Known: {', '.join(known)}."


def profile_names():
    """Return the names of the profiles that come with the package, sorted."""
    return sorted(path.stem for path in PROFILES.glob("*.yml"))


def read_profile(profile):
    """Return a profile's settings as a dictionary; `profile` is a name or the path of a YAML file.

    Raises `UserError` for an unknown name, and for a file that is missing or holds no settings.
    """
    path = _profile_path(str(profile))
    try:
        settings = read_yaml(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"profile {path} is not valid YAML: {reason}") from None
    if not isinstance(settings, dict):
        raise UserError(f"profile {path} must be a list of 'setting: value' lines.")
    return settings


def _profile_path(profile):
    """Return the path of a profile given by its name or as a YAML file."""
    if profile in profile_names():
        return PROFILES / f"{profile}.yml"
    path = Path(profile).expanduser()
    if path.suffix not in (".yml", ".yaml"):
        hint = nearest(profile, profile_names())
        raise UserError(f"unknown profile '{profile}'.{hint} A YAML file works too.")
    if not path.is_file():
        names = ", ".join(profile_names())
        raise UserError(f"profile {path} does not exist; name a YAML file, or one of: {names}.")
    return path


def load_experiment(profile="demo", seed=0, overrides=None):
    """Return the `Experiment` of a profile with `overrides` applied.

    Raises `UserError` for unknown names, and for values that do not fit.
    """
    if not isinstance(overrides, dict | None):
        shown = reprlib.repr(overrides)
        raise UserError(f"overrides: expected settings and their values, got {shown}.")
    settings = {**read_profile(profile), **(overrides or {})}
    own = {"profile": Path(str(profile)).name, "seed": seed}
    known = [name for name in Experiment.model_fields if name not in own]
    for name, value in settings.items():
        _check_setting(name, value, own, known)
    try:
        experiment = Experiment(**settings, **own)
    except ValidationError as error:
        raise UserError(_what_does_not_fit(error.errors()[0])) from None
    _check_together(experiment)
    return experiment


def _check_setting(name, value, own, known):
    """Refuse a name that is not `known` or has an option of its `own`, and a yes for a number."""
    if name in own:
        raise UserError(
            f"{name} is not a setting; use --{name} or, in a notebook, the parameter {name}."
        )
    if name not in known:
        raise UserError(f"unknown setting {reprlib.repr(name)}.{nearest(name, known)}")
    # pydantic takes true for 1.
    if isinstance(value, bool) and Experiment.model_fields[name].annotation in (int, float):
        shown = str(value).lower()
        raise UserError(f"setting {name}: input should be a number, got {shown}.")


def _what_does_not_fit(problem):
    """Return a sentence on the first of pydantic's errors, with a suggestion where there is one."""
    name, value = problem["loc"][0], problem["input"]
    shown = reprlib.repr(value)
    if problem["type"] == "literal_error":
        choices = Experiment.model_fields[name].annotation.__args__
        return f"setting {name}: unknown value {shown}.{nearest(value, choices)}"
    if problem["type"] == "tuple_type":
        return f"setting {name}: input should be a list, such as [{value}], got {shown}."
    what = problem["msg"].lower().split(", ")[0]  # what follows repeats what was got
    return f"setting {name}: {what}, got {shown}."


def _check_together(experiment):
    """Refuse settings that contradict each other."""
    times = experiment.depth - 1
    if experiment.size % 2**times:
        raise UserError(
            f"setting size: {experiment.size} can't be halved {times} times; "
            f"use a multiple of {2**times}."
        )
    conditions = experiment.ablation_conditions
    for augmentation in (experiment.augmentation, *conditions):
        parse_augmentation(augmentation)
    if len(conditions) < 2 or len(set(conditions)) < len(conditions):
        raise UserError("setting ablation_conditions: name at least two augmentations, each once.")


def parse_augmentation(text):
    """Return the names behind a composition ('report') or names joined by + ('flip+noise').

    Returns a tuple. Raises `UserError` for unknown names, and for a composition that is joined.
    """
    if text in COMPOSITIONS:
        return COMPOSITIONS[text]
    names = tuple(text.split("+"))
    single = (*AUGMENTATIONS, *OWN)
    for name in names:
        if name in COMPOSITIONS:
            raise UserError(
                f"augmentation {text}: '{name}' stands alone; joined by + are: {', '.join(single)}."
            )
        if name not in single:
            hint = nearest(name, (*COMPOSITIONS, *single))
            raise UserError(f"unknown augmentation '{name}'.{hint}")
    if len(set(names)) < len(names):
        raise UserError(f"augmentation {text}: name each one once.")
    return names
