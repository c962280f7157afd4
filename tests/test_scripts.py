"""The scripts that made tables and figures of the records."""

import shutil
import types

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import load_module

from lggseg_utils import book, chapters, data, evaluate, model, preprocess, records, runs, train
from lggseg_utils.settings import load_experiment

CONFIG = book.CONFIG


def script(name):
    """A script as a module."""
    return load_module(runs.REPOSITORY / "scripts" / f"{name}.py")


def test_a_fold_by_institution_tests_all_of_one():
    slices = runs.read_csv(records.RECORDS / "cohort.csv")
    folds = script("institutions").draw_institutions(slices)
    places = data.institutions(slices["patient"])
    for fold, place in enumerate(["CS", "DU", "FG", "HT"]):
        split = preprocess.split_of_fold(folds, fold)["split"]
        assert (split == "test").equals(places == place) and (split == "val").any()
    assert set(folds["fold"][folds["split"] == "test"]) == set(range(4))
    assert set(places[folds["split"] == "train"]) == {"EZ"}, "an institution with one patient"


def test_networks_of_a_cross_validation_are_scored_one_by_one():
    members = script("members")
    experiment = load_experiment("smoke", 0, {"networks": 2, "mirrored": True, "hold_out": False})
    networks = [model.build_unet(experiment.model_copy(update={"seed": seed})) for seed in (0, 1)]
    images = np.random.default_rng(0).integers(
        0, 256, (3, experiment.size, experiment.size, 3), dtype=np.uint8
    )
    average = model.average(networks, True)
    expected = evaluate.predict(average, images, experiment)
    each = {
        (name, mirrored): values
        for name, mirrored, values in members.predictions(average, images, experiment)
    }
    assert list(each) == [
        (0, False),
        (1, False),
        ("all", False),
        (0, True),
        (1, True),
        ("all", True),
    ]
    np.testing.assert_allclose(each["all", True], expected, atol=1e-6)
    np.testing.assert_allclose(
        each[0, False], evaluate.predict(networks[0], images, experiment), atol=1e-6
    )
    assert not np.allclose(each[0, False], each[1, False])


def test_calibration_counts_the_pixels_of_each_tenth():
    members = script("members")
    table = members.bins(np.array([[0, 1, 1, 0]]), np.array([[0.01, 0.73, 0.79, 1.0]]))
    assert table.loc[[0, 7, 9], "pixels"].tolist() == [1, 2, 1] and table["pixels"].sum() == 4
    assert table.loc[7, "mean_probability"] == pytest.approx(1.52) and table["tumour"].tolist() == [
        0
    ] * 7 + [2, 0, 0]


def test_contrast_is_the_share_of_pairs_in_which_the_tumour_is_brighter():
    failures = script("failures")
    flair = np.array([[[0, 100, 100], [200, 150, 120]], [[255] * 3] * 2])
    images = np.repeat(flair[..., None], 3, axis=-1).astype(np.uint8)
    truths = np.array([[[0, 0, 0], [1, 0, 1]], np.zeros((2, 3), int)])
    # Of 2 tumour and 3 other pixels of the head, 200 is brighter than 100, 100 and 150, and 120 than 100 and 100. Air does not count.
    assert failures.contrast(images, truths) == pytest.approx(5 / 6)


def test_the_largest_alarms_are_one_a_patient_and_none_with_tumour():
    leak = script("leak")
    patients = ["A", "A", "B", "C", "D", "E"]
    marked = [5, 7, 30, 1, 2, 3]
    truths = np.zeros((6, 6, 6), int)
    truths[2] = 1  # of B: much is marked, rightly
    masks = {row: np.arange(36).reshape(6, 6) < count for row, count in enumerate(marked)}
    dataset = types.SimpleNamespace(truths=truths, slices=pd.DataFrame({"patient": patients}))
    assert list(leak.largest_alarms(dataset, masks)) == [1, 5]


