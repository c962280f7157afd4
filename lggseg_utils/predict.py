"""Masks for your own slices and volumes, by a trained network.

TensorFlow is loaded once everything that can be refused without it has been refused.
"""

import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from lggseg_utils import data, metrics, volumes
from lggseg_utils.runs import (
    REPOSITORY,
    find_network,
    read_csv,
    require_clone,
    stderr_into,
    write_csv,
    write_whole,
)
from lggseg_utils.settings import UserError

REFERENCE = REPOSITORY / "reference"
OUTLINE = (86, 180, 233)  # the sky blue of the book's predictions
CHUNK = 4 * metrics.SCORED_BATCH  # slices between two steps of the progress bar
NOT_VALIDATED = (
    "Not for clinical use: tested on the LGG cohort alone; nobody has validated it on other "
    "scanners."
)


class Scan(NamedTuple):
    """One slice. image: the file; pixels: uint8 (height, width, 3); truth: its mask, or None.

    volume: the `volumes.Volume` that it is a slice of, or None; mask: the file that its mask goes
    to, in the folder of the predictions.
    """

    image: str
    patient: str
    slice: int
    mask: str
    pixels: np.ndarray
    truth: np.ndarray | None
    volume: volumes.Volume | None = None


class Predicted(NamedTuple):
    """slices: the table in predictions.csv; dice: that in dice.csv, None without true masks."""

    slices: pd.DataFrame
    dice: pd.DataFrame | None


def reference():
    """Return the folder of the reference network, which comes with the repository."""
    require_clone("for its reference network")
    return REFERENCE


def named_volume(pre, flair, post):
    """Return the `volumes.Volume` of paths given by option, as a list; [] where none was given.

    A volume, and its mask, have the name of FLAIR's file or folder.
    """
    if not (pre or flair or post):
        return []
    if not flair:
        raise UserError(
            "--pre and --post need --flair: the network can do without them, but not without FLAIR."
        )
    for path in filter(None, (flair, pre, post)):
        _require_exists(Path(path))
    stem = re.sub(r"\.nii(\.gz)?$", "", Path(flair).resolve().name, flags=re.IGNORECASE)
    patient = re.sub(r"[-_. ](flair|t2f)$", "", stem, flags=re.IGNORECASE)
    return [volumes.Volume(patient, *(Path(path) if path else None for path in (flair, pre, post)))]


def predict(images, network_folder, out):
    """Predict the masks of slices and volumes with a trained network; return `Predicted`.

    images: paths of TIFF, PNG and NIfTI files, of folders of them, and of zips of slices, or
    `volumes.Volume`s. An image has 8 bits and the channels pre-contrast, FLAIR, post-contrast.
    Files named PATIENT_NUMBER are one patient's and scaled together. Writes to `out`: for each
    image NAME_mask.png (0 and 255, on its own grid) and NAME_overlay.png (FLAIR with the outline);
    for each volume PATIENT_mask.nii.gz, on its grid; predictions.csv: image, patient, slice, mask,
    tumour_pixels and highest_probability; and, where masks lie beside the images, dice.csv. What an
    earlier call wrote there is removed. Raises `UserError`, with nothing written, for images that
    can't be used.
    """
    experiment = find_network(network_folder).experiment
    scans = _sorted(_scans(images, Path(out)))
    with stderr_into(os.devnull):
        from lggseg_utils import evaluate, preprocess, train
    network, _ = train.load_trained(network_folder)
    patients = pd.Series([scan.patient for scan in scans])
    prepared = preprocess.prepare_images([scan.pixels for scan in scans], patients, experiment)
    probabilities = []
    with tqdm(total=len(scans), desc="predicting", leave=False, disable=None) as bar:
        for start in range(0, len(scans), CHUNK):
            chunk = prepared[start : start + CHUNK]
            probabilities.extend(evaluate.predict(network, chunk, experiment))
            bar.update(len(chunk))
    masks = [
        cv2.resize(probability, scan.pixels.shape[1::-1]) > evaluate.THRESHOLD
        for scan, probability in zip(scans, probabilities, strict=True)
    ]
    _write_masks(scans, masks, Path(out))
    table = _table(scans, masks, probabilities)
    dice = _dice(scans, masks)
    _write_tables(Path(out), table, dice)
    return Predicted(table, dice)


def _table(scans, masks, probabilities):
    """Return the table of predictions.csv."""
    named = [(scan.image, scan.patient, scan.slice, scan.mask) for scan in scans]
    return pd.DataFrame(named, columns=["image", "patient", "slice", "mask"]).assign(
        tumour_pixels=[int(mask.sum()) for mask in masks],
        highest_probability=np.max(probabilities, (1, 2)).astype(float).round(4),
    )


