"""Masks for your own slices, by a trained network."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from lggseg_utils import data, evaluate, preprocess, train
from lggseg_utils.runs import REPOSITORY, write_csv, write_whole
from lggseg_utils.settings import UserError

REFERENCE = REPOSITORY / "reference"
OUTLINE = (86, 180, 233)  # the sky blue of the book's predictions


def predict(images, network_folder, out):
    """Predict the masks of image files, or of all images in folders, with the network of a finished run.

    An image is an 8-bit TIFF or PNG with the channels pre-contrast, FLAIR, post-contrast. Files named PATIENT_NUMBER are one
    patient's and scaled together. Writes to `out` for each image NAME_mask.png (0 and 255, on the image's own grid) and
    NAME_overlay.png (FLAIR with the outline), and predictions.csv: image, patient, slice, tumour_pixels and
    highest_probability, which is returned. Raises `UserError`, with nothing written, for images that can't be used.
    """
    network, experiment = train.load_trained(network_folder)
    files, pixels = _read(_listed(images))
    if Path(out).resolve() in [Path(name).resolve().parent for name in files["image"]]:
        raise UserError(
            f"{out} holds the images themselves, and masks could be written over; name another folder."
        )
    prepared = preprocess.prepare_images(pixels, files["patient"], experiment)
    probabilities = evaluate.predict(network, prepared, experiment)
    tumour = []
    for name, image, probability in zip(files["image"], pixels, probabilities, strict=True):
        mask = cv2.resize(probability, image.shape[1::-1]) > evaluate.THRESHOLD
        _write(Path(out, Path(name).stem), image, mask)
        tumour.append(int(mask.sum()))
    table = files.assign(
        tumour_pixels=tumour, highest_probability=probabilities.max((1, 2)).round(4)
    )
    write_csv(Path(out, "predictions.csv"), table)
    return table


def _listed(images):
    """Return the paths of the given images and of all images in the given folders, without masks and overlays."""
    paths = []
    for image in map(Path, images):
        if not image.exists():
            raise UserError(f"{image} does not exist.")
        found = [
            path for path in sorted(image.rglob("[!.]*")) if path.suffix.lower() in data.SUFFIXES
        ]
        slices = [path for path in found if not path.stem.endswith(("_mask", "_overlay"))]
        paths += slices if image.is_dir() else [image]
    if not paths:
        raise UserError(
            f"no image in {', '.join(map(str, images))}; supported: {', '.join(data.SUFFIXES)}."
        )
    stems = pd.Series([path.stem for path in paths])
    if stems.duplicated().any():
        name = stems[stems.duplicated()].iloc[0]
        raise UserError(f"two images are named {name}: their masks would overwrite each other.")
    return paths


def _read(paths):
    """Return a table image, patient, slice in the order of patient and slice, and the pixels of each."""
    rows = []
    for path in paths:
        match = data.SLICE_NAME.fullmatch(path.name)
        patient, number = (match["patient"], int(match["slice"])) if match else (path.stem, 0)
        try:
            rows.append(
                (str(path), patient, number, data.decode(data.read_bytes(Path.read_bytes, path), 3))
            )
        except data.BadSlice as problem:
            raise UserError(f"{path} can't be used: {problem}. Nothing was written.") from None
    files = pd.DataFrame(rows, columns=["image", "patient", "slice", "pixels"])
    files = files.sort_values(["patient", "slice", "image"], ignore_index=True)
    return files.drop(columns="pixels"), files["pixels"].tolist()


def _write(stem, image, mask):
    """Write mask and overlay of one image, each whole or not at all."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    overlay = cv2.drawContours(
        np.repeat(image[..., [data.FLAIR]], 3, axis=2), outlines, -1, OUTLINE
    )
    for kind, drawn in (("mask", np.uint8(255) * mask), ("overlay", overlay)):
        with write_whole(stem.with_name(f"{stem.name}_{kind}.png")) as temporary:
            Image.fromarray(drawn).save(temporary)
