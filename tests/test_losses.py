"""What Keras minimises and reports, against values worked out by hand."""

import keras
import numpy as np
import pytest

from lggseg_utils import losses, metrics

TRUTH = np.array([1, 1, 1, 0, 0, 0, 0, 0], np.float32).reshape(1, 2, 4, 1)
PREDICTED = np.array([1, 1, 0, 1, 0, 0, 0, 0]).reshape(1, 2, 4, 1)
# Of the truth's three pixels two are found, with 0.75; the third has 0.25.
PROBABILITIES = np.where(PREDICTED, 0.75, 0.25).astype(np.float32)
INTERSECTION = 0.75 + 0.75 + 0.25
SUM = 3 + 3 * 0.75 + 5 * 0.25
DICE = (2 * INTERSECTION + 1) / (SUM + 1)


def test_soft_scores_by_hand():
    assert float(losses.dice_coef(TRUTH, PROBABILITIES)) == pytest.approx(DICE)
    jacard = (INTERSECTION + 1) / (SUM - INTERSECTION + 1)
    assert float(losses.jacard_coef(TRUTH, PROBABILITIES)) == pytest.approx(jacard)


def test_soft_scores_of_an_empty_prediction_of_an_empty_truth_are_1():
    nothing = np.zeros_like(TRUTH)
    assert float(losses.dice_coef(nothing, nothing)) == 1
    assert float(losses.jacard_coef(nothing, nothing)) == 1


@pytest.mark.parametrize("score", [losses.dice_coef, losses.jacard_coef])
def test_a_large_batch_does_not_overflow_half_precision(score):
    """A float16 ends at 65,504."""
    everything = np.ones((16, 128, 128, 1), np.float16)
    assert float(score(everything, everything)) == pytest.approx(1)


def test_losses_by_hand():
    per_pixel = -np.log(np.where(TRUTH == 1, PROBABILITIES, 1 - PROBABILITIES))
    found = np.asarray(losses.binary_crossentropy(TRUTH, PROBABILITIES))
    assert found == pytest.approx(per_pixel[..., 0], rel=1e-5)
    both = float(losses.dice_crossentropy(TRUTH, PROBABILITIES))
    assert both == pytest.approx(per_pixel.mean() + 1 - DICE, rel=1e-5)


def test_a_loss_is_found_by_its_name():
    assert {name: loss.__name__ for name, loss in losses.LOSSES.items()} == {
        "binary_crossentropy": "binary_crossentropy",
        "dice_crossentropy": "dice_crossentropy",
    }


@pytest.mark.parametrize(
    "function", [losses.dice_coef, losses.jacard_coef, *losses.LOSSES.values()]
)
def test_a_saved_network_finds_its_losses_and_scores(function):
    """Keras looks up what is registered under this name when it loads a network."""
    name = f"lggseg_utils>{function.__name__}"
    assert keras.saving.get_registered_object(name) is function


def test_batch_scores_are_keras_scores_averaged_over_batches():
    rng = np.random.default_rng(3)
    truth = (rng.random((40, 8, 8, 1)) < 0.2).astype("float32")
    p = rng.random((40, 8, 8, 1)).astype("float32")
    batches = [slice(0, 16), slice(16, 32), slice(32, 40)]
    expected = [
        np.mean([float(score(truth[batch], p[batch])) for batch in batches])
        for score in (losses.dice_coef, losses.jacard_coef)
    ]
    intersection = (truth * p).sum((1, 2, 3))
    total = (truth + p).sum((1, 2, 3))
    assert metrics.batch_scores(intersection, total) == pytest.approx(expected, rel=1e-5)
