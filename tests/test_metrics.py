"""Scores against values worked out by hand and against scikit-learn; losses against Keras."""

import keras
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from lggseg_utils import losses, metrics

TRUTH = np.array([1, 1, 1, 0, 0, 0, 0, 0])
PREDICTED = np.array([1, 1, 0, 1, 0, 0, 0, 0])
TP, FP, FN, TN = 2, 1, 1, 4


def test_by_hand():
    assert metrics.dice(TP, FP, FN) == pytest.approx(4 / 6)
    assert metrics.iou(TP, FP, FN) == pytest.approx(2 / 4)
    assert metrics.precision(TP, FP) == pytest.approx(2 / 3)
    assert metrics.sensitivity(TP, FN) == pytest.approx(2 / 3)
    assert metrics.specificity(TN, FP) == pytest.approx(4 / 5)
    assert metrics.mean_iou(TP, FP, FN, TN) == pytest.approx((2 / 4 + 4 / 6) / 2)


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
    assert metrics.precision(tp, fp) == pytest.approx(sklearn_metrics.precision_score(truth, predicted))
    assert metrics.sensitivity(tp, fn) == pytest.approx(sklearn_metrics.recall_score(truth, predicted))
    assert metrics.specificity(tn, fp) == pytest.approx(sklearn_metrics.recall_score(~truth, ~predicted))
    assert metrics.mean_iou(tp, fp, fn, tn) == pytest.approx(
        sklearn_metrics.jaccard_score(truth, predicted, average="macro")
    )


@pytest.mark.parametrize(
    ("tp", "fp", "fn", "expected"),
    [(0, 0, 5, 0), (0, 5, 0, 0), (0, 0, 0, 1)],
    ids=["empty prediction", "empty truth", "both empty"],
)
def test_empty_masks(tp, fp, fn, expected):
    assert metrics.dice(tp, fp, fn) == metrics.iou(tp, fp, fn) == expected


def test_scores_without_a_denominator_are_nan():
    assert (
        np.isnan(metrics.precision(0, 0))
        and np.isnan(metrics.sensitivity(0, 0))
        and np.isnan(metrics.specificity(0, 0))
    )


def test_dice_and_iou_determine_each_other():
    counts = np.random.default_rng(1).integers(0, 50, (3, 200))
    dice, iou = metrics.dice(*counts), metrics.iou(*counts)
    assert dice == pytest.approx(2 * iou / (1 + iou)) and (dice >= iou).all()


def tensors():
    """The example as one slice (1, 2, 4, 1), with soft probabilities."""
    return TRUTH.reshape(1, 2, 4, 1).astype("float32"), np.where(PREDICTED, 0.75, 0.25).reshape(1, 2, 4, 1).astype(
        "float32"
    )


def test_soft_scores_by_hand():
    truth, p = tensors()
    shared, total = 0.75 + 0.75 + 0.25, 3 + 3 * 0.75 + 5 * 0.25
    assert float(losses.dice_coef(truth, p)) == pytest.approx((2 * shared + 1) / (total + 1))
    assert float(losses.jacard_coef(truth, p)) == pytest.approx((shared + 1) / (total - shared + 1))
    assert float(losses.accuracy(truth, p)) == pytest.approx(6 / 8)


def test_soft_scores_of_hard_masks_approach_the_counted_ones():
    rng = np.random.default_rng(2)
    truth, p = ((rng.random((4, 64, 64, 1)) < share).astype("float32") for share in (0.3, 0.3))
    tp, fp, fn = (truth * p).sum(), ((1 - truth) * p).sum(), (truth * (1 - p)).sum()
    assert float(losses.dice_coef(truth, p)) == pytest.approx(metrics.dice(tp, fp, fn), abs=1e-3)
    assert float(losses.jacard_coef(truth, p)) == pytest.approx(metrics.iou(tp, fp, fn), abs=1e-3)


def test_losses_by_hand_and_against_keras():
    truth, p = tensors()
    by_hand = -np.where(truth == 1, np.log(p), np.log(1 - p)).mean()
    assert float(losses.binary_crossentropy(truth, p)) == pytest.approx(by_hand, rel=1e-5)
    assert float(losses.binary_crossentropy(truth, p)) == pytest.approx(
        float(keras.losses.BinaryCrossentropy()(truth, p)), rel=1e-5
    )
    two_channels = np.concatenate([1 - p, p], axis=-1)
    assert float(losses.categorical_crossentropy(truth, two_channels)) == pytest.approx(by_hand, rel=1e-5)
    assert float(losses.dice_crossentropy(truth, p)) == pytest.approx(
        by_hand + 1 - float(losses.dice_coef(truth, p)), rel=1e-5
    )


def test_two_channels_are_scored_by_the_tumour_channel():
    truth, p = tensors()
    two_channels = np.concatenate([1 - p, p], axis=-1)
    for score in (losses.dice_coef, losses.jacard_coef, losses.accuracy):
        assert float(score(truth, two_channels)) == pytest.approx(float(score(truth, p)), rel=1e-5)


def test_batch_scores_are_keras_scores_averaged_over_batches():
    rng = np.random.default_rng(3)
    truth = (rng.random((10, 8, 8, 1)) < 0.2).astype("float32")
    p = rng.random((10, 8, 8, 1)).astype("float32")
    batches = [slice(0, 4), slice(4, 8), slice(8, 10)]
    expected = [
        np.mean([float(score(truth[b], p[b])) for b in batches]) for score in (losses.dice_coef, losses.jacard_coef)
    ]
    sums = (truth * p).sum((1, 2, 3)), (truth + p).sum((1, 2, 3))
    assert metrics.batch_scores(*sums, batch_size=4) == pytest.approx(expected, rel=1e-5)
