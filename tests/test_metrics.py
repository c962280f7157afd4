"""Scores and losses against values worked out by hand, scores against scikit-learn too."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sklearn_metrics
from sklearn.metrics import f1_score, jaccard_score

from lggseg_utils import losses, metrics
from lggseg_utils.metrics import Definition

TRUTH = np.array([1, 1, 1, 0, 0, 0, 0, 0])
PREDICTED = np.array([1, 1, 0, 1, 0, 0, 0, 0])
TP, FP, FN, TN = 2, 1, 1, 4


def test_by_hand():
    assert metrics.dice(TP, FP, FN) == pytest.approx(4 / 6)
    assert metrics.iou(TP, FP, FN) == pytest.approx(2 / 4)
    wanted = {
        "accuracy": 6 / 8,
        "precision": 2 / 3,
        "sensitivity": 2 / 3,
        "specificity": 4 / 5,
        "mean_iou": (2 / 4 + 4 / 6) / 2,
    }
    assert metrics.rates(TP, FP, FN, TN) == pytest.approx(wanted)


def test_against_scikit_learn():
    rng = np.random.default_rng(0)
    truth, predicted = rng.random(5000) < 0.1, rng.random(5000) < 0.12
    tp, fp, fn, tn = (
        (truth & predicted).sum(),
        (~truth & predicted).sum(),
        (truth & ~predicted).sum(),
        (~truth & ~predicted).sum(),
    )
    assert metrics.dice(tp, fp, fn) == pytest.approx(sklearn_metrics.f1_score(truth, predicted))
    assert metrics.iou(tp, fp, fn) == pytest.approx(sklearn_metrics.jaccard_score(truth, predicted))
    wanted = {
        "accuracy": sklearn_metrics.accuracy_score(truth, predicted),
        "precision": sklearn_metrics.precision_score(truth, predicted),
        "sensitivity": sklearn_metrics.recall_score(truth, predicted),
        "specificity": sklearn_metrics.recall_score(~truth, ~predicted),
        "mean_iou": sklearn_metrics.jaccard_score(truth, predicted, average="macro"),
    }
    assert metrics.rates(tp, fp, fn, tn) == pytest.approx(wanted)


def square(top, left, side, grid=20):
    """A mask with one square."""
    mask = np.zeros((grid, grid), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_surface_distances_by_hand():
    """Two squares of side 6, one moved right by 3. Each border has 20 pixels, and both directions are alike."""
    rows = 2 * [
        3,
        2,
        1,
        0,
        0,
        0,
    ]  # top and bottom: the other square's rows begin three pixels further right
    outer, inner = [3, 3, 3, 3], [1, 2, 2, 1]  # left column; right column, inside the other square
    distances = metrics.surface_distances(square(5, 4, 6), square(5, 7, 6))
    assert sorted(distances) == sorted(2 * (rows + outer + inner))


def test_surface_scores_by_hand():
    assert metrics.surface_scores([np.array([0.0, 1.0]), np.array([2.0, 5.0])]) == (
        pytest.approx(4.55),
        0.75,
    )


@pytest.mark.parametrize(
    ("truth", "predicted", "expected"),
    [
        (square(0, 0, 0), square(0, 0, 0), (0, 1)),
        (square(5, 5, 4), square(0, 0, 0), (np.hypot(20, 20), 0)),
        (square(0, 0, 0), square(5, 5, 4), (np.hypot(20, 20), 0)),
        (square(0, 0, 20), square(0, 0, 20), (0, 1)),
    ],
    ids=["both empty", "empty prediction", "empty truth", "to the edge"],
)
def test_surface_scores_of_empty_and_full_masks(truth, predicted, expected):
    distances = metrics.surface_distances(truth, predicted)
    assert metrics.surface_scores([distances]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("tp", "fp", "fn", "expected"),
    [(0, 0, 5, 0), (0, 5, 0, 0), (0, 0, 0, 1)],
    ids=["empty prediction", "empty truth", "both empty"],
)
def test_empty_masks(tp, fp, fn, expected):
    assert metrics.dice(tp, fp, fn) == metrics.iou(tp, fp, fn) == expected


def test_rates_without_a_denominator_are_nan():
    assert all(
        np.isnan(metrics.rates(0, 0, 0, 0)[name])
        for name in ("precision", "sensitivity", "specificity")
    )


def test_dice_and_iou_determine_each_other():
    counts = np.random.default_rng(1).integers(0, 50, (3, 200))
    dice, iou = metrics.dice(*counts), metrics.iou(*counts)
    assert dice == pytest.approx(2 * iou / (1 + iou)) and (dice >= iou).all()


def tensors():
    """The example as one slice (1, 2, 4, 1), with soft probabilities."""
    return TRUTH.reshape(1, 2, 4, 1).astype("float32"), np.where(PREDICTED, 0.75, 0.25).reshape(
        1, 2, 4, 1
    ).astype("float32")


def test_soft_scores_by_hand():
    truth, p = tensors()
    shared, total = 0.75 + 0.75 + 0.25, 3 + 3 * 0.75 + 5 * 0.25
    assert float(losses.dice_coef(truth, p)) == pytest.approx((2 * shared + 1) / (total + 1))
    assert float(losses.jacard_coef(truth, p)) == pytest.approx((shared + 1) / (total - shared + 1))


def test_soft_scores_of_hard_masks_approach_the_counted_ones():
    rng = np.random.default_rng(2)
    truth, p = ((rng.random((4, 64, 64, 1)) < share).astype("float32") for share in (0.3, 0.3))
    tp, fp, fn = (truth * p).sum(), ((1 - truth) * p).sum(), (truth * (1 - p)).sum()
    assert float(losses.dice_coef(truth, p)) == pytest.approx(metrics.dice(tp, fp, fn), abs=1e-3)
    assert float(losses.jacard_coef(truth, p)) == pytest.approx(metrics.iou(tp, fp, fn), abs=1e-3)


def test_losses_by_hand():
    truth, p = tensors()
    by_hand = -np.where(truth == 1, np.log(p), np.log(1 - p)).mean()
    values = {name: float(np.mean(loss(truth, p))) for name, loss in losses.LOSSES.items()}
    soft_dice = float(losses.dice_coef(truth, p))
    assert values == pytest.approx(
        {"binary_crossentropy": by_hand, "dice_crossentropy": by_hand + 1 - soft_dice}, rel=1e-5
    )


def test_batch_scores_are_keras_scores_averaged_over_batches():
    rng = np.random.default_rng(3)
    truth = (rng.random((40, 8, 8, 1)) < 0.2).astype("float32")
    p = rng.random((40, 8, 8, 1)).astype("float32")
    batches = [slice(0, 16), slice(16, 32), slice(32, 40)]
    expected = [
        np.mean([float(score(truth[b], p[b])) for b in batches])
        for score in (losses.dice_coef, losses.jacard_coef)
    ]
    sums = (truth * p).sum((1, 2, 3)), (truth + p).sum((1, 2, 3))
    assert metrics.batch_scores(*sums) == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def masks():
    """Truth and probability of 40 slices of 4 patients, a third of the slices without tumour: (truth, probability)."""
    rng = np.random.default_rng(0)
    truth = (rng.random((40, 64)) < 0.2) & (np.arange(40) % 3 > 0)[:, None]
    return truth, np.clip(0.7 * truth + rng.normal(0.2, 0.15, truth.shape), 0, 1)


@pytest.fixture(scope="module")
def scored(masks):
    """Per-slice table of these slices."""
    truth, probability = masks
    predicted = probability > 0.5
    pairs = {
        "tp": truth & predicted,
        "fp": ~truth & predicted,
        "fn": truth & ~predicted,
        "tn": ~truth & ~predicted,
    }
    soft = {
        "soft_intersection": (truth * probability).sum(1),
        "soft_sum": (truth + probability).sum(1),
    }
    return pd.DataFrame(
        {"patient": np.repeat(list("ABCD"), 10), **{k: v.sum(1) for k, v in pairs.items()}, **soft}
    )


def test_pooled_masks_are_scikit_learns_scores(masks, scored):
    truth, predicted = masks[0].ravel(), masks[1].ravel() > 0.5
    ours = metrics.dice_and_iou(scored, Definition(soft=False, unit="pooled"))
    assert ours == pytest.approx((f1_score(truth, predicted), jaccard_score(truth, predicted)))
    both = metrics.dice_and_iou(scored, Definition(soft=False, unit="pooled", background=True))
    macro = (
        f1_score(truth, predicted, average="macro"),
        jaccard_score(truth, predicted, average="macro"),
    )
    assert both == pytest.approx(macro)


@pytest.mark.parametrize("unit", ["slice", "tumour slice", "patient"])
def test_means_over_units_are_scikit_learns_scores(masks, scored, unit):
    truth, predicted = masks[0], masks[1] > 0.5
    groups = {
        "slice": np.arange(40),
        "tumour slice": np.flatnonzero(truth.any(1)),
        "patient": "ABCD",
    }[unit]
    rows = [scored["patient"] == group if unit == "patient" else [group] for group in groups]
    by_hand = np.mean(
        [f1_score(truth[row].ravel(), predicted[row].ravel(), zero_division=1) for row in rows]
    )
    assert metrics.dice_and_iou(scored, Definition(soft=False, unit=unit))[0] == pytest.approx(
        by_hand
    )


def test_soft_batches_plus_one_are_the_hypothesis_of_the_reports_scores(scored):
    ours = metrics.dice_and_iou(scored, Definition(soft=True, unit="batch", smooth=1.0))
    batches = metrics.batch_scores(
        scored["soft_intersection"].to_numpy(), scored["soft_sum"].to_numpy()
    )
    assert ours == pytest.approx(batches)


def test_definitions_by_hand():
    table = pd.DataFrame(
        {"patient": ["A", "A"], "tp": [3, 0], "fp": [1, 0], "fn": [2, 0], "tn": [4, 10]}
    )
    table = table.assign(soft_intersection=2.5, soft_sum=[8.0, 0.0])
    assert metrics.dice_and_iou(table, Definition(False, "slice")) == pytest.approx(
        ((6 / 9 + 1) / 2, (3 / 6 + 1) / 2)
    )
    assert metrics.dice_and_iou(table, Definition(False, "tumour slice")) == pytest.approx(
        (6 / 9, 3 / 6)
    )
    assert metrics.dice_and_iou(table, Definition(False, "pooled", 1.0)) == pytest.approx(
        (7 / 10, 4 / 7)
    )


def test_no_definition_puts_dice_above_the_curve(scored):
    for definition in metrics.DEFINITIONS:
        dice, iou = metrics.dice_and_iou(scored, definition)
        assert dice <= metrics.dice_from_iou(iou) + 1e-12, definition
    assert len({str(each) for each in metrics.DEFINITIONS}) == len(metrics.DEFINITIONS) == 40
