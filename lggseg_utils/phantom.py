"""A phantom cohort: simulated MRI slices with lesions, on real template anatomy, in Kaggle's layout.

The anatomy is the ICBM 2009a nonlinear MNI152 template (grey- and white-matter maps) that nilearn ships.
Everything else is simulated and chosen by us: no number measured on a phantom says anything about patients.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from scipy import ndimage
from tqdm import tqdm

from lggseg_utils.config import write_image

SEED = 2022
SIDE = 128
PIXEL_MM = 1.9
SLICE_MM = 7.0
HEAD_MM = 125
TEMPLATE_MM = 2
INSTITUTIONS = ("AA", "BB", "CC", "DD")
# Signal of each tissue, 0 to 1, by channel: pre-contrast T1, FLAIR, post-contrast T1. Set by eye against
# published brain MRI: CSF dark on FLAIR, white matter brightest on T1, scalp fat bright everywhere.
SIGNALS = {
    "white": (0.50, 0.33, 0.47),
    "grey": (0.38, 0.42, 0.40),
    "csf": (0.15, 0.08, 0.16),
    "skull": (0.05, 0.03, 0.05),
    "scalp": (0.80, 0.62, 0.78),
}


@dataclass(frozen=True)
class Head:
    """One patient's anatomy on the slice grid: tissue fractions, each (slices, side, side), 0 to 1."""

    tissues: dict
    depth_mm: np.ndarray  # distance to the outside of the brain, mm, 0 outside


@cache
def _template():
    """Tissue maps at 2 mm, axes (z, y, x), and the signed distance to the brain's surface in mm (outside > 0)."""
    from nilearn import datasets

    maps = [datasets.load_mni152_gm_template(resolution=1), datasets.load_mni152_wm_template(resolution=1)]
    every = (slice(None, None, TEMPLATE_MM),) * 3
    padded = [np.pad(image.get_fdata(dtype=np.float32)[every].transpose(2, 1, 0), 12) for image in maps]
    grey, white = (volume / volume.max() for volume in padded)
    brain = ndimage.binary_fill_holes(ndimage.binary_closing(grey + white > 0.3, iterations=4))
    outside = ndimage.distance_transform_edt(~brain) - ndimage.distance_transform_edt(brain)
    return grey, white, (TEMPLATE_MM * outside).astype(np.float32)


@cache
def _interpolation(size, smoothness):
    """Matrix (size, knots) of cubic interpolation from knots `smoothness` samples apart."""
    knots = int(np.ceil(size / smoothness)) + 3
    return ndimage.zoom(np.eye(knots), (size / (knots - 2), 1), order=3)[:size].astype(np.float32)


def smooth_noise(rng, shape, smoothness):
    """Random field with mean 0 and standard deviation 1, smooth over about `smoothness` samples an axis."""
    matrices = [_interpolation(size, smoothness) for size in shape]
    field = rng.standard_normal([matrix.shape[1] for matrix in matrices]).astype(np.float32)
    for matrix in matrices:
        field = np.tensordot(field, matrix, axes=(0, 1))
    return (field - field.mean()) / (field.std() + 1e-6)


def _spacing(slices):
    """Distance between neighbouring slices, mm: many slices stand closer, so that all show the head."""
    return min(SLICE_MM, HEAD_MM / slices)


def _coordinates(rng, slices):
    """Template coordinates of every voxel of a patient's slices: random pose, size and a smooth deformation."""
    grid = np.stack(
        np.meshgrid(
            (np.arange(slices) - (slices - 1) / 2) * _spacing(slices),
            (np.arange(SIDE) - (SIDE - 1) / 2) * -PIXEL_MM,
            (np.arange(SIDE) - (SIDE - 1) / 2) * PIXEL_MM,
            indexing="ij",
        )
    )
    angles = np.deg2rad(rng.normal(0, (3, 3, 5)))
    turn = np.linalg.multi_dot([_rotation(axis, angle) for axis, angle in enumerate(angles)])
    stretch = np.diag(1 / rng.normal(1.0, 0.045, 3))
    centre = np.array(_template()[0].shape) / 2 + np.array([2, 0, 0]) + rng.normal(0, (1.5, 1.5, 1.5))
    warp = np.stack([smooth_noise(rng, grid.shape[1:], 40) * 2.2 for _ in range(3)])
    moved = np.tensordot(turn @ stretch, grid, axes=1) + warp
    return moved / TEMPLATE_MM + centre[:, None, None, None]


