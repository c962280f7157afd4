"""A slider through a volume, as plain HTML.

Ready-made viewers (ipywidgets, niivue) need a kernel or megabytes of scripts.
"""

import base64
import hashlib
import json
from html import escape
from pathlib import Path
from string import Template

import contourpy
import cv2
import numpy as np
from IPython.display import HTML

from lggseg_utils import data, metrics
from lggseg_utils.plots import PREDICTION, TRUTH

TEMPLATE = Template((Path(__file__).parent / "viewer.html").read_text(encoding="utf-8"))


def volume_viewer(images, numbers, patient, **masks):
    """Return an `IPython.display.HTML` with a slider through one patient's slices.

    images: uint8 (n, side, side, 3), channels as `data.CHANNELS`, shown side by side; numbers:
    the n slice numbers; masks: `truth` and, if there is one, `prediction`, (n, side, side) of 0
    and 1. It opens at the slice with the largest truth; without JavaScript it is hidden.
    """
    masks = {name: np.asarray(mask) > 0 for name, mask in masks.items()}
    brightest = images.max((0, 1, 2))
    slices = []
    for position, number in enumerate(numbers):
        own = {name: mask[position] for name, mask in masks.items()}
        slices.append(_slice_content(images[position], brightest, number, own))
    content = json.dumps(
        {
            "outlines": list(masks),
            "channels": data.CHANNELS,
            "side": images.shape[1],
            "first": int(masks["truth"].sum((1, 2)).argmax()),
            "slices": slices,
        }
    )
    page = TEMPLATE.substitute(
        id="volume-" + hashlib.sha256(content.encode()).hexdigest()[:10],
        patient=escape(str(patient)),
        data=content,
        truth_colour=TRUTH,
        prediction_colour=PREDICTION,
    )
    return HTML(page)


def _slice_content(image, brightest, number, masks):
    """Return what the page shows of one slice: outlines by name, `pictures`, and `reading`.

    image: uint8 (side, side, 3); brightest: of the volume's channels; masks: bool (side, side).
    """
    pictures = [_picture(image[..., channel], brightest[channel]) for channel in range(3)]
    return {
        **{name: outline(mask) for name, mask in masks.items()},
        "pictures": pictures,
        "reading": _reading(number, **masks),
    }


def _reading(number, truth, prediction=None):
    """Describe one slice: its number, the tumour's share, and the Dice of a prediction."""
    text = f"slice {number}: no tumour"
    if truth.any():
        text = f"slice {number}: tumour on {truth.mean():.1%} of it"
    if prediction is None:
        return text
    if not truth.any() and not prediction.any():
        return f"{text}, none predicted"
    tp = (truth & prediction).sum()
    fp = (~truth & prediction).sum()
    fn = (truth & ~prediction).sum()
    return f"{text}, Dice {metrics.dice(tp, fp, fn):.2f}"


def outline(mask):
    """Return the outline of a mask (side, side) as an SVG path; '' if the mask is empty.

    Its unit is a pixel, its origin the upper left corner of the upper left pixel.
    """
    padded = np.pad(np.asarray(mask, dtype=float), 1)
    path = ""
    for line in contourpy.contour_generator(z=padded).lines(0.5):
        # Contours run through pixel centres: half a pixel to their edges, less one of padding.
        path += "M" + "L".join(f"{x - 0.5:.4g} {y - 0.5:.4g}" for x, y in line)
    return path


def _picture(channel, brightest):
    """Return one channel of a slice (side, side) as the data URL of a picture.

    `brightest` becomes white.
    """
    stretched = np.round(channel * (255 / max(brightest, 1))).astype(np.uint8)
    _, encoded = cv2.imencode(".webp", stretched, [cv2.IMWRITE_WEBP_QUALITY, 85])
    return "data:image/webp;base64," + base64.b64encode(encoded).decode()
