"""The verdict: what the sources report, and what the records say about it by the criteria of `claims.yml`."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.stats
import yaml

from lggseg_utils import metrics, records, runs, stats

REPORTED = yaml.safe_load((Path(__file__).parent / "reported.yml").read_text(encoding="utf-8"))
CLAIMS = yaml.safe_load((Path(__file__).parent / "claims.yml").read_text(encoding="utf-8"))
QUESTIONS = {question["id"]: question for question in CLAIMS["questions"]}
TABLES = REPORTED["tables"]  # the report's own: set -> score -> number
SCORINGS = {
    "soft by batch": metrics.Definition(soft=True, unit="batch", smooth=metrics.SMOOTH),
    "masks by batch": metrics.Definition(soft=False, unit="batch", smooth=metrics.SMOOTH),
    "pooled": metrics.Definition(soft=False, unit="pooled"),
}
HOLDS, FAILS, INCONCLUSIVE, DEPENDS, CONTRADICTS, UNTESTED = CLAIMS["answers"]


@dataclass(frozen=True)
class Answer:
    """The answer to one question, one of `CLAIMS['answers']`; the number that decides, the evidence, and the table behind it."""

    answer: str
    number: str
    evidence: str
    table: pd.DataFrame | None = None


def judge(question):
    """Return the `Answer` that the records give to one entry of `QUESTIONS`."""
    recorded = records.record_names()
    missing = [name for name in deciding_records(question) if name not in recorded]
    if missing:
        return Answer(UNTESTED, "run missing", f"Runs not made yet: {', '.join(missing)}")
    return (RULES.get(question["rule"]) or RULES[question["id"]])(question)


def deciding_records(question):
    """Return the names of the records that decide a question, made or not, each once."""
    parts = [question, *question.get("claims", [])]
    names = (
        name for part in parts for key in ("records", "more", "less") for name in part.get(key, [])
    )
    return list(dict.fromkeys(names))


def _number(question):
    """Compare reported numbers with those of a record, under every scoring and subset of slices."""
    record = records.load_record(question["records"][0])
    scored = record.own_grid if question.get("grid") == "own" else record.per_slice
    tables = {"all slices": scored, "slices with tumour": scored[scored["tp"] + scored["fn"] > 0]}
    rows = [
        {
            "claim": claim["text"],
            "slices": name,
            "scoring": scoring,
            **_compare(claim, tables[name], definition),
        }
        for claim in question["claims"]
        for name in question.get("subsets", ["all slices"])
        for scoring, definition in SCORINGS.items()
    ]
    table = pd.DataFrame(rows)
    # The answer under a scoring is that of its worst number; the question's is what scorings and subsets agree on.
    worst = table.groupby(["slices", "scoring"])["answer"].agg(_worst)
    answer = worst.iloc[0] if worst.nunique() == 1 else DEPENDS
    limits = {"low": ("ours", "min"), "high": ("ours", "max"), "luck": ("luck", "max")}
    found = list(
        table.groupby(["claim", "metric"], sort=False).agg(**limits).reset_index().itertuples()
    )
    number = ", ".join(f"{row.metric} {row.low:.2f}–{row.high:.2f}" for row in found)
    evidence = "; ".join(
        f"{row.claim}: ours {row.low:.3f} to {row.high:.3f} (chance: {row.luck:.2f})"
        for row in found
    )
    ways = ", ".join(f"{name} {(worst == name).sum()}" for name in (HOLDS, INCONCLUSIVE, FAILS))
    return Answer(
        answer, number, f"{evidence}. Answers over {len(worst)} ways of scoring: {ways}", table
    )


def _compare(claim, scored, definition):
    """Apply the rule for numbers: reported, ours, luck (95% of two random sets differ by less) and the answer."""
    scored, score = scored[scored["split"] == claim["set"]], ("dice", "iou").index(claim["metric"])
    ours = metrics.dice_and_iou(scored, definition)[score]
    draw = partial(stats.two_sets_within, labels=scored["patient"], draws=400)
    luck = draw(lambda rows: metrics.dice_and_iou(scored.iloc[rows], definition)[score])
    distance, margin = abs(claim["value"] - ours), CLAIMS["margin"]
    answer = HOLDS if distance <= margin else FAILS if distance > luck else INCONCLUSIVE
    return {
        "metric": ("Dice", "IoU")[score],
        "reported": claim["value"],
        "ours": ours,
        "luck": luck,
        "answer": answer,
    }


def _effect(question):
    """Compare two arms of records, paired by patient and averaged over seeds."""
    arms = (
        [records.load_record(name).per_slice for name in question[side]]
        for side in ("more", "less")
    )
    effect = arm_difference(*arms, question["score"])
    sign, seeds = 1 if effect["difference"] > 0 else -1, len(question["more"])
    by, (low, high) = (
        abs(effect["difference"]),
        sorted((sign * effect["low"], sign * effect["high"])),
    )
    name = {"dice_pooled": "Pooled Dice", "dice_patient_mean": "Mean per-patient Dice"}[
        question["score"]
    ]
    evidence = (
        f"{name} {'falls' if sign > 0 else 'rises'} from {effect['more']:.4f} to {effect['less']:.4f}, by {by:.4f} (95% interval "
        f"{low:.3f} to {high:.3f}, {effect['patients']} patients, {seeds} seed{'s' * (seeds > 1)}). These patients could show a "
        f"difference of {effect['detectable']:.3f}"
    )
    number = (
        f"{question['loser']} {'loses' if sign > 0 else 'gains'} {by:.3f} ({low:.3f} to {high:.3f})"
    )
    return Answer(
        _beyond(effect["low"], effect["high"], question), number, evidence, pd.DataFrame([effect])
    )


def _beyond(low, high, claim):
    """Return the answer that an interval gives to a claim that something is more, or that it is 'less than the margin'."""
    margin = claim.get("margin", CLAIMS["margin"])
    if claim.get("claimed") == "less than the margin":
        return HOLDS if high < margin else FAILS if low > margin else INCONCLUSIVE
    return FAILS if high < margin else HOLDS if low > 0 else INCONCLUSIVE


def _worst(answers):
    """Return the worst of several answers."""
    return max(answers, key=[HOLDS, INCONCLUSIVE, FAILS].index)


def arm_difference(more, less, score="dice_pooled"):
    """Compare two lists of tables like `Record.per_slice`, one per seed, on the test patients of all.

    score: 'dice_pooled' or 'dice_patient_mean'. Returns a dictionary: more, less (scores), difference, low, high (95% interval by
    bootstrap over patients), patients, and detectable, the smallest true difference that would be seen four times in five.
    """
    counted = ["tp", "fp", "fn"]
    arms = [
        [table.query("split == 'test'").groupby("patient")[counted].sum() for table in arm]
        for arm in (more, less)
    ]
    patients = sorted(set.intersection(*(set(table.index) for arm in arms for table in arm)))
    counts = [
        np.stack([table.loc[patients].to_numpy() for table in arm]) for arm in arms
    ]  # seeds, patients, 3

    def scores(drawn):
        """Return both arms' score of resampled patients, drawn (..., patients)."""
        if score == "dice_pooled":
            return [
                metrics.dice(*np.moveaxis(arm[:, drawn].sum(-2), -1, 0)).mean(0) for arm in counts
            ]
        return [metrics.dice(*np.moveaxis(arm[:, drawn], -1, 0)).mean((0, -1)) for arm in counts]

    low, high = stats.interval_over_patients(
        lambda drawn: np.subtract(*scores(drawn)), len(patients)
    )
    first, second = (float(value) for value in scores(np.arange(len(patients))))
    values = {
        "more": first,
        "less": second,
        "difference": first - second,
        "low": float(low),
        "high": float(high),
    }
    # By the normal distribution: 1.96 standard errors are half the interval, and 0.84 more give a power of 80%.
    return {
        **values,
        "patients": len(patients),
        "detectable": float(high - low) / 2 * (1.96 + 0.84) / 1.96,
    }


