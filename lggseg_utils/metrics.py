"""Dice, IoU and what else a prediction is scored by, each defined once (report, section 1-4).

Counts are pixels: true and false positives (tp, fp), false and true negatives (fn, tn); numbers or arrays.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from scipy import ndimage

SMOOTH = (
    1.0  # added above and below in the usual Keras code; the report's own constant is not known
)
TOLERANCE = 2.0  # pixels of the 128x128 grid that two borders may lie apart and still agree
SCORED_BATCH = (
    16  # slices per batch wherever a score is averaged over batches, as in the report's runs
)


def ratio(part, whole, empty):
    """Return part/whole, or `empty` where whole is 0."""
    part, whole = np.asarray(part, dtype=float), np.asarray(whole, dtype=float)
    return np.divide(
        part, whole, out=np.full(np.broadcast(part, whole).shape, float(empty)), where=whole != 0
    )[()]


def dice(tp, fp, fn):
    """Return Dice = 2 TP/(2 TP + FP + FN); 1 where truth and prediction are both empty."""
    return ratio(2 * np.asarray(tp), 2 * np.asarray(tp) + fp + fn, empty=1)


def iou(tp, fp, fn):
    """Return the intersection over union, TP/(TP + FP + FN); 1 where truth and prediction are both empty."""
    return ratio(tp, np.asarray(tp) + fp + fn, empty=1)


def dice_from_iou(iou):
    """Return the Dice of the set of pixels whose intersection over union is `iou`: 2 IoU/(1 + IoU)."""
    return 2 * iou / (1 + iou)


def rates(tp, fp, fn, tn):
    """Return accuracy, precision, sensitivity, specificity and mean IoU as a dictionary; NaN where nothing is counted.

    Precision is the share of the predicted tumour that is tumour, sensitivity that of the tumour that is found, specificity that
    of the background that is left alone. The mean IoU is that of tumour and background, as `keras.metrics.MeanIoU`.
    """
    return {
        "accuracy": ratio(tp + tn, tp + fp + fn + tn, np.nan),
        "precision": ratio(tp, tp + fp, np.nan),
        "sensitivity": ratio(tp, tp + fn, np.nan),
        "specificity": ratio(tn, tn + fp, np.nan),
        "mean_iou": (iou(tp, fp, fn) + iou(tn, fn, fp)) / 2,
    }


def batch_scores(soft_intersection, soft_sum):
    """Return `dice_coef` and `jacard_coef` averaged over batches of 16 consecutive slices, from each slice's soft sums."""
    starts = np.arange(0, len(soft_sum), SCORED_BATCH)
    shared, total = np.add.reduceat(soft_intersection, starts), np.add.reduceat(soft_sum, starts)
    dice_values = (2 * shared + SMOOTH) / (total + SMOOTH)
    jacard_values = (shared + SMOOTH) / (total - shared + SMOOTH)
    return float(dice_values.mean()), float(jacard_values.mean())


def surface_distances(truth, predicted):
    """Return the distances of every border pixel of one mask from the other's border, both ways, in pixels: float (k,).

    truth, predicted: masks of one slice, bool (height, width). A border pixel touches the background or the slice's edge with one of
    its four sides. Where one mask is empty, the distances are the slice's diagonal.
    """
    borders = [mask & ~ndimage.binary_erosion(mask) for mask in (truth, predicted)]
    if not all(border.any() for border in borders):
        return np.full(sum(border.sum() for border in borders), np.hypot(*truth.shape))
    away = [ndimage.distance_transform_edt(~border) for border in borders]
    return np.concatenate([away[1][borders[0]], away[0][borders[1]]])


def surface_scores(distances):
    """Return (HD95, surface Dice) of the pooled `surface_distances` of a patient's slices; (0, 1) where there is no border.

    HD95 is the distance that 95% of the border pixels stay within; surface Dice the share of them within TOLERANCE pixels (Nikolov
    et al., "Clinically applicable segmentation of head and neck anatomy", Journal of Medical Internet Research 23, 2021).
    """
    distances = np.concatenate(list(distances))
    return (
        (np.percentile(distances, 95), np.mean(distances <= TOLERANCE))
        if distances.size
        else (0.0, 1.0)
    )


@dataclass(frozen=True)
class Definition:
    """One way to compute Dice and IoU of a set of slices.

    soft: from probabilities, otherwise from masks; unit: what is counted together before the mean is taken, one of UNITS;
    smooth: number added above and below; background: mean of tumour's and background's score, otherwise tumour's alone.
    """

    soft: bool
    unit: str
    smooth: float = 0.0
    background: bool = False

    def __str__(self):
        mean = (
            "pooled"
            if self.unit == "pooled"
            else f"mean over {self.unit}{'es' if self.unit == 'batch' else 's'}"
        )
        smooth = f", plus {self.smooth:g}" if self.smooth else ""
        return f"{'probabilities' if self.soft else 'masks'}, {mean}{smooth}{', with background' if self.background else ''}"


UNITS = ("pooled", "batch", "slice", "tumour slice", "patient")
DEFINITIONS = tuple(
    Definition(*values) for values in product((False, True), UNITS, (0.0, SMOOTH), (False, True))
)


def dice_and_iou(scored, definition):
    """Return (Dice, IoU) of a per-slice table under a definition; both are 1 where truth and prediction are empty.

    scored: columns of per_slice.csv, in the order of evaluation (batches are 16 consecutive rows).
    """
    shared = scored["soft_intersection"] if definition.soft else scored["tp"].astype(float)
    total = (
        scored["soft_sum"] if definition.soft else 2.0 * scored["tp"] + scored["fp"] + scored["fn"]
    )
    classes = [(shared, total)]
    if definition.background:
        pixels = scored[["tp", "fp", "fn", "tn"]].sum(axis=1)
        classes.append((pixels - total + shared, 2 * pixels - total))
    return tuple(np.mean([_class_scores(*sums, scored, definition) for sums in classes], axis=0))


def _class_scores(shared, total, scored, definition):
    """Return mean Dice and mean IoU of one class; shared: intersection of truth and prediction per slice, total: their sum."""
    position = pd.Series(np.arange(len(scored), dtype=float), scored.index)
    units = {
        "pooled": position * 0,
        "batch": position // SCORED_BATCH,
        "slice": position,
        "tumour slice": position.where(scored["tp"] + scored["fn"] > 0),
        "patient": scored["patient"],
    }
    sums = pd.DataFrame({"shared": shared, "total": total}).groupby(units[definition.unit]).sum()
    dice_values = (2 * sums["shared"] + definition.smooth) / (sums["total"] + definition.smooth)
    iou_values = (sums["shared"] + definition.smooth) / (
        sums["total"] - sums["shared"] + definition.smooth
    )
    return dice_values.fillna(1).mean(), iou_values.fillna(1).mean()
