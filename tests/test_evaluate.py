"""Counts, scores, intervals."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lggseg_utils import data, evaluate, metrics, model, preprocess, train
from lggseg_utils.settings import load_experiment


def test_counts_and_soft_sums_by_hand():
    slices = pd.DataFrame({"patient": ["P", "Q"], "slice": [1, 7]}, index=[5, 3])
    truths = np.array([[[1, 1], [0, 0]], [[0, 0], [0, 1]]], np.uint8)
    predicted = np.array([[[0.9, 0.2], [0.6, 0.1]], [[0, 1], [0, 0.5]]], np.float32)
    table = evaluate.score_slices(slices, truths, predicted)
    assert table[["patient", "slice"]].to_numpy().tolist() == [["P", 1], ["Q", 7]]
    # A probability of exactly one half is no tumour.
    assert table[evaluate.COUNTS].to_numpy().tolist() == [[1, 1, 1, 1], [0, 1, 1, 2]]
    assert table["soft_intersection"].tolist() == pytest.approx([1.1, 0.5])
    assert table["soft_sum"].tolist() == pytest.approx([2 + 1.8, 1 + 1.5])
    wanted = [-np.log([0.9, 0.2, 0.4, 0.9]).mean(), -np.log([1, 1e-7, 1, 0.5]).mean()]
    assert table["loss"].tolist() == pytest.approx(wanted, rel=1e-5)


def test_counts_at_another_threshold():
    truths = np.array([[[1, 0]]], np.uint8)
    predicted = np.array([[[0.3, 0.3]]])
    assert evaluate.count(truths, predicted, 0.2).iloc[0].tolist() == [1, 1, 0, 0]
    assert evaluate.count(truths, predicted, 0.3).iloc[0].tolist() == [0, 0, 1, 1]


def scored_slices(patients=6, slices=5, seed=0):
    """A made-up per-slice table."""
    rng = np.random.default_rng(seed)
    rows = patients * slices
    counts = rng.integers(0, 40, (rows, 3))
    counts[::4] = 0
    table = pd.DataFrame(counts, columns=["tp", "fp", "fn"]).assign(tn=1000, split="test")
    table["loss"] = rng.random(rows)
    table["soft_intersection"] = table["tp"] * 0.9
    table["soft_sum"] = table["tp"] * 1.9 + table["fp"] + table["fn"]
    table["patient"] = np.repeat([f"P{number}" for number in range(patients)], slices)
    table["slice"] = np.tile(range(slices), patients)
    return table


def values_of(table):
    """Return the values of `set_scores`, without intervals."""
    scores = evaluate.set_scores(table, True, resamples=0)
    return {name: entry["value"] for name, entry in scores.items()}


def test_scores_of_a_set_by_definition():
    table = scored_slices()
    tp, fp, fn, tn = (table[name].sum() for name in evaluate.COUNTS)
    slice_dice = metrics.dice(table["tp"], table["fp"], table["fn"])
    patients = table.groupby("patient")[["tp", "fp", "fn"]].sum()
    patient_dice = metrics.dice(patients["tp"], patients["fp"], patients["fn"])
    soft = [table[name].to_numpy() for name in evaluate.SOFT_SUMS]
    dice_coef, jacard_coef = metrics.batch_scores(*soft)
    wanted = {
        "loss": table["loss"].mean(),
        **metrics.rates(tp, fp, fn, tn),
        "dice_pooled": metrics.dice(tp, fp, fn),
        "iou_pooled": metrics.iou(tp, fp, fn),
        "dice_slice_mean": slice_dice.mean(),
        "dice_slice_tumour_mean": slice_dice[(table["tp"] + table["fn"]) > 0].mean(),
        "dice_coef": dice_coef,
        "jacard_coef": jacard_coef,
        "dice_patient_mean": patient_dice.mean(),
        "dice_patient_median": np.median(patient_dice),
    }
    assert values_of(table) == pytest.approx(wanted)


def test_intervals_hold_their_value_and_narrow_with_more_patients():
    few, many = (
        evaluate.set_scores(scored_slices(count), True, resamples=400) for count in (5, 80)
    )
    for entry in (*few.values(), *many.values()):
        assert entry["low"] is None or entry["low"] <= entry["value"] <= entry["high"]
    width = [scores["dice_pooled"]["high"] - scores["dice_pooled"]["low"] for scores in (few, many)]
    assert width[1] < width[0] / 2


def test_intervals_cover_95_percent():
    """Of 400 patients half have a Dice of 1, half of 0: the mean's standard error is 0.025."""
    table = scored_slices(400, 1)
    right = np.arange(400) % 2
    table = table.assign(tp=10 * right, fp=0, fn=10 * (1 - right), loss=right)
    scores = evaluate.set_scores(table, True)
    names = ("loss", "sensitivity", "iou_pooled", "dice_slice_mean", "dice_patient_mean")
    for name in (*names, "dice_slice_tumour_mean"):
        half = (scores[name]["high"] - scores[name]["low"]) / 2
        assert half == pytest.approx(1.96 * 0.025, rel=0.06), name


