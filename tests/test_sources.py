"""What the sources report, what follows from it, and random tenths of the cohort."""

import numpy as np
import pandas as pd
import pytest

from lggseg_utils import records, runs, sources


def test_error_ratios_are_of_tenths_that_have_nothing_in_common():
    """Ten slices with 1 to 10 errors: a tenth is one of them, and the other tenth is another one."""
    table = pd.DataFrame({"patient": range(10), "fp": 1, "fn": range(10)})
    ratios = sources.error_ratios(table, "slice", draws=2000)
    assert (ratios.min(), ratios.max()) == pytest.approx((10 / 9, 10))


def test_error_ratios_know_what_they_draw():
    """Slices of one patient go together."""
    table = pd.DataFrame(
        {"patient": np.repeat(range(20), 10), "fp": np.repeat(range(1, 21), 10), "fn": 0}
    )
    by_slice, by_patient = (
        sources.error_ratios(table, by, draws=500) for by in ("slice", "patient")
    )
    assert np.median(by_patient) - 1 > 2 * (np.median(by_slice) - 1)


def test_tumour_shares_are_those_of_tenths(monkeypatch):
    """A random tenth: the spread of 6 of 60 slices, of which one in six is tumour."""
    slices = pd.DataFrame(
        {"patient": range(60), "tumour_area": ([100] + 5 * [0]) * 10, "height": 10, "width": 10}
    )
    monkeypatch.setattr(records, "read_csv", lambda path: slices)
    shares = sources.tumour_shares("slice", draws=4000)
    p = 1 / 6
    assert shares.std() == pytest.approx(np.sqrt(p * (1 - p) / 6 * 54 / 59), rel=0.05)


def test_the_reports_numbers_are_those_printed():
    test, val = sources.TABLES["test"], sources.TABLES["val"]
    assert (test["dice_coef"], test["mean_iou"]) == (0.86219, 0.93896)
    assert val["accuracy"] == 0.9936
    assert len(sources.REPORTED["runs"]) == 6


def test_implied_scores_by_hand():
    table = sources.implied_dice().set_index("set")
    assert table["implied"].round(4).tolist() == [0.9466, 0.8743, 0.8713]
    assert table.loc["train", "gap"] == pytest.approx(0.9568 - 0.9466, abs=1e-4)
    assert sources.implied_tumour_iou() == pytest.approx(0.880, abs=5e-4)
    assert sources.error_ratio() == pytest.approx(2.56)


def test_the_implied_tumour_iou_is_that_of_masks_with_as_rare_a_tumour(monkeypatch):
    rng = np.random.default_rng(0)
    truth = rng.random((200, 64, 64)) < 0.01
    predicted = truth ^ (rng.random(truth.shape) < 0.0025)
    shared, either = (truth & predicted).sum(), (truth | predicted).sum()
    iou, accuracy = shared / either, (truth == predicted).mean()
    background = (~truth & ~predicted).sum() / (~truth | ~predicted).sum()
    table = {"mean_iou": (iou + background) / 2, "accuracy": accuracy}
    monkeypatch.setitem(sources.TABLES, "test", table)
    assert sources.implied_tumour_iou() == pytest.approx(iou, abs=0.001)


def test_tumour_shares_know_what_they_draw():
    slices = runs.read_csv(records.RECORDS / "cohort.csv")
    whole = slices["tumour_area"].sum() / (len(slices) * 128**2)
    by_slice, by_patient = (sources.tumour_shares(by, draws=800) for by in ("slice", "patient"))
    assert by_slice.mean() == pytest.approx(whole, rel=0.02)
    assert by_patient.mean() == pytest.approx(whole, rel=0.04)
    assert by_patient.std() > 2 * by_slice.std()


def test_error_ratios_are_one_where_all_slices_are_alike():
    table = pd.DataFrame({"fp": 3, "fn": 4, "patient": np.repeat(list("abcdefghij"), 4)})
    for by in ("slice", "patient"):
        assert sources.error_ratios(table, by, draws=50) == pytest.approx(1)
