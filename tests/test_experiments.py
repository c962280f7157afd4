"""Runs, folds and ablations go through one job; what is done is not done again."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import LEFT_BY_A_RUN

from lggseg_utils import data, evaluate, experiments, model, preprocess, records, runs, train
from lggseg_utils.settings import UserError, load_experiment

# A network that trains in no time.
SMALL = {"depth": 2, "filters": 2, "augmentation": "none"}


def refuse_to_train(monkeypatch):
    """Fail where anything is trained from now on."""
    monkeypatch.setattr("lggseg_utils.train.fit", lambda *_: pytest.fail("trained again"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cohort_folder):
    """A finished run: (run, cohort, per-slice table, history)."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    run = runs.open_run("smoke", cohort_folder, folder, 0, SMALL)
    cohort = data.load_cohort(run)
    return run, cohort, *experiments.train_and_score(run, cohort)


def test_a_run_leaves_what_the_contract_names_and_is_read_the_second_time(trained, monkeypatch):
    run, cohort, per_slice, history = trained
    assert not [name for name in LEFT_BY_A_RUN if not run.path(name).exists()]
    assert not run.path("checkpoint.keras").exists() and not list(run.folder.rglob(".part-*"))
    record = run.record()
    patients = runs.read_csv(run.path("per_patient.csv"))
    assert patients["hd95"].between(0, 182).all() and patients["surface_dice"].between(0, 1).all()
    own = runs.read_csv(run.path("per_slice_own_grid.csv"))
    assert (own[evaluate.COUNTS].sum(axis=1) == 32**2).all() and (
        own["split"] == per_slice["split"]
    ).all()
    assert (
        record["training"]["epochs"] == len(history) == 2
        and record["ended"]["time"] >= record["created"]
    )
    assert record["precision"] == train.machine_precision()
    refuse_to_train(monkeypatch)
    again, _ = experiments.train_and_score(run, cohort)
    assert again.equals(per_slice)
    for name, scored in per_slice.groupby("split"):
        assert records.load_record(run.folder).metrics[name] == evaluate.set_scores(
            scored, whole_patients=True
        )


@pytest.fixture(scope="module")
def crossval(tmp_path_factory, large_cohort_folder):
    """A finished cross-validation by patient: (run, cohort, per-slice table)."""
    folder = tmp_path_factory.mktemp("folds") / "run"
    settings = {**SMALL, "epochs": 1}
    run = runs.open_run("smoke", large_cohort_folder, folder, 0, settings, "crossval")
    cohort = data.load_cohort(run)
    return run, cohort, experiments.cross_validate(run, cohort)


def test_every_slice_is_tested_once_by_the_fold_that_did_not_train_on_it(crossval):
    run, _, per_slice = crossval
    keys = ["patient", "slice", "fold"]
    tested = per_slice[keys].sort_values(keys, ignore_index=True)
    assert tested.equals(
        runs.read_csv(run.path("split.csv"))[keys].sort_values(keys, ignore_index=True)
    )
    record = records.load_record(run.folder)
    assert len(record.per_patient) == 12 and set(record.per_patient["fold"]) == set(range(5))
    assert list(record.metrics) == ["test"] and "dice_patient_mean" in record.metrics["test"]


@pytest.mark.parametrize(
    ("missing", "trained_again"),
    [
        (["folds/3/per_slice.csv", "folds/3/history.csv"], ["3"]),
        (["folds/3/model.keras"], ["3"]),
        (["folds/3/per_slice.csv"], []),
        (["per_patient.csv"], []),
    ],
)
def test_only_what_is_missing_is_made_again(
    crossval, tmp_path, monkeypatch, missing, trained_again
):
    run, cohort, per_slice = crossval
    shutil.copytree(run.folder, tmp_path / "run")
    resumed = runs.Run(run.experiment, tmp_path / "run", run.data_dir)
    if missing != ["per_patient.csv"]:
        resumed.path("metrics.json").unlink()
    for name in missing:
        resumed.path(name).unlink()
    trained = []
    fit = train.fit
    monkeypatch.setattr(
        "lggseg_utils.train.fit", lambda *given: trained.append(given[3].name) or fit(*given)
    )
    again = experiments.cross_validate(resumed, cohort)
    assert trained == trained_again
    assert all(resumed.path(name).exists() for name in missing)
    np.testing.assert_allclose(again["soft_sum"], per_slice["soft_sum"], rtol=1e-6)


