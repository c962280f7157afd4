"""Counts, scores, intervals, floors."""

import json

import cv2
import numpy as np
import pandas as pd
import pytest

from lggseg_utils import config, evaluate, metrics, preprocess, train
from lggseg_utils.config import UserError


def cohort_of(truths):
    """A cohort that knows only its table and truths."""
    slices = pd.DataFrame(
        {"patient": [f"P{number // 2}" for number in range(len(truths))], "slice": range(len(truths))}
    )
    blank = np.zeros((len(truths), 4, 4, 3), np.uint8)
    return preprocess.Cohort(slices, blank, truths, truths, "", 0)


def test_counts_and_soft_sums_by_hand():
    truths = np.array([[[1, 1], [0, 0]]], np.uint8)
    predicted = np.array([[[0.9, 0.2], [0.6, 0.1]]], np.float32)
    row = evaluate.score_slices([(np.array([0]), predicted)], cohort_of(truths)).iloc[0]
    assert row[["tp", "fp", "fn", "tn"]].tolist() == [1, 1, 1, 1]
    assert row["soft_intersection"] == pytest.approx(1.1) and row["soft_sum"] == pytest.approx(2 + 1.8)
    assert row["loss"] == pytest.approx(-np.log([0.9, 0.2, 0.4, 0.9]).mean(), rel=1e-5)


def scored_slices(patients=6, slices=5, seed=0):
    """A made-up per-slice table."""
    rng = np.random.default_rng(seed)
    rows = patients * slices
    counts = rng.integers(0, 40, (rows, 3))
    counts[::4] = 0
    table = pd.DataFrame(counts, columns=["tp", "fp", "fn"]).assign(tn=1000)
    table["soft_intersection"], table["soft_sum"] = table["tp"] * 0.9, table["tp"] * 1.9 + table["fp"] + table["fn"]
    return table.assign(
        patient=np.repeat([f"P{number}" for number in range(patients)], slices),
        slice=np.tile(range(slices), patients),
        loss=0.1,
        split="test",
    )


def test_scores_of_a_set_by_definition():
    table = scored_slices()
    scores = {name: entry["value"] for name, entry in evaluate.set_scores(table, True, resamples=50).items()}
    tp, fp, fn, tn = (table[name].sum() for name in evaluate.COUNTS)
    slice_dice = metrics.dice(table["tp"], table["fp"], table["fn"])
    patients = table.groupby("patient")[["tp", "fp", "fn"]].sum()
    patient_dice = metrics.dice(patients["tp"], patients["fp"], patients["fn"])
    assert scores["dice_pooled"] == pytest.approx(metrics.dice(tp, fp, fn))
    assert scores["accuracy"] == pytest.approx((tp + tn) / (tp + fp + fn + tn))
    assert scores["dice_slice_mean"] == pytest.approx(slice_dice.mean())
    assert scores["dice_slice_tumour_mean"] == pytest.approx(slice_dice[(table["tp"] + table["fn"]) > 0].mean())
    assert scores["dice_patient_mean"] == pytest.approx(patient_dice.mean())
    assert scores["dice_patient_median"] == pytest.approx(np.median(patient_dice))
    assert (scores["dice_coef"], scores["jacard_coef"]) == pytest.approx(
        metrics.batch_scores(table["soft_intersection"].to_numpy(), table["soft_sum"].to_numpy(), 16)
    )
    assert scores["loss"] == pytest.approx(0.1)


def test_intervals_hold_their_value_and_narrow_with_more_patients():
    few, many = (evaluate.set_scores(scored_slices(count), True, resamples=400) for count in (5, 80))
    for scores in (few, many):
        assert all(
            entry["low"] <= entry["value"] <= entry["high"] for entry in scores.values() if entry["low"] is not None
        )
    width = [scores["dice_pooled"]["high"] - scores["dice_pooled"]["low"] for scores in (few, many)]
    assert width[1] < width[0] / 2


def test_bootstrap_keeps_a_patients_slices_together():
    table = scored_slices(2, 50)
    table["tp"], table["fp"], table["fn"] = (
        np.where(table["patient"] == "P0", 10, 0),
        0,
        np.where(table["patient"] == "P0", 0, 10),
    )
    entry = evaluate.set_scores(table, True, resamples=400)["dice_pooled"]
    assert (entry["low"], entry["high"]) == (0, 1)


