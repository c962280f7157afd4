"""The records: every number follows from the counts beside it."""

import json
import re
import shlex
import shutil
import time

import numpy as np
import pandas as pd
import pytest
import yaml

from lggseg_utils import arms, cli, data, evaluate, metrics, records, runs
from lggseg_utils.predict import REFERENCE
from lggseg_utils.settings import UserError, load_experiment

SCORED = [name for name in records.BOOKS_OWN if (records.RECORDS / name / "metrics.json").exists()]
ABLATIONS = [name for name in records.BOOKS_OWN if name not in SCORED]


@pytest.mark.parametrize("name", SCORED)
def test_a_records_scores_follow_from_its_slices(name):
    record = records.load_record(name)
    protocol = record.run["experiment"]["split"]
    for part, scored in record.per_slice.groupby("split"):
        again = evaluate.set_scores(scored, protocol == "patient", resamples=0)
        for score, entry in again.items():
            assert record.metrics[part][score]["value"] == pytest.approx(
                entry["value"], rel=1e-5
            ), (part, score)
    table = evaluate.per_patient_table(record.per_slice).sort_values(
        ["patient", "split"], ignore_index=True
    )
    stored = record.per_patient.sort_values(["patient", "split"], ignore_index=True)
    pd.testing.assert_frame_equal(stored[table.columns], table, check_dtype=False, rtol=1e-6)


@pytest.mark.parametrize("name", SCORED)
def test_every_pixel_of_a_slice_is_counted_once(name):
    scored = records.load_record(name).per_slice
    assert (scored[evaluate.COUNTS].sum(axis=1) == 128 * 128).all()


@pytest.mark.parametrize("name", SCORED)
def test_a_record_was_scored_against_the_cohorts_truth(name):
    cohort = runs.read_csv(records.RECORDS / "cohort.csv").set_index(["patient", "slice"])[
        "tumour_area"
    ]
    scored = records.load_record(name).per_slice
    truth = scored.set_index(["patient", "slice"])[["tp", "fn"]].sum(axis=1)
    assert truth.index.is_unique and (cohort[truth.index] == truth).all()


@pytest.mark.parametrize("name", records.BOOKS_OWN)
def test_a_record_names_command_commit_machine_and_data(name):
    record = runs.read_record(records.RECORDS / name)
    assert record["command"].startswith("lggseg ")
    for commit in (record["git_commit"], record.get("ended", {}).get("git_commit", "")):
        assert re.fullmatch("([0-9a-f]{12})?", commit), "no commit, or work that was not committed"
    assert {"python", "keras", "numpy"} <= set(record["versions"])
    assert "tensorflow" in " ".join(record["versions"])
    assert record["machine"]["processor"]
    assert record["data"]["kind"] == "LGG cohort" or record["data"]["patients"] < 110


@pytest.mark.parametrize("name", records.BOOKS_OWN)
def test_a_records_settings_are_those_of_its_command(name):
    record = runs.read_record(records.RECORDS / name)
    words = shlex.split(record["command"])
    given = dict(pair.split("=", 1) for pair in words if "=" in pair and not pair.startswith("-"))
    given["seed"] = words[words.index("--seed") + 1] if "--seed" in words else "0"
    recorded = {name: record["experiment"][name] for name in given}
    assert recorded == {name: yaml.safe_load(value) for name, value in given.items()}


@pytest.mark.parametrize("name", ABLATIONS)
def test_a_recorded_ablation_follows_from_its_patients(name):
    record, summary = (
        records.load_record(name),
        runs.read_csv(records.RECORDS / name / "ablation.csv"),
    )
    means = record.ablation.groupby(["condition", "seed"])["dice"].mean()
    stored = summary.set_index(["condition", "seed"])["dice_patient_mean"]
    assert stored.to_numpy() == pytest.approx(means[stored.index].to_numpy(), rel=1e-6)
    assert summary["epochs"].nunique() == 1


@pytest.mark.parametrize("name", ["report64", "report64-plain"])
def test_own_grid_scores_are_of_the_same_slices(name):
    record = records.load_record(name)
    keys = ["patient", "slice", "split"]
    tables = [
        table.query("split != 'train'")[keys] for table in (record.own_grid, record.per_slice)
    ]
    first, second = (table.sort_values(keys, ignore_index=True) for table in tables)
    assert first.equals(second)
    assert (record.own_grid[evaluate.COUNTS].sum(axis=1) == 64 * 64).all()


