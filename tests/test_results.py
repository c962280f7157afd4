"""Arithmetic on the report's numbers, the verdict's rules, and the records."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import jaccard_score

from lggseg_utils import config, evaluate, metrics, preprocess, results
from lggseg_utils.config import UserError

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
    assert results.true_positive_share(iou, accuracy) == pytest.approx((truth & predicted).mean())
    mean_iou = jaccard_score(truth, predicted, average="macro")
    assert results.tumour_iou_from_mean(mean_iou, accuracy) == pytest.approx(iou, abs=1e-3)
    assert results.dice_from_iou(iou) == pytest.approx(2 * (truth & predicted).sum() / (truth.sum() + predicted.sum()))


def test_implied_shares_by_hand():
    shares = [
        results.true_positive_share(
            results.REPORTED["tables"][name]["jacard_coef"], results.REPORTED["tables"][name]["accuracy"]
        )
        for name in PAIRS
    ]
    assert np.round(shares, 4).tolist() == [0.0080, 0.0222, 0.0085]


@pytest.fixture
def evidence():
    """Evidence made up from scores: evidence(kind, value, **settings)."""

    def make(kind="LGG cohort", value=0.8, **settings):
        experiment = config.load_experiment("report128", overrides=settings).model_dump()
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
        return results.Evidence({"experiment": experiment, "data": {"kind": kind}}, evaluation, history, pd.DataFrame())

    return make


def statuses(judged):
    """Claims and their status as a dictionary."""
    return dict(zip(judged["claim"], judged["status"], strict=True))


def test_a_number_is_reproduced_when_the_protocol_agrees_and_the_interval_holds_it(evidence):
    judged = statuses(results.judge(evidence(value=0.80)))
    assert judged["dice_coef is 0.793 on val"] == "reproduced"
    assert judged["dice_coef is 0.9568 on train"] == "not reproduced"


def test_a_run_with_other_settings_decides_no_number(evidence):
    other = evidence(value=0.80, size=64, filters=16)
    assert statuses(results.judge(other))["dice_coef is 0.793 on val"] == "not testable"
    assert other.deviations() == ["size 64 (128)", "filters 16 (32)"]
    changed = evidence(loss="dice_crossentropy", normalization="batch").deviations()
    assert changed == ["normalization batch (none)", "loss dice_crossentropy (binary_crossentropy)"]


def test_no_verdict_follows_from_a_phantom(evidence):
    judged = results.judge(evidence(kind="phantom cohort", value=0.80))
    empirical = {claim.text for claim in results.EMPIRICAL}
    assert set(judged.loc[judged["claim"].isin(empirical), "status"]) == {"no verdict"}
    on_paper = judged.loc[~judged["claim"].isin(empirical), "status"].value_counts().to_dict()
    assert on_paper == {"contradicts itself": 7, "not testable": 3}


def test_claims_about_curves_and_accuracy_follow_the_evidence(evidence):
    judged = statuses(results.judge(evidence()))
    overfits = "The long training overfits: validation loss rises while training loss falls"
    assert judged[overfits] == "reproduced" and judged["A high accuracy says little here"] == "reproduced"
    assert statuses(results.judge(evidence(size=64)))[overfits] == "not testable"


def test_other_peoples_patients_give_no_verdict_either(evidence):
    assert statuses(results.judge(evidence(kind="own data")))["A high accuracy says little here"] == "no verdict"


def test_equal_smoothing_never_lifts_dice_above_what_iou_allows():
    rng = np.random.default_rng(0)
    for _ in range(200):
        truth, p = rng.random(50) < rng.random(), rng.random(50)
        dice, jacard = metrics.batch_scores(np.array([(truth * p).sum()]), np.array([truth.sum() + p.sum()]))
        assert dice <= results.dice_from_iou(jacard) + 1e-12
    train = results.REPORTED["tables"]["train"]
    assert train["dice_coef"] > results.dice_from_iou(train["jacard_coef"])


def test_every_claim_has_source_status_and_evidence(evidence):
    judged = results.judge(evidence())
    assert judged.notna().all().all() and (judged != "").all().all() and judged["claim"].is_unique
    assert set(judged["status"]) <= {"reproduced", "not reproduced", "not testable", "contradicts itself"}


def test_a_smoke_run_is_compared_and_never_recorded(phantom_folder, open_smoke):
    run = open_smoke(phantom_folder)
    evaluate.evaluate(run)
    evidence = results.load_evidence(run.folder)
    compared = results.compare(evidence.evaluation)
    assert len(compared) == 17 and (compared["difference"] == compared["reproduced"] - compared["reported"]).all()
    assert results.recheck(evidence) < 1e-6
    with pytest.raises(UserError, match="only runs on real data are recorded"):
        results.record(run.folder, "phantom")


def test_an_unfinished_run_is_no_evidence(tmp_path):
    with pytest.raises(UserError, match="holds no finished run: metrics.json is missing"):
        results.load_evidence(tmp_path)


@pytest.mark.parametrize("name", results.records())
def test_a_record_is_consistent_with_its_slices(name):
    evidence = results.load_evidence(results.RECORDS / name)
    assert evidence.kind == "LGG cohort"
    assert results.recheck(evidence) < 1e-6
    assert results.consistent(evidence.evaluation.per_slice) < 1e-9
    again = evaluate.per_patient_table(evidence.evaluation.per_slice)
    pd.testing.assert_frame_equal(again, evidence.evaluation.per_patient, check_dtype=False)
    split = pd.read_csv(results.RECORDS / name / "split.csv")
    assert (len(split), split["patient"].nunique()) == (3929, 110)
    if evidence.record["experiment"]["split"] == "patient":
        assert (split.groupby("patient")["split"].nunique() == 1).all()


@pytest.mark.parametrize("name", results.records())
def test_prose_about_a_record_is_made_from_its_numbers(name):
    evidence = results.load_evidence(results.RECORDS / name)
    value = evidence.evaluation.per_patient.query("split == 'test'")["dice"].mean()
    assert f"{value:.3f}" in results.reading(name) and f"{value:.3f}" in results.at_a_glance()


def test_the_readme_shows_the_records():
    readme = (config.REPOSITORY / "README.md").read_text(encoding="utf-8")
    block = readme.split("<!-- results at a glance -->")[1].split("<!-- end -->")[0].strip()
    assert block == results.at_a_glance()


def test_larger_test_sets_spread_less():
    per_patient = pd.DataFrame({"dice": np.linspace(0, 1, 40)})
    few, many = (np.ptp(np.quantile(results.spread_of_draws(per_patient, size), (0.025, 0.975))) for size in (5, 80))
    assert many < few / 3


def test_consistency_is_noticed_where_it_fails(monkeypatch):
    table = pd.DataFrame({"tp": [3], "fp": [1], "fn": [1]})
    assert results.consistent(table) < 1e-12
    monkeypatch.setattr(metrics, "iou", lambda tp, fp, fn: np.array([0.9]))
    assert results.consistent(table) > 0.1