def test_folds_that_are_not_tested_are_not_trained_and_the_others_keep_their_numbers(
    crossval, tmp_path, monkeypatch
):
    run, cohort, per_slice = crossval
    shutil.copytree(run.folder, tmp_path / "run")
    fewer = runs.Run(run.experiment, tmp_path / "run", run.data_dir)
    folds = runs.read_csv(fewer.path("split.csv"))
    runs.write_csv(
        fewer.path("split.csv"),
        folds.assign(split=np.where(folds["fold"].isin([0, 2]), "test", "train")),
    )
    fewer.path("metrics.json").unlink()
    for fold in (1, 3, 4):
        shutil.rmtree(fewer.path("folds", str(fold)))
    refuse_to_train(monkeypatch)
    tested = experiments.cross_validate(fewer, cohort)
    assert tested.equals(per_slice[per_slice["fold"].isin([0, 2])].reset_index(drop=True))


def result_of_two_patients():
    """Made-up results of a fold: two patients with two slices each, trained for two epochs."""
    slices = pd.DataFrame({"patient": list("AABB"), "slice": [1, 2, 1, 2]})
    probabilities = np.random.default_rng(0).random((4, 8, 8))
    truths = (probabilities > 0.6).astype(np.uint8)
    per_slice = evaluate.score_slices(slices, truths, probabilities).assign(split="test")
    history = pd.DataFrame({"epoch": [1, 2], "seconds": [1.0, 2.0]})
    return experiments.Result(per_slice, evaluate.per_patient_table(per_slice), history)


def test_each_fold_is_a_job_and_scores_are_written_after_the_tables(
    large_cohort_folder, tmp_path, monkeypatch
):
    """Where metrics.json is, a run is finished."""
    run = runs.open_run("smoke", large_cohort_folder, tmp_path / "run", 0, {}, "crossval")
    jobs = []

    def finish_all(given, *_):
        jobs.extend(given)
        return [result_of_two_patients()] * len(jobs)

    monkeypatch.setattr(experiments, "run_jobs", finish_all)
    monkeypatch.setattr(experiments, "_write_scores", lambda *_: pytest.skip("stopped"))
    with pytest.raises(pytest.skip.Exception):
        experiments.cross_validate(run, data.load_cohort(run))
    assert run.path("per_slice.csv").exists()
    assert run.path("history.csv").exists()
    fold = runs.read_csv(run.path("split.csv"))["fold"]
    for number, job in enumerate(jobs):
        assert (job.name, job.sets) == (str(number), ("test",))
        assert ((job.split["split"] == "test") == (fold == number)).all()


def test_split_patients_are_scored_over_their_folds_and_have_no_dice(open_smoke):
    results = [result_of_two_patients() for _ in range(2)]
    whole = experiments._of_all_folds(results, [3, 4], "slice")
    assert whole.per_slice["fold"].tolist() == [3] * 4 + [4] * 4
    assert whole.history["fold"].tolist() == [3, 3, 4, 4]
    assert whole.per_patient["patient"].tolist() == ["A", "B"]
    run = open_smoke(split="slice")
    experiments._write_scores(run, whole.per_slice, whole.history)
    assert "dice_patient_mean" not in json.loads(run.path("metrics.json").read_text())["test"]
    assert run.record()["training"] == {"epochs": 4, "seconds": 6.0}


