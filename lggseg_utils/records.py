"""The numbers kept of finished runs, a folder under records/ each, and all their scores."""

import gzip
import json
import re
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from lggseg_utils import metrics
from lggseg_utils.runs import (
    REPOSITORY,
    made_by,
    read_csv,
    read_record,
    recorded_experiment,
    write_whole,
)
from lggseg_utils.settings import UserError, read_yaml

RECORDS = REPOSITORY / "records"
BOOKS_OWN = read_yaml(Path(__file__).with_name("records.yml").read_text(encoding="utf-8"))
# The numbers of a run: what a record keeps. Images and weights stay in the run folder.
TABLES = ("per_slice", "per_patient", "history", "split", "ablation_patients", "per_slice_own_grid")
RECORDED_FILES = ("run.json", "metrics.json", "ablation.csv", *(f"{table}.csv" for table in TABLES))
COMPRESSED_FROM = 16_384  # bytes

SET_NAMES = {"train": "training", "val": "validation", "test": "test"}

# The ways in which `score_set` counts Dice, IoU and mean IoU.
VALUES = ("masks", "probabilities")
# Slices that are counted together.
SLICES_PER_UNIT = {
    "pooled": None,
    "batch": metrics.SCORED_BATCH,
    "batch of 32": 32,
    "slice": 1,
}
SMOOTHS = (0, 0.1, 1, 10, 100)  # added above and below
WAY = ["score", "values", "unit", "smooth"]


@dataclass(frozen=True)
class Record:
    """The numbers of one finished run, cross-validation or ablation; missing tables are None.

    run: run.json; metrics: metrics.json, set -> score -> {"value", "low", "high"}; the others are
    the tables of that name. own_grid: per_slice on the grid of a network that works on another one
    than 128x128.
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


def load_record(name):
    """Return the `Record` of that name under records/, or of a run folder, by its absolute path.

    Raises `UserError` where the run is not finished.
    """
    folder = RECORDS / name
    run = read_record(folder)
    if not any((folder / last).exists() for last in ("metrics.json", "ablation.csv")):
        raise UserError(f"{folder} is not finished; the command that began it resumes it.")
    metrics = folder / "metrics.json"
    scores = json.loads(metrics.read_text(encoding="utf-8")) if metrics.exists() else None
    paths = [next(folder.glob(f"{table}.csv*"), None) for table in TABLES]
    tables = [read_csv(path) if path else None for path in paths]
    return Record(folder.name, run, scores, *tables)


@cache
def load_once(name):
    """Return a `Record` as `load_record` does, read once: do not change its tables."""
    return load_record(name)


def record_names():
    """Return the names of all records, sorted."""
    return sorted(path.parent.name for path in RECORDS.glob("[!.]*/run.json"))


def record(folder, name):
    """Copy a finished run's numbers to records/NAME, large tables compressed; return that folder.

    A name may have records/ before it. Raises `UserError` where the run is not finished, the record
    exists, or a name holds other signs than letters, digits, hyphens, underscores and dots.
    """
    load_record(Path(folder).resolve())
    name = name.removeprefix("records/")
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError(f"{name!r} names no record; use letters, digits, hyphens and underscores.")
    target = RECORDS / name
    if target.exists():
        raise UserError(f"{target} is there already; remove it first, or choose another name.")
    with TemporaryDirectory(prefix=".part-", dir=RECORDS) as place:
        copy = Path(place, target.name)
        copy.mkdir()
        for file in RECORDED_FILES:
            source = Path(folder, file)
            if source.exists():
                _copy(source, copy)
        copy.replace(target)
    return target


def _copy(source, folder):
    """Copy a file into a folder; a large table is compressed, always to the same bytes."""
    content = source.read_bytes()
    if source.stem in TABLES and len(content) > COMPRESSED_FROM:
        (folder / f"{source.name}.gz").write_bytes(gzip.compress(content, mtime=0))
    else:
        (folder / source.name).write_bytes(content)


# Settings that change nothing of a training that has been scored.
WITHOUT_EFFECT = {"profile", "skip_bad", "kept_epochs", "ablation_conditions", "ablation_seeds"}


def readers_names():
    """Return the names of the records that a reader has added and that have test scores, sorted.

    Those of the book are listed in records.yml. Neither git nor the data would tell them apart: a
    fork commits its own runs, and they may be trained on the same cohort.
    """
    return [name for name in record_names() if name not in BOOKS_OWN and _has_scores(name)]


def compare_with_book(names):
    """Compare records with the book's, each with the one that `nearest_of_book` names.

    Returns a table with a row each: record, of_book (the names), and of both, the latter with
    the suffix _of_book, dice, low, high (of the test set: mean over patients, or pooled over slices
    where those were split), patients (tested) and data. same_data is bool; differ is text on the
    settings that differ, '' for none.
    """
    rows = []
    for name in names:
        of_book = nearest_of_book(name)
        own, theirs = _test_score(name), _test_score(of_book)
        theirs = {f"{key}_of_book": value for key, value in theirs.items()}
        same = _data(name)["fingerprint"] == _data(of_book)["fingerprint"]
        differ = _differ(name, of_book)
        text = ", ".join(f"{key} {value} instead of {its}" for key, value, its in differ)
        row = {"record": name, "of_book": of_book, **own, **theirs}
        rows.append({**row, "same_data": same, "differ": text})
    return pd.DataFrame(rows)


def nearest_of_book(name):
    """Return the name of the book's record whose settings differ least from those of a record.

    Both split slices, or both patients; both are cross-validations, or neither is. Of several, the
    first by name is taken.
    """
    alike = [other for other in BOOKS_OWN if _has_scores(other) and _kind(other) == _kind(name)]
    return min(alike, key=lambda other: len(_differ(name, other)))


def _has_scores(name):
    """Return whether a record has scores of a test set, which an ablation has not."""
    return (RECORDS / name / "metrics.json").exists()


def _kind(name):
    """Return what is split in a record, and whether it is a cross-validation."""
    return recorded_experiment(RECORDS / name).split, made_by(RECORDS / name) == "crossval"


def _differ(name, other):
    """Return (setting, value, value of the other) of what differs between two records."""
    first, second = (recorded_experiment(RECORDS / each).model_dump() for each in (name, other))
    return [
        (key, value, second[key])
        for key, value in first.items()
        if value != second[key] and key not in WITHOUT_EFFECT
    ]


def _data(name):
    """Return what run.json says of a record's data."""
    return read_record(RECORDS / name)["data"]


