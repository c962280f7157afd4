"""What Keras minimises and reports while training (report, section 1-4).

Each takes the truth, 0 and 1, and probabilities, 0 to 1, both float (n, height, width, 1).
"""

import keras
from keras import ops

from lggseg_utils.metrics import SMOOTH


def _sums(truth, probabilities):
    """Return sum(t p) and sum(t) + sum(p) of a batch, in float32."""
    t = ops.cast(truth, "float32")
    p = ops.cast(probabilities, "float32")
    return ops.sum(t * p), ops.sum(t) + ops.sum(p)


@keras.saving.register_keras_serializable("lggseg_utils")
def dice_coef(truth, probabilities):
    """Return the soft Dice of a batch, a scalar: (2 sum(t p) + 1)/(sum(t) + sum(p) + 1).

    The report does not define its score; that it is this one is a guess.
    """
    shared, total = _sums(truth, probabilities)
    return (2 * shared + SMOOTH) / (total + SMOOTH)


@keras.saving.register_keras_serializable("lggseg_utils")
def jacard_coef(truth, probabilities):
    """Return the soft IoU of a batch, a scalar: (sum(t p) + 1)/(sum(t) + sum(p) - sum(t p) + 1).

    Spelt as in the report.
    """
    shared, total = _sums(truth, probabilities)
    return (shared + SMOOTH) / (total - shared + SMOOTH)


@keras.saving.register_keras_serializable("lggseg_utils")
def binary_crossentropy(truth, probabilities):
    """Return binary cross-entropy per pixel, float32 (n, height, width).

    It is computed from logits: without them, a network that predicts background everywhere would
    get no gradient. Keras finds those behind TensorFlow's sigmoid; for its other backends they
    are computed from the probability.
    """
    if keras.config.backend() == "tensorflow":
        return keras.losses.binary_crossentropy(truth, probabilities)
    p = ops.clip(probabilities, 1e-37, 1 - 2**-24)
    logits = ops.log(p) - ops.log1p(-p)
    return ops.mean(ops.binary_crossentropy(truth, logits, from_logits=True), axis=-1)


@keras.saving.register_keras_serializable("lggseg_utils")
def dice_crossentropy(truth, probabilities):
    """Return `binary_crossentropy`, its mean over pixels, plus 1 minus the batch's `dice_coef`."""
    crossentropy = ops.mean(binary_crossentropy(truth, probabilities))
    return crossentropy + 1 - dice_coef(truth, probabilities)


LOSSES = {"binary_crossentropy": binary_crossentropy, "dice_crossentropy": dice_crossentropy}
