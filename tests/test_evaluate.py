"""Counts, scores, intervals."""

import json

import numpy as np
import pandas as pd
import pytest

from lggseg_utils import data, evaluate, metrics, model, preprocess, train
from lggseg_utils.settings import load_experiment


def test_counts_and_soft_sums_by_hand():
    slices = pd.DataFrame({"patient": ["P"], "slice": [1]})
    truths = np.array([[[1, 1], [0, 0]]], np.uint8)
    predicted = np.array([[[0.9, 0.2], [0.6, 0.1]]], np.float32)
    row = evaluate.score_slices(slices, truths, predicted).iloc[0]
    assert row[["tp", "fp", "fn", "tn"]].tolist() == [1, 1, 1, 1]
    assert row["soft_intersection"] == pytest.approx(1.1) and row["soft_sum"] == pytest.approx(
        2 + 1.8
    )
    assert row["loss"] == pytest.approx(-np.log([0.9, 0.2, 0.4, 0.9]).mean(), rel=1e-5)


def scored_slices(patients=6, slices=5, seed=0):
    """A made-up per-slice table."""
    rng = np.random.default_rng(seed)
    rows = patients * slices
    counts = rng.integers(0, 40, (rows, 3))
    counts[::4] = 0
    table = pd.DataFrame(counts, columns=["tp", "fp", "fn"]).assign(tn=1000, loss=0.1, split="test")
    table["soft_intersection"], table["soft_sum"] = (
        table["tp"] * 0.9,
        table["tp"] * 1.9 + table["fp"] + table["fn"],
    )
    names = [f"P{number}" for number in range(patients)]
    return table.assign(patient=np.repeat(names, slices), slice=np.tile(range(slices), patients))


def test_scores_of_a_set_by_definition():
    table = scored_slices()
    scores = {
        name: entry["value"]
        for name, entry in evaluate.set_scores(table, True, resamples=50).items()
    }
    tp, fp, fn, tn = (table[name].sum() for name in evaluate.COUNTS)
    slice_dice = metrics.dice(table["tp"], table["fp"], table["fn"])
    patients = table.groupby("patient")[["tp", "fp", "fn"]].sum()
    patient_dice = metrics.dice(patients["tp"], patients["fp"], patients["fn"])
    wanted = {
        "dice_pooled": metrics.dice(tp, fp, fn),
        "iou_pooled": metrics.iou(tp, fp, fn),
        "accuracy": (tp + tn) / (tp + fp + fn + tn),
        "dice_slice_mean": slice_dice.mean(),
        "dice_slice_tumour_mean": slice_dice[(table["tp"] + table["fn"]) > 0].mean(),
        "dice_patient_mean": patient_dice.mean(),
        "dice_patient_median": np.median(patient_dice),
        "loss": 0.1,
    }
    assert {name: scores[name] for name in wanted} == pytest.approx(wanted)
    batches = metrics.batch_scores(
        table["soft_intersection"].to_numpy(), table["soft_sum"].to_numpy()
    )
    assert (scores["dice_coef"], scores["jacard_coef"]) == pytest.approx(batches)


def test_intervals_hold_their_value_and_narrow_with_more_patients():
    few, many = (
        evaluate.set_scores(scored_slices(count), True, resamples=400) for count in (5, 80)
    )
    for entry in (*few.values(), *many.values()):
        assert entry["low"] is None or entry["low"] <= entry["value"] <= entry["high"]
    width = [scores["dice_pooled"]["high"] - scores["dice_pooled"]["low"] for scores in (few, many)]
    assert width[1] < width[0] / 2


def test_bootstrap_keeps_a_patients_slices_together():
    table = scored_slices(2, 50)
    first = table["patient"] == "P0"
    table = table.assign(tp=np.where(first, 10, 0), fp=0, fn=np.where(first, 0, 10))
    entry = evaluate.set_scores(table, True, resamples=400)["dice_pooled"]
    assert (entry["low"], entry["high"]) == (0, 1)


def test_one_patient_has_no_interval_and_split_patients_no_dice_per_patient():
    entry = evaluate.set_scores(scored_slices(1), True)["dice_pooled"]
    assert entry["low"] is None and entry["high"] is None
    assert "dice_patient_mean" not in evaluate.set_scores(scored_slices(), False, resamples=20)


def test_a_set_without_any_tumour_gives_numbers_or_none():
    scores = evaluate.set_scores(scored_slices().assign(tp=0, fp=0, fn=0), True, resamples=20)
    assert scores["dice_pooled"]["value"] == 1 and scores["precision"]["value"] is None
    assert scores["dice_slice_tumour_mean"]["value"] is None
    json.dumps(scores, allow_nan=False)


def test_patients_are_summed_by_set():
    table = evaluate.per_patient_table(scored_slices())
    assert list(table) == [
        "patient",
        "split",
        "slices",
        "tumour_slices",
        *evaluate.COUNTS,
        "dice",
        "iou",
    ]
    assert table["slices"].tolist() == [5] * 6
    assert table["dice"].to_numpy() == pytest.approx(metrics.dice_from_iou(table["iou"]))
    halves = [scored_slices().assign(split=name) for name in ("train", "test")]
    halves[1][evaluate.COUNTS] *= 2
    both = evaluate.per_patient_table(pd.concat(halves)).set_index(["split", "patient"])[
        evaluate.COUNTS
    ]
    assert both.loc["train"].to_numpy().tolist() == table[evaluate.COUNTS].to_numpy().tolist()
    assert both.loc["test"].equals(2 * both.loc["train"])


def test_a_slice_is_predicted_the_same_alone_and_among_others():
    experiment = load_experiment(
        "smoke", overrides={"normalization": "batch", "precision": "float32"}
    )
    train.set_up(experiment)
    network = model.build_unet(experiment)
    images = np.random.default_rng(0).integers(0, 255, (20, 32, 32, 3), np.uint8)
    together, alone = (
        evaluate.predict(network, images[part], experiment) for part in ([*range(20)], [19])
    )
    assert together.shape == (20, 128, 128) and together.dtype == np.float32
    assert together[19] == pytest.approx(alone[0], abs=1e-4)


def test_a_split_is_scored_whole_and_in_random_order(cohort_folder):
    experiment = load_experiment("smoke")
    cohort = data.read_cohort(cohort_folder)
    dataset = preprocess.prepare(cohort, experiment)
    split = preprocess.draw_split(cohort.slices, "slice", 0)
    scored, per_patient = evaluate.score_split(
        model.build_unet(experiment), dataset, split, experiment
    )
    assert (
        list(scored) == evaluate.PER_SLICE_COLUMNS
        and (scored[evaluate.COUNTS].sum(axis=1) == 128 * 128).all()
    )
    # An untrained network marks something in every patient, and most of it is wrong.
    patients = split[["patient", "split"]].drop_duplicates()
    assert len(per_patient) == len(per_patient.merge(patients)) == len(patients)
    assert (per_patient["hd95"] > 0).all() and (per_patient["surface_dice"] < 1).all()
    keys = ["patient", "slice", "split"]
    assert (
        scored[keys]
        .sort_values(keys, ignore_index=True)
        .equals(split[keys].sort_values(keys, ignore_index=True))
    )
    train_rows = scored[scored["split"] == "train"]
    assert not train_rows["slice"].is_monotonic_increasing and train_rows["patient"].nunique() == 6
    truth = scored.set_index(["patient", "slice"])[["tp", "fn"]].sum(axis=1)
    wanted = dataset.truths.sum((1, 2))
    assert [
        truth[key] for key in zip(cohort.slices["patient"], cohort.slices["slice"], strict=True)
    ] == wanted.tolist()
