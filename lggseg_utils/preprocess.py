"""From slices to arrays: resized, scaled and split (report, section 1-1)."""

from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd

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

    images: uint8 (n, size, size, 3), channels as `data.CHANNELS`; masks: uint8 (n, size, size) of
    0 and 1; truths: the masks on the scoring grid, uint8 (n, score_size, score_size).
    """

    slices: pd.DataFrame
    images: np.ndarray
    masks: np.ndarray
    truths: np.ndarray


def prepare(cohort, experiment):
    """Return a cohort's slices as the `Dataset` that an experiment is trained and scored on."""
    return Dataset(
        slices=cohort.slices,
        images=prepare_images(cohort.images, cohort.slices["patient"], experiment),
        masks=_resize_masks(cohort.masks, experiment.size),
        truths=_resize_masks(cohort.masks, experiment.score_size),
    )


def prepare_images(images, patients, experiment):
    """Resize and scale images as an experiment says: uint8 (n, size, size, 3), as `Dataset`'s.

    images: a list of uint8 (height, width, 3); patients: a name per image.
    """
    small = np.stack([resize_image(image, experiment.size) for image in images])
    return scale_volumes(small, patients, experiment.scaling)


def _resize_masks(masks, side):
    """Resize a list of masks (height, width) of 0 and 1: uint8 (n, side, side) of 0 and 1."""
    return np.stack([resize_mask(mask, side) for mask in masks])


def resize_image(image, side):
    """Resize uint8 (height, width) or (height, width, 3) to (side, side) or (side, side, 3).

    A pixel becomes the mean over its area; bilinear where the shorter side grows.
    """
    shrinks = side <= min(image.shape[:2])
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, (side, side), interpolation=method)


def resize_mask(mask, side):
    """Resize a mask of 0 and 1 to uint8 (side, side) of 0 and 1.

    A pixel is tumour where at least half of its area was.
    """
    return (resize_image(mask * np.uint8(255), side) > 127).astype(np.uint8)


def minmax(images, over="slice"):
    """Scale numbers from 0 to 255 to float32 from 0 to 1: the minimum becomes 0, the maximum 1.

    images: (n, height, width, channels), an array or, inside a pipeline, a TensorFlow tensor;
    what is returned is of the same kind. `over` says what minimum and maximum are taken over:
    'slice' (its channels together), 'channel' (of a slice) or 'dataset' (0 and 255). 'head'
    divides by 255 what `scale_volumes` has scaled. A constant slice becomes 0.
    """
    axes = {"slice": (1, 2, 3), "channel": (1, 2), "dataset": None, "head": None}[over]
    if isinstance(images, np.ndarray):
        return _minmax_of_array(images, axes)
    return _minmax_of_tensor(images, axes)


def _minmax_of_array(images, axes):
    """Return `minmax` of an array over the axes, or from 0 and 255 for None."""
    values = images.astype(np.float32)
    if axes is None:
        return values / np.float32(255)
    low = values.min(axes, keepdims=True)
    high = values.max(axes, keepdims=True)
    return np.divide(values - low, high - low, out=np.zeros_like(values), where=high > low)


def _minmax_of_tensor(images, axes):
    """Return `minmax` of a tensor over the axes, or from 0 and 255 for None."""
    import tensorflow as tf

    values = tf.cast(images, tf.float32)
    if axes is None:
        return values / 255
    low = tf.reduce_min(values, axes, keepdims=True)
    high = tf.reduce_max(values, axes, keepdims=True)
    return tf.math.divide_no_nan(values - low, high - low)


def scale_volumes(images, patients, scaling):
    """Scale each patient's volume, channel by channel, if the scaling is 'head'.

    images: uint8 (n, height, width, 3), as is returned; patients: a name per slice. The median of
    the head becomes HEAD_LEVEL and 0 stays 0: unlike a maximum, a median does not depend on
    bright fat. Values above 255 are clipped.
    """
    if scaling != "head":
        return images
    scaled = np.empty_like(images)
    patients = np.asarray(patients)
    for patient in pd.unique(patients):
        own = patients == patient
        volume = images[own].astype(np.float32)
        scaled[own] = np.clip(HEAD_LEVEL * volume / _head_medians(volume), 0, 255).round()
    return scaled


def _head_medians(volume):
    """Return each channel's median over the head, infinite for a channel without one.

    volume: float32 (n, height, width, 3).
    """
    limits = HEAD * np.percentile(volume, 99, axis=(0, 1, 2))
    medians = []
    for channel, limit in zip(np.moveaxis(volume, -1, 0), limits, strict=True):
        head = channel[channel > limit]
        medians.append(np.median(head) if len(head) else np.inf)
    return medians


def draw_split(slices, protocol, seed):
    """Split a table of slices 80/10/10 at random: a table `patient, slice, split`, in its order.

    protocol: 'slice' draws slices, so a patient may be in several sets; 'patient' draws whole
    patients, twenty or more of them stratified by tumour volume. Raises `UserError` for fewer
    than three of either.
    """
    data.check_enough(slices, protocol, len(SETS))
    if protocol == "patient":
        parts = _patient_parts(slices, seed)
        names = np.select([parts == 0, parts == 1], ["test", "val"], "train")
    else:
        names = _slice_sets(len(slices), seed)
    return slices[["patient", "slice"]].assign(split=names.astype(object))


