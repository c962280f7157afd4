"""Attempts at a better recipe, and what the one that was frozen did for the patients that had failed (beyond the report)."""

import pandas as pd

from lggseg_utils import ablation, evaluate
from lggseg_utils.config import read_csv
from lggseg_utils.findings import FAILED
from lggseg_utils.records import RECORDS

ATTEMPTS = RECORDS / "recipe" / "attempts.csv"
BASELINE = "plain"
AS_TRAINED = "as trained"


def load_attempts():
    """Every attempt on its validation patients: attempt, settings, fold, minutes, patient, dice, at_test_time, git_commit.

    `at_test_time` is one of 'as trained', 'flips', 'largest piece' and 'flips, largest piece': each network was scored in
    these four ways. Written by results/recipe.py.
    """
    table = read_csv(ATTEMPTS)
    names = {
        (False, False): AS_TRAINED,
        (True, False): "flips",
        (False, True): "largest piece",
        (True, True): "flips, largest piece",
    }
    chosen = list(zip(table["test_time_flips"], table["largest_component"], strict=True))
    return table.drop(columns=["test_time_flips", "largest_component"]).assign(
        at_test_time=[names[key] for key in chosen]
    )


def attempts_table(attempts):
    """A row an attempt, scored as trained: attempt, settings, mean and median Dice a patient, failed (patients)."""
    trained = attempts[attempts["at_test_time"] == AS_TRAINED]
    grouped = trained.groupby("attempt", sort=False)
    return pd.DataFrame(
        {
            "settings": grouped["settings"].first(),
            "mean Dice": grouped["dice"].mean(),
            "median Dice": grouped["dice"].median(),
            "failed": grouped["dice"].agg(lambda dice: int((dice < FAILED).sum())),
        }
    ).reset_index()


def against_plain(attempts):
    """Each attempt against BASELINE, paired by patient, as `ablation.differences`; scored as trained."""
    trained = attempts[attempts["at_test_time"] == AS_TRAINED]
    return ablation.differences(trained.rename(columns={"attempt": "condition"}).assign(seed=0), BASELINE)


def at_test_time(attempts):
    """Mean Dice per patient of each attempt under each of the four ways to score it; a row an attempt."""
    means = attempts.pivot_table(index="attempt", columns="at_test_time", values="dice", sort=False)
    return means.rename_axis(columns=None).reset_index()


def before_and_after(before, after):
    """Dice of each patient under two cross-validations: patient, before, after, sorted by what came before.

    before, after: tables of per_patient.csv. Raises ValueError where they do not hold the same patients.
    """
    tables = [table.set_index("patient")["dice"] for table in (before, after)]
    if set(tables[0].index) != set(tables[1].index):
        raise ValueError("the two cross-validations do not hold the same patients")
    return pd.concat(tables, axis=1, keys=["before", "after"]).sort_values("before").reset_index()


def gain(paired):
    """What changed from one cross-validation to the next; paired: table of `before_and_after`.

    Returns a dictionary: difference of the mean Dice per patient with low and high (95 % bootstrap over patients), and how many
    patients are below FAILED: 'failed before', 'failed after', 'cured' (before alone) and 'new' (after alone).
    """
    rows = paired.melt("patient", ["before", "after"], "condition", "dice").assign(seed=0)
    difference = ablation.differences(rows, "before").iloc[0]
    failed = paired[["before", "after"]] < FAILED
    counts = {
        "failed before": failed["before"].sum(),
        "failed after": failed["after"].sum(),
        "cured": (failed["before"] & ~failed["after"]).sum(),
        "new": (failed["after"] & ~failed["before"]).sum(),
    }
    return {**difference[["difference", "low", "high"]], **{name: int(count) for name, count in counts.items()}}


def beside_others(scores, others):
    """Dice per patient of ours and of others on this cohort: who, mean, median, as text, intervals where there are any.

    scores: label -> the entries of a set in metrics.json; others: dictionaries who, mean and, where they give it, median.
    """
    ours = [
        {
            "who": label,
            "mean": evaluate.with_interval(entries["dice_patient_mean"]),
            "median": evaluate.number(entries["dice_patient_median"]["value"]),
        }
        for label, entries in scores.items()
    ]
    theirs = [
        {name: evaluate.number(value) if name != "who" else value for name, value in row.items()} for row in others
    ]
    return pd.DataFrame([*ours, *theirs]).fillna("–")
