"""Arithmetic on the report's numbers, the verdict's rules, and the records."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import jaccard_score

from lggseg_utils import config, evaluate, metrics, preprocess, records, results

PAIRS = {"train": (0.9568, 0.8986), "val": (0.7930, 0.7766), "test": (0.86219, 0.77195)}


def test_the_reports_numbers_are_those_printed():
    tables = results.REPORTED["tables"]
    assert {name: (tables[name]["dice_coef"], tables[name]["jacard_coef"]) for name in PAIRS} == PAIRS
    assert tables["test"]["mean_iou"] == 0.93896 and tables["readme"]["loss"] == tables["val"]["loss"] == 0.0272


def test_dice_implied_by_iou_by_hand():
    implied = results.implied_dice().set_index("set")["Dice implied by IoU"]
    assert implied.round(4).to_dict() == {"train": 0.9466, "val": 0.8743, "test": 0.8713}


def test_formulas_hold_on_simulated_masks():
    rng = np.random.default_rng(0)
    truth = rng.random(200_000) < 0.01
    predicted = np.where(rng.random(200_000) < 0.998, truth, ~truth)
    iou, accuracy = jaccard_score(truth, predicted), (truth == predicted).mean()
    low, high = results.tumour_share_bounds(iou, accuracy)
    assert low == pytest.approx((truth & predicted).mean()) and high == pytest.approx((truth | predicted).mean())
    assert low <= truth.mean() <= high
    mean_iou = jaccard_score(truth, predicted, average="macro")
    assert results.tumour_iou_from_mean(mean_iou, accuracy) == pytest.approx(iou, abs=1e-3)
    assert metrics.dice_from_iou(iou) == pytest.approx(2 * (truth & predicted).sum() / (truth.sum() + predicted.sum()))


def test_bounds_of_the_tumour_share_by_hand():
    table = results.tumour_share_table().set_index("set")
    assert table["at least"].round(4).to_dict() == {"train": 0.0080, "val": 0.0222, "test": 0.0085}
    assert table["at most"].round(4).to_dict() == {"train": 0.0089, "val": 0.0286, "test": 0.0110}
    assert table.loc["train", "slices"] == 0 and table.loc["val", "slices"] == 0 < table.loc["test", "slices"]


@pytest.fixture
def evidence():
    """Evidence made up from scores: evidence(kind, value, profile, **settings)."""

    def make(kind="LGG cohort", value=0.8, profile="report128", **settings):
        experiment = config.load_experiment(profile, overrides=settings).model_dump()
        entry = {"value": value, "low": value - 0.05, "high": value + 0.05}
        names = (*evaluate.INTERVAL_METRICS, *evaluate.PATIENT_METRICS)
        per_slice = pd.DataFrame(
            {"patient": ["A", "B"], "slice": [1, 1], "split": "test", "tp": 0, "fp": [0, 3], "fn": 0, "tn": 9}
        )
        floors = pd.DataFrame({"floor": ["all background"], "split": ["test"], "accuracy": [0.99]})
        evaluation = evaluate.Evaluation(
            per_slice, pd.DataFrame(), {name: dict.fromkeys(names, entry) for name in preprocess.SETS}, floors
        )
        history = pd.DataFrame({"loss": [0.3, 0.2, 0.1], "val_loss": [0.3, 0.2, 0.4]})
        history = history.assign(dice_coef=0.8, val_dice_coef=0.7, val_jacard_coef=0.6)
        record = {"experiment": experiment, "data": {"kind": kind}, "command": "lggseg run --profile any"}
        return records.Evidence(record, evaluation, history, None)

    return make


def statuses(*runs):
    """Claims judged by runs, and their status, as a dictionary."""
    judged = results.judge({f"run{number}": evidence for number, evidence in enumerate(runs)})
    return dict(zip(judged["claim"], judged["status"], strict=True))


DICE, OVERFITS = (
    "dice_coef is 0.793 on val",
    "The long training overfits: validation loss rises while training loss falls",
)


def test_a_number_is_reproduced_when_the_protocol_agrees_and_the_interval_holds_it(evidence):
    judged = statuses(evidence(value=0.80))
    assert judged[DICE] == "reproduced" and judged["dice_coef is 0.9568 on train"] == "not reproduced"


def test_a_run_with_other_settings_decides_no_number(evidence):
    other = evidence(value=0.80, size=64, filters=16)
    assert statuses(other)[DICE] == "not testable as stated"
    assert other.deviations("report128") == ["size 64 (128)", "filters 16 (32)"]
    changed = evidence(loss="dice_crossentropy", normalization="batch").deviations("report128")
    assert changed == ["normalization batch (none)", "loss dice_crossentropy (binary_crossentropy)"]


def test_of_several_runs_the_nearest_decides(evidence):
    far, near = evidence(value=0.80, size=64, filters=16), evidence(value=0.1)
    assert statuses(far, near)[DICE] == statuses(near, far)[DICE] == "not reproduced"


def test_numbers_read_off_run_6_are_decided_by_a_run_with_its_settings_alone(evidence):
    claim = "Run 6: jacard_coef is about 0.71 on val"
    assert statuses(evidence(value=0.71, profile="report64"))[claim] == "reproduced"
    assert statuses(evidence(value=0.655, profile="report64"))[claim] == "reproduced"  # 0.705, read off to 0.01
    assert statuses(evidence(value=0.64, profile="report64"))[claim] == "not reproduced"
    assert statuses(evidence(value=0.71))[claim] == "not testable as stated"


def test_no_verdict_follows_from_a_phantom(evidence):
    judged = results.judge({"phantom": evidence(kind="phantom cohort", value=0.80)})
    empirical = {claim.text for claim in results.EMPIRICAL}
    assert set(judged.loc[judged["claim"].isin(empirical), "status"]) == {"no verdict"}
    on_paper = judged.loc[~judged["claim"].isin(empirical), "status"].value_counts().to_dict()
    assert on_paper == {"contradicts itself": 7, "not testable as stated": 3}


def test_claims_about_curves_and_accuracy_follow_the_evidence(evidence):
    judged = statuses(evidence())
    assert judged[OVERFITS] == "reproduced" and judged["A high accuracy says little here"] == "reproduced"
    other = statuses(evidence(size=64))
    assert other[OVERFITS] == "not testable as stated" and other["A high accuracy says little here"] == "reproduced"


@pytest.mark.parametrize(("late", "status"), [(0.5, "reproduced"), (0.1, "not reproduced")])
def test_fewer_epochs_are_judged_by_the_gap_between_the_losses(evidence, late, status):
    run = evidence()
    val_loss = np.where(np.arange(128) < 64, 0.3, late)
    long = records.Evidence(
        run.record,
        run.evaluation,
        run.history.iloc[:1]
        .drop(columns=["loss", "val_loss"])
        .merge(pd.DataFrame({"loss": 0.05, "val_loss": val_loss}), how="cross"),
        None,
    )
    assert statuses(long)["Fewer epochs overfit less"] == status
    assert statuses(run)["Fewer epochs overfit less"] == "not testable as stated"


def test_mixing_is_told_from_every_ablation_and_never_decided(evidence):
    rows = [
        {"condition": name, "seed": 0, "patient": f"P{number}", "dice": 0.5 + 0.1 * (name == "all")}
        for name in ("none", "all")
        for number in range(5)
    ]
    run = evidence()
    with_it = records.Evidence(run.record, None, None, pd.DataFrame(rows))
    with_it.record["command"] = "lggseg ablate"
    judged = results.judge({"mixed": with_it}).set_index("claim").loc["Mixing all augmentations hurts"]
    assert (
        judged["status"] == "not testable as stated"
        and "mixed: +0.100 (0.100 to 0.100) after 10 epochs" in judged["evidence"]
    )


def test_other_peoples_patients_give_no_verdict_either(evidence):
    assert statuses(evidence(kind="own data"))["A high accuracy says little here"] == "no verdict"


def test_equal_smoothing_never_lifts_dice_above_what_iou_allows():
    rng = np.random.default_rng(0)
    for _ in range(200):
        truth, p = rng.random(50) < rng.random(), rng.random(50)
        dice, jacard = metrics.batch_scores(np.array([(truth * p).sum()]), np.array([truth.sum() + p.sum()]))
        assert dice <= metrics.dice_from_iou(jacard) + 1e-12
    train = results.REPORTED["tables"]["train"]
    assert train["dice_coef"] > metrics.dice_from_iou(train["jacard_coef"])


def test_every_claim_has_source_status_evidence_and_a_page(evidence):
    judged = results.judge({"run": evidence()})
    assert judged.notna().all().all() and (judged != "").all().all() and judged["claim"].is_unique
    assert set(judged["status"]) <= {"reproduced", "not reproduced", "not testable as stated", "contradicts itself"}
    for page in judged["page"].unique():
        assert list((config.REPOSITORY / "notebooks").glob(f"{page}.*")), page


RECORDED = records.load_records()


def test_prose_about_the_records_is_made_from_their_numbers():
    text, glance = results.in_short(RECORDED), records.at_a_glance()
    per_patient = RECORDED["leak-patient"].evaluation.per_patient
    assert f"{per_patient['dice'].mean():.3f}" in text and f"{per_patient['dice'].mean():.3f}" in glance
    for name in ("leak-slice", "leak-patient"):
        counts = RECORDED[name].evaluation.per_slice[["tp", "fp", "fn"]].sum()
        assert f"{2 * counts['tp'] / (2 * counts['tp'] + counts['fp'] + counts['fn']):.3f}" in text
    rng = np.random.default_rng(1)
    for table in (RECORDED["report64"].evaluation.per_slice, RECORDED["report64"].own_grid):
        soft = table.query("split == 'test'")[["soft_intersection", "soft_sum"]].to_numpy()
        orders = [metrics.batch_scores(*rng.permutation(soft).T) for _ in range(1000)]
        said = re.findall(r"(0\.\d{3}) on the", text)
        assert all(min(abs(float(found) - score) for found in said) < 0.002 for score in np.mean(orders, axis=0))


def test_prose_follows_the_records(monkeypatch):
    text = results.in_short(RECORDED)
    changed = {**RECORDED, "leak-slice": RECORDED["leak-patient"]}
    assert results.in_short(changed) != text and "(+0.000, 0.000 to 0.000; one seed)" in results.in_short(changed)
    assert "Patients not seen" not in results.in_short({"report64": RECORDED["report64"]})