def test_bootstrap_keeps_a_patients_slices_together():
    table = scored_slices(2, 50)
    first = table["patient"] == "P0"
    table = table.assign(tp=np.where(first, 10, 0), fp=0, fn=np.where(first, 0, 10))
    table = table.assign(soft_intersection=table["tp"], soft_sum=np.where(first, 20, 10))
    scores = evaluate.set_scores(table, True, resamples=400)
    assert (scores["dice_pooled"]["low"], scores["dice_pooled"]["high"]) == (0, 1)
    # 16 slices without a hit, 160 pixels: (0 + 1)/(160 + 1); the last batch is smaller.
    for name in ("dice_coef", "jacard_coef"):
        assert scores[name]["low"] == pytest.approx(1 / 161, abs=0.01)
        assert scores[name]["high"] == 1


def test_intervals_of_batch_scores_are_taken_in_random_order():
    """In its own order each batch is one patient's; mixed, all batches are alike."""
    table = scored_slices(6, 16).assign(soft_intersection=0.0)
    table["soft_sum"] = np.where(table["patient"] == "P0", 0, 1000)
    scores = evaluate.ResampledPatients(table).scores(np.arange(6))
    in_order = metrics.batch_scores(*table[evaluate.SOFT_SUMS].to_numpy().T)
    assert in_order[0] > 0.16
    assert scores["dice_coef"][0] < 0.01


def test_one_patient_has_no_interval_and_split_patients_no_dice_per_patient():
    entry = evaluate.set_scores(scored_slices(1), True)["dice_pooled"]
    assert entry["low"] is None
    assert entry["high"] is None
    scores = evaluate.set_scores(scored_slices(), False, resamples=20)
    assert not {"dice_patient_mean", "dice_patient_median"} & set(scores)
    assert "dice_slice_mean" in scores


def test_a_set_without_any_tumour_gives_numbers_or_none():
    scores = evaluate.set_scores(scored_slices().assign(tp=0, fp=0, fn=0), True, resamples=20)
    assert scores["dice_pooled"]["value"] == 1
    assert scores["precision"]["value"] is None
    assert scores["dice_slice_tumour_mean"]["value"] is None
    json.dumps(scores, allow_nan=False)


def test_patients_are_summed_by_set():
    rows = [
        ("B", "test", 1, 2, 0, 5),
        ("A", "test", 0, 0, 3, 5),
        ("B", "test", 0, 1, 0, 7),
        ("B", "train", 2, 0, 0, 6),
    ]
    table = evaluate.per_patient_table(
        pd.DataFrame(rows, columns=["patient", "split", *evaluate.COUNTS])
    )
    wanted = ["patient", "split", "slices", "tumour_slices", *evaluate.COUNTS, "dice", "iou"]
    assert list(table) == wanted
    assert table.to_numpy().tolist() == [
        ["B", "test", 2, 1, 1, 3, 0, 12, 2 / 5, 1 / 4],
        ["A", "test", 1, 1, 0, 0, 3, 5, 0, 0],
        ["B", "train", 1, 1, 2, 0, 0, 6, 1, 1],
    ]


def test_a_slice_is_predicted_the_same_alone_and_among_others():
    experiment = load_experiment(
        "smoke", overrides={"normalization": "batch", "precision": "float32"}
    )
    train.set_up(experiment)
    network = model.build_unet(experiment)
    images = np.random.default_rng(0).integers(0, 255, (20, 32, 32, 3), np.uint8)
    together = evaluate.predict(network, images, experiment)
    alone = evaluate.predict(network, images[[19]], experiment)
    assert together.shape == (20, 128, 128)
    assert together.dtype == np.float32
    assert together[19] == pytest.approx(alone[0], abs=1e-4)


# Stands for a network: the first channel is the probability of tumour.
FIRST_CHANNEL = SimpleNamespace(predict_on_batch=lambda images: images[..., :1])