def test_folds_of_other_slices_are_refused(crossval, tmp_path):
    run, cohort, _ = crossval
    (tmp_path / "split.csv").write_text("patient,slice,split\nA,1,test\n")
    with pytest.raises(UserError, match="split.csv does not match these slices; delete it"):
        experiments.cross_validate(runs.Run(run.experiment, tmp_path, run.data_dir), cohort)


def leave_untrained(monkeypatch):
    """Leave each network as its seed draws it, after two epochs with flips and one without."""

    def fit(experiment, dataset, split, folder):
        epochs = [1, 2] if experiment.augmentation == "flip" else [1]
        history = pd.DataFrame({"epoch": epochs, "seconds": 1.0})
        runs.write_csv(folder / "history.csv", history)
        (folder / "checkpoint.keras").touch()
        return model.build_unet(experiment), history

    monkeypatch.setattr(train, "fit", fit)


def test_an_ablation_compares_on_validation_patients_of_one_split(
    cohort_folder, tmp_path, monkeypatch
):
    leave_untrained(monkeypatch)
    overrides = {**SMALL, "ablation_conditions": ["none", "flip"], "ablation_seeds": 2}
    run = runs.open_run("smoke", cohort_folder, tmp_path / "run", 0, overrides, "ablate")
    cohort = data.load_cohort(run)
    scores = experiments.ablate(run, cohort)
    split = preprocess.draw_split(cohort.slices, "patient", 0)
    assert set(scores["patient"]) == set(split.loc[split["split"] == "val", "patient"])
    means = runs.read_csv(run.path("ablation.csv"))
    assert means["condition"].tolist() == ["none", "none", "flip", "flip"]
    assert means["seed"].tolist() == [0, 1, 0, 1]
    assert means["epochs"].tolist() == [1, 1, 2, 2]
    by_training = scores.groupby(["condition", "seed"], sort=False)["dice"].mean()
    assert means["dice_patient_mean"].tolist() == pytest.approx(by_training)
    assert run.record()["training"] == {"epochs": 6, "seconds": 6.0}
    refuse_to_train(monkeypatch)
    run.path("ablation_patients.csv").unlink()
    assert experiments.ablate(run, cohort).equals(scores)
    assert records.load_record(run.folder).ablation.equals(scores)


def prepared(cohort_folder, experiment):
    """A cohort's data set and its split by patient."""
    cohort = data.read_cohort(cohort_folder)
    split = preprocess.draw_split(cohort.slices, "patient", 0)
    return preprocess.prepare(cohort, experiment), split


def test_averaged_networks_predict_from_their_file_what_was_scored(
    cohort_folder, tmp_path, monkeypatch
):
    leave_untrained(monkeypatch)
    experiment = load_experiment("smoke", 1, {**SMALL, "networks": 2, "mirrored": True})
    dataset, split = prepared(cohort_folder, experiment)
    job = experiments.Job("run", experiment, split, ("test",))
    scored, _, history = experiments.run_job(job, dataset, tmp_path / "run")
    assert set(scored["split"]) == {"test"}
    assert history["network"].tolist() == [0, 1]
    assert not list(tmp_path.rglob("checkpoint.keras"))
    network = train.load_network(tmp_path / "run" / "model.keras")
    again, _ = evaluate.score_split(network, dataset, split, experiment, ("test",))
    np.testing.assert_allclose(again["soft_sum"], scored["soft_sum"], rtol=1e-5)
    # The mean of what two networks of their own, with seeds in a row, predict for four mirror
    # images.
    images = np.asarray(preprocess.minmax(dataset.images[:4], experiment.scaling))
    predicted = []
    for seed in (2, 3):
        alone = model.build_unet(experiment.model_copy(update={"seed": seed}))
        for y, x in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
            predicted.append(alone.predict_on_batch(images[:, ::y, ::x])[:, ::y, ::x])
    expected = np.mean(predicted, axis=0)
    np.testing.assert_allclose(network.predict_on_batch(images), expected, atol=1e-5)


