"""Masks for slices of one's own, by a trained network."""

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from lggseg_utils import data, evaluate, preprocess
from lggseg_utils.config import (
    REPOSITORY,
    UserError,
    place,
    read_csv,
    recorded_experiment,
    write_csv,
    write_image,
    write_whole,
)

REFERENCE = REPOSITORY / "reference"
OUTLINE = (233, 180, 86)  # the sky blue of the book's predictions, as OpenCV orders it


def predict(images, network_folder, out):
    """Predict the masks of image files, or of all images in folders, with the network of a finished run.

    Each image is a TIFF of 8 bits with the channels pre-contrast, FLAIR, post-contrast. Files named PATIENT_NUMBER belong to one
    patient: a network that looks at volumes or neighbours sees them together. Writes to `out`, for each image, NAME_mask.png
    (0 and 255, on the image's own grid) and NAME_overlay.png (FLAIR with the outline), and predictions.csv with the columns
    image, patient, slice, tumour_pixels and highest_probability, which is returned. Raises `UserError`, with nothing written,
    for images that can't be used and for a folder without a network.
    """
    model, experiment = load_network(place(network_folder))
    out = place(out)
    files, pixels = _read(_listed(images))
    cohort = _as_cohort(files, pixels, experiment)
    rows = []
    for part, probabilities in evaluate.probabilities(model, cohort, np.arange(len(files)), experiment):
        for row, probability in zip(part, probabilities, strict=True):
            image = files["image"][row]
            mask = cv2.resize(probability, pixels[row].shape[1::-1]) > evaluate.THRESHOLD
            _write(Path(out, Path(image).stem), pixels[row], mask)
            rows.append({"tumour_pixels": int(mask.sum()), "highest_probability": round(float(probability.max()), 4)})
    table = files.join(pd.DataFrame(rows))
    write_csv(Path(out, "predictions.csv"), table)
    return table


def load_network(folder):
    """A trained network and the `Experiment` that says how its slices were prepared: (model, experiment).

    folder: a finished run's, with run.json and model.keras, or one with run.json and the weights.npz of `keep_weights`, as
    REFERENCE. Raises `UserError` for a folder without a network that can be used.
    """
    from lggseg_utils import train

    folder = Path(folder)
    whole, weights = folder / "model.keras", folder / "weights.npz"
    if not (folder / "run.json").exists() or not (whole.exists() or weights.exists()):
        raise UserError(
            f"{folder} holds no trained network: run.json and model.keras are looked for. Name a finished run."
        )
    experiment = recorded_experiment(folder)
    model = train.load_model(whole) if whole.exists() else _read_weights(weights, experiment)
    side, channels = experiment.size, len(data.CHANNELS) * (2 * experiment.context + 1)
    if model.input_shape != (None, side, side, channels):
        raise UserError(
            f"{whole} takes {model.input_shape[1:]}, but {folder / 'run.json'} says {(side, side, channels)}."
        )
    return model, experiment


def about_reference():
    """What the reference model is, as a Markdown paragraph read from the files it consists of."""
    stored = json.loads((REFERENCE / "run.json").read_text(encoding="utf-8"))["stored"]
    patients = read_csv(REFERENCE / "split.csv")["split"].value_counts()
    megabytes = (REFERENCE / "weights.npz").stat().st_size / 1e6
    return (
        f"Its weights ({megabytes:.1f} MB) are those of the first fold of `recipe-cv`, the first, not picked by its score: trained on "
        f"{patients['train']} patients, validated on {patients['val']}, tested on {patients['test']} others, whose mean Dice is "
        f"{stored['dice_stored']:.3f}. Kernels are stored as float16, which changes {stored['pixels_changed']:,} of "
        f"{stored['pixels']:,} predicted test pixels."
    )


def keep_weights(model, path):
    """Write a network's weights to a compressed npz, in Keras' order; convolution kernels, nearly all of it, as float16."""
    arrays = [array.astype(np.float16) if array.ndim == 4 else array for array in model.get_weights()]
    with write_whole(path) as temporary:
        np.savez_compressed(temporary, *arrays)


def _read_weights(path, experiment):
    """The network of an experiment, in float32, with the weights that `keep_weights` wrote."""
    import keras

    from lggseg_utils.model import build_unet

    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    model = build_unet(experiment)
    keras.config.set_dtype_policy(policy)
    try:
        with np.load(path, allow_pickle=False) as stored:
            model.set_weights([stored[name] for name in stored.files])
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as problem:
        raise UserError(
            f"{path} does not hold this network's weights ({' '.join(str(problem).split())[:200]})."
        ) from None
    return model


def _listed(images):
    """Paths of the images named, and of those in the folders named; masks that lie beside them are left out."""
    paths = []
    for image in images:
        if not place(image).exists():
            raise UserError(f"{image} does not exist.")
        named = Path(image).expanduser()
        within = (
            [path for path in map(named.joinpath, sorted(data.tiff_files(named))) if not path.stem.endswith("_mask")]
            if named.is_dir()
            else [named]
        )
        paths += within
    if not paths:
        raise UserError(f"no image in {', '.join(map(str, images))}; .tif, .tiff are read.")
    stems = pd.Series([path.stem for path in paths])
    if stems.duplicated().any():
        raise UserError(
            f"two images are named {stems[stems.duplicated()].iloc[0]}: their masks would overwrite each other."
        )
    return paths


def _read(paths):
    """Table image, patient, slice in the order of patients and slices, and the pixels of each."""
    rows, pixels = [], []
    for path in paths:
        match = data.SLICE_NAME.fullmatch(path.name)
        numbered = match and not match["mask"]
        patient, number = (match["patient"], int(match["slice"])) if numbered else (path.stem, 0)
        try:
            pixels.append(data.decode_image(data.read_file(path)))
        except (data.BadSlice, OSError) as problem:
            raise UserError(f"{path} can't be used: {problem}. Nothing was written.") from None
        rows.append({"image": str(path), "patient": patient, "slice": number})
    order = sorted(range(len(rows)), key=lambda row: (rows[row]["patient"], rows[row]["slice"]))
    return pd.DataFrame(rows).loc[order].reset_index(drop=True), [pixels[row] for row in order]


def _as_cohort(files, pixels, experiment):
    """The images prepared as the network's training slices were; there are no masks."""
    images = np.stack([preprocess.resize_image(image, experiment.size) for image in pixels])
    preprocess.scale_volumes(images, files["patient"], experiment.scaling)
    return preprocess.Cohort(files, images, None, None, "", 0)


def _write(stem, image, mask):
    """Write mask and overlay of one image."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    overlay = cv2.drawContours(np.repeat(image[..., [data.FLAIR]], 3, axis=2), outlines, -1, OUTLINE)
    for kind, drawn in (("mask", np.uint8(255) * mask), ("overlay", overlay)):
        write_image(stem.with_name(f"{stem.name}_{kind}.png"), drawn)
