"""From slices to arrays: resized, scaled and split (report, section 1-1)."""

from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
import tensorflow as tf
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

from lggseg_utils import data
from lggseg_utils.runs import read_csv, write_csv
from lggseg_utils.settings import UserError

SETS = ("train", "val", "test")
PARTS = 10  # a tenth is held out for each of validation and test
FOLDS = 5  # of a cross-validation: two parts each
HEAD = 0.15  # of the 99th percentile: brighter pixels are head, the others air
HEAD_LEVEL = 102  # of 255: the median of the head after scaling


@dataclass(frozen=True)
class Dataset:
    """A cohort's slices as arrays, in the order of the table `slices`.

    images: uint8 (n, size, size, 3), channels as `data.CHANNELS`; masks: uint8 (n, size, size) of 0 and 1;
    truths: the masks on the scoring grid, uint8 (n, score_size, score_size).
    """

    slices: pd.DataFrame
    images: np.ndarray
    masks: np.ndarray
    truths: np.ndarray


def prepare(cohort, experiment):
    """Return a cohort's slices as the `Dataset` that an experiment's network is trained and scored on."""
    sides = (experiment.size, experiment.score_size)
    masks, truths = (np.stack([resize_mask(mask, side) for mask in cohort.masks]) for side in sides)
    return Dataset(
        cohort.slices,
        prepare_images(cohort.images, cohort.slices["patient"], experiment),
        masks,
        truths,
    )


def prepare_images(images, patients, experiment):
    """Return `Dataset`'s images for a list of images uint8 (height, width, 3). patients: a name per image."""
    small = np.stack([resize_image(image, experiment.size) for image in images])
    return scale_volumes(small, patients, experiment.scaling)


def resize_image(image, side):
    """Resize uint8 (height, width, 3) to (side, side, 3): area mean down, bilinear where the shorter side grows."""
    shrinks = side <= min(image.shape[:2])
    return cv2.resize(
        image, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )


def resize_mask(mask, side):
    """Resize a mask of 0 and 1 to (side, side): a pixel is tumour where at least half of its area was."""
    return (resize_image(mask * np.uint8(255), side) > 127).astype(np.uint8)


def minmax(images, over="slice"):
    """Scale uint8 (n, height, width, channels) to float32 from 0 to 1: the minimum becomes 0, the maximum 1.

    `over` says what both are taken over: 'slice' (its channels together), 'channel' (of a slice), or 'dataset' (0 and 255).
    'head' divides by 255 what `scale_volumes` has scaled. A constant slice becomes 0. Returns a tensor.
    """
    values = tf.cast(images, tf.float32)
    if over in ("dataset", "head"):
        return values / 255
    axes = (1, 2, 3) if over == "slice" else (1, 2)
    low = tf.reduce_min(values, axes, keepdims=True)
    high = tf.reduce_max(values, axes, keepdims=True)
    return tf.math.divide_no_nan(values - low, high - low)


def scale_volumes(images, patients, scaling):
    """Scale each patient's volume, channel by channel, if the scaling is 'head'; return uint8 images (n, height, width, 3).

    The median of the head becomes HEAD_LEVEL and 0 stays 0: unlike a maximum, a median does not depend on bright fat. Values
    above 255 are clipped. patients: a name per slice.
    """
    if scaling != "head":
        return images
    scaled, patients = np.empty_like(images), np.asarray(patients)
    for patient in pd.unique(patients):
        volume = images[patients == patient].astype(np.float32)
        limits = HEAD * np.percentile(volume, 99, axis=(0, 1, 2))
        heads = [
            channel[channel > limit]
            for channel, limit in zip(np.moveaxis(volume, -1, 0), limits, strict=True)
        ]
        levels = [np.median(head) if len(head) else np.inf for head in heads]
        scaled[patients == patient] = np.clip(HEAD_LEVEL * volume / levels, 0, 255).round()
    return scaled