def _require_exists(path):
    """Raise `UserError` where there is nothing at a path."""
    if not path.exists():
        raise UserError(f"{path} does not exist.")


def _scans(images, out):
    """Return a `Scan` for each slice of what was given, or raise `UserError`."""
    named = [image for image in images if isinstance(image, volumes.Volume)]
    paths = [Path(image) for image in images if not isinstance(image, volumes.Volume)]
    if not images:
        raise UserError("name images to predict, folders of them, or a volume with --flair.")
    for path in paths:
        _require_exists(path)
    single = [path for path in paths if path.is_file() and path.suffix.lower() != ".zip"]
    scans = _of_slices(_Source.of_files([path for path in single if not volumes.is_volume(path)]))
    listed = [path for path in single if volumes.is_volume(path)]
    for path in paths:
        if path not in single:
            source = _Source.of_folder(path)
            scans += _of_slices(source)
            listed += source.volumes
    left = [path for path in listed if not volumes.is_read(path)]
    for volume in [*named, *volumes.find(listed)]:
        scans += _of_volume(volume)
    if not scans:
        raise UserError(_why_there_is_nothing(paths, listed))
    for path in left:
        print(f"{path} is left out: its name ends in none of the sequences.", file=sys.stderr)
    _refuse_names(scans, out)
    _say_who_is_alone(scans)
    return scans


def _why_there_is_nothing(paths, listed):
    """Return why no slice was found below `paths`, and what to do; listed: volumes found there."""
    if listed:
        return (
            f"{listed[0]}: its name does not say which sequence it is; end names in t1, flair and "
            "t1ce, or name the files with --pre, --flair and --post."
        )
    zips = [found for path in paths for found in sorted(path.glob("*.zip"))]
    if zips:
        return f"no image in {zips[0].parent}, but a zip; name it: {zips[0]}"
    supported = ", ".join((*data.SUFFIXES, *volumes.SUFFIXES))
    return (
        f"no image in {', '.join(map(str, paths))}; supported: {supported}; the folder of a "
        "DICOM series is named with --flair."
    )


class _Source(NamedTuple):
    """Where slices and volumes lie. `place` is what names begin with, or None for single files."""

    place: Path | None
    files: data.Files
    volumes: list

    @classmethod
    def of_files(cls, paths):
        """Return the source of single files, which must have a suffix that is read."""
        for path in paths:
            if path.suffix.lower() not in data.SUFFIXES:
                raise UserError(
                    f"{path} can't be used: {_how_to_convert(path)} Nothing was written."
                )
        return cls(
            None,
            data.Files([str(path) for path in paths], lambda name: Path(name).read_bytes()),
            [],
        )

    @classmethod
    def of_folder(cls, place):
        """Return the source of a folder or zip, and say how many images are left out."""
        files = data.open_files(place)
        data.say_what_is_left_out(files.names, place)
        found = data.visible(files.names, volumes.SUFFIXES)
        if found and place.is_file():
            raise UserError(f"{place} holds volumes ({found[0]}); unpack it first.")
        return cls(place, files, [place / name for name in found])

    def path(self, name):
        """Return the path that a file of this source is shown by."""
        return str(self.place / name) if self.place else name


def _how_to_convert(path):
    """Return a sentence on a file of a kind that is not read."""
    if path.suffix.lower() in (".jpg", ".jpeg"):
        return data.JPEG
    if path.suffix.lower() in (".dcm", ".dicom", ""):
        return "if it is DICOM, name the folder of its series with --flair."
    return f"supported: {', '.join((*data.SUFFIXES, *volumes.SUFFIXES))}."


def _of_slices(source):
    """Return the `Scan`s of the slices in a `_Source`, without overlays and earlier masks."""
    names = [
        name
        for name in data.visible(source.files.names, data.SUFFIXES)
        if not Path(name).stem.endswith("_overlay")
    ]
    folders = {Path(name).parent for name in names if not Path(name).stem.endswith("_mask")}
    names = [name for name in names if Path(name).parent in folders]
    if not names:
        return []
    found = data.find_slices(names, source.place or Path.cwd())
    rows = found[found["image"] != ""].itertuples(index=False)
    with data.quiet_pillow():
        return [_scan(row, source) for row in rows]


def _scan(row, source):
    """Return the `Scan` of one row of a table of `data.find_slices`."""
    truth = None
    beside = Path(row.mask).parent == Path(row.image).parent
    try:
        content = data.read_bytes(source.files.read, row.image)
        pixels = data.decode(content, 3)
        if row.mask and beside:
            truth = data.decode_pair(content, data.read_bytes(source.files.read, row.mask))[1]
    except data.BadSlice as problem:
        raise UserError(
            f"{source.path(row.image)} can't be used: {problem}. Nothing was written."
        ) from None
    mask = f"{Path(row.image).stem}_mask.png"
    return Scan(source.path(row.image), row.patient, row.slice, mask, pixels, truth)


