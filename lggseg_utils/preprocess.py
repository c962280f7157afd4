"""From files to arrays: resized, scaled and split (report, section 1-1)."""

import hashlib
import json
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

from lggseg_utils import data
from lggseg_utils.config import UserError, read_csv, write_csv, write_json

SETS = ("train", "val", "test")
PARTS = 10  # a tenth is held out for each of validation and test
FOLDS = 5  # of a cross-validation: two parts each
STRETCHED = (10, 99)  # percentiles
HEAD = 0.15  # of the 99th percentile: what is brighter is taken for head, not air
HEAD_LEVEL = 102  # of 255: where the head's median comes to lie
ARRAYS = ("images", "masks", "truths")
CACHE_KEYS = {"listing", "fingerprint", "skipped", "digests"}


@dataclass(frozen=True)
class Cohort:
    """The slices of one run as arrays, in the order of the table `slices` (that of slices.csv).

    images: uint8 (n, size, size, 3), channels as `data.CHANNELS`; masks: uint8 (n, size, size) of 0 and 1;
    truths: the masks on the scoring grid, uint8 (n, score_size, score_size); skipped: number of slices left out.
    """

    slices: pd.DataFrame
    images: np.ndarray
    masks: np.ndarray
    truths: np.ndarray
    fingerprint: str
    skipped: int

    @property
    def kind(self):
        """'phantom cohort', 'LGG cohort' or 'own data'."""
        return data.kind(self.slices)


def resize_image(image, side):
    """Resize uint8 (height, width, 3) to (side, side, 3): area mean down, bilinear up."""
    shrinks = side <= max(image.shape[:2])
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def resize_images(images, side):
    """`resize_image` for each of uint8 (n, height, width, 3)."""
    return np.stack([resize_image(image, side) for image in images])


def resize_mask(mask, side):
    """Resize a mask of 0 and 1 to (side, side): a pixel is tumour where at least half of its area was."""
    resized = resize_image(mask * np.uint8(255), side)
    return (resized > 127).astype(np.uint8)


def minmax(images, over="slice"):
    """Scale uint8 (n, height, width, channels) to float32 from 0 to 1, the minimum to 0 and the maximum to 1.

    over: 'slice' takes them over a slice's channels together, 'channel' over each channel of a slice, 'dataset' over
    the whole data set (for 8-bit images that fill their range: 0 and 255); after one of VOLUME_SCALINGS, which changes
    each patient's volume as a whole, 'volume' and 'head' do the same. A constant slice becomes 0. Works on NumPy arrays and TensorFlow
    tensors; returns a tensor.
    """
    import tensorflow as tf

    values = tf.cast(images, tf.float32)
    if over in ("dataset", *VOLUME_SCALINGS):
        return values / 255
    axes = (1, 2, 3) if over == "slice" else (1, 2)
    low = tf.reduce_min(values, axes, keepdims=True)
    high = tf.reduce_max(values, axes, keepdims=True)
    return tf.math.divide_no_nan(values - low, high - low)


def scale_volumes(images, patients, scaling):
    """Change each channel of each patient's volume as a whole, in place, as one of VOLUME_SCALINGS says; any other does nothing.

    images: uint8 (n, height, width, 3); patients: a name a slice. What leaves the range from 0 to 255 is clipped.
    """
    patients = np.asarray(patients)
    for patient in pd.unique(patients) if scaling in VOLUME_SCALINGS else ():
        volume = images[patients == patient].astype(np.float32)
        images[patients == patient] = np.clip(VOLUME_SCALINGS[scaling](volume), 0, 255).round()


def _stretch(volume):
    """Percentiles STRETCHED become 0 and 255, as for mateuszbuda/brain-segmentation-pytorch; a constant channel 0."""
    low, high = np.percentile(volume, STRETCHED, axis=(0, 1, 2))
    return 255 * (volume - low) / np.where(high > low, high - low, np.inf)


def _level(volume):
    """The median over the head becomes HEAD_LEVEL and 0 stays 0: unlike a maximum, it does not depend on how bright fat is."""
    heads = [channel[channel > HEAD * np.percentile(channel, STRETCHED[1])] for channel in np.moveaxis(volume, -1, 0)]
    return HEAD_LEVEL * volume / [np.median(head) if head.size else np.inf for head in heads]


VOLUME_SCALINGS = {"volume": _stretch, "head": _level}