def _seeds(question):
    """Compare scores that exist once a training, paired by seed, claim by claim."""
    rows = [
        {"claim": claim["text"], **_seed_difference({**question, **claim})}
        for claim in question["claims"]
    ]
    table = pd.DataFrame(rows).replace(
        {"score": {"gap": "loss gap", "jumps": "loss steps", "dice_pooled": "Dice"}}
    )
    evidence = [
        f"{row.claim}: {row.answer}, {row.score} {row.difference:+.4f} ({row.low:+.4f} to {row.high:+.4f}; "
        f"{row.seeds} seeds could show {row.detectable:.4f})"
        for row in table.itertuples()
    ]
    answer = _worst(table["answer"])
    number = "{score} {difference:+.4f} ({low:+.4f} to {high:+.4f})".format(
        **table[table["answer"] == answer].iloc[0]
    )
    return Answer(answer, number, "; ".join(evidence), table)


def _seed_difference(claim):
    """Return score, difference (`more` less `less`, mean over seeds), low, high (95% t interval), detectable, seeds, answer."""
    difference = _by_seed(claim["more"], claim["score"]) - _by_seed(claim["less"], claim["score"])
    low, high = scipy.stats.ttest_1samp(difference, 0).confidence_interval()
    spread = {
        "difference": difference.mean(),
        "low": low,
        "high": high,
        "detectable": stats.detectable(difference),
    }
    return {
        "score": claim["score"],
        **spread,
        "seeds": len(difference),
        "answer": _beyond(low, high, claim),
    }


