"""Scores against values worked out by hand, scores against scikit-learn too."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sklearn_metrics
from sklearn.metrics import f1_score, jaccard_score

from lggseg_utils import metrics
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
    """Two squares of side 6, one moved right by 3: borders of 20 pixels, both ways alike."""
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


def test_surface_distances_go_both_ways():
    """From a pixel to the ring around it and back; the ring's corners are sqrt 2 away."""
    ring = square(4, 4, 3)
    ring[5, 5] = False
    distances = metrics.surface_distances(square(5, 5, 1), ring)
    wanted = [1, np.sqrt(2), 1, np.sqrt(2), 1, 1, np.sqrt(2), 1, np.sqrt(2)]
    assert distances == pytest.approx(wanted)
    assert metrics.surface_distances(ring, square(5, 5, 1)) == pytest.approx([*wanted[1:], 1])


def test_a_pixel_that_touches_the_background_with_a_corner_alone_is_no_border():
    plus = square(0, 0, 0)
    plus[5, 4:7] = True
    plus[4:7, 5] = True
    assert len(metrics.surface_distances(plus, plus)) == 4 + 4


def test_the_slices_edge_is_a_border():
    """A square of side 4 in the corner has 12 border pixels, as anywhere else."""
    distances = metrics.surface_distances(square(0, 0, 4), square(0, 0, 4))
    assert distances.tolist() == [0] * 24
    # The pixel in the corner is one step away from the square's second row, and it is a border.
    assert metrics.surface_distances(square(0, 0, 1), square(1, 0, 2))[0] == 1
    assert metrics.surface_distances(square(0, 0, 1), square(0, 0, 3))[0] == 0


def test_surface_scores_by_hand():
    slices = [np.array([0.0, 1.0]), np.array([2.0, 5.0])]
    assert metrics.surface_scores(slices) == pytest.approx((4.55, 0.75))
    assert metrics.surface_scores([np.array([2.1, 2.1])]) == pytest.approx((2.1, 0))


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
    assert dice == pytest.approx(2 * iou / (1 + iou))
    assert metrics.dice_from_iou(iou) == pytest.approx(dice)


@pytest.fixture(scope="module")
def masks():
    """(Truth, probability) of 40 slices of 4 patients, a third of the slices without tumour."""
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


def test_batch_scores_by_hand():
    """Two batches, the second of one slice: (2 I + 1)/(S + 1) and (I + 1)/(S - I + 1)."""
    intersection = np.array([1.0] * 16 + [3.0])
    total = np.array([4.0] * 16 + [7.0])
    dice = (33 / 65 + 7 / 8) / 2
    jacard = (17 / 49 + 4 / 5) / 2
    assert metrics.batch_scores(intersection, total) == pytest.approx((dice, jacard))
    table = pd.DataFrame({"soft_intersection": intersection, "soft_sum": total})
    definition = Definition(soft=True, unit="batch", smooth=1.0)
    assert metrics.dice_and_iou(table, definition) == pytest.approx((dice, jacard))


# A hit, nothing to find, a false alarm, a miss, and the first patient again: ten pixels each.
BY_HAND = pd.DataFrame(
    {
        "patient": ["A", "B", "B", "B", "A"],
        "tp": [3, 0, 0, 0, 1],
        "fp": [1, 0, 2, 0, 0],
        "fn": [2, 0, 0, 4, 0],
        "tn": [4, 10, 8, 6, 9],
        "soft_intersection": [2.5, 0, 0, 1, 1],
        "soft_sum": [8.0, 0, 2, 5, 2],
    }
)


@pytest.mark.parametrize(
    ("definition", "dice", "iou"),
    [
        (Definition(False, "pooled"), 8 / 17, 4 / 13),
        (Definition(True, "pooled"), 9 / 17, 4.5 / 12.5),
        (Definition(False, "pooled", 1.0), 9 / 18, 5 / 14),
        (Definition(False, "slice"), (6 / 9 + 1 + 0 + 0 + 1) / 5, (3 / 6 + 1 + 0 + 0 + 1) / 5),
        (Definition(False, "tumour slice"), (6 / 9 + 0 + 1) / 3, (3 / 6 + 0 + 1) / 3),
        (Definition(False, "patient"), (8 / 11 + 0) / 2, (4 / 7 + 0) / 2),
        (Definition(False, "pooled", 0.0, True), (8 / 17 + 74 / 83) / 2, (4 / 13 + 37 / 46) / 2),
        (Definition(True, "pooled", 0.0, True), (9 / 17 + 75 / 83) / 2, (9 / 25 + 75 / 91) / 2),
    ],
    ids=str,
)
def test_definitions_by_hand(definition, dice, iou):
    assert metrics.dice_and_iou(BY_HAND, definition) == pytest.approx((dice, iou))


def test_a_definition_says_what_it_is():
    assert str(Definition(False, "pooled")) == "masks, pooled"
    assert str(Definition(True, "batch", 1.0)) == "probabilities, mean over batches, plus 1"
    longest = Definition(False, "tumour slice", 1.0, True)
    assert str(longest) == "masks, mean over tumour slices, plus 1, with background"


def test_no_definition_puts_dice_above_the_curve(scored):
    for definition in metrics.DEFINITIONS:
        dice, iou = metrics.dice_and_iou(scored, definition)
        assert dice <= metrics.dice_from_iou(iou) + 1e-12, definition
    assert len({str(each) for each in metrics.DEFINITIONS}) == len(metrics.DEFINITIONS) == 40
