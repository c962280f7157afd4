"""Cross-validation: each slice is tested once, nothing leaks, and an interrupted one goes on."""

import importlib.util
import json
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest

from lggseg_utils import config, crossval, phantom, preprocess, train


@pytest.fixture(scope="module")
def cohort_folder(tmp_path_factory):
    """A cohort with a patient a part, under names that are no phantom's."""
    folder = tmp_path_factory.mktemp("cohort")
    phantom.write_cohort(folder, patients=10, slices=4)
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rename(path.with_name(path.name.replace("PHANTOM", "OWN")))
    return folder


@pytest.fixture(scope="module")
def by_patient(tmp_path_factory, cohort_folder):
    """A cross-validation by patient, done."""
    folder = tmp_path_factory.mktemp("run")
    run = config.open_run("smoke", cohort_folder, folder, 0, {"epochs": 1}, "crossval")
    crossval.cross_validate(run)
    return run


def table_of(slices):
    """A table of 30 patients with so many slices each."""
    patients = np.repeat([f"patient_{number:02}" for number in range(30)], slices)
    return pd.DataFrame(
        {"patient": patients, "slice": np.tile(np.arange(slices), 30), "tumour_area": np.arange(30 * slices)}
    )


@pytest.mark.parametrize("protocol", ["slice", "patient"])
def test_every_slice_is_tested_in_one_fold_and_never_trained_on_there(protocol):
    slices = table_of(10)
    parts = slices.assign(part=preprocess.draw_parts(slices, protocol, 0))
    splits = [preprocess.split_of_fold(parts, fold)["split"] for fold in range(preprocess.FOLDS)]
    tested = sum((split == "test").astype(int) for split in splits)
    assert (tested == 1).all()
    for split in splits:
        assert split.value_counts().to_dict() == {"train": 210, "test": 60, "val": 30}


def test_by_patient_no_patient_stands_on_two_sides_and_by_slice_almost_all_do():
    slices = table_of(10)
    sides = {}
    for protocol in ("slice", "patient"):
        parts = slices.assign(part=preprocess.draw_parts(slices, protocol, 0))
        sides[protocol] = preprocess.split_of_fold(parts, 0).groupby("patient")["split"].nunique()
    assert (sides["patient"] == 1).all() and (sides["slice"] > 1).mean() > 0.9


def test_parts_depend_on_the_seed_alone():
    slices = table_of(10)
    for protocol in ("slice", "patient"):
        first, again, other = (preprocess.draw_parts(slices, protocol, seed) for seed in (0, 0, 1))
        assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("protocol", ["slice", "patient"])
def test_too_few_are_refused_in_one_line(protocol):
    message = {"slice": "at least 10 slices, the data hold 9", "patient": "at least 10 patients, the data hold 3"}
    with pytest.raises(config.UserError, match=message[protocol]):
        preprocess.draw_parts(table_of(10).iloc[list(range(0, 27, 3))], protocol, 0)


def test_tables_hold_every_slice_once_with_its_fold(by_patient):
    per_slice, split = pd.read_csv(by_patient.path("per_slice.csv")), pd.read_csv(by_patient.path("split.csv"))
    assert len(per_slice) == 40 and not per_slice.duplicated(["patient", "slice"]).any()
    keys = ["patient", "slice", "fold"]
    assert per_slice[keys].sort_values(keys).to_numpy().tolist() == split[keys].sort_values(keys).to_numpy().tolist()
    per_patient = pd.read_csv(by_patient.path("per_patient.csv"))
    assert len(per_patient) == 10 and per_patient["tp"].sum() == per_slice["tp"].sum()
    assert sorted(per_patient["fold"].unique()) == [0, 1, 2, 3, 4]