def test_recorded_precisions_are_of_the_same_seeds_and_patients():
    table = runs.read_csv(records.RECORDS / "precision.csv")
    keys = [
        set(zip(part["seed"], part["patient"], strict=True))
        for _, part in table.groupby("precision")
    ]
    assert len(keys) == 2 and keys[0] == keys[1]


def test_the_reference_network_has_not_seen_the_sample():
    split = runs.read_csv(REFERENCE / "split.csv").set_index("patient")["split"]
    sample = set(data.read_cohort().slices["patient"])
    assert sample == set(split.index[split == "test"]) and split.value_counts().to_dict() == {
        "train": 85,
        "test": 16,
        "val": 9,
    }
    record = runs.read_record(REFERENCE)
    assert record["data"]["kind"] == "LGG cohort" and "dirty" not in record["git_commit"]
    assert runs.recorded_experiment(REFERENCE) == load_experiment(
        "ensemble", 0, {"networks": 1, "hold_out": True}
    )


def test_the_reference_network_scores_what_is_recorded():
    from lggseg_utils import preprocess, train

    network, settings = train.load_trained(REFERENCE)
    dataset = preprocess.prepare(data.read_cohort(), settings)
    probabilities = evaluate.predict(network, dataset.images, settings)
    scored = evaluate.score_slices(dataset.slices, dataset.truths, probabilities).assign(
        split="test"
    )
    stored = json.loads((REFERENCE / "metrics.json").read_text())["test"]
    # Kernels are stored in half precision, and this machine's arithmetic may differ.
    assert np.mean(evaluate.per_patient_table(scored)["dice"]) == pytest.approx(
        stored["dice_patient_mean"]["value"], abs=0.01
    )


# The table of scores


@pytest.mark.parametrize("name", ["grid64-batch16-0", "report64", "report128-1", "new-patients/3"])
def test_the_table_of_scores_follows_from_the_records(name):
    stored = records.read_scores().query("training == @name").drop(columns="training")
    again = records.score_training(name).drop(columns="training")
    keys = [column for column in again if column != "value"]
    both = stored.merge(again, on=keys, suffixes=("", "_again"))
    assert len(both) == len(stored) == len(again)
    assert both["value"].to_numpy() == pytest.approx(both["value_again"].to_numpy(), rel=1e-5)


def test_the_table_of_scores_has_every_training():
    assert set(records.read_scores()["training"]) == set(records.training_names())


@pytest.mark.parametrize("unit", ["pooled", "batch", "slice"])
@pytest.mark.parametrize("soft", [True, False])
def test_the_table_counts_as_the_chapters_do(unit, soft):
    scored = records.load_record("report64").per_slice.query("split == 'test'")
    definition = metrics.Definition(soft=soft, unit=unit, smooth=1)
    table = records.score_set(scored).set_index(records.WAY)["value"]
    values = "probabilities" if soft else "masks"
    found = [table[score, values, unit, 1] for score in ("dice", "iou")]
    assert found == pytest.approx(metrics.dice_and_iou(scored, definition))


def test_scores_of_three_slices_by_hand():
    """One slice with tumour half found, one empty and left empty, one with a false alarm."""
    table = pd.DataFrame({"tp": [10, 0, 0], "fp": [0, 0, 5], "fn": [10, 0, 0]})
    table["tn"] = 100 - table.sum(axis=1)
    table["soft_intersection"] = 1.0 * table["tp"]
    table["soft_sum"] = 2.0 * table["tp"] + table["fp"] + table["fn"]
    table["loss"] = [0.1, 0.2, 0.3]
    found = records.score_set(table).set_index(records.WAY)["value"]
    assert found["dice", "masks", "pooled", 0] == pytest.approx(20 / 35)
    assert found["dice", "masks", "slice", 0] == pytest.approx((20 / 30 + 1 + 0) / 3)
    assert found["dice", "masks", "slice", 1] == pytest.approx((21 / 31 + 1 + 1 / 6) / 3)
    assert found["iou", "masks", "slice", 1] == pytest.approx((11 / 21 + 1 + 1 / 6) / 3)
    assert found["iou", "probabilities", "batch", 10] == pytest.approx(20 / 35)
    assert found["mean_iou", "masks", "pooled", 0] == pytest.approx((10 / 25 + 275 / 290) / 2)
    assert found["accuracy", "masks", "pooled", 0] == pytest.approx(1 - 15 / 300)
    assert found["loss", "probabilities", "pooled", 0] == pytest.approx(0.2)


