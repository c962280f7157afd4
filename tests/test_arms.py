"""The trainings that judge the report: which there are, how they ended, when they began."""

import json

import pandas as pd
import pytest

from lggseg_utils import arms, records


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
