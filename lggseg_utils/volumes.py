"""Volumes of a patient: found by their names, read as slices, and the mask written back as NIfTI.

A volume is a NIfTI file, or a folder with one DICOM series. A slice of it lies as in the cohort:
rows from front to back, columns from the patient's right to left, which is the canonical
orientation of NIfTI, turned.
"""

import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
import pydicom
from nibabel import orientations
from pydicom.pixels import apply_rescale

from lggseg_utils import data
from lggseg_utils.runs import write_whole
from lggseg_utils.settings import UserError

SUFFIXES = (".nii", ".nii.gz")
# What names end in: BraTS' two ways, and the sequences' own names.
ENDINGS = {
    "pre": ("pre", "t1", "t1n"),
    "flair": ("flair", "t2f"),
    "post": ("post", "t1ce", "t1gd", "t1c"),
    "truth": ("seg", "mask"),
}
BRIGHTEST = 99.9  # percentile that becomes 255: a few vessels may be far brighter than the head

UNREADABLE = (
    nibabel.filebasedimages.ImageFileError,
    nibabel.spatialimages.HeaderDataError,
    OSError,
    EOFError,
    ValueError,
    zlib.error,
)
UNREADABLE_DICOM = (
    pydicom.errors.InvalidDicomError,
    AttributeError,  # a tag that is missing
    OSError,
    EOFError,
    KeyError,
    RuntimeError,  # a compression that pydicom alone can't undo
    TypeError,
    ValueError,
)
TO_RAS = np.diag([-1, -1, 1])  # DICOM's axes point to the left and the back


@dataclass(frozen=True)
class Volume:
    """The files of one patient, or the folders of DICOM series.

    A sequence that is missing is None, and so is the true mask.
    """

    patient: str
    flair: Path
    pre: Path | None = None
    post: Path | None = None
    truth: Path | None = None


class Slices(NamedTuple):
    """A volume as slices from bottom to top: images uint8 (n, height, width, 3), truths or None."""

    images: np.ndarray
    truths: np.ndarray | None


def is_volume(path):
    """Return whether a path has the suffix of a NIfTI file."""
    return str(path).lower().endswith(SUFFIXES)


def find(paths):
    """Return a `Volume` for each patient among the paths of NIfTI files.

    Files of one patient lie in one folder and differ in their ending; a file called by its ending
    alone is of the patient that the folder is named after. Left out are masks without a sequence
    beside them, such as those of an earlier prediction, and files whose ending names no sequence
    that is read (`is_read`). Raises `UserError` for a patient without FLAIR, and for a sequence
    that a patient has twice.
    """
    patients = {}
    for path in sorted(paths):
        patient, kind = _parse(path)
        if kind:
            files = patients.setdefault((path.parent, patient), {})
            if kind in files:
                raise UserError(f"{files[kind]} and {path} are both {kind} of {patient}; name one.")
            files[kind] = path
    patients = {name: files for name, files in patients.items() if list(files) != ["truth"]}
    for (folder, patient), files in patients.items():
        if "flair" not in files:
            raise UserError(
                f"no FLAIR volume of {patient} in {folder}, which the network needs; call it "
                f"{patient}_flair.nii.gz, or name it with --flair."
            )
    return [Volume(patient, **files) for (_, patient), files in patients.items()]


def is_read(path):
    """Return whether a file's ending is one of `ENDINGS`."""
    return bool(_parse(path)[1])


def _parse(path):
    """Return (patient, kind) of a file, kind a key of ENDINGS or '' for another sequence."""
    stem = re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    patient, _, ending = re.fullmatch(r"(?:(.+)([-_. ]))?(.+?)", stem).groups()
    kinds = [kind for kind, endings in ENDINGS.items() if ending.lower() in endings]
    return patient or path.resolve().parent.name, (kinds or [""])[0]


def read(volume):
    """Return the `Slices` of a `Volume`.

    A missing sequence is replaced by FLAIR, as in the cohort and in training. Raises `UserError`
    for a file that can't be used, and for files on different grids.
    """
    flair = _load(volume.flair)
    loaded = {"flair": flair}
    for kind in ("pre", "post", "truth"):
        path = getattr(volume, kind)
        loaded[kind] = _on_grid_of(flair, volume.flair, path) if path else None
    eight = {kind: _values(image) for kind, image in loaded.items() if image is not None}
    flair_bits = to_eight_bits(eight["flair"])
    channels = [
        to_eight_bits(eight[kind]) if kind in eight else flair_bits
        for kind in ("pre", "flair", "post")
    ]
    images = np.stack([to_slices(channel) for channel in channels], axis=-1)
    truths = to_slices(eight["truth"] > 0).astype(np.uint8) if "truth" in eight else None
    return Slices(images, truths)


def _load(path):
    """Return the three-dimensional NIfTI image of a file, or of the DICOM series in a folder."""
    image = _of_series(path) if path.is_dir() else _of_file(path)
    if len(image.shape) != 3:
        sides = "x".join(map(str, image.shape))
        raise UserError(f"{path} is {sides}, expected one volume; save each sequence by itself.")
    return image