def test_one_patient_has_no_interval_and_split_patients_no_dice_a_patient():
    entry = evaluate.set_scores(scored_slices(1), True)["dice_pooled"]
    assert entry["low"] is None and entry["high"] is None
    assert "dice_patient_mean" not in evaluate.set_scores(scored_slices(), False, resamples=20)


def test_a_set_without_any_tumour_gives_numbers_or_none():
    table = scored_slices().assign(tp=0, fp=0, fn=0)
    scores = evaluate.set_scores(table, True, resamples=20)
    assert scores["dice_pooled"]["value"] == 1 and scores["precision"]["value"] is None
    assert scores["dice_slice_tumour_mean"]["value"] is None
    json.dumps(scores, allow_nan=False)


def test_otsu_finds_what_is_bright_within_the_head():
    flair = np.zeros((64, 64), np.uint8)
    flair[8:56, 8:56] = 80
    flair[20:30, 20:30] = 200
    assert np.array_equal(evaluate.otsu_mask(flair), flair == 200)
    assert not evaluate.otsu_mask(np.zeros((8, 8), np.uint8)).any()


def test_an_evaluated_run_is_whole_and_adds_up(phantom_folder, open_smoke):
    run = open_smoke(phantom_folder)
    evaluation = evaluate.evaluate(run)
    split = preprocess.load_split(run, preprocess.load_cohort(run).slices)
    per_slice = evaluation.per_slice
    assert list(per_slice.columns) == evaluate.PER_SLICE_COLUMNS and len(per_slice) == len(split)
    assert per_slice["split"].value_counts().to_dict() == split["split"].value_counts().to_dict()
    assert (per_slice[evaluate.COUNTS].sum(axis=1) == 128 * 128).all()
    assert list(evaluation.per_patient.columns) == [
        "patient",
        "split",
        "slices",
        "tumour_slices",
        *evaluate.COUNTS,
        "dice",
        "iou",
    ]
    assert evaluation.per_patient["slices"].sum() == len(split)
    assert set(evaluation.metrics) == set(preprocess.SETS) and run.path("metrics_best.json").exists()
    floor = evaluation.floors.query("floor == 'all background' and split == 'test'").iloc[0]
    test = per_slice[per_slice["split"] == "test"]
    assert floor["accuracy"] == pytest.approx(1 - (test["tp"] + test["fn"]).sum() / (len(test) * 128 * 128))
    assert floor["iou_pooled"] == 0


def test_predictions_do_not_depend_on_their_neighbours_in_the_batch(phantom_folder, open_smoke):
    run = open_smoke(phantom_folder, normalization="batch", precision="float32", epochs=1)
    network, _ = train.train(run)
    cohort = preprocess.load_cohort(run)
    together = np.concatenate([p for _, p in evaluate.probabilities(network, cohort, np.arange(20), run.experiment)])
    alone = np.concatenate([p for _, p in evaluate.probabilities(network, cohort, np.array([19]), run.experiment)])
    assert together[19] == pytest.approx(alone[0], abs=1e-4) and together.shape == (20, 128, 128)


def test_numbers_as_text():
    assert (evaluate.number(0.9386), evaluate.number(0.00217), evaluate.number(None), evaluate.number(1.0)) == (
        "0.939",
        "0.00217",
        "–",
        "1.000",
    )
    assert evaluate.interval({"low": 0.1, "high": 0.25}) == "0.100 to 0.250"


def test_examples_are_best_median_and_worst():
    chosen = evaluate.example_slices(scored_slices())
    assert chosen["rank"].tolist() == ["best", "median", "worst"] and chosen["dice"].is_monotonic_decreasing


def test_dice_by_size_parts_small_from_large_tumours():
    rows = [(1, 0, 1), (0, 0, 4), (8, 2, 2), (45, 0, 5), (0, 3, 0)]
    table = pd.DataFrame(rows, columns=["tp", "fp", "fn"]).assign(split="test")
    found = evaluate.dice_by_size(table)
    assert (found["slices"], found["median_area"]) == (4, 7)
    assert found["small"] == pytest.approx((2 / 3 + 0) / 2) and found["large"] == pytest.approx((0.8 + 90 / 95) / 2)