def _of_volume(volume):
    """Return the `Scan`s of a volume from bottom to top, numbered from 0."""
    lacking = [kind for kind in ("pre", "post") if not getattr(volume, kind)]
    if lacking:
        print(
            f"{volume.patient}: no {' and no '.join(lacking)}-contrast volume; FLAIR stands in.",
            file=sys.stderr,
        )
    images, truths = volumes.read(volume)
    truths = [None] * len(images) if truths is None else truths
    mask = f"{volume.patient}_mask.nii.gz"
    return [
        Scan(str(volume.flair), volume.patient, number, mask, pixels, truth, volume)
        for number, (pixels, truth) in enumerate(zip(images, truths, strict=True))
    ]


def _refuse_names(scans, out):
    """Refuse images whose masks would overwrite each other, or could overwrite an image."""
    owners = {}
    for scan in scans:
        owner = owners.setdefault(scan.mask, scan)
        if owner is not scan and (scan.volume is None or scan.volume is not owner.volume):
            name = scan.mask.partition("_mask.")[0]
            raise UserError(f"two images are named {name}: their masks would overwrite each other.")
    images = {Path(scan.image).resolve() for scan in scans}
    if out.resolve() in {path if path.is_dir() else path.parent for path in images}:
        raise UserError(
            f"{out} holds the images themselves, and masks could be written over; name another "
            "folder."
        )


def _say_who_is_alone(scans):
    """Print a line where several names have no number, so that each is scaled as a patient."""
    alone = sum(scan.slice < 0 for scan in scans)
    if alone > 1:
        print(
            f"{alone} images are not named PATIENT_NUMBER, so each is scaled alone, as a patient "
            "of its own; name the slices of a patient so to have them scaled together.",
            file=sys.stderr,
        )


def _sorted(scans):
    """Return scans in the order of patient and slice; a name without a number counts as slice 0."""
    numbered = [scan._replace(slice=max(scan.slice, 0)) for scan in scans]
    return sorted(numbered, key=lambda scan: (scan.patient, scan.slice, scan.image))


def _write_masks(scans, masks, out):
    """Write each slice's mask and overlay, and each volume's mask, each whole or not at all."""
    of_volumes = {}
    for scan, mask in zip(scans, masks, strict=True):
        if scan.volume:
            of_volumes.setdefault(scan.volume, []).append(mask)
        else:
            _write_png(out / scan.mask, np.uint8(255) * mask)
            _write_png(out / _overlay_of(scan.mask), _overlay(scan.pixels, mask))
    for volume, slices in of_volumes.items():
        volumes.write_mask(out / f"{volume.patient}_mask.nii.gz", np.stack(slices), volume)


def _overlay_of(mask):
    """Return the name of the overlay that belongs to a mask's."""
    return mask.removesuffix("_mask.png") + "_overlay.png"


def _overlay(pixels, mask):
    """Return FLAIR with the outline of a mask: uint8 (height, width, 3)."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    grey = np.repeat(pixels[..., [data.FLAIR]], 3, axis=2)
    return cv2.drawContours(grey, outlines, -1, OUTLINE)


def _write_png(path, pixels):
    """Write an image, whole or not at all."""
    with write_whole(path) as temporary:
        Image.fromarray(pixels).save(temporary)


def _dice(scans, masks):
    """Compare masks with the true ones: a table `patient, slices, tp, fp, fn, dice`, or None."""
    rows = []
    for scan, mask in zip(scans, masks, strict=True):
        if scan.truth is not None:
            truth = scan.truth > 0
            counts = [(truth & mask).sum(), (mask & ~truth).sum(), (truth & ~mask).sum()]
            rows.append([scan.patient, 1, *counts])
    if not rows:
        return None
    counted = pd.DataFrame(rows, columns=["patient", "slices", "tp", "fp", "fn"])
    table = counted.groupby("patient", sort=False).sum().reset_index()
    return table.assign(dice=metrics.dice(table["tp"], table["fp"], table["fn"]))


def _write_tables(out, table, dice):
    """Write predictions.csv and dice.csv, and remove the masks that an earlier call left."""
    path = out / "predictions.csv"
    if path.exists():
        earlier = set(read_csv(path).get("mask", [])) - set(table["mask"])
        for name in earlier | set(map(_overlay_of, earlier)):
            (out / Path(name).name).unlink(missing_ok=True)
    write_csv(path, table)
    if dice is None:
        (out / "dice.csv").unlink(missing_ok=True)
    else:
        write_csv(out / "dice.csv", dice)
