"""What Keras makes small and reports while training (report, section 1-4)."""

import keras
from keras import ops

from lggseg_utils.metrics import SMOOTH


def tumour_channel(probabilities):
    """Probability of tumour (n, height, width, 1) from a sigmoid's or a softmax's output: the last channel."""
    return probabilities[..., -1:]


@keras.saving.register_keras_serializable("lggseg_utils")
def dice_coef(truth, probabilities):
    """Soft Dice of a batch, smoothed: (2 sum(t p) + 1)/(sum(t) + sum(p) + 1).

    As the usual Keras snippet computes it, over all pixels of the batch. The report's own code is not
    published: that its `dice_coef` is this one is our hypothesis.
    """
    truth, p = ops.cast(truth, "float32"), ops.cast(tumour_channel(probabilities), "float32")
    return (2 * ops.sum(truth * p) + SMOOTH) / (ops.sum(truth) + ops.sum(p) + SMOOTH)


@keras.saving.register_keras_serializable("lggseg_utils")
def jacard_coef(truth, probabilities):
    """Soft intersection over union of a batch, smoothed: (sum(t p) + 1)/(sum(t) + sum(p) - sum(t p) + 1).

    The name is spelt as in the report; the same hypothesis as for `dice_coef`.
    """
    truth, p = ops.cast(truth, "float32"), ops.cast(tumour_channel(probabilities), "float32")
    shared = ops.sum(truth * p)
    return (shared + SMOOTH) / (ops.sum(truth) + ops.sum(p) - shared + SMOOTH)


@keras.saving.register_keras_serializable("lggseg_utils")
def accuracy(truth, probabilities):
    """Share of pixels on the right side of probability 0.5."""
    predicted = ops.cast(tumour_channel(probabilities) > 0.5, "float32")
    return ops.mean(ops.cast(ops.equal(ops.cast(truth, "float32"), predicted), "float32"))


@keras.saving.register_keras_serializable("lggseg_utils")
def binary_crossentropy(truth, probabilities):
    """Mean over pixels of -log(probability of what is there), for a sigmoid's output.

    The output is handed to Keras as it is: Keras then finds the logits behind the sigmoid, without which a network
    that has sunk to "all background" gets no gradient and never wakes up.
    """
    return ops.mean(keras.losses.binary_crossentropy(ops.cast(truth, "float32"), probabilities))


@keras.saving.register_keras_serializable("lggseg_utils")
def categorical_crossentropy(truth, probabilities):
    """Categorical cross-entropy of the one-hot mask (background, tumour), mean over pixels: the base paper's loss."""
    truth = ops.cast(truth, "float32")
    one_hot = ops.concatenate([1 - truth, truth], axis=-1)
    return ops.mean(keras.losses.categorical_crossentropy(one_hot, probabilities))


@keras.saving.register_keras_serializable("lggseg_utils")
def dice_crossentropy(truth, probabilities):
    """Binary cross-entropy plus one minus the batch's soft Dice."""
    return binary_crossentropy(truth, probabilities) + 1 - dice_coef(truth, probabilities)


LOSSES = {
    function.__name__: function for function in (binary_crossentropy, categorical_crossentropy, dice_crossentropy)
}