def _by_seed(names, score):
    """Return the score of each seed, averaged over the records that share it (both rates of dropout count alike)."""
    loaded = [records.load_record(name) for name in names]
    seeds = [record.run["experiment"]["seed"] for record in loaded]
    return pd.Series([training_score(record, score) for record in loaded]).groupby(seeds).mean()


def training_score(record, score):
    """Return a score that a training has once: 'gap', 'jumps' or 'dice_pooled', as claims.yml defines them."""
    history = record.history
    if score == "gap":
        return (history["val_loss"] - history["loss"]).tail(10).mean()
    if score == "jumps":
        return history["val_loss"].tail(51).diff().abs().median()
    return metrics.dice_and_iou(record.per_slice.query("split == 'val'"), SCORINGS["pooled"])[0]


def _curves(question):
    """Judge from one training's losses whether it overfits, and less so at half its epochs."""
    history = records.load_record(question["records"][0]).history
    losses = history.set_index("epoch")[["loss", "val_loss"]].rolling(10).mean().dropna()
    lowest, half, end = losses.loc[losses["val_loss"].idxmin()], losses.loc[64], losses.loc[128]
    rise = end["val_loss"] / lowest["val_loss"]
    gaps = [row["val_loss"] - row["loss"] for row in (half, end)]
    held = [rise > 1.1 and end["loss"] < lowest["loss"], gaps[0] < gaps[1]]
    return Answer(
        HOLDS if all(held) else INCONCLUSIVE if any(held) else FAILS,
        f"validation loss {rise:.2f} times its lowest",
        f"Averaged over ten epochs, the validation loss is lowest at epoch {lowest.name} and ends at {rise:.2f} times that, while the "
        f"training loss goes from {lowest['loss']:.4f} to {end['loss']:.4f}. Validation minus training loss, averaged likewise, is "
        f"{gaps[0]:.4f} at epoch 64 and {gaps[1]:.4f} at epoch 128",
        losses.reset_index(),
    )


def implied_dice():
    """Return, for each reported pair, the Dice that its IoU implies: a table set, iou, dice, implied, gap (dice - implied)."""
    rows = [(name, table["jacard_coef"], table["dice_coef"]) for name, table in TABLES.items()]
    table = pd.DataFrame(rows, columns=["set", "iou", "dice"])
    table["implied"] = metrics.dice_from_iou(table["iou"])
    return table.assign(gap=table["dice"] - table["implied"])


