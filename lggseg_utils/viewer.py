"""A slider through a volume, as plain HTML: ready-made viewers (ipywidgets, niivue) need a kernel or megabytes of scripts."""

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
    """Return an `IPython.display.HTML` with a slider through one patient's slices, three channels side by side.

    images: uint8 (n, side, side, 3), channels as `data.CHANNELS`; numbers: the n slice numbers; masks: `truth` and, if there
    is one, `prediction`, (n, side, side) of 0 and 1. It opens at the slice with the largest truth; without JavaScript it is hidden.
    """
    masks = {name: np.asarray(mask) > 0 for name, mask in masks.items()}
    shown = {"outlines": list(masks), "channels": data.CHANNELS, "side": images.shape[1]}
    shown["first"] = int(masks["truth"].sum((1, 2)).argmax())
    shown["slices"] = [
        {
            **{name: outline(mask[position]) for name, mask in masks.items()},
            "pictures": [
                _picture(images[position, ..., channel], images[..., channel].max())
                for channel in range(3)
            ],
            "reading": _reading(number, **{name: mask[position] for name, mask in masks.items()}),
        }
        for position, number in enumerate(numbers)
    ]
    content = json.dumps(shown)
    name = "volume-" + hashlib.sha256(content.encode()).hexdigest()[:10]
    colours = {"truth_colour": TRUTH, "prediction_colour": PREDICTION}
    return HTML(TEMPLATE.substitute(id=name, patient=escape(str(patient)), data=content, **colours))


def _reading(number, truth, prediction=None):
    """Describe one slice: its number, the tumour's share, and the Dice where there is a prediction."""
    text = f"slice {number}: " + (
        f"tumour on {truth.mean():.1%} of it" if truth.any() else "no tumour"
    )
    if prediction is None:
        return text
    if not truth.any() and not prediction.any():
        return f"{text}, none predicted"
    score = metrics.dice(
        (truth & prediction).sum(), (~truth & prediction).sum(), (truth & ~prediction).sum()
    )
    return f"{text}, Dice {score:.2f}"


def outline(mask):
    """Return the outline of a mask (side, side) as an SVG path in pixels from the upper left corner; '' if empty."""
    lines = contourpy.contour_generator(z=np.pad(np.asarray(mask, dtype=float), 1)).lines(0.5)
    # Contours run through pixel centres: half a pixel to their edges, less one for the padding.
    return "".join(
        "M" + "L".join(f"{x - 0.5:.4g} {y - 0.5:.4g}" for x, y in line) for line in lines
    )


def _picture(channel, brightest):
    """Return one channel of a slice (side, side) as a data URL of a picture; `brightest` becomes white."""
    stretched = np.round(channel * (255 / max(brightest, 1))).astype(np.uint8)
    _, encoded = cv2.imencode(".webp", stretched, [cv2.IMWRITE_WEBP_QUALITY, 85])
    return "data:image/webp;base64," + base64.b64encode(encoded).decode()
