"""The recipe's tables, on numbers worked out by hand."""

import json

import numpy as np
import pandas as pd
import pytest

from lggseg_utils import config, recipe, results


@pytest.fixture
def attempts():
    """Two attempts, three patients in two folds, four ways to score each."""
    dice = {"plain": (0.4, 0.6, 0.8), "better": (0.6, 0.7, 0.8)}
    rows = [
        {"attempt": name, "settings": "{}", "fold": fold, "minutes": 5.0, "patient": patient, "dice": value + gain}
        | {"at_test_time": way}
        for name, values in dice.items()
        for patient, fold, value in zip("ABC", (0, 0, 2), values, strict=True)
        for way, gain in (
            (recipe.AS_TRAINED, 0.0),
            ("flips", 0.1),
            ("largest piece", -0.1),
            ("flips, largest piece", 0.0),
        )
    ]
    return pd.DataFrame(rows)


def test_an_attempts_row_counts_each_patient_and_each_fold_once(attempts):
    table = recipe.attempts_table(attempts).set_index("attempt")
    assert list(table.index) == ["plain", "better"]
    assert table["mean Dice"].tolist() == pytest.approx([0.6, 0.7])
    assert table["median Dice"].tolist() == pytest.approx([0.6, 0.7])
    assert table["failed"].tolist() == [1, 0]


def test_attempts_are_compared_with_plain_patient_by_patient(attempts):
    (row,) = recipe.against_plain(attempts).itertuples()
    assert (row.condition, row.patients) == ("better", 3) and row.difference == pytest.approx(0.1)
    assert 0 <= row.low <= row.difference <= row.high <= 0.2 + 1e-9


def test_the_ways_to_score_stand_side_by_side(attempts):
    table = recipe.at_test_time(attempts).set_index("attempt")
    assert table.loc["plain", ["as trained", "flips", "largest piece"]].tolist() == pytest.approx([0.6, 0.7, 0.5])


def test_before_and_after_are_paired_by_patient():
    before = pd.DataFrame({"patient": ["A", "B"], "dice": [0.9, 0.1]})
    after = pd.DataFrame({"patient": ["B", "A"], "dice": [0.7, 0.8]})
    assert recipe.before_and_after(before, after).to_numpy().tolist() == [["B", 0.1, 0.7], ["A", 0.9, 0.8]]
    with pytest.raises(ValueError, match="not hold the same patients"):
        recipe.before_and_after(before, after.head(1))


def test_a_gain_counts_who_left_the_failures_and_who_joined_them():
    paired = pd.DataFrame({"patient": list("ABCD"), "before": [0.2, 0.4, 0.8, 0.9], "after": [0.3, 0.7, 0.4, 0.9]})
    gain = recipe.gain(paired)
    assert gain["difference"] == pytest.approx(0.0) and gain["low"] < 0 < gain["high"]
    assert (gain["failed before"], gain["failed after"], gain["cured"], gain["new"]) == (2, 2, 1, 1)


def test_others_stand_beside_ours_with_what_they_gave():
    entry = {"dice_patient_mean": {"value": 0.8, "low": 0.7, "high": 0.9}, "dice_patient_median": {"value": 0.85}}
    table = recipe.beside_others({"ours": entry}, results.REPORTED["others"])
    assert table.iloc[0].tolist() == ["ours", "0.800 (0.700 to 0.900)", "0.850"]
    assert table.iloc[-1]["median"] == "–" and len(table) == 4 and not table["mean"].eq("–").any()


def test_the_kept_attempts_can_be_read():
    attempts = recipe.load_attempts()
    assert np.isfinite(attempts["dice"]).all() and set(attempts["at_test_time"]) == {
        "as trained",
        "flips",
        "largest piece",
        "flips, largest piece",
    }
    counts = attempts.groupby(["attempt", "at_test_time"])["patient"].agg(["size", "nunique"])
    assert (counts["size"] == counts["nunique"]).all() and counts["size"].nunique() == 1


def test_what_chapter_12_says_of_the_choice_holds():
    tried = recipe.attempts_table(recipe.load_attempts()).set_index("attempt")
    assert tried["mean Dice"].idxmax() == "head" and tried["median Dice"].idxmax() != "head"
    frozen, before = (config.load_experiment(name) for name in ("recipe", "crossval64"))
    assert (frozen.scaling, frozen.size, frozen.epochs - before.epochs) == ("head", 80, 3)
    together = [name for name in tried.index if "together" in name]
    assert together and "context" not in json.dumps(tried["settings"].drop(together).tolist())