def test_a_stopped_job_goes_on_with_the_network_it_was_training(
    cohort_folder, tmp_path, monkeypatch
):
    experiment = load_experiment("smoke", 1, {**SMALL, "epochs": 1, "networks": 2})
    dataset, split = prepared(cohort_folder, experiment)
    job = experiments.Job("run", experiment, split, ("val",))
    trained = []
    compiled = train.compile_unet

    def compile_two(member, steps):
        trained.append(member.seed)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return compiled(member, steps)

    monkeypatch.setattr("lggseg_utils.train.compile_unet", compile_two)
    with pytest.raises(KeyboardInterrupt):
        experiments.run_job(job, dataset, tmp_path)
    per_slice, _, history = experiments.run_job(job, dataset, tmp_path)
    assert trained == [2, 3, 3]
    assert history["network"].tolist() == [0, 1]
    whole, _, _ = experiments.run_job(job, dataset, tmp_path / "whole")
    np.testing.assert_allclose(per_slice["soft_sum"], whole["soft_sum"], rtol=1e-5)


def test_a_run_keeps_the_precision_it_began_in_on_another_machine(
    cohort_folder, open_smoke, monkeypatch
):
    run = open_smoke(cohort_folder, epochs=1)
    cohort = data.load_cohort(run)
    monkeypatch.setattr(train, "fit", lambda *_: pytest.skip("killed"))
    monkeypatch.setattr(train, "machine_precision", lambda: "mixed_bfloat16")
    with pytest.raises(pytest.skip.Exception):
        experiments.train_and_score(run, cohort)
    seen = []
    monkeypatch.setattr(train, "machine_precision", lambda: "float32")
    monkeypatch.setattr(
        train,
        "fit",
        lambda experiment, *_: (seen.append(experiment.precision), pytest.skip("seen")),
    )
    with pytest.raises(pytest.skip.Exception):
        experiments.train_and_score(run, cohort)
    assert (
        seen == [run.record()["precision"]] == ["mixed_bfloat16"]
        and run.record()["experiment"]["precision"] == "auto"
    )


def test_the_network_of_an_earlier_epoch_is_scored_as_a_run_is(trained, monkeypatch):
    monkeypatch.syspath_prepend(str(runs.REPOSITORY / "scripts"))
    import early

    run, cohort, per_slice, _ = trained
    split, network = (
        runs.read_csv(run.path("split.csv")),
        train.load_network(run.path("model.keras")),
    )
    assert early.epoch_of(network, split, run.experiment) == 2
    dataset = preprocess.prepare(cohort, run.experiment)
    scored = early.scores(network, dataset, split, run.experiment)
    own = runs.read_csv(run.path("per_slice_own_grid.csv"))
    for grid, table in {"128": per_slice, "own": own}.items():
        found, expected = scored[scored["grid"] == grid], records.score_sets(table)
        assert found.drop(columns="grid").equals(expected.assign(value=found["value"]))
        np.testing.assert_allclose(found["value"], expected["value"], rtol=1e-5)


def test_a_network_that_was_deleted_is_made_again(trained, tmp_path):
    run, cohort, before, _ = trained
    shutil.copytree(run.folder, tmp_path / "run")
    again = runs.Run(run.experiment, tmp_path / "run", run.data_dir)
    again.path("model.keras").unlink()
    after, _ = experiments.train_and_score(again, cohort)
    assert again.path("model.keras").exists()
    assert after.equals(before)


def test_another_seed_of_an_ablation_trains_with_other_seeds(cohort_folder, tmp_path, monkeypatch):
    overrides = {"ablation_conditions": ["none", "flip"], "ablation_seeds": 2}
    run = runs.open_run("smoke", cohort_folder, tmp_path / "run", 1, overrides, "ablate")
    seeds = []
    monkeypatch.setattr(
        experiments, "run_jobs", lambda jobs, *_: (seeds.extend(jobs), pytest.skip("listed"))
    )
    with pytest.raises(pytest.skip.Exception):
        experiments.ablate(run, data.load_cohort(run))
    assert [job.experiment.seed for job in seeds] == [2, 3, 2, 3]