def test_an_interrupted_one_trains_only_what_is_missing(tmp_path, by_patient, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(by_patient.folder, folder)
    for name in ("metrics.json", "per_slice.csv", "folds/3/per_slice.csv", "folds/3/checkpoint.keras"):
        (folder / name).unlink()
    trained = []
    fit = crossval.train.fit
    monkeypatch.setattr(crossval.train, "fit", lambda *rest: trained.append(rest[-1].name) or fit(*rest))
    again = config.Run(by_patient.experiment, folder, by_patient.data_dir)
    crossval.cross_validate(again)
    assert trained == ["3"]
    for name in ("metrics.json", "per_slice.csv"):
        assert again.path(name).read_text() == by_patient.path(name).read_text()


def test_a_run_folder_belongs_to_one_command(by_patient, cohort_folder):
    with pytest.raises(config.UserError, match="was made by 'lggseg crossval --profile smoke"):
        config.open_run("smoke", cohort_folder, by_patient.folder, 0, {"epochs": 1})


def script(name):
    """A script that stands beside the records, as a module."""
    spec = importlib.util.spec_from_file_location(name, config.REPOSITORY / "results" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_recipes_are_tried_on_validation_patients_alone_and_kept(tmp_path, cohort_folder, monkeypatch):
    recipe = script("recipe")
    tiny = {"size": 32, "filters": 2, "depth": 2, "epochs": 1}
    monkeypatch.setattr(recipe, "ATTEMPTS", {"tiny": tiny, "other": {**tiny, "context": 1}})
    monkeypatch.setattr(recipe, "RESULT", tmp_path / "attempts.csv")
    recipe.main([str(cohort_folder), str(tmp_path / "work")], standalone_mode=False)
    table = pd.read_csv(tmp_path / "attempts.csv")
    assert len(table) == 2 * 2 * 4 and table["dice"].between(0, 1).all()
    run = config.open_run("crossval64", cohort_folder, tmp_path / "work" / "tiny", 0, {"split": "patient", **tiny})
    slices = preprocess.load_cohort(run).slices
    parts = preprocess.parts_table(slices, "patient", 0)
    for fold in recipe.FOLDS:
        split = preprocess.split_of_fold(parts, fold)
        held = set(split.loc[split["split"] == "val", "patient"])
        assert set(table.loc[table["fold"] == fold, "patient"]) == held
    recipe.write_down(tmp_path / "lost")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "attempts.csv"), table)
    monkeypatch.setattr(recipe.train, "fit", None)
    recipe.main([str(cohort_folder), str(tmp_path / "work")], standalone_mode=False)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "attempts.csv"), table)


def test_recorded_figures_can_be_drawn_again(tmp_path, by_patient, monkeypatch):
    figures = script("figures")
    monkeypatch.setattr(figures, "FIGURES", tmp_path)
    again = config.reopen(by_patient.folder, by_patient.data_dir)
    assert again.experiment == by_patient.experiment
    figures.draw_gallery(again)
    figures.draw_leak(again, again)
    figures.draw_alarms(again)
    figures.draw_failures(again)
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == ["alarms.jpg", "gallery.jpg", "leak.jpg", "recipe.jpg"]
    assert all(cv2.imread(str(tmp_path / name)) is not None for name in drawn)


def test_a_reference_model_is_kept_with_its_split_and_what_storing_changed(tmp_path, by_patient, monkeypatch):
    reference = script("reference")
    monkeypatch.setattr(reference.predict, "REFERENCE", tmp_path)
    reference.main([by_patient.data_dir, str(by_patient.folder)], standalone_mode=False)
    split = pd.read_csv(tmp_path / "split.csv")
    per_slice = pd.read_csv(by_patient.path("per_slice.csv"))
    tested = set(per_slice.loc[per_slice["fold"] == reference.FOLD, "patient"])
    assert len(split) == 10 and set(split.loc[split["split"] == "test", "patient"]) == tested
    stored = json.loads((tmp_path / "run.json").read_text())["stored"]
    scored = pd.read_csv(by_patient.path("per_patient.csv"))
    wanted = scored.loc[scored["patient"].isin(tested), "dice"].mean()
    assert stored["dice_trained"] == pytest.approx(wanted, abs=1e-5)
    assert stored["pixels"] == len(per_slice[per_slice["fold"] == reference.FOLD]) * by_patient.experiment.score_size**2
    assert stored["pixels_changed"] < 0.01 * stored["pixels"]
    whole = by_patient.path("folds", "0", "model.keras").stat().st_size
    assert (tmp_path / "weights.npz").stat().st_size < whole


