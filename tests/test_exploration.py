"""The search for what was done: on numbers that were put there, by hand."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from lggseg_utils import arms, exploration, records, sources, verdict
from lggseg_utils.arms import CLAIMS
from lggseg_utils.verdict import Verdict


@pytest.fixture
def put_there(monkeypatch):
    """Let trainings of three splits be this far apart around some numbers of the report.

    Those are Dice by slice, IoU by batch, loss and accuracy, on the slices that `SCORED_ON` names.
    All other scores are far from the report's. Two trainings share a split.
    """
    near = {"dice": "slice", "iou": "batch", "loss": "pooled", "accuracy": "pooled"}
    shifts = {"x-0": -1, "x-1": 0, "x-2": 1, "y-2": 1}

    def put(spread):
        keys = product(("train", "val", "test"), exploration.SUBSETS, ("dice", "iou"))
        keys = [(*key, unit) for key in keys for unit in ("slice", "batch")]
        histories = product(("train", "val", "test"), exploration.SUBSETS, ("loss", "accuracy"))
        rows = []
        for part, subset, score, unit in [*keys, *((*key, "pooled") for key in histories)]:
            there = unit == near[score] and subset == exploration.SCORED_ON[part]
            value = sources.reported(part, score) + (0 if there else 0.2)
            for name, shift in shifts.items():
                key = (name, part, subset, "128", score, "masks", unit, 1)
                rows.append((*key, value + spread * shift))
        columns = ["training", "set", "subset", "grid", *records.WAY, "value"]
        monkeypatch.setattr(records, "read_scores", lambda: pd.DataFrame(rows, columns=columns))
        return list(shifts)

    return put


def test_the_search_finds_numbers_that_were_put_there(put_there):
    best = exploration.hypotheses({"arm": put_there(1e-3)}).iloc[0]
    assert (best["dice"], best["iou"]) == ("masks, by slice, plus 1", "masks, by batch, plus 1")
    assert best["validation"] == "slices with tumour"
    assert (best["met"], best["met_dice"], best["met_iou"]) == (9, 3, 3)
    assert best["met_others"] == 3, "the rest is wider than the reported loss or error itself"


def test_numbers_are_compared_split_by_split_on_the_slices_that_are_scored(put_there):
    """t of 0.975 for two degrees of freedom, from a printed table: 4.303."""
    table = exploration.number_table(put_there(1e-3))
    assert set(table[table["set"] != "val"]["subset"]) == {"all slices"}
    row = table.query("set == 'test' and score == 'dice' and unit == 'slice'").iloc[0]
    assert row["mean"] == pytest.approx(row["reported"]), "two of the four share a split"
    losses = table[(table["score"] == "loss") & ~table["wide"]]
    assert set(losses["set"]) == {"val", "test"}, "0.005 to either side; training has 0.0022"


def test_a_spread_that_says_nothing_meets_nothing(put_there):
    table = exploration.number_table(put_there(0.1))
    assert table["wide"].all()
    assert not table["met"].any()


def test_an_earlier_epoch_is_compared_on_the_own_grid(early, monkeypatch):
    ends = {"x-0": 0.9, "x-1": 0.8, "x-2": 0.1, "x-3": np.nan}
    monkeypatch.setattr(arms, "trainings", {"plain64": list(ends)}.get)
    monkeypatch.setattr(arms, "ended_calmly", lambda names: [n for n in names if n != "x-2"])
    monkeypatch.setattr(arms, "scores_of", lambda names, *_: np.array([ends[n] for n in names]))
    table = exploration.by_epoch()
    assert len(table) == 12
    assert (table["early"] - table["reported"]).to_numpy() == pytest.approx(0.049 / 3)
    assert table["end"].to_numpy() == pytest.approx(0.85), "x-2 ended in a spike, x-3 lacks it"


def test_the_twelve_numbers_stand_set_by_set_as_they_are_counted():
    names = ["grid64-batch16-0", "grid64-batch16-1", "grid64-batch16-2"]
    table = exploration.twelve_numbers(names)
    assert list(table["set"]) == ["train"] * 4 + ["val"] * 4 + ["test"] * 4
    assert list(table["score"]) == ["loss", "accuracy", "iou", "dice"] * 3
    for row in table.itertuples():
        subset = exploration.SCORED_ON[row.set]
        values = arms.scores_of(names, row.set, subset, exploration.WAY_OF[row.score])
        assert row.mean == pytest.approx(values.mean())
        assert row.reported == sources.reported(row.set, row.score)


def test_a_training_is_near_where_one_way_brings_both_scores_within_the_margin(monkeypatch):
    first, second = verdict.SINGLE[:2]
    apart = {
        ("both", second): (0.02, -0.019),
        ("one each", first): (0.0, 0.03),
        ("one each", second): (0.03, 0.0),
    }

    def pair_of(name, part, subset, way):
        assert subset == exploration.SCORED_ON[part]
        shifts = apart.get((name, way), (0.5, 0.5))
        scores = zip(("dice", "iou"), shifts, strict=True)
        return {score: sources.reported(part, score) + shift for score, shift in scores}

    monkeypatch.setattr(exploration, "pair_of", pair_of)
    monkeypatch.setitem(CLAIMS, "margin", 0.0201)
    assert exploration.near(["one each", "both"], "val") == ["both"]


def test_answers_by_way_say_what_the_first_page_says_of_them():
    table = exploration.answers_by_way()
    assert list(table.index[:-1]) == list(verdict.WAYS)
    fixed, found_later = table.iloc[:-1], table.iloc[-1]
    assert (fixed["val"] == Verdict.REPLICATED).to_numpy().sum() == 1
    assert (fixed["test", "all slices"] == Verdict.REPLICATED).any()
    assert (fixed["train", "all slices"] == Verdict.REPLICATED).any()
    assert found_later["train", "all slices"] == Verdict.REPLICATED
    assert found_later["val", "slices with tumour"] == Verdict.REPLICATED
    assert found_later["val", "all slices"] == Verdict.NOT_REPLICATED
    assert found_later["test", "all slices"] == Verdict.NOT_REPLICATED
