"""The trainings that judge the report: which there are, how they ended, and what they score."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from lggseg_utils import records

CLAIMS = yaml.safe_load((Path(__file__).parent / "claims.yml").read_text(encoding="utf-8"))


@cache
def recorded():
    """Return the names of all trainings in records/scores.csv.gz, without their folds, sorted."""
    return sorted({name.partition("/")[0] for name in records.read_scores()["training"].unique()})


def made(names):
    """Return those of the named trainings that are recorded."""
    return [name for name in names if name in recorded()]


def trainings(arm):
    """Return the recorded trainings of an arm of `claims.yml`."""
    entry = CLAIMS["arms"][arm]
    return made([*entry["records"], *entry.get("to_come", [])])


def augmented():
    """Return the recorded trainings with flips and quarter turns, by slice and without dropout."""
    size64 = made(["size64", "size64-1", "size64-2"])
    return [*trainings("augmented64"), *trainings("augmented128"), *size64]


def with_other_settings():
    """Return the recorded trainings that differ from plain64 in dropout, augmentation or split."""
    single = made(["report64", "report64-plain", "patient64", "patient64-first"])
    return [*single, *augmented(), *trainings("dropout64")]


def with_prefix(prefixes):
    """Return the recorded trainings 'PREFIX-SEED' as seed -> names, one for each of the prefixes.

    prefixes: one or a list; a seed that lacks one of them is left out.
    """
    prefixes = [prefixes] if isinstance(prefixes, str) else prefixes
    found = {}
    for prefix in prefixes:
        for name in recorded():
            start, _, seed = name.rpartition("-")
            if start == prefix and seed.isdigit():
                found.setdefault(int(seed), []).append(name)
    whole = {seed: names for seed, names in found.items() if len(names) == len(prefixes)}
    return dict(sorted(whole.items()))


def is_new(name):
    """Return whether a training was started after the criteria were committed."""
    folder = records.RECORDS / name
    return folder.exists() and records.read_record(folder)["created"] >= CLAIMS["written"]


def spike(name):
    """Return the training loss of the last epoch over its median in the last 20 epochs."""
    loss = records.load_training(name)[1]["loss"]
    return loss.iloc[-1] / loss.tail(20).median()


def ended_calmly(names):
    """Return those trainings that did not end in a spike, as `claims.yml` defines it."""
    return [name for name in names if spike(name) <= CLAIMS["spike"]]


@cache
def _wide_scores(grid):
    """Return the scores on a grid: a row a training, a column each score."""
    scores = records.read_scores()
    keys = ["set", "subset", *records.WAY]
    kept = scores[(scores["grid"] == grid)].set_index(["training", *keys])["value"]
    return kept.unstack(keys)


def scores_of(names, part, subset, way, grid="128"):
    """Return one score of some trainings, float (n,), NaN where a training lacks it.

    part: 'train', 'val' or 'test'; way: (score, values, unit, smooth); grid: '128', to which
    smaller predictions are enlarged, or 'own', the network's; all as in records/scores.csv.gz.
    """
    table = _wide_scores(grid)
    column = (part, subset, *way)
    if column not in table:
        return np.full(len(names), np.nan)
    return table[column].reindex(list(names)).to_numpy()


def calm_on_own_grid(names):
    """Return those trainings that ended calmly and are scored on their network's own grid too."""
    names = ended_calmly(names)
    values = scores_of(names, "test", "all slices", ("dice", "masks", "pooled", 0), "own")
    return [name for name, value in zip(names, values, strict=True) if not np.isnan(value)]


def split_of(name):
    """Return the number at the end of a training's name: the seed that also draws its split."""
    end = name.rpartition("-")[2]
    return int(end) if end.isdigit() else 0


def by_split(names, values):
    """Return the means of values of trainings that share a split, float (splits,).

    Trainings of one seed are tested on the same slices, so they say less than as many splits.
    """
    table = pd.Series(np.asarray(values, dtype=float))
    return table.groupby([split_of(name) for name in names]).mean().to_numpy()


def training_score(name, score):
    """Return a score that a training has once, of its history.

    gap: validation less training loss, mean of the last ten epochs; loss steps, Dice steps: median
    change of validation loss or `dice_coef` from one epoch to the next, over the last 50; rise: the
    ten-epoch mean of the validation loss at the end over its lowest; late gap: the gap of ten-epoch
    means at the end over that at half the epochs.
    """
    history = records.load_training(name)[1]
    if score == "loss steps":
        return history["val_loss"].tail(51).diff().abs().median()
    if score == "Dice steps":
        return history["val_dice_coef"].tail(51).diff().abs().median()
    if score == "gap":
        return (history["val_loss"] - history["loss"]).tail(10).mean()
    smooth = history[["loss", "val_loss"]].rolling(10).mean()
    if score == "rise":
        return smooth["val_loss"].iloc[-1] / smooth["val_loss"].min()
    gap = smooth["val_loss"] - smooth["loss"]
    return gap.iloc[-1] / gap.iloc[len(gap) // 2 - 1]
