"""What must have been done, so that the report's numbers come out?

The search is exploratory: it looks through trainings that are there already. What it finds is
written down as `predictions` in `claims.yml`, for trainings made afterwards.
"""

from itertools import product

import numpy as np
import pandas as pd

from lggseg_utils import arms, records, sources, stats, verdict
from lggseg_utils.arms import CLAIMS

SUBSETS = ("all slices", "slices with tumour")
# A spread that reaches further than this to either side says nothing; for loss and accuracy,
# further than the reported loss or error itself.
WIDE = CLAIMS["wide"]


def number_table(names):
    """Compare the twelve reported numbers with some trainings, under every way of counting.

    Training and test are scored on all slices, validation on all or on those with tumour. Returns a
    table: set, subset, score, values, unit, smooth, reported, mean, half (of the 95% prediction
    interval), met, wide.
    """
    scores = records.read_scores()
    chosen = scores[scores["training"].isin(names) & (scores["grid"] == "128")]
    chosen = chosen[chosen["score"].isin(sources.NAMES.values())]
    chosen = chosen[(chosen["set"] == "val") | (chosen["subset"] == "all slices")]
    rows = []
    for key, group in chosen.groupby(["set", "subset", *records.WAY], sort=False):
        splits = group["training"].map(arms.split_of)
        interval = stats.prediction_interval(group["value"], splits)
        rows.append((*key, sources.reported(key[0], key[2]), *interval))
    columns = ["set", "subset", *records.WAY, "reported", "mean", "half"]
    table = pd.DataFrame(rows, columns=columns)
    error = np.where(table["score"] == "accuracy", 1 - table["reported"], table["reported"])
    limit = np.where(table["score"].isin(["dice", "iou"]), WIDE, error)
    table["wide"] = table["half"] > limit
    table["met"] = ((table["reported"] - table["mean"]).abs() <= table["half"]) & ~table["wide"]
    return table


def hypotheses(by_arm):
    """Rank what may have been done by how many of the twelve numbers lie within the spread.

    by_arm: name -> trainings. A hypothesis is an arm, the slices that validation is scored on, and
    a way of counting each for Dice and IoU. Returns a table arm, validation, dice, iou (ways in
    words), met (of twelve), met_dice, met_iou, met_others and distance (mean distance of the six
    Dice and IoU), the best first.
    """
    rows = []
    for arm, names in by_arm.items():
        table = number_table(names)
        for subset in SUBSETS:
            kept = table[(table["set"] != "val") | (table["subset"] == subset)]
            rows.extend(_of_subset(kept, arm, subset))
    ranked = pd.DataFrame(rows).sort_values(["met", "distance"], ascending=[False, True])
    return ranked.reset_index(drop=True)


def _of_subset(table, arm, subset):
    """Return the hypotheses of one arm and one kind of validation set: every pair of two ways."""
    others = table[table["score"].isin(["loss", "accuracy"])]["met"].sum()
    ways = {score: _by_way(table[table["score"] == score]) for score in ("dice", "iou")}
    for dice in ways["dice"].itertuples():
        for iou in ways["iou"].itertuples():
            yield {
                "arm": arm,
                "validation": subset,
                "dice": in_words(dice.Index),
                "iou": in_words(iou.Index),
                "met": dice.met + iou.met + others,
                "met_dice": dice.met,
                "met_iou": iou.met,
                "met_others": others,
                "distance": (dice.distance + iou.distance) / 2,
            }


def _by_way(table):
    """Return how many of a score's three numbers are met, and the mean distance, a row a way."""
    table = table.assign(distance=(table["reported"] - table["mean"]).abs())
    grouped = table.groupby(["values", "unit", "smooth"], sort=False)
    return grouped.agg(met=("met", "sum"), distance=("distance", "mean"))


def in_words(way):
    """Return a way of counting (values, unit, smooth) in words."""
    values, unit, smooth = way
    plus = f", plus {smooth:g}" if smooth else ""
    return f"{values}, {unit if unit == 'pooled' else f'by {unit}'}{plus}"