def _one_quantity(question):
    """Check by arithmetic whether the reported scores can describe the same predictions."""
    pairs, test = implied_dice(), TABLES["test"]
    above = pairs.loc[pairs["gap"].idxmax()].replace("train", "training")
    # A mean IoU averages tumour and background; where tumour is rare, the background's IoU is nearly the accuracy.
    tumour = 2 * test["mean_iou"] - test["accuracy"]
    apart = abs(tumour - test["jacard_coef"]) > CLAIMS["margin"]
    return Answer(
        CONTRADICTS if above["gap"] > 0 or apart else HOLDS,
        f"{above['implied']:.3f} Dice at most",
        f"Computed in the same way, an IoU of {above['iou']} allows a Dice of {above['implied']:.4f} at most, but the table of the "
        f"{above['set']} set prints {above['dice']}. If it is pooled, the mean IoU of {test['mean_iou']} implies a tumour IoU of "
        f"{tumour:.3f}, not {test['jacard_coef']}; a mean over slices would not",
        pairs,
    )


def error_ratios(scored, by, draws=stats.DRAWS):
    """Draw pairs of random tenths of a per-slice table and return the larger error rate over the smaller, float (draws,).

    by: 'slice' or 'patient', what is drawn; the two tenths of a pair have none in common.
    """
    counts = scored[["fp", "fn"]].sum(axis=1).to_frame("errors").assign(slices=1)
    sums = counts.groupby(scored["patient"] if by == "patient" else scored.index).sum().to_numpy()
    tenth = round(len(sums) / 10)
    pairs = stats.draw(sums, 2 * tenth, draws).reshape(draws, 2, tenth, 2).sum(2)
    rates = pairs[..., 0] / pairs[..., 1]
    return rates.max(1) / rates.min(1)


def tumour_shares(by, draws=stats.DRAWS):
    """Draw random tenths of the cohort, by 'slice' or 'patient', and return their shares of tumour pixels, float (draws,)."""
    slices = runs.read_csv(records.RECORDS / "cohort.csv")
    counts = slices[["tumour_area"]].assign(pixels=slices["height"] * slices["width"])
    sums = counts.groupby(slices["patient"] if by == "patient" else slices.index).sum().to_numpy()
    drawn = stats.draw(sums, round(len(sums) / 10), draws).sum(1)
    return drawn[:, 0] / drawn[:, 1]


def _sets_alike(question):
    """Compare the reported error rates and the tumour share of validation with those of random tenths."""
    ratio = (1 - TABLES["val"]["accuracy"]) / (1 - TABLES["test"]["accuracy"])
    tumour = 1 - REPORTED["first_val_accuracy"]
    drawn = {"slice": "known-patients", "patient": "new-patients"}
    errors = {
        by: (error_ratios(records.load_record(name).per_slice, by) >= ratio).mean()
        for by, name in drawn.items()
    }
    shares = np.array([tumour_shares(by) for by in drawn])
    as_rich = shares >= tumour
    signs = [max(errors.values()), as_rich.mean(1).max()]
    return Answer(
        FAILS if min(signs) < 0.001 else HOLDS if min(signs) > 0.05 else INCONCLUSIVE,
        f"{tumour:.1%} tumour; random sets ≤{shares.max():.1%}",
        f"If run 3 marks nothing in its first epochs, their validation accuracy implies {tumour:.1%} tumour; {as_rich.sum()} of "
        f"{as_rich.size:,} random tenths have as much. The error rate of validation is {ratio:.2f} times that of test; so large a "
        f"ratio occurs in {errors['slice']:.1%} of pairs of tenths drawn by slice and in {errors['patient']:.1%} by patient",
    )


def _documents(question):
    """List where two places of the sources disagree."""
    found = [claim["found"] for claim in question["claims"] if claim.get("found")]
    return Answer(
        CONTRADICTS if found else HOLDS,
        question["found"] if found else "no disagreement",
        "; ".join(found),
    )


RULES = {
    "number": _number,
    "effect": _effect,
    "seeds": _seeds,
    "curves": _curves,
    "documents": _documents,
}
RULES |= {"one-quantity": _one_quantity, "sets-alike": _sets_alike}
