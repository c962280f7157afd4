"""Losses and scores (report, section 1-4): what Keras reports while training, and what counts give afterwards."""

import keras
import numpy as np
from keras import ops

SMOOTH = 1.0


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
    """Mean over pixels of -log(probability of what is there); also the two-channel categorical variant.

    For a softmax output, categorical cross-entropy of the one-hot mask equals this binary one on the tumour
    channel, since the two channels sum to 1.
    """
    return ops.mean(keras.losses.binary_crossentropy(ops.cast(truth, "float32"), tumour_channel(probabilities)))


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


def _ratio(part, whole, empty):
    """part/whole, and `empty` where whole is 0; arrays or numbers."""
    part, whole = np.asarray(part, dtype=float), np.asarray(whole, dtype=float)
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, float(empty)), where=whole != 0)[()]


def dice(tp, fp, fn):
    """Dice = 2 TP/(2 TP + FP + FN); 1 where truth and prediction are both empty."""
    return _ratio(2 * np.asarray(tp), 2 * np.asarray(tp) + fp + fn, empty=1)


def iou(tp, fp, fn):
    """Intersection over union = TP/(TP + FP + FN); 1 where truth and prediction are both empty."""
    return _ratio(tp, np.asarray(tp) + fp + fn, empty=1)


def precision(tp, fp):
    """TP/(TP + FP): share of the predicted tumour that is tumour; NaN where none is predicted."""
    return _ratio(tp, np.asarray(tp) + fp, empty=np.nan)


def sensitivity(tp, fn):
    """TP/(TP + FN): share of the tumour that is found; NaN where there is none."""
    return _ratio(tp, np.asarray(tp) + fn, empty=np.nan)


def specificity(tn, fp):
    """TN/(TN + FP): share of the background that is left alone; NaN where there is none."""
    return _ratio(tn, np.asarray(tn) + fp, empty=np.nan)


def mean_iou(tp, fp, fn, tn):
    """Mean of the IoU of tumour and the IoU of background, as `keras.metrics.MeanIoU` for two classes."""
    return (iou(tp, fp, fn) + iou(tn, fn, fp)) / 2


def batch_scores(soft_intersection, soft_sum, batch_size=16):
    """`dice_coef` and `jacard_coef` averaged over consecutive batches of slices, from each slice's soft sums."""
    starts = np.arange(0, len(soft_sum), batch_size)
    shared, total = np.add.reduceat(soft_intersection, starts), np.add.reduceat(soft_sum, starts)
    dice_values = (2 * shared + SMOOTH) / (total + SMOOTH)
    jacard_values = (shared + SMOOTH) / (total - shared + SMOOTH)
    return float(dice_values.mean()), float(jacard_values.mean())
