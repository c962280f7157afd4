"""What must have been done, so that the report's numbers come out; and do our rules hold for us?

The search is exploratory: it looks through trainings that are there already. What it finds is
written down as `predictions` in `claims.yml`, for trainings made afterwards.
"""

from itertools import combinations, product

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
        rows.append((*key, _reported(key[0], key[2]), *interval))
    columns = ["set", "subset", *records.WAY, "reported", "mean", "half"]
    table = pd.DataFrame(rows, columns=columns)
    error = np.where(table["score"] == "accuracy", 1 - table["reported"], table["reported"])
    limit = np.where(table["score"].isin(["dice", "iou"]), WIDE, error)
    table["wide"] = table["half"] > limit
    table["met"] = ((table["reported"] - table["mean"]).abs() <= table["half"]) & ~table["wide"]
    return table


def _reported(part, score):
    """Return one of the twelve reported numbers."""
    names = {ours: theirs for theirs, ours in sources.NAMES.items()}
    return sources.TABLES[part][names[score]]


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
    early = _early_scores()
    calm = arms.calm_on_own_grid(arms.trainings("plain64"))
    rows = []
    for (part, subset), (score, way) in product(SCORED_ON.items(), EARLY_WAY_OF.items()):
        end = arms.scores_of(calm, part, subset, way, "own").mean()
        at = early[(part, subset, *way)].mean()
        rows.append((part, score, _reported(part, score), at, end))
    return pd.DataFrame(rows, columns=["set", "score", "reported", "early", "end"])


def _early_scores():
    """Return the scores of earlier epochs on the own grid, by set, subset, way and training."""
    early = records.read_early()
    own = early[early["grid"] == "own"]
    return own.set_index(["set", "subset", *records.WAY, "training"])["value"].sort_index()


# The predictions of `claims.yml`

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
        reported = _reported(part, score)
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
    reported = {score: _reported(part, score) for score in FOUND_LATER}
    plain = arms.ended_calmly(arms.trainings("plain64"))
    return verdict.judge_pair(reported, plain, part, subset, FOUND_LATER)["answer"]


# The rules, tried on ourselves


def try_rule_for_numbers(others):
    """Put trainings in the report's place and let the rule for numbers judge them.

    Each calm training of plain64 and each of `others` is judged by the calm trainings of plain64
    that have another split, under every way with one definition, on those of the three sets on
    which it is scored. Returns a table training, kind ('same settings' or 'other settings'), set,
    way, answer.
    """
    calm = arms.ended_calmly(arms.trainings("plain64"))
    rows = []
    for name in (*calm, *others):
        kind = "same settings" if name in calm else "other settings"
        judging = [one for one in calm if arms.split_of(one) != arms.split_of(name)]
        for (part, subset), way in product(SCORED_ON.items(), verdict.SINGLE):
            pair = _pair_of(name, part, subset, way)
            if not np.isnan(list(pair.values())).any():
                found = verdict.judge_pair(pair, judging, part, subset, verdict.WAYS[way])
                rows.append((name, kind, part, way, found["answer"]))
    return pd.DataFrame(rows, columns=["training", "kind", "set", "way", "answer"])


def by_table(tried):
    """Return what `try_rule_for_numbers` says of each table: one way that replicates suffices.

    Returns a table kind, training, set, answer.
    """
    grouped = tried.groupby(["kind", "training", "set"], sort=False)["answer"]
    return grouped.agg(verdict.best_of).reset_index()


def _pair_of(name, part, subset, way):
    """Return Dice and IoU of one training as a dictionary, NaN where it is not scored."""
    return {
        score: arms.scores_of([name], part, subset, (score, *verdict.WAYS[way][score]))[0]
        for score in ("dice", "iou")
    }


def near(names, part):
    """Return those trainings whose Dice and IoU come within the margin of the report's together.

    part: the set, on the slices of `SCORED_ON`. One of the ways with a single definition suffices.
    """
    reported = {score: _reported(part, score) for score in ("dice", "iou")}
    found = []
    for name in names:
        pairs = [_pair_of(name, part, SCORED_ON[part], way) for way in verdict.SINGLE]
        apart = [max(abs(pair[score] - reported[score]) for score in reported) for pair in pairs]
        if min(apart) <= CLAIMS["margin"]:
            found.append(name)
    return found


def groups_of_three(names):
    """Return all pairs of groups of three trainings that have none in common."""
    pairs = []
    for first in combinations(names, 3):
        for second in combinations([name for name in names if name not in first], 3):
            if first < second:
                pairs.append((first, second))
    return pairs


def _compared(same, other):
    """Yield (kind, first, second): all groups of `same` with each other, then with `other`."""
    for first, second in groups_of_three(same):
        yield "same settings", first, second
    for first, second in product(combinations(same, 3), combinations(other, 3)):
        yield "other settings", first, second