def test_precisions_are_compared_on_the_same_patients(tmp_path, cohort_folder, monkeypatch):
    precision = script("precision")
    tiny = {"size": 32, "filters": 2, "depth": 2, "epochs": 1}
    for name, value in (("CHANGED", tiny), ("SEEDS", 1), ("RESULT", tmp_path / "precision.csv")):
        monkeypatch.setattr(precision, name, value)
    monkeypatch.setattr(precision.train, "machine_precision", lambda: "mixed_bfloat16")
    precision.main([str(cohort_folder), str(tmp_path / "work")], standalone_mode=False)
    table = pd.read_csv(tmp_path / "precision.csv")
    trainings = table.groupby(["precision", "seed"])["patient"].agg(["size", "first"])
    assert len(trainings) == 2 and (trainings == trainings.iloc[0]).all(axis=None)
    kept = json.loads((tmp_path / "work" / "float32-0" / "run.json").read_text())["experiment"]
    assert (kept["precision"], kept["seed"]) == ("float32", 0)


def test_a_run_can_be_scored_on_its_networks_own_grid(tmp_path, cohort_folder):
    from lggseg_utils import evaluate

    run = config.open_run("smoke", cohort_folder, tmp_path / "run", 0, {"epochs": 1})
    whole = evaluate.evaluate(run).per_slice.query("split != 'train'")
    arguments = [str(cohort_folder), str(run.folder), str(tmp_path / "kept")]
    config.write_json(tmp_path / "kept" / "run.json", {**run.record(), "data": {}})
    with pytest.raises(config.UserError, match=r"records a run on other data than .*run\."):
        script("own_grid").main(arguments, standalone_mode=False)
    config.write_json(tmp_path / "kept" / "run.json", run.record())
    script("own_grid").main(arguments, standalone_mode=False)
    own = pd.read_csv(tmp_path / "kept" / "per_slice_own_grid.csv")
    assert own[["patient", "slice"]].to_numpy().tolist() == whole[["patient", "slice"]].to_numpy().tolist()
    assert set(own[evaluate.COUNTS].sum(axis=1)) == {run.experiment.size**2}
    assert set(json.loads((tmp_path / "kept" / "metrics_own_grid.json").read_text())) == {"val", "test"}


def test_no_script_takes_a_phantom_for_real_data(tmp_path, phantom_folder, monkeypatch):
    run = config.open_run("smoke", phantom_folder, tmp_path / "run", 0, {"epochs": 1})
    preprocess.load_cohort(run)
    config.write_json(tmp_path / "kept" / "run.json", run.record())
    config.write_csv(run.path("split.csv"), pd.DataFrame({"patient": ["A"], "slice": [1], "part": [0]}))
    monkeypatch.setattr(train, "machine_precision", lambda: "mixed_bfloat16")
    (tmp_path / "leak-patient").symlink_to(run.folder)
    data = str(phantom_folder)
    for name, arguments in (
        ("own_grid", [data, str(run.folder), str(tmp_path / "kept")]),
        ("reference", [data, str(run.folder)]),
        ("figures", [data, str(tmp_path), "gallery"]),
        ("recipe", [data, str(tmp_path / "work"), "plain"]),
        ("precision", [data, str(tmp_path / "work")]),
    ):
        with pytest.raises(config.UserError, match="only runs on real data are recorded"):
            script(name).main(arguments, standalone_mode=False)


def test_a_machine_with_one_precision_compares_nothing(tmp_path, cohort_folder, monkeypatch):
    monkeypatch.setattr(train, "machine_precision", lambda: "float32")
    with pytest.raises(config.UserError, match="trains in float32 alone"):
        script("precision").main([str(cohort_folder), str(tmp_path)], standalone_mode=False)