def test_probabilities_are_those_of_scaled_images_interpolated():
    experiment = load_experiment("smoke", overrides={"scaling": "dataset", "score_size": 16})
    images = np.zeros((1, 2, 2, 3), np.uint8)
    images[0, :, 1] = 51
    row = evaluate.predict(FIRST_CHANNEL, images, experiment)[0, 7]
    assert row[[0, -1]] == pytest.approx([0, 0.2])
    assert np.diff(row[4:12]) == pytest.approx(0.025, rel=1e-4)  # from 0 to 0.2 in 8 pixels
    experiment = experiment.model_copy(update={"scaling": "slice"})
    assert evaluate.predict(FIRST_CHANNEL, images, experiment).max() == 1


def shifted_dataset():
    """Slices of five patients in two sets, a square in each, predicted at some distance.

    Returns a table patient, slice, split, off (pixels), and the `Dataset`.
    """
    names = ["C", "A", "E", "B", "D"]
    rows = []
    for number in range(30):
        patient = number % 5
        split = "train" if number < 15 else "test"
        rows.append((names[patient], number, split, patient + 5 * (split == "test")))
    table = pd.DataFrame(rows, columns=["patient", "slice", "split", "off"])
    images = np.zeros((30, 32, 32, 3), np.uint8)
    truths = np.zeros((30, 32, 32), np.uint8)
    for number, off in enumerate(table["off"]):
        truths[number, 10:16, 5:11] = 1
        images[number, 10:16, 5 + off : 11 + off] = 255
    return table, preprocess.Dataset(table[["patient", "slice"]], images, truths, truths)


@pytest.mark.parametrize("seed", [0, 1])
def test_counts_and_borders_are_those_of_their_slice_and_patient(seed, monkeypatch):
    monkeypatch.setattr(evaluate, "CHUNK", 4)
    table, dataset = shifted_dataset()
    experiment = load_experiment("smoke", seed, {"scaling": "dataset", "score_size": 32})
    scored, per_patient = evaluate.score_split(
        FIRST_CHANNEL, dataset, table, experiment, ("train", "test")
    )
    assert list(scored) == evaluate.PER_SLICE_COLUMNS
    assert len(scored) == 30
    both = scored.merge(table, on=["patient", "slice", "split"])
    assert both["tp"].tolist() == (6 * np.maximum(6 - both["off"], 0)).tolist()
    assert len(per_patient) == 10
    wanted = per_patient.merge(table.drop(columns="slice").drop_duplicates())
    assert wanted["hd95"].tolist() == wanted["off"].tolist()
    far = wanted["off"] > metrics.TOLERANCE
    assert (wanted["surface_dice"] == 1).tolist() == (~far).tolist()
    assert (wanted["dice"] == np.maximum(6 - wanted["off"], 0) / 6).all()


def test_a_set_is_scored_alone_and_in_an_order_that_follows_from_the_seed():
    table, dataset = shifted_dataset()
    orders = []
    for seed in (0, 0, 1):
        experiment = load_experiment("smoke", seed, {"score_size": 32})
        scored, _ = evaluate.score_split(FIRST_CHANNEL, dataset, table, experiment, ("test",))
        assert sorted(scored["slice"]) == list(range(15, 30))
        orders.append(scored["slice"].tolist())
    assert orders[0] == orders[1]
    assert sorted(orders[0]) != orders[0] != orders[2]


def test_a_split_of_a_cohort_is_scored_whole(cohort_folder):
    experiment = load_experiment("smoke")
    cohort = data.read_cohort(cohort_folder)
    dataset = preprocess.prepare(cohort, experiment)
    split = preprocess.draw_split(cohort.slices, "slice", 0)
    network = model.build_unet(experiment)
    scored, per_patient = evaluate.score_split(network, dataset, split, experiment)
    assert (scored[evaluate.COUNTS].sum(axis=1) == 128 * 128).all()
    patients = split[["patient", "split"]].drop_duplicates()
    assert len(per_patient) == len(per_patient.merge(patients)) == len(patients)
    keys = ["patient", "slice", "split"]
    ordered = scored[keys].sort_values(keys, ignore_index=True)
    assert ordered.equals(split[keys].sort_values(keys, ignore_index=True))
    found = scored.set_index(["patient", "slice"])[["tp", "fn"]].sum(axis=1)
    assert found.sort_index().tolist() == dataset.truths.sum((1, 2)).tolist()