def test_what_the_criteria_ask_for_is_listed_as_the_books():
    groups = [*arms.CLAIMS["arms"].values(), *arms.CLAIMS["predictions"]]
    asked = {name for group in groups for name in [*group["records"], *group.get("to_come", [])]}
    folders = {name for name in asked if (records.RECORDS / name).exists()}
    assert len(folders) > 10 and folders <= set(records.BOOKS_OWN)
    assert set(records.BOOKS_OWN) <= set(records.record_names())


@pytest.fixture
def readers_record(tmp_path, monkeypatch):
    """The folder of a reader's record, among others: five of the book and an ablation."""
    for name in ("ablation", "patient64", "new-patients", "report64-plain"):
        shutil.copytree(records.RECORDS / name, tmp_path / name)
    shutil.copytree(tmp_path / "patient64", tmp_path / "mine")
    shutil.copytree(tmp_path / "patient64", tmp_path / "far")
    facts = runs.read_record(tmp_path / "mine")
    facts["experiment"].update(size=32, scaling="head", schedule="constant")
    (tmp_path / "far" / "run.json").write_text(json.dumps(facts))
    facts = runs.read_record(tmp_path / "mine")
    facts["experiment"].update(profile="my.yml", epochs=2, filters=4, ablation_seeds=3)
    facts["data"] = {"kind": "16 patients", "patients": 16, "fingerprint": "another"}
    (tmp_path / "mine" / "run.json").write_text(json.dumps(facts))
    shutil.copytree(tmp_path / "ablation", tmp_path / "my-ablation")
    monkeypatch.setattr(records, "RECORDS", tmp_path)
    books_own = ["ablation", "far", "new-patients", "patient64", "report64-plain"]
    monkeypatch.setattr(records, "BOOKS_OWN", books_own)
    return tmp_path / "mine"


def test_a_readers_record_is_compared_with_the_nearest_of_the_book(readers_record):
    assert records.readers_names() == ["mine"]
    (row,) = records.compare_with_book(["mine"]).to_dict("records")
    assert (row["record"], row["of_book"], row["same_data"]) == ("mine", "patient64", False)
    assert row["differ"] == "filters 4 instead of 16, epochs 2 instead of 20"
    scores = records.load_record("patient64").metrics["test"]["dice_patient_mean"]
    assert [row[key] for key in ("dice", "low", "high")] == list(scores.values())
    assert row["dice_of_book"] == row["dice"] and row["patients"] == row["patients_of_book"] == 11
    assert (row["data"], row["data_of_book"]) == ("16 patients", "110 patients, the LGG cohort")


def test_like_is_compared_with_like(readers_record):
    for settings, command, expected in (
        ({"split": "slice"}, "run", "report64-plain"),
        ({"split": "patient"}, "crossval", "new-patients"),
        ({"split": "patient"}, "train", "patient64"),
    ):
        facts = runs.read_record(readers_record)
        facts["experiment"].update(settings)
        facts["command"] = f"lggseg {command} --profile my.yml"
        (readers_record / "run.json").write_text(json.dumps(facts))
        assert records.nearest_of_book("mine") == expected


def test_recording_a_run_ends_with_the_comparison(readers_record, capsys):
    cli._print_comparison(records.compare_with_book(["mine"]).to_dict("records")[0])
    own, of_book, settings, data = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"mine: test Dice 0\.7\d\d \(95% .*\), 11 patients; data: 16 patients\.", own
    )
    assert of_book.startswith("patient64, of the book: test Dice 0.7")
    assert settings == "Settings that differ: filters 4 instead of 16, epochs 2 instead of 20."
    assert data == "The data differ, so these numbers do not say which network is better."