def test_the_order_of_scoring_is_shuffled_by_seed():
    rows = np.arange(40)
    first, again, other = (evaluate.shuffled(rows, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert not np.array_equal(first, rows) and set(first) == set(rows)


class Mirror:
    """A stand-in for a network that marks the left half of what it is shown."""

    def predict_on_batch(self, images):
        left = np.arange(images.shape[2]) < images.shape[2] // 2
        return np.broadcast_to(left[None, None, :, None], (*images.shape[:3], 1)).astype(np.float32)


def test_flips_at_test_time_are_undone_and_averaged(phantom_folder, open_smoke):
    run = open_smoke(phantom_folder, test_time_flips=True)
    cohort = preprocess.load_cohort(run)
    ((_, predicted),) = evaluate.probabilities(Mirror(), cohort, np.arange(3), run.experiment)
    assert np.abs(predicted - 0.5).max() < 1e-6
    plain = run.experiment.model_copy(update={"test_time_flips": False})
    ((_, predicted),) = evaluate.probabilities(Mirror(), cohort, np.arange(3), plain)
    assert predicted[..., :60].min() == 1 and predicted[..., 68:].max() == 0


def test_the_largest_piece_is_found_across_slices():
    volume = np.zeros((3, 6, 6), bool)
    volume[0, :2, :2] = True  # 4 pixels, alone
    volume[1, 4:, 4:] = volume[2, 4:, 3:] = True  # 4 and 6 pixels that touch
    kept = evaluate.largest_piece(volume)
    assert kept.sum() == 10 and not kept[0].any()
    assert not evaluate.largest_piece(np.zeros((2, 3, 3), bool)).any()


def test_only_the_largest_piece_of_each_patient_is_kept_whatever_the_order(phantom_folder, open_smoke):
    run = open_smoke(phantom_folder, largest_component=True)
    cohort = preprocess.load_cohort(run)
    rows = evaluate.shuffled(np.arange(len(cohort.slices)), 3)
    rng = np.random.default_rng(0)
    raw = {row: (rng.random((128, 128)) > 0.7).astype(np.float32) * 0.9 for row in rows}
    raw = {row: cv2.blur(noise, (9, 9)) * 1.6 for row, noise in raw.items()}
    batches = [
        (rows[at : at + 16], np.stack([raw[row] for row in rows[at : at + 16]])) for at in range(0, len(rows), 16)
    ]
    kept = dict(zip(rows, np.concatenate([part for _, part in evaluate._keep_largest(batches, cohort)]), strict=True))
    for patient in cohort.slices["patient"].unique():
        stack = np.flatnonzero(cohort.slices["patient"] == patient)
        before, after = (np.stack([source[row] for row in stack]) for source in (raw, kept))
        assert 0 < (after > 0.5).sum() < (before > 0.5).sum()
        assert np.array_equal(after > 0.5, evaluate.largest_piece(before > 0.5))
        assert np.array_equal(after[before <= 0.5], before[before <= 0.5])


def test_the_largest_component_needs_whole_patients():
    with pytest.raises(config.UserError, match="largest_component needs whole patients: set split to patient"):
        config.load_experiment("smoke", overrides={"largest_component": True, "split": "slice"})


def test_a_network_with_context_trains_and_is_scored(phantom_folder, open_smoke):
    run = open_smoke(phantom_folder, context=1, scaling="volume", augmentation="all", test_time_flips=True, epochs=1)
    assert train.train(run)[0].input_shape == (None, 32, 32, 9)
    assert len(evaluate.evaluate(run).per_slice) == 30


def test_a_set_without_tumour_has_no_examples():
    table = scored_slices().assign(tp=0, fn=0, split="test")
    with pytest.raises(
        UserError, match="no slice of the test set shows tumour, so there is nothing to find: try another seed"
    ):
        evaluate.example_slices(table)


def test_an_interval_that_is_not_there_is_a_dash():
    for missing in (None, float("nan")):
        entry = {"value": 0.5, "low": missing, "high": missing}
        assert (evaluate.interval(entry), evaluate.with_interval(entry)) == ("–", "0.500")