def _rotation(axis, angle):
    """3x3 rotation about one axis; angle in radians."""
    first, second = [other for other in range(3) if other != axis]
    matrix = np.eye(3)
    matrix[[first, second], [first, second]] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


def make_head(rng, slices):
    """Draw one patient's anatomy as a `Head`."""
    coordinates = _coordinates(rng, slices)
    grey, white, distance = (
        ndimage.map_coordinates(volume, coordinates, order=1, mode="nearest") for volume in _template()
    )
    thickness = 6.5 + 1.2 * smooth_noise(rng, distance.shape, 45)
    tissues = {
        "grey": grey,
        "white": white,
        "skull": _band(distance, 2.0, thickness),
        "scalp": _band(distance, thickness, thickness + rng.uniform(5, 8)),
    }
    tissues["csf"] = np.clip((distance < 3) - grey - white - tissues["skull"], 0, 1)
    return Head(tissues, np.maximum(-distance, 0))


def _band(distance, low, high):
    """Soft membership of the shell between two distances from the brain, mm."""
    return np.clip(distance - low + 0.5, 0, 1) * np.clip(high - distance + 0.5, 0, 1)


def _blob(rng, shape, centre, radii_mm, roughness):
    """Soft irregular blob, 0 to 1, about (slice, row, column) `centre`; 0.5 at its border."""
    spacing = (_spacing(shape[0]), PIXEL_MM, PIXEL_MM)
    axes = [
        (np.arange(size) - middle) * step / radius
        for size, middle, step, radius in zip(shape, centre, spacing, radii_mm, strict=True)
    ]
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))
    border = 1 + roughness * smooth_noise(rng, shape, 9) + 0.5 * roughness * smooth_noise(rng, shape, 4)
    return 1 / (1 + np.exp((radius - border) * np.mean(radii_mm) / 1.2))


def _centre(rng, head, minimum_depth_mm):
    """Draw a voxel of white matter at least so deep in the brain."""
    inside = (head.tissues["white"] > 0.5) & (head.depth_mm > minimum_depth_mm)
    if not inside.any():
        inside = head.depth_mm >= np.quantile(head.depth_mm, 0.95)
    candidates = np.argwhere(inside)
    return candidates[rng.integers(len(candidates))]


def make_lesion(rng, head):
    """Draw one lesion: (soft extent 0 to 1, mask of 0 and 1), each (slices, side, side)."""
    radius = rng.uniform(14, 30)
    radii = radius * rng.uniform((0.6, 0.75, 0.75), (0.95, 1.3, 1.3))
    extent = _blob(rng, head.depth_mm.shape, _centre(rng, head, 9), radii, rng.uniform(0.12, 0.28))
    extent = extent * np.clip(head.depth_mm / 2, 0, 1)
    return extent, (extent > 0.5).astype(np.uint8)


def _paint(rng, head, extent):
    """Signal of the three channels with the lesion in them, (slices, side, side, 3), before noise."""
    signal = sum(
        tissue[..., None] * np.array(SIGNALS[name]) * rng.normal(1, 0.07, 3) for name, tissue in head.tissues.items()
    )
    texture = 1 + 0.16 * smooth_noise(rng, extent.shape, 5)
    change = np.array([rng.uniform(-0.14, -0.04), rng.uniform(0.21, 0.37), rng.uniform(-0.12, -0.02)])
    signal = signal + (extent * texture)[..., None] * change
    if rng.random() < 0.35:  # a fluid-filled core, dark everywhere
        core = np.clip((extent - 0.93) / 0.05, 0, 1)[..., None]
        signal = signal * (1 - core) + core * np.array([0.16, 0.14, 0.16])
    if rng.random() < 0.4:  # part of the lesion takes up contrast agent
        uptake = extent * np.clip(smooth_noise(rng, extent.shape, 6) - 0.6, 0, 1)
        signal[..., 2] += 0.45 * uptake
    return signal


