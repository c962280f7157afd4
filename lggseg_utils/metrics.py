"""Dice, IoU and what else a prediction is scored by, each defined once (report, section 1-4).

Counts are pixels: true and false positives (tp, fp), false and true negatives (fn, tn); numbers
or arrays of one shape, which is that of the scores.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
import scipy

# Added above and below in the usual Keras code; the report's own constant is not known.
SMOOTH = 1.0
# Pixels that two borders may lie apart and still agree.
TOLERANCE = 2.0
# Slices per batch wherever a score is averaged over batches, as in the report's runs.
SCORED_BATCH = 16


def ratio(part, whole, empty):
    """Return part/whole as float, or `empty` where whole is 0."""
    part = np.asarray(part, dtype=float)
    whole = np.asarray(whole, dtype=float)
    quotient = np.full(np.broadcast(part, whole).shape, float(empty))
    np.divide(part, whole, out=quotient, where=whole != 0)
    return quotient[()]


def dice(tp, fp, fn):
    """Return Dice = 2 TP/(2 TP + FP + FN), 0 to 1; 1 where truth and prediction are both empty."""
    twice = 2 * np.asarray(tp)
    return ratio(twice, twice + fp + fn, empty=1)


def iou(tp, fp, fn):
    """Return the intersection over union, TP/(TP + FP + FN), 0 to 1.

    It is 1 where truth and prediction are both empty.
    """
    return ratio(tp, np.asarray(tp) + fp + fn, empty=1)


def dice_from_iou(iou):
    """Return the Dice of the set of pixels whose IoU this is: 2 IoU/(1 + IoU)."""
    return 2 * iou / (1 + iou)


def rates(tp, fp, fn, tn):
    """Return accuracy, precision, sensitivity, specificity and mean IoU, all 0 to 1, by name.

    Precision is the share of the predicted tumour that is tumour, sensitivity that of the tumour
    that is found, specificity that of the background that is left alone; NaN where nothing is
    counted. The mean IoU is that of tumour and background, as `keras.metrics.MeanIoU`.
    """
    return {
        "accuracy": ratio(tp + tn, tp + fp + fn + tn, np.nan),
        "precision": ratio(tp, tp + fp, np.nan),
        "sensitivity": ratio(tp, tp + fn, np.nan),
        "specificity": ratio(tn, tn + fp, np.nan),
        "mean_iou": (iou(tp, fp, fn) + iou(tn, fn, fp)) / 2,
    }


def overlap_scores(shared, total, smooth):
    """Return (Dice, IoU) of predictions: (2 S + k)/(T + k) and (S + k)/(T - S + k).

    shared, S: intersection of truth and prediction; total, T: sum of both, numbers or arrays of one
    shape; smooth, k: added above and below. Both scores are 1 where nothing is counted.
    """
    dice = ratio(2 * shared + smooth, total + smooth, empty=1)
    return dice, ratio(shared + smooth, total - shared + smooth, empty=1)


def batch_scores(soft_intersection, soft_sum):
    """Return (`dice_coef`, `jacard_coef`) averaged over batches of 16 consecutive slices.

    soft_intersection: each slice's sum of truth times probability, float (n,); soft_sum: that of
    truth plus probability.
    """
    starts = np.arange(0, len(soft_sum), SCORED_BATCH)
    shared = np.add.reduceat(soft_intersection, starts)
    total = np.add.reduceat(soft_sum, starts)
    dice_coef, jacard_coef = overlap_scores(shared, total, SMOOTH)
    return float(dice_coef.mean()), float(jacard_coef.mean())


def surface_distances(truth, predicted):
    """Return how far each border pixel of one mask is from the other's border, both ways.

    truth, predicted: masks of one slice, bool (height, width). A border pixel touches the
    background or the slice's edge with one of its four sides. Returns pixels, float (k,): those
    of the truth's border first. Where one mask is empty, they are the slice's diagonal.
    """
    truth_border = _border(truth)
    predicted_border = _border(predicted)
    if not truth_border.any() or not predicted_border.any():
        count = truth_border.sum() + predicted_border.sum()
        return np.full(count, np.hypot(*truth.shape))
    to_predicted = scipy.ndimage.distance_transform_edt(~predicted_border)
    to_truth = scipy.ndimage.distance_transform_edt(~truth_border)
    return np.concatenate([to_predicted[truth_border], to_truth[predicted_border]])


def _border(mask):
    """Return the border pixels of a mask, bool (height, width); outside the slice is background."""
    return mask & ~scipy.ndimage.binary_erosion(mask)


def surface_scores(distances):
    """Return (HD95 in pixels, surface Dice) of a patient; (0, 1) where there is no border.

    distances: `surface_distances` of the patient's slices, which are pooled. HD95 is the distance
    that 95% of the border pixels stay within; surface Dice the share of them within TOLERANCE
    (Nikolov et al., "Clinically applicable segmentation of head and neck anatomy", Journal of
    Medical Internet Research 23, 2021).
    """
    pooled = np.concatenate(list(distances))
    if not pooled.size:
        return 0.0, 1.0
    return np.percentile(pooled, 95), np.mean(pooled <= TOLERANCE)


@dataclass(frozen=True)
class Definition:
    """One way to compute Dice and IoU of a set of slices.

    soft: from probabilities, otherwise from masks; unit: what is counted together before the mean
    is taken, one of UNITS; smooth: number added above and below; background: mean of tumour's and
    background's score, otherwise tumour's alone.
    """

    soft: bool
    unit: str
    smooth: float = 0.0
    background: bool = False

    def __str__(self):
        parts = ["probabilities" if self.soft else "masks", _UNIT_TEXTS[self.unit]]
        if self.smooth:
            parts.append(f"plus {self.smooth:g}")
        if self.background:
            parts.append("with background")
        return ", ".join(parts)


_UNIT_TEXTS = {
    "pooled": "pooled",
    "batch": "mean over batches",
    "slice": "mean over slices",
    "tumour slice": "mean over tumour slices",
    "patient": "mean over patients",
}
UNITS = tuple(_UNIT_TEXTS)
DEFINITIONS = tuple(
    Definition(*values) for values in product((False, True), UNITS, (0.0, SMOOTH), (False, True))
)


def dice_and_iou(scored, definition):
    """Return (Dice, IoU) of a per-slice table under a definition, 0 to 1 each.

    scored: columns of per_slice.csv, in the order of evaluation (batches are 16 consecutive
    rows). Where truth and prediction of a unit are empty, both scores are 1.
    """
    if definition.soft:
        shared = scored["soft_intersection"]
        total = scored["soft_sum"]
    else:
        shared = scored["tp"].astype(float)
        total = 2.0 * scored["tp"] + scored["fp"] + scored["fn"]
    tumour = _class_scores(shared, total, scored, definition)
    if not definition.background:
        return tumour
    pixels = scored[["tp", "fp", "fn", "tn"]].sum(axis=1)
    background = _class_scores(pixels - total + shared, 2 * pixels - total, scored, definition)
    return tuple(np.mean([tumour, background], axis=0))


def _class_scores(shared, total, scored, definition):
    """Return (mean Dice, mean IoU) of one class over a definition's units.

    shared: intersection of truth and prediction per slice, total: sum of both.
    """
    sums = pd.DataFrame({"shared": shared, "total": total})
    sums = sums.groupby(_units(scored, definition.unit)).sum()
    dice_values, iou_values = overlap_scores(sums["shared"], sums["total"], definition.smooth)
    return dice_values.mean(), iou_values.mean()


def _units(scored, unit):
    """Return for each slice what it is counted together with; NaN leaves it out."""
    position = pd.Series(np.arange(len(scored), dtype=float), scored.index)
    if unit == "pooled":
        return position * 0
    if unit == "batch":
        return position // SCORED_BATCH
    if unit == "tumour slice":
        return position.where(scored["tp"] + scored["fn"] > 0)
    if unit == "patient":
        return scored["patient"]
    return position