def test_the_address_is_set_everywhere_by_one_command(tmp_path, monkeypatch):
    address = script("address")
    shutil.copytree(chapters.NOTEBOOKS, tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    shutil.copy(CONFIG, tmp_path / "_config.yml")
    monkeypatch.setattr(chapters, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(book, "CONFIG", tmp_path / "_config.yml")
    address.main(["https://github.com/someone/fork/"], standalone_mode=False)
    texts = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    before = yaml.safe_load(CONFIG.read_text())["repository"]["url"]
    assert not [text for text in texts if before in text]
    assert (
        sum("https://github.com/someone/fork" in text for text in texts)
        == len(chapters.chapters()) + 1
    )


# Networks of earlier epochs


def test_the_epoch_of_a_network_is_what_it_has_trained():
    early = script("early")
    experiment = load_experiment("smoke", overrides={"batch_size": 4})
    split = pd.DataFrame({"split": ["train"] * 10 + ["val"] * 5})
    network = train.compile_unet(experiment, steps=30)
    network.optimizer.iterations.assign(9)
    assert early.epoch_of(network, split, experiment) == 3


def test_scoring_a_training_again_replaces_its_rows_and_keeps_the_others(tmp_path, monkeypatch):
    early = script("early")
    shutil.copy(records.RECORDS / "early.csv.gz", tmp_path)
    before = records.read_early()
    again = before["training"].iloc[0]
    monkeypatch.setattr(records, "RECORDS", tmp_path)
    for name in ("recorded_experiment", "read_csv", "git_commit"):
        monkeypatch.setattr(early.runs, name, lambda *_: "aaa")
    for owner, name in ((early.data, "read_cohort"), (early.preprocess, "prepare")):
        monkeypatch.setattr(owner, name, lambda *_: None)
    monkeypatch.setattr(early.train, "load_network", lambda path: None)
    monkeypatch.setattr(early, "epoch_of", lambda *_: 7)
    scored = before.query("training == @again").drop(columns=["training", "epoch", "git_commit"])
    monkeypatch.setattr(early, "scores", lambda *_: scored.assign(value=0.5))
    early.main.callback(tmp_path, tmp_path / again, tmp_path / "7.keras")
    monkeypatch.undo()
    after = pd.read_csv(tmp_path / "early.csv.gz")
    assert after.groupby("training").size().equals(before.groupby("training").size())
    made = after.query("training == @again")
    assert set(made["epoch"]) == {7}
    assert set(made["value"]) == {0.5}
    assert set(made["git_commit"]) == {"aaa"}
    kept = after.query("training != @again")["value"].to_numpy()
    assert kept == pytest.approx(before.query("training != @again")["value"].to_numpy())


# What a leak looks like


@pytest.fixture
def three_seeds(monkeypatch):
    """Records of one slice of patient A and one of B: A gains 0.2 on average where it is known."""

    def of(dice_of_a):
        rows = [("A", 1, dice_of_a), ("B", 4, 0.5)]
        table = pd.DataFrame(rows, columns=["patient", "slice", "tp"])
        table["tp"] = 100 * table["tp"]
        return types.SimpleNamespace(
            per_slice=table.assign(fp=100 - table["tp"], fn=100 - table["tp"])
        )

    dice = {"known-patients": 0.9, "known-patients-1": 0.8, "known-patients-2": 0.7}
    dice |= {"new-patients": 0.5, "new-patients-1": 0.6, "new-patients-2": 0.7}
    monkeypatch.setattr(records, "load_record", lambda name: of(dice[name]))


def test_a_gain_is_the_mean_over_three_seeds_of_known_less_new(three_seeds):
    slices = pd.DataFrame({"patient": ["B", "A"], "slice": [4, 1]})
    assert script("leak").recorded_gain(slices) == pytest.approx([0.0, 0.2])


def test_each_patient_that_both_networks_test_is_shown_on_the_slice_with_most_tumour(monkeypatch):
    leak = script("leak")
    slices = pd.DataFrame({"patient": ["A", "A", "B", "C"], "slice": [1, 2, 1, 1]})
    truths = np.zeros((4, 4, 4), int)
    truths[0, :1], truths[1, :2], truths[2, :1], truths[3, :3] = 1, 1, 1, 1
    dataset = types.SimpleNamespace(truths=truths, slices=slices)
    right = dict(enumerate(truths > 0))
    empty = {row: np.zeros((4, 4), bool) for row in (0, 1, 2)}  # C is tested by one alone
    gain_of = {"A": 0.1, "B": 0.4}
    monkeypatch.setattr(leak, "recorded_gain", lambda rows: rows["patient"].map(gain_of).to_numpy())
    found = leak.largest_gains(dataset, new=empty, known=right)
    assert found.index.tolist() == [2, 1], "largest gain first"
    assert found["new"].tolist() == [0, 0]
    assert found["known"].tolist() == [1, 1]


def test_the_picture_of_the_leak_has_each_networks_mask_under_its_title():
    leak = script("leak")
    cohort = types.SimpleNamespace(images=np.full((1, 32, 32, 3), 90, np.uint8))
    truths = np.zeros((1, 32, 32), int)
    dataset = types.SimpleNamespace(truths=truths)
    masks = {kind: {0: np.zeros((32, 32), bool)} for kind in ("new", "known")}
    masks["known"][0][8:16, 8:16] = True
    gains = pd.DataFrame({"new": [0.12], "known": [0.87]})
    figure = leak.draw(cohort, dataset, gains, masks)
    drawn = {axis.get_title(): len(axis.collections) + len(axis.lines) for axis in figure.axes}
    assert list(drawn) == ["patient is new: Dice 0.12", "other slices known: Dice 0.87"]
    assert drawn["other slices known: Dice 0.87"] > drawn["patient is new: Dice 0.12"]
    plt.close(figure)


# The README


def test_the_readmes_table_is_made_anew_and_nothing_else():
    text = (runs.REPOSITORY / "README.md").read_text(encoding="utf-8")
    row = "\n| Do the test scores of the best model come out again?"
    assert text.count(row) == 1
    stale = text.replace(row, "\n| An older question")
    assert script("readme").with_answers(stale) == text