def _test_score(name):
    """Return a record's test score as a dictionary: dice, low, high, patients, data."""
    loaded = load_record(name)
    whole_patients = recorded_experiment(RECORDS / name).split == "patient"
    score = loaded.metrics["test"]["dice_patient_mean" if whole_patients else "dice_pooled"]
    tested = loaded.per_slice.query("split == 'test'")["patient"].nunique()
    cohort = ", the LGG cohort" if _data(name)["kind"] == "LGG cohort" else ""
    return {
        "dice": score["value"],
        "low": score["low"],
        "high": score["high"],
        "patients": tested,
        "data": f"{_data(name)['patients']} patients{cohort}",
    }


# Of these two settings, seeds 1 and 2 are kept in two tables: test slices and histories.
SEEDS128 = {"report128": 128, "size64": 64}


@cache
def load_training(name):
    """Return (per-slice table, history) of one training, None for what was not kept.

    name: of a record, or 'report128-1', 'report128-2', 'size64-1', 'size64-2'. Do not change the
    tables: they are read once.
    """
    if (RECORDS / name).exists():
        loaded = load_once(name)
        return loaded.per_slice, loaded.history
    arm, _, seed = name.rpartition("-")
    return _of_seeds128("seeds128.csv.gz", arm, seed), _of_seeds128(
        "seeds128-history.csv.gz", arm, seed
    )


def _of_seeds128(file, arm, seed):
    """Return the rows of one training in a table of `scripts/seeds.py`."""
    table = read_csv(RECORDS / file)
    rows = (table["size"] == SEEDS128[arm]) & (table["seed"] == int(seed))
    return table[rows].drop(columns=["size", "seed"]).reset_index(drop=True)


def training_names():
    """Return the names of all trainings that were scored on a split, sorted.

    The folds of a cross-validation count as one training each: 'new-patients/0'.
    """
    names = [f"{arm}-{seed}" for arm in SEEDS128 for seed in (1, 2)]
    for name in record_names():
        scored = load_once(name).per_slice
        if scored is not None and "fold" in scored:
            names.extend(f"{name}/{fold}" for fold in scored["fold"].unique())
        elif scored is not None:
            names.append(name)
    return sorted(names)