def _slice_sets(count, seed):
    """Return the set of each of `count` slices, drawn one by one: an array of names."""
    from sklearn.model_selection import train_test_split

    tenth = max(1, round(count / 10))
    rest, test = train_test_split(np.arange(count), test_size=tenth, random_state=seed)
    _, val = train_test_split(rest, test_size=tenth, random_state=seed)
    names = np.full(count, "train", dtype=object)
    names[test] = "test"
    names[val] = "val"
    return names


def _patient_parts(slices, seed):
    """Return for each slice the number of its patient's part: int (n,), from 0 to at most 9.

    Strata are patients of like tumour volume, ten or more of them; below twenty patients there is
    one stratum.
    """
    from sklearn.model_selection import StratifiedKFold

    patients = data.patient_table(slices)
    count = len(patients)
    order = patients["tumour_area"].rank(method="first").to_numpy() - 1
    strata = (order * max(1, count // PARTS) // count).astype(int)
    folds = StratifiedKFold(min(PARTS, count), shuffle=True, random_state=seed)
    part_of = {}
    for part, (_, rows) in enumerate(folds.split(strata, strata)):
        for patient in patients["patient"].iloc[rows]:
            part_of[patient] = part
    return slices["patient"].map(part_of).to_numpy()


def draw_folds(slices, protocol, seed):
    """Divide slices into ten parts at random, of which each fold tests two.

    protocol as for `draw_split`. Returns a table `patient, slice, split, part, fold` in the order
    of `slices`; `split` is 'test', since every slice is tested once. Raises `UserError` for fewer
    than ten slices or patients.
    """
    data.check_enough(slices, protocol, PARTS)
    if protocol == "patient":
        parts = _patient_parts(slices, seed)
    else:
        parts = _slice_parts(len(slices), seed)
    folds = parts // (PARTS // FOLDS)
    return slices[["patient", "slice"]].assign(split="test", part=parts, fold=folds)


def _slice_parts(count, seed):
    """Return the part of each of `count` slices, drawn one by one: int (count,), 0 to 9."""
    from sklearn.model_selection import KFold

    parts = np.empty(count, dtype=int)
    folds = KFold(PARTS, shuffle=True, random_state=seed)
    for part, (_, rows) in enumerate(folds.split(parts)):
        parts[rows] = part
    return parts


def _holds_all_sets(table):
    """Return whether a table has the three sets of a split and no other."""
    return set(table.get("split", [])) == set(SETS)


def _holds_parts(table):
    """Return whether a table has the parts of folds."""
    return "part" in table


# What a stored table must hold, by the function that draws it.
COMPLETE = {draw_split: _holds_all_sets, draw_folds: _holds_parts}


def load_split(run, slices, draw=draw_split):
    """Return a run's split.csv, which is drawn and written where it is missing.

    draw: `draw_split` or `draw_folds`, whose table is returned. Raises `UserError` for a stored
    table of other slices or sets.
    """
    path = run.path("split.csv")
    if not path.exists():
        write_csv(path, draw(slices, run.experiment.split, run.experiment.seed))
    split = read_csv(path)
    keys = slices[["patient", "slice"]]
    same_slices = split.reindex(columns=keys.columns).equals(keys)
    if not same_slices or not COMPLETE[draw](split):
        raise UserError(
            f"{path} does not match these slices; delete it to have the split drawn again."
        )
    return split


def split_of_fold(folds, fold):
    """Return the split of one fold, a table `patient, slice, split`, from that of `draw_folds`.

    Two of the ten parts are test, the next one is validation, the seven others are training.
    """
    first = PARTS // FOLDS * fold
    names = {first: "test", first + 1: "test", (first + 2) % PARTS: "val"}
    sets = [names.get(part, "train") for part in folds["part"]]
    return folds[["patient", "slice"]].assign(split=sets)


def rows_by_set(split):
    """Return the row numbers of each set: a dictionary 'train', 'val', 'test' -> int (n,)."""
    return {name: np.flatnonzero(split["split"].to_numpy() == name) for name in SETS}


def seen_in_training(split):
    """Count how much of the test set also occurs in training.

    Returns a dictionary: patients and slices of the test set, patients_seen (with slices in
    training) and slices_with_neighbour (a slice of the same patient, one number off, in training).
    """
    train = split[split["split"] == "train"]
    test = split[split["split"] == "test"]
    trained_on = set(zip(train["patient"], train["slice"], strict=True))
    with_neighbour = 0
    for patient, number in zip(test["patient"], test["slice"], strict=True):
        if (patient, number - 1) in trained_on or (patient, number + 1) in trained_on:
            with_neighbour += 1
    seen = test[test["patient"].isin(train["patient"])]
    return {
        "patients": test["patient"].nunique(),
        "slices": len(test),
        "patients_seen": seen["patient"].nunique(),
        "slices_with_neighbour": with_neighbour,
    }