SCORED_ON = {"train": "all slices", "val": "slices with tumour", "test": "all slices"}
WAY_OF = {
    "loss": ("loss", "probabilities", "pooled", 0),
    "accuracy": ("accuracy", "masks", "pooled", 0),
    "iou": ("iou", "masks", "batch", 1),
    "dice": ("dice", "probabilities", "slice", 1),
}


def twelve_numbers(names):
    """Return those rows of `number_table` that count as in `SCORED_ON` and `WAY_OF`, set by set."""
    rows = [(*where, *WAY_OF[score]) for where, score in product(SCORED_ON.items(), WAY_OF)]
    table = number_table(names).set_index(["set", "subset", *records.WAY])
    return table.loc[rows].reset_index()


# The usual Keras code: both scores of probabilities, Dice slice by slice and IoU batch by batch.
EARLY_WAY_OF = {**WAY_OF, "iou": ("iou", "probabilities", "batch", 1)}
EARLY_WITHIN = 0.03  # as predicted


def by_epoch():
    """Compare the twelve reported numbers with trainings that were scored at two epochs.

    Both on the network's own grid, validation on slices with tumour: at an earlier epoch those of
    records/early.csv.gz, at the end all of plain64 that did not end in a spike. Returns a table
    set, score, reported, early, end: means over trainings.
    """
    early = early_scores()
    calm = arms.calm_on_own_grid(arms.trainings("plain64"))
    rows = []
    for (part, subset), (score, way) in product(SCORED_ON.items(), EARLY_WAY_OF.items()):
        end = arms.scores_of(calm, part, subset, way, "own").mean()
        at = early[(part, subset, *way)].mean()
        rows.append((part, score, sources.reported(part, score), at, end))
    return pd.DataFrame(rows, columns=["set", "score", "reported", "early", "end"])


def early_scores():
    """Return the scores of earlier epochs on the own grid, by set, subset, way and training."""
    early = records.read_early()
    own = early[early["grid"] == "own"]
    return own.set_index(["set", "subset", *records.WAY, "training"])["value"].sort_index()


# A pair of definitions that gives the validation table; found after the answers, it decides none.
FOUND_LATER = {"dice": ("masks", "slice", 1), "iou": ("masks", "batch", 1)}
FOUND_LATER_IN_WORDS = "Dice of masks by slice, IoU of masks by batch (found later)"


def answers_by_way():
    """Return what each way of counting says of the report's tables.

    Returns a table of answers: a row for each way of `claims.yml`, and one for the pair found
    later; a column for each (set, subset of slices).
    """
    columns = {}
    for name in ("training-scores", "validation-scores", "test-scores"):
        part = verdict.QUESTIONS[name]["claims"][0]["set"]
        for subset, rows in verdict.judge(name).table.groupby("slices", sort=False):
            answers = dict(zip(rows["way"], rows["answer"], strict=True))
            columns[part, subset] = {**answers, FOUND_LATER_IN_WORDS: _found_later(part, subset)}
    return pd.DataFrame(columns)


def _found_later(part, subset):
    """Return what the pair of definitions that was found later says of one table."""
    reported = {score: sources.reported(part, score) for score in FOUND_LATER}
    plain = arms.ended_calmly(arms.trainings("plain64"))
    return verdict.judge_pair(reported, plain, part, subset, FOUND_LATER)["answer"]


def pair_of(name, part, subset, way):
    """Return Dice and IoU of one training as a dictionary, NaN where it is not scored."""
    return {
        score: arms.scores_of([name], part, subset, (score, *verdict.WAYS[way][score]))[0]
        for score in ("dice", "iou")
    }


def near(names, part):
    """Return those trainings whose Dice and IoU come within the margin of the report's together.

    part: the set, on the slices of `SCORED_ON`. One of the ways with a single definition suffices.
    """
    reported = {score: sources.reported(part, score) for score in ("dice", "iou")}
    found = []
    for name in names:
        pairs = [pair_of(name, part, SCORED_ON[part], way) for way in verdict.SINGLE]
        apart = [max(abs(pair[score] - reported[score]) for score in reported) for pair in pairs]
        if min(apart) <= CLAIMS["margin"]:
            found.append(name)
    return found
