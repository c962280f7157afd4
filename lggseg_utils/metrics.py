"""Scores from counts, and their intervals (report, section 1-4): one definition for the whole book."""

import warnings

import numpy as np
from scipy import stats

RESAMPLES = 2000

# Added above and below in the usual Keras snippets; the report's own constant is not known.
SMOOTH = 1.0

# Slices a batch wherever a score is averaged over batches, as in the report's runs.
SCORED_BATCH = 16


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


def dice_from_iou(iou):
    """Dice of the set of pixels whose intersection over union is `iou`: 2 IoU/(1 + IoU)."""
    return 2 * iou / (1 + iou)


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


def batch_scores(soft_intersection, soft_sum, batch_size=SCORED_BATCH):
    """`dice_coef` and `jacard_coef` averaged over consecutive batches of slices, from each slice's soft sums."""
    starts = np.arange(0, len(soft_sum), batch_size)
    shared, total = np.add.reduceat(soft_intersection, starts), np.add.reduceat(soft_sum, starts)
    dice_values = (2 * shared + SMOOTH) / (total + SMOOTH)
    jacard_values = (shared + SMOOTH) / (total - shared + SMOOTH)
    return float(dice_values.mean()), float(jacard_values.mean())


def interval_over_patients(statistic, patients, resamples=RESAMPLES):
    """95 % interval of scores by the percentile bootstrap over patients (scipy): (low, high), NaN with fewer than two patients.

    statistic(drawn, axis): scores of resampled patients, their numbers from 0 in `drawn` (..., patients), along its last axis.
    """
    if patients < 2 or not resamples:
        return np.nan, np.nan
    with warnings.catch_warnings():
        # A score that is undefined in every draw has no interval, which the tables say.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            (np.arange(patients),),
            statistic,
            n_resamples=resamples,
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(0),
        )
    return result.confidence_interval
