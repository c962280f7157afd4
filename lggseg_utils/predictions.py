"""What the second edition of the criteria predicted of trainings to come, and what came of it."""

from itertools import product

import pandas as pd

from lggseg_utils import arms, exploration, records, sources, stats, verdict
from lggseg_utils.arms import CLAIMS
from lggseg_utils.exploration import EARLY_WAY_OF, EARLY_WITHIN, SCORED_ON, WAY_OF

PREDICTIONS = {prediction["id"]: prediction for prediction in CLAIMS["predictions"]}
# The numbers that `plain64-report` says will be met.
NAMED_SIX = {("train", "iou"), *product(("val", "test"), ("iou", "loss")), ("test", "accuracy")}
NINE = [(*where, score) for where, score in product(SCORED_ON.items(), ("loss", "accuracy", "iou"))]


def nine_numbers(names):
    """Return the nine numbers that trainings without augmentation nearly give.

    IoU is that of masks by batch, validation is scored on slices with tumour. A table set, score,
    reported, mean, half (of the 95% prediction interval for one more training), met. As the
    predictions were written, each training counts, also where several share a split.
    """
    rows = []
    for part, subset, score in NINE:
        mean, half = stats.prediction_interval(arms.scores_of(names, part, subset, WAY_OF[score]))
        reported = sources.reported(part, score)
        rows.append((part, score, reported, mean, half, abs(reported - mean) <= half))
    return pd.DataFrame(rows, columns=["set", "score", "reported", "mean", "half", "met"])


def new_trainings(arm):
    """Place each training made after the criteria into the interval of the earlier ones of its arm.

    Returns a table training, set, score, value, mean, half, met; trainings that ended in a spike
    are left out.
    """
    calm = arms.ended_calmly(arms.trainings(arm))
    earlier = nine_numbers([name for name in calm if not arms.is_new(name)])
    tables = []
    for name in filter(arms.is_new, calm):
        values = [arms.scores_of([name], *key[:2], WAY_OF[key[2]])[0] for key in NINE]
        table = earlier.drop(columns=["reported", "met"]).assign(training=name, value=values)
        table["met"] = (table["value"] - table["mean"]).abs() <= table["half"]
        tables.append(table)
    columns = ["training", "set", "score", "value", "mean", "half", "met"]
    return pd.concat(tables)[columns] if tables else pd.DataFrame(columns=columns)


def outcomes():
    """Return the predictions and what came of them: a table prediction, outcome."""
    rows = [(prediction["says"], outcome_of(name)) for name, prediction in PREDICTIONS.items()]
    return pd.DataFrame(rows, columns=["prediction", "outcome"])


def outcome_of(prediction):
    """Return what came of the prediction of that id, 'to come' where no training tests it yet."""
    made = arms.made(PREDICTIONS[prediction]["records"])
    there = list(filter(arms.is_new, made))
    return RULES[prediction](there) if there else "to come"


def _again(names):
    """Return how many scores of new trainings lie within the interval of the earlier ones."""
    table = new_trainings("plain64")
    spiked = len(names) - table["training"].nunique()
    beside = f"; {spiked} ended in a spike" if spiked else ""
    return f"{table['met'].sum()} of {len(table)} scores inside, trainings: {len(names)}{beside}"


def _with_the_report(names):
    """Return which reported numbers lie inside with those trainings added, and with all."""
    calm = arms.ended_calmly(arms.trainings("plain64"))
    added = [name for name in calm if name in names or not arms.is_new(name)]
    return f"{_of_nine(added)}; with all {len(calm)} trainings, {_of_nine(calm)}"


def _of_nine(names):
    """Return which of the nine reported numbers lie within the interval of trainings."""
    table = nine_numbers(names)
    inside = set(table[table["met"]][["set", "score"]].itertuples(index=False, name=None))
    wrong = [
        f"{records.SET_NAMES[part]} {score} is {'inside' if (part, score) in inside else 'outside'}"
        for part, score in sorted(inside ^ NAMED_SIX)
    ]
    named = f"but not those named: {', '.join(wrong)}" if wrong else "as named"
    return f"{len(inside)} of 9 inside, {named}"


def _at_128(names):
    """Return how many of the nine reported numbers lie within the interval of plain128."""
    if len(names) < CLAIMS["seeds"]:
        return f"{len(names)} of {CLAIMS['seeds']} trainings made"
    return f"{nine_numbers(names)['met'].sum()} of 9 inside"


def _dice_at_128(names):
    """Return how many of the three reported Dice lie within the interval of plain128."""
    if len(names) < CLAIMS["seeds"]:
        return f"{len(names)} of {CLAIMS['seeds']} trainings made"
    table = exploration.twelve_numbers(names)
    return f"{table[table['score'] == 'dice']['met'].sum()} of 3 inside"


def _augmented(names):
    """Return the training IoU of augmented trainings, and how their validation losses end."""
    iou = arms.scores_of(names, "train", "all slices", WAY_OF["iou"])
    rise = [arms.training_score(name, "rise") for name in names]
    plain = [arms.training_score(name, "rise") for name in arms.trainings("plain64")]
    below = sum(value < 1.1 for value in rise)
    return (
        f"training IoU at most {iou.max():.3f}; losses end at {min(rise):.2f} to {max(rise):.2f} "
        f"times their lowest, {below} of {len(rise)} below 1.1; without augmentation at "
        f"{min(plain):.2f} to {max(plain):.2f}"
    )


def _plain_new(names):
    """Return what a network of the report's kind loses on new patients."""
    lost = verdict.compare_nearer(verdict.QUESTIONS["new-patients"])
    return (
        f"loses {lost['difference']:.3f} (95% interval over patients {lost['low']:.3f} to "
        f"{lost['high']:.3f}), one seed"
    )


def _earlier(names):
    """Return how near to the report trainings come at an earlier epoch."""
    early = exploration.early_scores()
    names = early.index.unique("training").intersection(names)
    if names.empty:
        return "to come"

    def apart(part, score):
        found = early[(part, SCORED_ON[part], *EARLY_WAY_OF[score])][names]
        return found - sources.reported(part, score)

    scores = pd.concat([apart(*key).abs() for key in product(SCORED_ON, ("dice", "iou"))], axis=1)
    near = (scores.max(axis=1) <= EARLY_WITHIN).sum()
    lower = (apart("val", "loss").lt(0) & apart("test", "loss").lt(0)).sum()
    return (
        f"within {EARLY_WITHIN} of all six: {near} of {len(names)} trainings (the farthest score "
        f"is {scores.max(axis=None):.3f} off); both losses lower: {lower} of {len(names)}"
    )


RULES = {
    "plain64-again": _again,
    "plain64-report": _with_the_report,
    "plain128-report": _at_128,
    "plain128-dice": _dice_at_128,
    "augmented64-misses": _augmented,
    "new-patients-plain": _plain_new,
    "earlier-epoch": _earlier,
}
