"""The settings of an experiment, and the named profiles that choose them."""

import difflib
import reprlib
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

PROFILES = Path(__file__).resolve().parent / "profiles"
NAMES = "rotation flip shift crop_zoom crop_pad shear noise gaussian_filter contrast brightness rotate_90"
AUGMENTATIONS = tuple(NAMES.split())
OWN = ("flair_only",)  # the others are the report's
Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
COMPOSITIONS = {"none": (), "report": ("flip", "rotate_90"), "all": AUGMENTATIONS}


class UserError(Exception):
    """A mistake that the user can correct; shown as one line, without a traceback."""

    def _render_traceback_(self):
        """Jupyter calls this instead of printing a traceback."""
        return [f"Error: {self}"]


class Experiment(BaseModel):
    """Every setting of one experiment. Frozen; unknown names and values out of range are refused."""

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
        True, description="false: a cross-validation trains on its validation slices too"
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
        1, ge=1, le=20, description="networks per fold of a cross-validation, which are averaged"
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
    """Return a profile's settings as a dictionary; `profile` is a name or the path of a YAML file."""
    path = (
        PROFILES / f"{profile}.yml"
        if str(profile) in profile_names()
        else Path(str(profile)).expanduser()
    )
    if path.suffix not in (".yml", ".yaml") or not path.is_file():
        raise UserError(
            f"unknown profile '{profile}'.{nearest(profile, profile_names())} A YAML file works too."
        )
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(
            f"profile {path} is not valid YAML: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(settings, dict):
        raise UserError(f"profile {path} must be a list of 'setting: value' lines.")
    return settings


def load_experiment(profile="demo", seed=0, overrides=None):
    """Return the `Experiment` of a profile with `overrides` applied; raise `UserError` for what does not fit."""
    if not isinstance(overrides, dict | None):
        raise UserError(
            f"overrides: expected settings and their values, got {reprlib.repr(overrides)}."
        )
    settings = {**read_profile(profile), **(overrides or {})}
    own = {"profile": Path(str(profile)).name, "seed": seed}
    known = [name for name in Experiment.model_fields if name not in own]
    for name in settings:
        if name in own:
            raise UserError(
                f"{name} is not a setting; use --{name} or, in a notebook, the parameter {name}."
            )
        if name not in known:
            raise UserError(f"unknown setting {reprlib.repr(name)}.{nearest(name, known)}")
    try:
        experiment = Experiment(**settings, **own)
    except ValidationError as error:
        problem = error.errors()[0]
        name, said = (
            problem["loc"][0],
            f"{problem['msg'].lower()}, got {reprlib.repr(problem['input'])}.",
        )
        if problem["type"] == "literal_error":
            choices = Experiment.model_fields[name].annotation.__args__
            said = f"unknown value {reprlib.repr(problem['input'])}.{nearest(problem['input'], choices)}"
        raise UserError(f"setting {name}: {said}") from None
    _check_together(experiment)
    return experiment


def _check_together(experiment):
    """Refuse settings that contradict each other."""
    times = experiment.depth - 1
    if experiment.size % 2**times:
        raise UserError(
            f"setting size: {experiment.size} can't be halved {times} times; use a multiple of {2**times}."
        )
    for augmentation in (experiment.augmentation, *experiment.ablation_conditions):
        parse_augmentation(augmentation)
    if len(set(experiment.ablation_conditions)) < max(2, len(experiment.ablation_conditions)):
        raise UserError("setting ablation_conditions: name at least two augmentations, each once.")


def parse_augmentation(text):
    """Return the names behind a composition ('report') or names joined by + ('flip+noise'), as a tuple."""
    if text in COMPOSITIONS:
        return COMPOSITIONS[text]
    names = tuple(text.split("+"))
    for name in names:
        if name not in AUGMENTATIONS + OWN:
            raise UserError(
                f"unknown augmentation '{name}'.{nearest(name, (*COMPOSITIONS, *AUGMENTATIONS, *OWN))}"
            )
    if len(set(names)) < len(names):
        raise UserError(f"augmentation {text}: name each one once.")
    return names