def test_a_readers_record_may_have_the_name_of_a_training_kept_in_a_table(tmp_path, monkeypatch):
    shutil.copytree(records.RECORDS / "patient64", tmp_path / "report128-long")
    monkeypatch.setattr(records, "RECORDS", tmp_path)
    per_slice, history = records.load_training.__wrapped__("report128-long")
    assert set(per_slice["split"]) == {"train", "val", "test"}
    assert len(history)


def test_a_relative_path_is_recorded(tmp_path, monkeypatch):
    """`lggseg record runs/demo name` is typed with a relative path."""
    run = runs.open_run("smoke", run_dir=tmp_path / "run")
    run.path("metrics.json").write_text("{}")
    (tmp_path / "records").mkdir()
    monkeypatch.setattr(records, "RECORDS", tmp_path / "records")
    monkeypatch.chdir(tmp_path)
    assert records.record("run", "kept") == tmp_path / "records" / "kept"


@pytest.mark.parametrize("name", [".hidden", "..", "-x", "a/b", ""])
def test_a_name_that_would_hide_or_leave_the_folder_is_refused(tmp_path, monkeypatch, name):
    run = runs.open_run("smoke", run_dir=tmp_path / "run")
    run.path("metrics.json").write_text("{}")
    monkeypatch.setattr(records, "RECORDS", tmp_path)
    with pytest.raises(UserError, match="names no record; use letters"):
        records.record(run.folder, name)


def test_compressed_tables_have_no_time(tmp_path, monkeypatch):
    """Recorded twice, the files are the same, so git sees no change."""
    table = pd.DataFrame({"a": range(9000)})
    monkeypatch.setattr(records, "RECORDS", tmp_path)
    monkeypatch.setattr(time, "time", lambda: 1e9)
    runs.write_csv(tmp_path / "history.csv", table)
    (tmp_path / "x").mkdir()
    records._copy(tmp_path / "history.csv", tmp_path / "x")
    records.write_scores(table, "y.gz")
    for path in (tmp_path / "x" / "history.csv.gz", tmp_path / "y.gz"):
        assert path.read_bytes()[4:8] == bytes(4), "no time in the header"


def test_every_table_is_recorded_and_comes_back_in_its_place(tmp_path, monkeypatch):
    """Every file that a record can hold is kept, and comes back in its place."""
    run = runs.open_run("smoke", run_dir=tmp_path / "run")
    for name in records.TABLES:
        run.path(f"{name}.csv").write_text(f"{name}\n1\n")
    run.path("metrics.json").write_text("{}")
    run.path("ablation.csv").write_text("a\n1\n")
    (tmp_path / "records").mkdir()
    monkeypatch.setattr(records, "RECORDS", tmp_path / "records")
    kept = records.record(run.folder, "kept")
    loaded = records.load_record("kept")
    tables = (
        loaded.per_slice,
        loaded.per_patient,
        loaded.history,
        loaded.split,
        loaded.ablation,
        loaded.own_grid,
    )
    assert [list(table) for table in tables] == [[name] for name in records.TABLES]
    assert (kept / "ablation.csv").exists()


def test_a_run_split_by_slice_is_compared_by_its_pooled_dice():
    """Where slices were split, the score is that of all test slices pooled."""
    (row,) = records.compare_with_book(["report64"]).to_dict("records")
    assert row["dice"] == records.load_record("report64").metrics["test"]["dice_pooled"]["value"]


def test_a_record_that_is_being_made_is_not_listed(tmp_path, monkeypatch):
    for name in (".part-x", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
    monkeypatch.setattr(records, "RECORDS", tmp_path)
    assert records.record_names() == ["mine"]


def test_settings_without_effect_do_not_differ(tmp_path, monkeypatch):
    for name, settings in (
        ("a", {}),
        (
            "b",
            {
                "kept_epochs": [1],
                "skip_bad": True,
                "ablation_conditions": ["none", "flip"],
                "ablation_seeds": 2,
            },
        ),
    ):
        runs.open_run("smoke", run_dir=tmp_path / name, overrides=settings)
    monkeypatch.setattr(records, "RECORDS", tmp_path)
    assert records._differ("a", "b") == []