def score_set(per_slice):
    """Return every score of one set of slices, as a table score, values, unit, smooth, value.

    per_slice: the columns of per_slice.csv, in the order of evaluation, all slices of one size.
    Dice is (2 S + k)/(T + k) and IoU (S + k)/(T - S + k), with S the intersection of truth and
    prediction, T the sum of both, and k the number `smooth`; both are 1 where nothing is counted.
    S and T are summed over what SLICES_PER_UNIT names, and the mean over units is taken. The mean
    IoU is that of tumour and background. Accuracy and loss are means over slices.
    """
    counts = per_slice[["tp", "fp", "fn", "tn"]].to_numpy(float)
    pixels = counts[0].sum()
    rows = [
        ("accuracy", "masks", "pooled", 0, 1 - counts[:, 1:3].sum() / pixels / len(counts)),
        ("loss", "probabilities", "pooled", 0, per_slice["loss"].mean()),
    ]
    sums = {
        "masks": (counts[:, 0], 2 * counts[:, 0] + counts[:, 1] + counts[:, 2]),
        "probabilities": tuple(per_slice[["soft_intersection", "soft_sum"]].to_numpy(float).T),
    }
    for values, unit in product(VALUES, SLICES_PER_UNIT):
        starts = np.arange(0, len(counts), SLICES_PER_UNIT[unit] or len(counts))
        shared, total = (np.add.reduceat(each, starts) for each in sums[values])
        size = pixels * np.diff(np.append(starts, len(counts)))
        for smooth in SMOOTHS:
            for score, value in _unit_scores(shared, total, size, smooth).items():
                rows.append((score, values, unit, smooth, value))
    return pd.DataFrame(rows, columns=[*WAY, "value"])


def _unit_scores(shared, total, size, smooth):
    """Return the mean over units of Dice, IoU and mean IoU; size: pixels of each unit."""
    dice, iou = metrics.overlap_scores(shared, total, smooth)
    _, background = metrics.overlap_scores(size - total + shared, 2 * size - total, smooth)
    return {
        "dice": dice.mean(),
        "iou": iou.mean(),
        "mean_iou": ((iou + background) / 2).mean(),
    }


def score_sets(per_slice):
    """Return `score_set` of each set of a per-slice table, with the columns set and subset."""
    tables = []
    for part, scored in per_slice.groupby("split", sort=False):
        tumour = scored["tp"] + scored["fn"] > 0
        subsets = {"all slices": scored, "slices with tumour": scored[tumour]}
        for subset, slices in subsets.items():
            tables.append(score_set(slices).assign(set=part, subset=subset))
    return pd.concat(tables, ignore_index=True)


def score_training(name):
    """Return the scores of one training: training, set, subset, grid, the columns of `score_set`.

    subset: 'all slices' or 'slices with tumour'; grid: '128', or 'own' for that of a network that
    works on another one. Of the history, `unit` is 'last epoch' or 'last ten epochs', and Dice and
    IoU are `dice_coef` and `jacard_coef` of training: probabilities, own grid, batches, plus 1.
    """
    record_name, _, fold = name.partition("/")
    per_slice, history = load_training(record_name)
    grids = {"128": per_slice, "own": _own_grid(record_name)}
    tables = []
    for grid, table in grids.items():
        if table is None:
            continue
        rows = table[table["fold"] == int(fold)] if fold else table
        tables.append(score_sets(rows).assign(grid=grid))
    if history is not None and not fold:
        tables.append(_history_ends(history))
    return pd.concat(tables, ignore_index=True).assign(training=name)[SCORE_COLUMNS]


def _own_grid(name):
    """Return a training's per-slice table on its own grid, None where there is none."""
    return load_once(name).own_grid if (RECORDS / name).exists() else None


def write_scores(table, name):
    """Write a table of scores into the records, compressed; the same table gives the same bytes."""
    text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    with write_whole(RECORDS / name) as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), mtime=0))


SCORE_COLUMNS = ["training", "set", "subset", "grid", *WAY, "value"]
HISTORY_SCORES = {"dice_coef": "dice", "jacard_coef": "iou", "accuracy": "accuracy", "loss": "loss"}


def _history_ends(history):
    """Return the scores with which a history ends, in the columns of `score_training`."""
    ends = {
        "last epoch": history.iloc[-1],
        "last ten epochs": history.tail(10).mean(numeric_only=True),
    }
    rows = []
    for (unit, end), (column, score), part in product(
        ends.items(), HISTORY_SCORES.items(), ("train", "val")
    ):
        value = end[column if part == "train" else f"val_{column}"]
        values = "masks" if score == "accuracy" else "probabilities"
        smooth = 1 if score in ("dice", "iou") else 0
        rows.append((part, "all slices", "own", score, values, unit, smooth, value))
    return pd.DataFrame(rows, columns=["set", "subset", "grid", *WAY, "value"])


@cache
def read_early():
    """Return records/early.csv.gz, the scores of networks of earlier epochs by `scripts/early.py`.

    Do not change the table: it is read once.
    """
    return pd.read_csv(RECORDS / "early.csv.gz", dtype={"grid": str})


@cache
def read_scores():
    """Return records/scores.csv.gz, the scores of all trainings by `scripts/scores.py`.

    Do not change the table: it is read once.
    """
    return pd.read_csv(RECORDS / "scores.csv.gz", dtype={"grid": str})