def try_rule_for_differences(same, other):
    """Compare groups of three trainings by the rule for differences, on the Dice of training.

    same: trainings of equal settings, compared with each other; other: trainings of clearly other
    settings, compared with all groups of `same`. Returns a table kind, low, high, found (whether
    the interval excludes 0 and reaches the margin).
    """
    rows = []
    for kind, first, second in _compared(same, other):
        more, less = ([[name] for name in group] for group in (first, second))
        result = verdict.compare_arms(more, less, part="train")
        found = result["low"] * result["high"] > 0
        reaches = max(abs(result["low"]), abs(result["high"])) >= CLAIMS["margin"]
        rows.append((kind, result["low"], result["high"], found and reaches))
    return pd.DataFrame(rows, columns=["kind", "low", "high", "found"])


def try_rule_for_ratios(same, other):
    """Compare the gaps of groups of three trainings by the rule for ratios.

    same, other and what is returned: as for `try_rule_for_differences`.
    """
    values = {name: arms.training_score(name, "gap") for name in (*same, *other)}
    rows = []
    for kind, first, second in _compared(same, other):
        ratios = [values[one] / values[two] for one, two in zip(first, second, strict=True)]
        either = [
            verdict.judge_ratios(each, matters=1.2) for each in (ratios, 1 / np.array(ratios))
        ]
        found = any(outcome["answer"] == verdict.Verdict.REPLICATED for outcome in either)
        rows.append((kind, either[0]["low"], either[0]["high"], found))
    return pd.DataFrame(rows, columns=["kind", "low", "high", "found"])


def predictions():
    """Return the predictions of `claims.yml` and what came of them: a table prediction, outcome."""
    rows = [(prediction["says"], outcome_of(name)) for name, prediction in PREDICTIONS.items()]
    return pd.DataFrame(rows, columns=["prediction", "outcome"])


def outcome_of(prediction):
    """Return what came of the prediction of that id, 'to come' where no training tests it yet."""
    made = arms.made(PREDICTIONS[prediction]["records"])
    there = list(filter(arms.is_new, made))
    return OUTCOMES[prediction](there) if there else "to come"


def _again(names):
    """Return how many scores of new trainings lie within the interval of the earlier ones."""
    table = new_trainings("plain64")
    spiked = len(names) - table["training"].nunique()
    beside = f"; {spiked} ended in a spike" if spiked else ""
    return f"{table['met'].sum()} of {len(table)} scores inside, trainings: {len(names)}{beside}"


def _with_the_report(names):
    """Return which of the nine reported numbers lie within the interval of all trainings."""
    table = nine_numbers(arms.ended_calmly(arms.trainings("plain64")))
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
    way = "score == 'dice' and values == 'probabilities' and unit == 'slice' and smooth == 1"
    table = number_table(names).query(way)
    kept = table[(table["set"] != "val") | (table["subset"] == SUBSETS[1])]
    return f"{kept['met'].sum()} of 3 inside"


def _augmented(names):
    """Return the training IoU of augmented trainings, and how their validation losses end."""
    iou = arms.scores_of(names, "train", "all slices", WAY_OF["iou"])
    rise = [arms.training_score(name, "rise") for name in names]
    plain = [arms.training_score(name, "rise") for name in arms.trainings("plain64")]
    return (
        f"training IoU at most {iou.max():.3f}; losses end at {min(rise):.2f} to {max(rise):.2f} "
        f"times their lowest, without augmentation {min(plain):.2f} to {max(plain):.2f}"
    )


def _plain_new(names):
    """Return what a network of the report's kind loses on new patients."""
    if len(names) < 2:
        return "one of two cross-validations made"
    result = verdict.compare_arms([["plain-known"]], [["plain-new"]])
    return f"loses {result['difference']:.3f}, one seed"


def _earlier(names):
    """Return how near to the report trainings come at an earlier epoch."""
    early = _early_scores()
    names = early.index.unique("training").intersection(names)
    if names.empty:
        return "to come"

    def apart(part, score):
        found = early[(part, SCORED_ON[part], *EARLY_WAY_OF[score])][names]
        return found - _reported(part, score)

    scores = pd.concat([apart(*key).abs() for key in product(SCORED_ON, ("dice", "iou"))], axis=1)
    near = (scores.max(axis=1) <= EARLY_WITHIN).sum()
    lower = (apart("val", "loss").lt(0) & apart("test", "loss").lt(0)).sum()
    return (
        f"within {EARLY_WITHIN} of all six: {near} of {len(names)} trainings (the farthest score "
        f"is {scores.max(axis=None):.3f} off); both losses lower: {lower} of {len(names)}"
    )


OUTCOMES = {
    "plain64-again": _again,
    "plain64-report": _with_the_report,
    "plain128-report": _at_128,
    "plain128-dice": _dice_at_128,
    "augmented64-misses": _augmented,
    "new-patients-plain": _plain_new,
    "earlier-epoch": _earlier,
}
