"""Findings: definitions against hand-made numbers and scikit-learn, draws, the leak's pairing, failures."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, jaccard_score

from lggseg_utils import findings, metrics, preprocess

PIXELS = 64


@pytest.fixture(scope="module")
def masks():
    """Truth and probability of 40 slices of 4 patients, a third of the slices without tumour: (truth, probability)."""
    rng = np.random.default_rng(0)
    truth = (rng.random((40, PIXELS)) < 0.2) & (np.arange(40) % 3 > 0)[:, None]
    return truth, np.clip(0.7 * truth + rng.normal(0.2, 0.15, truth.shape), 0, 1)


@pytest.fixture(scope="module")
def scored(masks):
    """Per-slice table of these slices."""
    truth, probability = masks
    predicted = probability > 0.5
    return pd.DataFrame(
        {
            "patient": np.repeat(list("ABCD"), 10),
            "slice": np.tile(np.arange(1, 11), 4),
            "tp": (truth & predicted).sum(1),
            "fp": (~truth & predicted).sum(1),
            "fn": (truth & ~predicted).sum(1),
            "tn": (~truth & ~predicted).sum(1),
            "soft_intersection": (truth * probability).sum(1),
            "soft_sum": (truth + probability).sum(1),
        }
    )


def definition(soft=False, unit="pooled", smooth=0.0, background=False):
    """A definition that departs from the plainest one."""
    return findings.Definition(soft, unit, smooth, background)


def test_pooled_masks_are_scikit_learns_scores(masks, scored):
    truth, predicted = masks[0].ravel(), masks[1].ravel() > 0.5
    ours = findings.dice_and_iou(scored, definition())
    assert ours == pytest.approx((f1_score(truth, predicted), jaccard_score(truth, predicted)))
    both = findings.dice_and_iou(scored, definition(background=True))
    assert both == pytest.approx(
        (f1_score(truth, predicted, average="macro"), jaccard_score(truth, predicted, average="macro"))
    )


@pytest.mark.parametrize("unit", ["slice", "tumour slice", "patient"])
def test_means_over_units_are_scikit_learns_scores(masks, scored, unit):
    truth, predicted = masks[0], masks[1] > 0.5
    groups = {"slice": np.arange(40), "tumour slice": np.flatnonzero(truth.any(1)), "patient": "ABCD"}[unit]
    rows = [scored["patient"] == group if unit == "patient" else [group] for group in groups]
    by_hand = np.mean([f1_score(truth[row].ravel(), predicted[row].ravel(), zero_division=1) for row in rows])
    assert findings.dice_and_iou(scored, definition(unit=unit))[0] == pytest.approx(by_hand)


def test_soft_batches_plus_one_are_the_hypothesis_of_the_reports_code(scored):
    ours = findings.dice_and_iou(scored, definition(soft=True, unit="batch", smooth=1.0))
    assert ours == pytest.approx(
        metrics.batch_scores(scored["soft_intersection"].to_numpy(), scored["soft_sum"].to_numpy())
    )


def test_two_slices_by_hand():
    table = pd.DataFrame(
        {"patient": ["A", "A"], "slice": [1, 2], "tp": [3, 0], "fp": [1, 0], "fn": [2, 0], "tn": [4, 10]}
    )
    table = table.assign(soft_intersection=2.5, soft_sum=[8.0, 0.0])
    assert findings.dice_and_iou(table, definition(unit="slice")) == pytest.approx(((6 / 9 + 1) / 2, (3 / 6 + 1) / 2))
    assert findings.dice_and_iou(table, definition(unit="tumour slice")) == pytest.approx((6 / 9, 3 / 6))
    assert findings.dice_and_iou(table, definition(smooth=1.0)) == pytest.approx((7 / 10, 4 / 7))


def test_no_single_definition_puts_dice_above_the_curve(scored):
    assert findings.definitions_table(scored)["gap"].max() < 1e-9


def test_definitions_are_told_apart_by_name():
    assert len({str(each) for each in findings.DEFINITIONS}) == len(findings.DEFINITIONS) == 40


def test_mixed_pairs_find_the_pair_that_made_the_numbers(scored):
    halves = {"train": scored.iloc[:20], "val": scored.iloc[20:]}
    dice_as, iou_as = definition(unit="batch"), definition(soft=True, unit="patient", smooth=1.0)
    made = {
        name: (findings.dice_and_iou(table, dice_as)[0], findings.dice_and_iou(table, iou_as)[1])
        for name, table in halves.items()
    }
    nearest = findings.mixed_pairs(halves, made)
    assert len(nearest) == 1600 and nearest["farthest"].is_monotonic_increasing and nearest["farthest"][0] < 1e-12
    assert (str(dice_as), str(iou_as)) in set(zip(nearest["dice_as"][:20], nearest["iou_as"][:20], strict=True))


def cohort(patients=50, slices=20):
    """Per-slice table of a made-up cohort: each patient has tumour in half of the slices."""
    table = pd.DataFrame(
        {
            "patient": np.repeat([f"P{n:02}" for n in range(patients)], slices),
            "slice": np.tile(np.arange(slices), patients),
        }
    )
    area = np.where(table["slice"] % 2, 100 + 20 * (np.arange(len(table)) // slices), 0)
    return table.assign(tp=area, fp=0, fn=0, tn=10_000 - area)


def test_tumour_shares_know_what_they_draw():
    slices = cohort()
    shares = findings.tumour_shares(slices, 0.1, draws=500).groupby("draw")["share"]
    whole = slices["tp"].sum() / (10_000 * len(slices))
    assert shares.mean()["slices"] == pytest.approx(whole, rel=0.02)
    assert shares.mean()["patients"] == pytest.approx(whole, rel=0.05)
    assert shares.mean()["slices with tumour"] == pytest.approx(2 * whole, rel=0.02)
    assert shares.std()["patients"] > 0
    assert findings.tumour_shares(slices, 1, draws=2)["share"].iloc[0] == pytest.approx(whole)


def test_larger_test_sets_spread_less_and_the_whole_not_at_all():
    patients = pd.DataFrame({"dice": np.linspace(0, 1, 40)})
    spread = {size: np.ptp(findings.draws_of_patients(patients, size, draws=500)) for size in (5, 20, 40)}
    assert spread[5] > 1.5 * spread[20] > 0 and spread[40] < 1e-12


def test_differences_between_sets_are_wider_than_a_set_and_centred():
    patients = pd.DataFrame({"dice": np.linspace(0, 1, 100)})
    differences = findings.differences_of_draws(patients, 10)
    assert abs(differences.mean()) < 0.01
    assert differences.std() == pytest.approx(np.sqrt(2) * findings.draws_of_patients(patients, 10).std(), rel=0.1)


def test_draws_of_slices_pool_their_counts():
    table = pd.DataFrame({"tp": [5, 0, 1], "fp": [1, 2, 0], "fn": [0, 1, 4]})
    assert findings.draws_of_slices(table, 3, draws=4) == pytest.approx(np.full(4, 12 / 20))


def test_beyond_resampling_tells_a_near_number_from_a_far_one(scored):
    ours = metrics.batch_scores(scored["soft_intersection"].to_numpy(), scored["soft_sum"].to_numpy())
    near = findings.beyond_resampling(scored, {"dice_coef": ours[0] + 0.001, "jacard_coef": ours[1] + 0.5})
    assert near["beyond"].tolist() == [False, True] and (near[["slices", "patients"]] > 0).all(axis=None)
    assert near["reproduced"].tolist() == pytest.approx(ours, abs=0.01)


def test_sets_of_patients_drawn_anew_differ_more_where_patients_differ(scored):
    # Two patients are found whole, two not at all: of slices about half are good in every draw, of patients often none.
    good = scored["patient"].isin(["A", "B"])
    table = scored.assign(soft_sum=20.0, soft_intersection=np.where(good, 10.0, 0.0))
    row = findings.beyond_resampling(table, {"dice_coef": 0.5, "jacard_coef": 0.5}).iloc[0]
    assert row["patients"] > 1.5 * row["slices"]
    table = table.assign(soft_intersection=5.0)
    same = findings.beyond_resampling(table, {"dice_coef": 0.5, "jacard_coef": 0.5})
    assert (same[["slices", "patients"]] < 1e-9).all(axis=None)


def test_a_set_is_scored_with_and_without_its_empty_slices(scored):
    table = scored.assign(loss=np.where(scored["tp"] + scored["fn"] > 0, 0.3, 0.1))
    both = findings.with_and_without_empty(table)
    tumour = table[table["loss"] == 0.3]
    assert both["slices with tumour alone"]["loss"] == pytest.approx(0.3)
    assert both["all slices"]["loss"] == pytest.approx(table["loss"].mean())
    wrong = (tumour["fp"] + tumour["fn"]).sum() / (len(tumour) * PIXELS)
    assert both["slices with tumour alone"]["accuracy"] == pytest.approx(1 - wrong)


def test_pairing_refuses_other_slices(scored):
    with pytest.raises(ValueError, match="do not hold the same slices"):
        findings.paired_slices(scored, scored.assign(slice=scored["slice"] + 1))


def test_the_leak_effect_by_hand(scored):
    """By patient, half of each slice's true positives are lost."""
    lost = scored["tp"] // 2
    paired = findings.paired_slices(scored, scored.assign(tp=scored["tp"] - lost, fn=scored["fn"] + lost))
    effect = findings.leak_effect(paired).set_index("score")
    tp, fp, fn = (scored[name].sum() for name in ("tp", "fp", "fn"))
    kept = tp - lost.sum()
    row = effect.loc["Dice pooled"]
    assert row["by slice"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert row["by patient"] == pytest.approx(2 * kept / (2 * kept + fp + fn + lost.sum()))
    assert 0 < row["low"] < row["difference"] < row["high"]
    tumour = scored[scored["tp"] + scored["fn"] > 0]
    mean = findings.slice_dice(tumour).mean()
    assert effect.loc["Dice per slice with tumour, mean", "by slice"] == pytest.approx(mean)
    healthy = scored[scored["tp"] + scored["fn"] == 0]
    assert effect.loc["slices without tumour left empty", "by slice"] == pytest.approx((healthy["fp"] == 0).mean())
    assert effect.loc["slices without tumour left empty", "difference"] == 0


def test_distance_to_training_by_hand():
    """Ten slices of one patient, a part each: fold 0 tests parts 0 and 1, validates part 2, trains on 3 to 9."""
    parts = pd.DataFrame({"patient": "A", "slice": np.arange(10), "part": np.arange(10), "fold": np.arange(10) // 2})
    distance = findings.distance_to_training(parts).set_index("slice")["distance"]
    assert distance[0] == 3 and distance[1] == 2
    assert distance[2] == 1 and distance[3] == 2  # fold 1 validates slice 4
    assert distance[8] == 1 and distance[9] == 2  # fold 4 validates slice 0


def test_distance_is_infinite_where_no_slice_of_the_patient_was_in_training():
    slices = cohort(patients=20, slices=3)
    area = slices.assign(tumour_area=slices["tp"])
    part = preprocess.draw_parts(area, "patient", 0)
    parts = slices[["patient", "slice"]].assign(part=part, fold=part // 2)
    assert np.isinf(findings.distance_to_training(parts)["distance"]).all()


def test_position_runs_from_0_to_1_within_each_patient():
    table = pd.DataFrame({"patient": ["A"] * 3 + ["B"], "slice": [4, 6, 8, 5]})
    assert findings.position_in_volume(table).tolist() == [0, 0.5, 1, 0]


def test_groups_of_slices_by_hand():
    table = pd.DataFrame(
        {"patient": list("AABB"), "slice": [1, 2, 1, 2], "tp": [2, 0, 0, 4], "fp": 0, "fn": [2, 3, 0, 0], "tn": 9}
    )
    grouped = findings.tumour_slices_by(table, pd.Series(["x", "x", "x", "y"])).set_index("group")
    assert grouped.loc["x", "slices"] == 2 and grouped.loc["x", "missed entirely"] == 0.5
    assert grouped.loc["x", "mean Dice"] == pytest.approx((4 / 6 + 0) / 2) and grouped.loc["y", "median Dice"] == 1


def test_false_alarms_count_healthy_slices_alone():
    table = pd.DataFrame({"tp": [0, 0, 5], "fn": [0, 0, 0], "fp": [0, 7, 9], "tn": [9, 2, 1]})
    assert findings.false_alarms(table) == {"slices": 2, "marked": 1, "share": 0.5, "median_pixels": 7}


def test_institutions_and_worst_patients():
    table = pd.DataFrame({"patient": ["TCGA_CS_1", "TCGA_CS_2", "TCGA_DU_3"], "dice": [0.1, 0.9, 0.8]})
    by = findings.patients_by_institution(table).set_index("group")
    assert by.loc["CS", "patients"] == 2 and by.loc["CS", "failed"] == 1 and by.loc["DU", "mean Dice"] == 0.8
    assert findings.without_worst(table, 1) == pytest.approx((0.6, 0.85))


def trained_in(**dice):
    """Trainings on two patients; a precision with the mean Dice of each of its seeds."""
    rows = [
        {"precision": precision, "seed": seed, "patient": patient, "dice": mean + off}
        for precision, means in dice.items()
        for seed, mean in enumerate(means)
        for patient, off in (("A", 0.1), ("B", -0.1))
    ]
    return pd.DataFrame(rows)


def test_precisions_by_hand():
    ends = findings.seed_means(trained_in(float32=[0.70, 0.74, 0.78], mixed_bfloat16=[0.69, 0.71, 0.76]))
    assert ends["dice"].to_numpy() == pytest.approx([0.70, 0.74, 0.78, 0.69, 0.71, 0.76])
    summary = findings.by_precision(ends)
    assert summary["precision"].tolist() == ["float32", "mixed_bfloat16"] and summary["trainings"].tolist() == [3, 3]
    assert summary[["mean", "lowest", "highest"]].to_numpy() == pytest.approx(
        np.array([[0.74, 0.70, 0.78], [0.72, 0.69, 0.76]])
    )
    assert findings.within_seeds(summary)


@pytest.mark.parametrize("other", [[0.60, 0.62, 0.69], [0.60, 0.65, 0.75]])
def test_precisions_apart(other):
    # In the second case float32's mean, 0.74, is among the other's seeds, but 0.667 is not among those of float32.
    ends = findings.seed_means(trained_in(float32=[0.70, 0.74, 0.78], mixed_bfloat16=other))
    assert not findings.within_seeds(findings.by_precision(ends))