def _distract(rng, head, signal):
    """Add what is bright on FLAIR and no tumour: small white-matter spots, and sometimes a bright patch."""
    for _ in range(rng.integers(0, 5)):
        spot = _blob(rng, signal.shape[:3], _centre(rng, head, 12), rng.uniform(2.5, 4.5, 3), 0.2)
        signal[..., 1] += rng.uniform(0.1, 0.25) * spot
    if rng.random() < 0.35:
        patch = _blob(rng, signal.shape[:3], _centre(rng, head, 4), rng.uniform(8, 15, 3), 0.3)
        signal[..., 1] += rng.uniform(0.05, 0.12) * patch


def _scan(rng, signal):
    """Turn signal into 8-bit images: bias field, Rician noise, one gain a channel, blur of the scanner."""
    bias = np.exp(0.14 * np.stack([smooth_noise(rng, signal.shape[:3], 55) for _ in range(3)], axis=-1))
    blurred = ndimage.gaussian_filter(signal * bias, (0, 0.55, 0.55, 0))
    noise = rng.uniform(0.012, 0.03) * rng.standard_normal((2, *signal.shape))
    magnitude = np.hypot(blurred + noise[0], noise[1])
    return np.clip(magnitude * rng.uniform(0.75, 1.05, 3) * 255, 0, 255).astype(np.uint8)


def make_patient(seed, number, slices):
    """Simulate one patient: (images uint8 (slices, 128, 128, 3), masks uint8 (slices, 128, 128) of 0 and 255).

    The same seed and number give the same bytes. One patient in ten lacks a contrast series; as in the LGG
    cohort, FLAIR stands in its place.
    """
    rng = np.random.default_rng((seed, number))
    head = make_head(rng, slices)
    extent, mask = make_lesion(rng, head)
    signal = _paint(rng, head, extent)
    _distract(rng, head, signal)
    images = _scan(rng, signal)
    if rng.random() < 0.1:
        images[..., rng.choice((0, 2))] = images[..., 1]
    return images, mask * 255


def write_cohort(folder, patients, slices, seed=SEED):
    """Write a phantom cohort in Kaggle's layout, 128x128 pixels; patients that are there already are kept.

    `folder/PHANTOM_AA_0001_20220001/PHANTOM_AA_0001_20220001_1.tif` and `..._1_mask.tif`, slices from 1.
    """
    missing = [
        number for number in range(1, patients + 1) if not _stem(folder, number, slices, seed, "_mask.tif").exists()
    ]
    for number in tqdm(missing, desc="phantom cohort", unit="patient", leave=False, disable=not missing):
        for position, pair in enumerate(zip(*make_patient(seed, number, slices), strict=True), start=1):
            _write_pair(folder, number, position, seed, *pair)


def _stem(folder, number, position, seed, suffix):
    """Path of one file of the cohort."""
    name = f"PHANTOM_{INSTITUTIONS[number % len(INSTITUTIONS)]}_{number:04d}_{seed}"
    return Path(folder, name, f"{name}_{position}{suffix}")


def _write_pair(folder, number, position, seed, image, mask):
    """Write one slice's image and mask; the last slice's mask comes last, so its presence says that all is there."""
    for suffix, pixels in ((".tif", image[..., ::-1]), ("_mask.tif", mask)):
        write_image(_stem(folder, number, position, seed, suffix), pixels, cv2.IMWRITE_TIFF_COMPRESSION, 8)