def draw_split(slices, protocol, seed):
    """Split a table of slices 80/10/10 at random; return a table `patient, slice, split` in the same order.

    protocol: 'slice' draws slices, so a patient may be in several sets; 'patient' draws whole patients, twenty or more of them
    stratified by tumour volume. Raises `UserError` for fewer than three of either.
    """
    units = slices["patient"].nunique() if protocol == "patient" else len(slices)
    if units < 3:
        raise UserError(
            f"a split by {protocol} needs at least 3 {protocol}s, but the data contain {units}."
        )
    names = np.full(len(slices), "train", dtype=object)
    if protocol == "patient":
        parts = _patient_parts(slices, seed)
        names[parts == 0], names[parts == 1] = "test", "val"
    else:
        tenth = max(1, round(len(slices) / 10))
        rest, test = train_test_split(np.arange(len(slices)), test_size=tenth, random_state=seed)
        names[test], names[train_test_split(rest, test_size=tenth, random_state=seed)[1]] = (
            "test",
            "val",
        )
    return slices[["patient", "slice"]].assign(split=names)


def _patient_parts(slices, seed):
    """Return for each slice the number of its patient's part, of at most ten; from twenty patients on, strata are of ten or more."""
    patients = data.patient_table(slices)
    order = patients["tumour_area"].rank(method="first").to_numpy() - 1
    strata = (order * max(1, len(patients) // PARTS) // len(patients)).astype(int)
    folds = StratifiedKFold(min(PARTS, len(patients)), shuffle=True, random_state=seed).split(
        strata, strata
    )
    part_of = {
        patients["patient"].iloc[row]: part for part, (_, rows) in enumerate(folds) for row in rows
    }
    return np.array([part_of[patient] for patient in slices["patient"]])


def draw_folds(slices, protocol, seed):
    """Divide a table of slices into ten parts, of which each fold tests two: a table `patient, slice, split, part, fold`.

    protocol as for `draw_split`; `split` is 'test', since every slice is tested once. Raises `UserError` for fewer than ten
    slices or patients.
    """
    units = slices["patient"].nunique() if protocol == "patient" else len(slices)
    if units < PARTS:
        raise UserError(
            f"folds by {protocol} need at least {PARTS} {protocol}s, but the data contain {units}."
        )
    if protocol == "patient":
        parts = _patient_parts(slices, seed)
    else:
        parts = np.empty(len(slices), dtype=int)
        for part, (_, rows) in enumerate(
            KFold(PARTS, shuffle=True, random_state=seed).split(parts)
        ):
            parts[rows] = part
    return slices[["patient", "slice"]].assign(
        split="test", part=parts, fold=parts // (PARTS // FOLDS)
    )


def load_split(run, slices, draw=draw_split):
    """Return a run's split, as `draw` (`draw_split` or `draw_folds`) returns it; a missing one is drawn and written to split.csv.

    Raises `UserError` for a table of other slices or sets.
    """
    path = run.path("split.csv")
    if not path.exists():
        write_csv(path, draw(slices, run.experiment.split, run.experiment.seed))
    split = read_csv(path)
    keys = slices[["patient", "slice"]]
    whole = "part" in split if draw is draw_folds else set(split.get("split", [])) == set(SETS)
    if not whole or not split.reindex(columns=keys.columns).equals(keys):
        raise UserError(
            f"{path} does not match these slices; delete it to have the split drawn again."
        )
    return split


def split_of_fold(folds, fold):
    """Return the split of one fold, a table `patient, slice, split`, from a table of `draw_folds`.

    Two of the ten parts are test, the next one is validation, the seven others are training.
    """
    per_fold = PARTS // FOLDS
    names = {
        per_fold * fold: "test",
        per_fold * fold + 1: "test",
        per_fold * (fold + 1) % PARTS: "val",
    }
    return folds[["patient", "slice"]].assign(
        split=[names.get(part, "train") for part in folds["part"]]
    )


def rows_by_set(split):
    """Return the row numbers of each set: 'train', 'val' and 'test' -> int (n,)."""
    return {name: np.flatnonzero(split["split"].to_numpy() == name) for name in SETS}


def seen_in_training(split):
    """Count how much of the test set also occurs in training.

    Returns a dictionary: patients and slices of the test set, patients_seen (with slices in training) and
    slices_with_neighbour (a slice of the same patient, one number off, in training).
    """
    train, held = split[split["split"] == "train"], split[split["split"] == "test"]
    known = set(zip(train["patient"], train["slice"], strict=True))
    pairs = zip(held["patient"], held["slice"], strict=True)
    neighbours = sum(
        (patient, number - 1) in known or (patient, number + 1) in known
        for patient, number in pairs
    )
    seen = held.loc[held["patient"].isin(train["patient"]), "patient"].nunique()
    counts = {"patients": held["patient"].nunique(), "slices": len(held)}
    return {**counts, "patients_seen": seen, "slices_with_neighbour": neighbours}
