"""Records: consistent with their own slices, shown as they are, made by commands."""

import json

import numpy as np
import pandas as pd
import pytest

from lggseg_utils import config, evaluate, metrics, records, results
from lggseg_utils.config import UserError


def recheck(evidence):
    """Largest relative gap between metrics.json and the scores computed again from per_slice.csv, intervals left out."""
    whole = evidence.record["experiment"]["split"] == "patient"
    per_slice = evidence.evaluation.per_slice
    gaps = [
        abs(scores[name]["value"] - entry["value"]) / max(abs(entry["value"]), 1e-12)
        for part, then in evidence.evaluation.metrics.items()
        for scores in [evaluate.set_scores(per_slice[per_slice["split"] == part], whole, resamples=0)]
        for name, entry in then.items()
        if entry["value"] is not None
    ]
    return max(gaps)


def gap_between_dice_and_iou(per_slice):
    """Largest gap over slices between Dice and 2 IoU/(1 + IoU); 0 but for rounding."""
    dice, iou = (score(per_slice["tp"], per_slice["fp"], per_slice["fn"]) for score in (metrics.dice, metrics.iou))
    return float(np.abs(dice - 2 * iou / (1 + iou)).max())


def test_a_smoke_run_is_compared_and_never_recorded(phantom_folder, open_smoke):
    run = open_smoke(phantom_folder)
    evaluate.evaluate(run)
    evidence = records.load_evidence(run.folder)
    compared = results.compare(evidence.evaluation)
    assert len(compared) == 13 and (compared["difference"] == compared["reproduced"] - compared["reported"]).all()
    assert recheck(evidence) < 1e-6
    assert evidence.record["ended"]["git_commit"] == evidence.record["git_commit"]
    with pytest.raises(UserError, match="only runs on real data are recorded"):
        records.record(run.folder, "phantom")


def test_an_unfinished_run_is_no_evidence(tmp_path):
    with pytest.raises(UserError, match="holds no finished run: metrics.json is missing"):
        records.load_evidence(tmp_path)


RECORDED = records.load_records()
SCORED = [name for name, evidence in RECORDED.items() if evidence.evaluation]


@pytest.mark.parametrize("name", SCORED)
def test_a_record_is_consistent_with_its_slices(name):
    evidence = RECORDED[name]
    per_slice, per_patient = evidence.evaluation.per_slice, evidence.evaluation.per_patient
    assert evidence.kind == "LGG cohort" and not evidence.record["git_commit"].endswith("-dirty")
    assert recheck(evidence) < 1e-6
    assert gap_between_dice_and_iou(per_slice) < 1e-9
    again = evaluate.per_patient_table(per_slice)
    pd.testing.assert_frame_equal(again, per_patient.drop(columns="fold", errors="ignore"), check_dtype=False)
    split = pd.read_csv(records.RECORDS / name / "split.csv")
    assert (len(split), split["patient"].nunique()) == (3929, 110)
    sides = "split" if evidence.command == "run" else "fold"
    if evidence.record["experiment"]["split"] == "patient":
        assert (split.groupby("patient")[sides].nunique() == 1).all()


def test_scores_on_the_networks_own_grid_follow_from_their_slices():
    folder, evidence = records.RECORDS / "report64", RECORDED["report64"]
    stored = json.loads((folder / "metrics_own_grid.json").read_text())
    for part in ("val", "test"):
        chosen = evidence.own_grid.query("split == @part")
        first = evidence.evaluation.per_slice.query("split == @part")
        assert chosen[["patient", "slice"]].to_numpy().tolist() == first[["patient", "slice"]].to_numpy().tolist()
        assert (chosen[evaluate.COUNTS].sum(axis=1) == evidence.record["experiment"]["size"] ** 2).all()
        again = evaluate.set_scores(chosen, False, resamples=0)
        for name, entry in stored[part].items():
            assert again[name]["value"] == pytest.approx(entry["value"], rel=1e-6)
    assert evidence.own_grid["patient"].nunique() > 100 and RECORDED["leak-patient"].own_grid is None


@pytest.mark.parametrize("name", SCORED[1:])
def test_every_record_scored_the_same_slices_against_the_same_truth(name):
    keys = ["patient", "slice"]
    first, other = (
        RECORDED[chosen].evaluation.per_slice.sort_values(keys, ignore_index=True) for chosen in (SCORED[0], name)
    )
    assert first[keys].equals(other[keys])
    assert (first["tp"] + first["fn"]).equals(other["tp"] + other["fn"])


def test_the_readme_shows_the_records():
    readme = (config.REPOSITORY / "README.md").read_text(encoding="utf-8")
    block = readme.split("<!-- results at a glance -->")[1].split("<!-- end -->")[0].strip()
    assert block == records.at_a_glance()


def test_every_record_names_its_command_and_commit():
    table = records.provenance(RECORDED).set_index("record")
    assert set(table.index) == set(RECORDED)
    assert table["command"].str.match(r"lggseg (run|crossval|ablate) --profile \w+ --seed \d+ --data DATA_FOLDER").all()
    assert table["commit"].str.fullmatch(r"[0-9a-f]{12}(, [0-9a-f]{12})?").all()


@pytest.mark.parametrize("name", [name for name, evidence in RECORDED.items() if evidence.ablation is not None])
def test_a_recorded_ablation_follows_from_its_patients(name):
    summary, patients = pd.read_csv(records.RECORDS / name / "ablation.csv"), RECORDED[name].ablation
    experiment = RECORDED[name].record["experiment"]
    assert summary["condition"].drop_duplicates().tolist() == experiment["ablation_conditions"]
    assert len(summary) == len(experiment["ablation_conditions"]) * experiment["ablation_seeds"]
    assert (patients.groupby(["condition", "seed"])["patient"].nunique() == 11).all()
    means = patients.groupby(["condition", "seed"], sort=False)["dice"].mean()
    assert summary["dice_patient_mean"].to_numpy() == pytest.approx(means.to_numpy(), rel=1e-6)


def test_recorded_precisions_are_of_the_same_seeds_and_patients():
    trained = records.load_precision()
    assert set(trained["precision"]) == {"float32", "mixed_bfloat16"} and trained["dice"].between(0, 1).all()
    sides = [part.drop(columns=["precision", "dice"]) for _, part in trained.groupby("precision")]
    assert sides[0].reset_index(drop=True).equals(sides[1].reset_index(drop=True))
    assert trained["git_commit"].str.fullmatch(r"[0-9a-f]{12}").all() and trained["seed"].nunique() >= 4


def test_a_record_is_not_written_over(open_smoke, monkeypatch, tmp_path):
    run = open_smoke()
    run.note(data={"kind": "own data"})
    run.path("metrics.json").write_text("{}")
    for name in ("per_slice", "per_patient"):
        run.path(f"{name}.csv").write_text("patient\n")
    monkeypatch.setattr(records, "RECORDS", tmp_path / "results")
    assert records.record(run.folder, "mine") == tmp_path / "results" / "mine"
    with pytest.raises(UserError, match="mine is there already; remove it first, or choose another name"):
        records.record(run.folder, "mine")