def network_inputs(cohort, rows, context):
    """What a network is shown for some rows: uint8 (n, size, size, 3 (2 context + 1)).

    With context, the channels of the slices before come first, then the slice's own, then those after it in the volume. At
    the ends of a volume the last slice is repeated.
    """
    if not context:
        return cohort.images[rows]
    of_patient = pd.Series(np.arange(len(cohort.slices))).groupby(cohort.slices["patient"].to_numpy())
    first, last = (of_patient.transform(end).to_numpy()[rows] for end in ("min", "max"))
    shown = [np.clip(np.asarray(rows) + offset, first, last) for offset in range(-context, context + 1)]
    return np.concatenate([cohort.images[part] for part in shown], axis=-1)


def load_cohort(run):
    """Read, check and resize a run's slices, or load them from the run folder's cache.

    Writes slices.csv, cohort/ and, where slices fail the checks, problems.csv. Raises `UserError` for unusable
    slices (unless the setting skip_bad is on) and for a run folder that was made from other data.
    """
    folder = data.locate(run)
    found = data.find_slices(folder)
    listing = _listing_digest(folder, found, run.experiment)
    cached = _cache_record(run)
    if cached.get("listing") == listing:
        _refuse_changed_cache(run, cached)
    else:
        _read_cohort(run, folder, found, listing)
    return _open_cache(run)


def _cache_record(run):
    """What cohort.json says of a run's cached cohort; nothing where a part of it is missing, or it can't be read."""
    parts = [run.path("slices.csv"), *(run.path("cohort", f"{name}.npy") for name in ARRAYS)]
    try:
        record = json.loads(run.path("cohort", "cohort.json").read_text())
        return record if all(map(Path.exists, parts)) and record.keys() >= CACHE_KEYS else {}
    except (OSError, ValueError, AttributeError):
        return {}


def _listing_digest(folder, found, experiment):
    """Digest of the files' names, sizes and times, and of the sizes asked for: cheap, and enough for a cache."""
    names = sorted({name for column in ("image", "mask") for name in found[column] if name})
    stats = [(name, *_size_and_time(os.path.join(folder, name))) for name in names]
    scaling = experiment.scaling if experiment.scaling in VOLUME_SCALINGS else ""
    text = repr((experiment.size, experiment.score_size, scaling, stats))
    return hashlib.sha256(text.encode()).hexdigest()


def _size_and_time(path):
    """Size and time of a file's last change; nothing for a link that leads nowhere, which is reported when it is read."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _read_cohort(run, folder, found, listing):
    """Decode all slices once, in threads, into the cache; the cache appears whole or not at all."""
    experiment, cache = run.experiment, run.path("cohort")
    _refuse_foreign_cache(cache)
    temporary = Path(tempfile.mkdtemp(prefix=".part-", dir=run.folder))
    try:
        shapes = [(experiment.size, experiment.size, 3), (experiment.size,) * 2, (experiment.score_size,) * 2]
        arrays = [
            _new_array(temporary / f"{name}.npy", (len(found), *shape))
            for name, shape in zip(ARRAYS, shapes, strict=True)
        ]

        def keep(position, image, mask):
            arrays[0][position] = resize_image(image, experiment.size)
            arrays[1][position] = resize_mask(mask, experiment.size)
            arrays[2][position] = resize_mask(mask, experiment.score_size)

        slices, problems, fingerprint = data.scan(folder, found, keep)
        _refuse_problems(run, folder, slices, problems)
        _refuse_other_data(run, fingerprint)
        write_csv(run.path("slices.csv"), slices)
        if len(problems):
            _drop_bad_rows(temporary, found, problems)
        scale_volumes(np.load(temporary / "images.npy", mmap_mode="r+"), slices["patient"], experiment.scaling)
        for array in arrays:
            array.flush()
        write_json(
            temporary / "cohort.json",
            {
                "listing": listing,
                "fingerprint": fingerprint,
                "skipped": len(problems),
                "digests": _digests(run, temporary),
            },
        )
        run.note(data=_describe(slices, fingerprint, len(problems)))
        # Last, since a cache that is there is not read again.
        shutil.rmtree(cache, ignore_errors=True)
        temporary.replace(cache)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _describe(slices, fingerprint, skipped):
    """What run.json says of the data."""
    return {
        "kind": data.kind(slices),
        "fingerprint": fingerprint,
        "patients": int(slices["patient"].nunique()),
        "slices": len(slices),
        "tumour_slices": int((slices["tumour_area"] > 0).sum()),
        "file_sizes": sorted({f"{row.height}x{row.width}" for row in slices.itertuples()}),
        "skipped": skipped,
    }


def _new_array(path, shape):
    """A uint8 array in a file whose space is set aside now: a full disk is an error here, not a crash later."""
    array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _refuse_foreign_cache(folder):
    """A folder that is no cache of ours, the user's data perhaps, must not be replaced by one."""
    if folder.exists() and not folder.joinpath("cohort.json").exists():
        raise UserError(f"{folder} is no cached cohort, and would be written over; choose another run folder.")


