"""The trainings that judge the report: which there are, how they ended, when they began."""

import json

import numpy as np
import pandas as pd
import pytest

from lggseg_utils import arms, metrics, records


def test_which_trainings_are_augmented_and_which_have_other_settings(monkeypatch):
    """Trainings that are to take the report's place: all of other settings, and all augmented ones."""
    monkeypatch.setattr(
        arms,
        "recorded",
        lambda: [
            "report64",
            "size64",
            "augmented64-0",
            "report128",
            "grid64-dropout1-0",
            "grid64-batch16-0",
        ],
    )
    assert arms.augmented() == ["augmented64-0", "report128", "size64"]
    assert arms.with_other_settings() == ["report64", *arms.augmented(), "grid64-dropout1-0"]


def test_a_spike_is_measured_against_the_last_twenty_epochs(monkeypatch):
    """The median is that of the last 20 epochs: the loss may have been higher before."""
    history = pd.DataFrame({"loss": [0.01] * 80 + [0.002] * 19 + [0.0032]})
    monkeypatch.setattr(records, "load_training", lambda name: (None, history))
    assert arms.spike("x") == pytest.approx(1.6)


def test_a_training_started_before_the_criteria_is_not_new(tmp_path, monkeypatch):
    """Started before the criteria, ended after them: not new."""
    monkeypatch.setattr(records, "RECORDS", tmp_path)
    (tmp_path / "x-0").mkdir()
    record = {
        "created": "2026-11-29T20:00:00+00:00",
        "ended": {"time": "2026-11-29T23:00:00+00:00"},
    }
    (tmp_path / "x-0" / "run.json").write_text(json.dumps(record))
    assert not arms.is_new("x-0")


def test_trainings_that_share_a_split_count_as_one():
    names = ["grid64-batch16-0", "grid64-batch32-0", "grid64-batch16-1", "report128"]
    assert arms.by_split(names, [1.0, 2.0, 5.0, 3.0]).tolist() == [2.0, 5.0]


def test_scores_are_those_of_the_grid_that_is_asked():
    names = ["grid64-batch16-0", "grid64-batch16-3"]
    way = ("iou", "masks", "pooled", 0)
    wide = arms.scores_of(names, "train", "all slices", way)
    own = arms.scores_of(names, "train", "all slices", way, "own")
    assert np.isnan(own).tolist() == [True, False], "not kept for the first"
    counts = records.load_record("grid64-batch16-3").per_slice.query("split == 'train'")
    assert wide[1] == pytest.approx(metrics.iou(*counts[["tp", "fp", "fn"]].sum()), abs=1e-6)
    assert own[1] > wide[1]


def test_a_training_that_ended_in_a_spike_does_not_judge(monkeypatch):
    def history(last):
        return None, pd.DataFrame({"loss": [0.002] * 99 + [last]})

    found = {"calm": history(0.0028), "spike": history(0.0032)}
    monkeypatch.setattr(records, "load_training", found.__getitem__)
    assert arms.ended_calmly(["calm", "spike"]) == ["calm"]


def test_what_a_training_scores_is_read_from_its_history(monkeypatch):
    """Rests at 0.02, rises to 0.03 over ten epochs; the training loss falls all the time."""
    val_loss = np.r_[np.full(80, 0.02), np.linspace(0.021, 0.03, 10), np.full(10, 0.03)]
    loss = np.r_[np.full(60, 0.015), np.full(40, 0.01)]
    dice = 0.8 + 0.01 * (np.arange(100) % 2)
    history = pd.DataFrame({"loss": loss, "val_loss": val_loss, "val_dice_coef": dice})
    monkeypatch.setattr(records, "load_training", lambda name: (None, history))
    assert arms.training_score("x", "gap") == pytest.approx(0.02)
    assert arms.training_score("x", "rise") == pytest.approx(1.5)
    assert arms.training_score("x", "late gap") == pytest.approx(0.02 / 0.005)
    assert arms.training_score("x", "loss steps") == pytest.approx(0.0)
    assert arms.training_score("x", "Dice steps") == pytest.approx(0.01)


def test_steps_and_gaps_are_those_of_the_last_epochs(monkeypatch):
    """120 epochs: steps of 0.1, of 0.01 in the last 45, of 0.001 in the last 20; the gap grows."""
    steps = np.r_[np.full(74, 0.1), np.full(25, 0.01), np.full(20, 0.001)]
    curve = np.r_[0, np.cumsum(steps)]
    training = curve - np.r_[np.zeros(115), np.full(5, 0.2)]
    history = pd.DataFrame({"loss": training, "val_loss": curve, "val_dice_coef": -curve})
    monkeypatch.setattr(records, "load_training", lambda name: (None, history))
    assert arms.training_score("x", "loss steps") == pytest.approx(0.01)
    assert arms.training_score("x", "Dice steps") == pytest.approx(0.01)
    assert arms.training_score("x", "gap") == pytest.approx(0.1)


def test_prefixes_find_the_seeds_that_all_of_them_have(monkeypatch):
    names = ["a-0", "a-1", "b-0", "b-1", "b-2", "b-x", "ab-0"]
    monkeypatch.setattr(arms, "recorded", lambda: names)
    assert arms.with_prefix(["a", "b"]) == {0: ["a-0", "b-0"], 1: ["a-1", "b-1"]}
    assert arms.with_prefix("b") == {0: ["b-0"], 1: ["b-1"], 2: ["b-2"]}
