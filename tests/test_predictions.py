"""What came of the predictions: computed by hand, and not to be claimed afterwards."""

import numpy as np
import pandas as pd
import pytest

from lggseg_utils import arms, exploration, predictions
from lggseg_utils.arms import CLAIMS


def test_what_came_of_the_prediction_for_an_earlier_epoch(early):
    near = "of 2 trainings (the farthest score is 0.0"
    both = predictions._earlier(["x-0", "x-2", "without an earlier network"])
    assert both == f"within 0.03 of all six: 2 {near}10 off); both losses lower: 1 of 2"
    assert predictions._earlier(["x-0", "x-1"]).startswith(
        f"within 0.03 of all six: 1 {near}40 off"
    )
    assert predictions._earlier(["y"]) == "to come"


@pytest.mark.parametrize(
    ("inside", "outcome"),
    [
        (
            "train iou, val iou, val loss, test iou, test loss, test accuracy",
            "6 of 9 inside, as named",
        ),
        (
            "train iou, val iou, val loss, test iou, val accuracy, test accuracy",
            "6 of 9 inside, but not those named: test loss is outside, validation accuracy is inside",
        ),
    ],
)
def test_six_numbers_that_were_not_named_do_not_pass_for_those_that_were(
    monkeypatch, inside, outcome
):
    rows = [(part, score) for part, _, score in predictions.NINE]
    table = pd.DataFrame(rows, columns=["set", "score"])
    table["met"] = (table["set"] + " " + table["score"]).isin(inside.split(", "))
    monkeypatch.setattr(predictions, "nine_numbers", lambda names: table)
    assert predictions._of_nine([]) == outcome


def test_the_prediction_with_the_report_adds_the_trainings_that_it_names(monkeypatch):
    names = ["x-0", "x-1", "x-2", "x-3", "x-4"]
    monkeypatch.setattr(arms, "trainings", lambda arm: names)
    monkeypatch.setattr(arms, "ended_calmly", lambda names: [n for n in names if n != "x-3"])
    monkeypatch.setattr(arms, "is_new", {"x-2", "x-3", "x-4"}.__contains__)
    monkeypatch.setattr(predictions, "_of_nine", "+".join)
    outcome = predictions._with_the_report(["x-2", "x-3"])
    assert outcome == "x-0+x-1+x-2; with all 4 trainings, x-0+x-1+x-2+x-4"


def test_the_nine_numbers_have_an_interval_for_one_more_training(monkeypatch):
    """t of 0.975 for two degrees of freedom, from a printed table: 4.303."""
    monkeypatch.setattr(arms, "scores_of", lambda *_: np.array([0.80, 0.81, 0.79]))
    table = predictions.nine_numbers(["x-0", "x-1", "x-2"])
    assert table["mean"].to_numpy() == pytest.approx(0.80)
    assert table["half"].to_numpy() == pytest.approx(4.303 * 0.01 * np.sqrt(4 / 3), rel=1e-3)


def test_a_new_training_is_not_part_of_the_interval_that_judges_it(monkeypatch):
    values = {"x-0": 0.80, "x-1": 0.81, "x-2": 0.79, "x-3": 2.0}
    monkeypatch.setattr(arms, "trainings", lambda arm: list(values))
    monkeypatch.setattr(arms, "ended_calmly", list)
    monkeypatch.setattr(arms, "is_new", {"x-3"}.__contains__)
    monkeypatch.setattr(arms, "scores_of", lambda names, *_: np.array([values[n] for n in names]))
    table = predictions.new_trainings("any")
    assert set(table["training"]) == {"x-3"}
    assert table["mean"].to_numpy() == pytest.approx(0.80)
    assert not table["met"].any()


def test_predictions_say_what_came_of_them_or_that_they_are_to_come():
    table = predictions.outcomes()
    made = [bool(arms.made(each["records"])) for each in CLAIMS["predictions"]]
    assert list(table["outcome"] != "to come") == made


@pytest.mark.parametrize(
    ("part", "score", "near", "lower"), [("val", "dice", 0, 1), ("test", "loss", 1, 0)]
)
def test_all_six_scores_and_both_losses_must_come_as_predicted(
    early, monkeypatch, part, score, near, lower
):
    scores = exploration.early_scores()
    way = exploration.EARLY_WAY_OF[score]
    scores[(part, exploration.SCORED_ON[part], *way, "x-2")] += 0.05
    monkeypatch.setattr(exploration, "early_scores", lambda: scores)
    outcome = predictions._earlier(["x-2"])
    assert f"all six: {near} of 1" in outcome
    assert outcome.endswith(f"lower: {lower} of 1")