def _refuse_problems(run, folder, slices, problems):
    """Write problems.csv, and stop unless the run may go on without the bad slices."""
    if not len(problems):
        run.path("problems.csv").unlink(missing_ok=True)
        return
    write_csv(run.path("problems.csv"), problems)
    if run.experiment.skip_bad and len(slices):
        return
    first = problems.iloc[0]
    raise UserError(
        f"{len(problems)} of {len(problems) + len(slices)} slices in {folder} can't be used, the first: {first['path']}: "
        f"{first['problem']}. All are listed in {run.path('problems.csv')}. Mend or remove them, or go on without them (--skip-bad)."
    )


def _refuse_other_data(run, fingerprint):
    """A run folder belongs to one data set."""
    then = run.record().get("data", {}).get("fingerprint", fingerprint)
    if then != fingerprint:
        raise UserError(
            f"run folder {run.folder} was made from other data; choose another run folder, or remove this one."
        )


def _drop_bad_rows(folder, found, problems):
    """Take the rows of bad slices out of the cached arrays."""
    bad = set(zip(problems["patient"], problems["slice"], strict=True))
    good = [key not in bad for key in zip(found["patient"], found["slice"], strict=True)]
    for name in ARRAYS:
        np.save(folder / f"{name}.npy", np.load(folder / f"{name}.npy")[good], allow_pickle=False)


def _digests(run, folder):
    """SHA-256 of slices.csv and of each array cached in `folder`, in threads: they are some hundred MiB."""
    paths = [run.path("slices.csv"), *(folder / f"{name}.npy" for name in ARRAYS)]

    def digest(path):
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with ThreadPoolExecutor() as pool:
        return {path.name: value for path, value in zip(paths, pool.map(digest, paths), strict=True)}


def _refuse_changed_cache(run, record):
    """The cached arrays must be those that were written."""
    now = _digests(run, run.path("cohort"))
    changed = [name for name in now if now[name] != record["digests"].get(name)]
    if changed:
        path = run.path("slices.csv") if changed[0] == "slices.csv" else run.path("cohort")
        raise UserError(f"{path} was changed since it was written; remove it, and it is made again.")


def _open_cache(run):
    """Open the cached arrays; the images stay on disk until they are used."""
    record = _cache_record(run)
    arrays = {name: np.load(run.path("cohort", f"{name}.npy"), mmap_mode="r", allow_pickle=False) for name in ARRAYS}
    slices = read_csv(run.path("slices.csv"))
    return Cohort(slices, **arrays, fingerprint=record["fingerprint"], skipped=record["skipped"])


def load_split(run, slices):
    """Return a run's split, drawn and written to split.csv when it is missing: a table patient, slice, split."""
    path = run.path("split.csv")
    if not path.exists():
        write_csv(path, draw_split(slices, run.experiment.split, run.experiment.seed))
    split = read_csv(path)
    refuse_other_slices(path, split, slices)
    if set(split["split"]) != set(SETS):
        raise UserError(
            f"{path} must put slices into each of {', '.join(SETS)}, and nowhere else; remove it, and it is drawn again."
        )
    return split


def refuse_other_slices(path, split, slices):
    """A split that was read from a file must be one of these slices."""
    if not split[["patient", "slice"]].equals(slices[["patient", "slice"]]):
        raise UserError(f"{path} does not belong to these slices; remove it or choose another run folder.")


def draw_split(slices, protocol, seed):
    """Split a table of slices 80/10/10 into train, val and test.

    protocol 'slice' draws slices at random, so a patient may stand on several sides; 'patient' draws whole
    patients, stratified by tumour volume. Returns a table patient, slice, split in the order of `slices`.
    """
    draw = _draw_patients if protocol == "patient" else _draw_slices
    return slices[["patient", "slice"]].assign(split=draw(slices, seed))