def _of_file(path):
    """Return the NIfTI image of a file, without dimensions of one at its end."""
    try:
        image = nibabel.funcs.squeeze_image(nibabel.load(path))
        _ = image.dataobj[..., -1]  # what a file that was cut short lacks
    except UNREADABLE as error:
        raise UserError(
            f"{path} can't be read as NIfTI ({_shortened(error)}). Nothing was written."
        ) from None
    return image


def _shortened(error):
    """Return an error's text as one line of at most 100 characters."""
    return " ".join(str(error).split())[:100]


class _Slice(NamedTuple):
    """A file of a DICOM series. position: of the first pixel; values: (rows, columns), rescaled.

    grid: the directions of a row and of a column, and the distances between rows and columns.
    """

    series: tuple
    grid: np.ndarray
    position: np.ndarray
    values: np.ndarray


def _read_dicom(path):
    """Return the `_Slice` in a DICOM file; `UserError` where there is none."""
    try:
        read = pydicom.dcmread(path)
        return _Slice(
            (read.get("SeriesDescription", "no description"), read.SeriesInstanceUID),
            np.array([*read.ImageOrientationPatient, *read.PixelSpacing], float),
            np.array(read.ImagePositionPatient, float),
            apply_rescale(read.pixel_array, read),
        )
    except UNREADABLE_DICOM as error:
        raise UserError(
            f"{path} can't be read as a DICOM slice ({_shortened(error)}); dcm2niix may convert "
            "its series to NIfTI. Nothing was written."
        ) from None


def _of_series(folder):
    """Return the DICOM series in a folder as a NIfTI image; `UserError` where it is not one."""
    slices = [_read_dicom(path) for path in sorted(folder.glob("[!.]*"))]
    if len(slices) < 2:
        number = data.count_of(len(slices), "DICOM slice")
        raise UserError(f"{folder} holds {number}; name that of a series.")
    series = sorted({each.series for each in slices})
    if len(series) > 1:
        names = ", ".join(description for description, _ in series)
        raise UserError(
            f"{folder} holds {len(series)} series ({names}); put each into a folder of its own."
        )
    if len({each.values.shape for each in slices}) > 1:
        raise UserError(f"the slices in {folder} differ in size; leave those of the volume alone.")
    normal = np.cross(slices[0].grid[:3], slices[0].grid[3:6])
    slices.sort(key=lambda each: each.position @ normal)
    values = np.stack([each.values.T for each in slices], axis=-1)
    return nibabel.Nifti1Image(values.astype(np.float32), _affine(slices, folder))


def _affine(slices, folder):
    """Return the matrix from the axes of sorted slices, (column, row, slice), to millimetres."""
    grids = [each.grid for each in slices]
    positions = [each.position for each in slices]
    steps = np.diff(positions, axis=0)
    if np.ptp(grids, 0).max() > 1e-3 or np.ptp(steps, 0).max() > 0.1:
        raise UserError(
            f"the slices in {folder} are no even stack: one is missing or there twice, or they "
            "differ in direction."
        )
    along, down, (between_rows, between_columns) = np.split(grids[0], (3, 6))
    axes = [along * between_columns, down * between_rows, steps.mean(0), positions[0]]
    return np.vstack([TO_RAS @ np.column_stack(axes), [0, 0, 0, 1]])


def _on_grid_of(flair, flair_path, path):
    """Return the image behind a path, which must lie on the grid of `flair`."""
    image = _load(path)
    if image.shape != flair.shape or not np.allclose(image.affine, flair.affine, atol=1e-2):
        raise UserError(
            f"{path} and {flair_path} lie on different grids; register and resample one to the "
            "other first. Nothing was written."
        )
    return image


def _values(image):
    """Return an image's values in canonical orientation: float32 (x, y, z)."""
    values = nibabel.as_closest_canonical(image).get_fdata(dtype=np.float32)
    return np.nan_to_num(values, posinf=0, neginf=0)


def to_eight_bits(values):
    """Scale a volume to uint8, as a whole; whole numbers from 0 to 255 stay what they are."""
    low, high = min(0, values.min()), np.percentile(values, BRIGHTEST)
    if low == 0 and values.max() <= 255 and np.array_equal(values, np.round(values)):
        return values.astype(np.uint8)
    scaled = (values - low) * (255 / max(high - low, 1e-9))
    return np.clip(scaled, 0, 255).round().astype(np.uint8)


def to_slices(values):
    """Turn a canonical volume (x, y, z) into slices (z, rows, columns), as in the cohort."""
    return np.transpose(values[::-1, ::-1], (2, 1, 0))


def from_slices(slices):
    """Turn slices (z, rows, columns) into a canonical volume (x, y, z)."""
    return np.transpose(slices, (2, 1, 0))[::-1, ::-1]


def write_mask(path, mask, volume):
    """Write the masks of a volume's slices, (n, height, width), on the grid of its FLAIR volume."""
    like = _load(volume.flair)
    turned = orientations.ornt_transform(
        orientations.axcodes2ornt("RAS"), orientations.io_orientation(like.affine)
    )
    stored = orientations.apply_orientation(from_slices(mask).astype(np.uint8), turned)
    image = nibabel.Nifti1Image(stored, like.affine, like.header, dtype=np.uint8)
    with write_whole(path) as temporary:
        nibabel.save(image, temporary)