def _draw_slices(slices, seed):
    """One set name a slice, drawn at random."""
    tenth = max(1, round(len(slices) / 10))
    if len(slices) < 3:
        raise UserError(f"a split needs at least 3 slices, the data hold {len(slices)}.")
    rest, test = train_test_split(np.arange(len(slices)), test_size=tenth, random_state=seed)
    train, val = train_test_split(rest, test_size=tenth, random_state=seed)
    names = np.empty(len(slices), dtype=object)
    for name, rows in zip(SETS, (train, val, test), strict=True):
        names[rows] = name
    return names


def _draw_patients(slices, seed):
    """One set name a slice: the first of ten parts of the patients is test, the second validation."""
    patients = data.patient_table(slices)["patient"]
    if len(patients) < 3:
        raise UserError(f"a split by patient needs at least 3 patients, the data hold {len(patients)}.")
    names = {0: "test", 1: "val"}
    return [names.get(part, "train") for part in _patient_parts(slices, seed)]


def _patient_parts(slices, seed):
    """Number of the part, of ten at most, each slice's patient is in; strata of ten or more by tumour volume."""
    patients = data.patient_table(slices)
    order = patients["tumour_area"].rank(method="first").to_numpy() - 1
    strata = (order * max(1, len(patients) // PARTS) // len(patients)).astype(int)
    folds = StratifiedKFold(min(PARTS, len(patients)), shuffle=True, random_state=seed).split(strata, strata)
    part_of = {patients["patient"].iloc[row]: part for part, (_, rows) in enumerate(folds) for row in rows}
    return [part_of[patient] for patient in slices["patient"]]


def draw_parts(slices, protocol, seed):
    """Divide a table of slices into ten parts, of slices or of whole patients: one number, 0 to 9, a slice.

    protocol as for `draw_split`. Raises `UserError` where there are fewer than ten slices or patients.
    """
    units = slices["patient"].nunique() if protocol == "patient" else len(slices)
    if units < PARTS:
        what = "patients" if protocol == "patient" else "slices"
        raise UserError(f"a cross-validation by {protocol} needs at least {PARTS} {what}, the data hold {units}.")
    if protocol == "patient":
        return np.array(_patient_parts(slices, seed))
    parts = np.empty(len(slices), dtype=int)
    for part, (_, rows) in enumerate(KFold(PARTS, shuffle=True, random_state=seed).split(parts)):
        parts[rows] = part
    return parts


def parts_table(slices, protocol, seed):
    """Table patient, slice, part of `draw_parts`, from which `split_of_fold` makes the split of a fold."""
    return slices[["patient", "slice"]].assign(part=draw_parts(slices, protocol, seed))


def split_of_fold(parts, fold):
    """Split of one fold of a cross-validation: a table patient, slice, split.

    parts: a table patient, slice, part, with parts 0 to 9. Two tenths are test, the next one is validation, the
    seven others are training.
    """
    per_fold = PARTS // FOLDS
    names = {per_fold * fold: "test", per_fold * fold + 1: "test", per_fold * (fold + 1) % PARTS: "val"}
    return parts[["patient", "slice"]].assign(split=[names.get(part, "train") for part in parts["part"]])


def rows_of(split, name):
    """Row numbers of one set, in the order of the table."""
    return np.flatnonzero(split["split"].to_numpy() == name)


def rows_by_set(split):
    """Row numbers of each set: 'train', 'val' and 'test' -> int (n,)."""
    return {name: rows_of(split, name) for name in SETS}


def seen_in_training(split):
    """How much of the test set the training set has already shown.

    Returns a dictionary: patients and slices of the test set, patients with slices in training, slices that have a
    direct neighbour (slice number one off, same patient) in training.
    """
    train = split[split["split"] == "train"]
    held = split[split["split"] == "test"]
    known = set(zip(train["patient"], train["slice"], strict=True))
    neighbours = sum(
        (patient, number - 1) in known or (patient, number + 1) in known
        for patient, number in zip(held["patient"], held["slice"], strict=True)
    )
    return {
        "patients": held["patient"].nunique(),
        "slices": len(held),
        "patients_seen": held.loc[held["patient"].isin(train["patient"]), "patient"].nunique(),
        "slices_with_neighbour": int(neighbours),
    }
