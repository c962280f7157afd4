"""What answers to the reader: a slider through a volume, charts to hover over; HTML without a server or the network.

Ready-made volume viewers (ipywidgets, niivue) need a kernel, or several megabytes of scripts. The charts are Altair's.
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
from lggseg_utils.plots import BLUE, GREY, ORANGE, PREDICTION, TRUTH

TEMPLATE = Template((Path(__file__).parent / "viewer.html").read_text(encoding="utf-8"))
COLOURS = {"truth": TRUTH, "prediction": PREDICTION}
QUALITY = 85  # of WebP, 0 to 100
SCORES = ["loss", "accuracy", "dice_coef", "jacard_coef"]


def volume_viewer(images, numbers, patient, **outlines):
    """Return an `IPython.display.HTML` with a slider through one patient's slices, three channels side by side.

    images: uint8 (n, side, side, 3), channels as `data.CHANNELS`; numbers: the n slice numbers; outlines: `truth` and,
    if there is one, `prediction`, masks (n, side, side) of 0 and 1. It opens at the slice with the largest truth.
    Without JavaScript it stays hidden.
    """
    side = images.shape[1]
    content = {"outlines": list(outlines), "slices": _slices(images, numbers, outlines)}
    script = json.dumps(content).replace("</", r"<\/")
    page = TEMPLATE.substitute(
        id="volume-" + hashlib.sha256(script.encode()).hexdigest()[:10],
        patient=escape(str(patient)),
        panels="".join(_panel(name, side, patient, outlines) for name in data.CHANNELS),
        toggles="".join(_toggle(name) for name in outlines),
        first=int(np.asarray(outlines["truth"]).sum((1, 2)).argmax()),
        last=len(images) - 1,
        data=script,
        truth_colour=COLOURS["truth"],
        prediction_colour=COLOURS["prediction"],
    )
    return HTML(page)


def _slices(images, numbers, outlines):
    """For each slice its three pictures, its outlines as SVG paths and a sentence to read."""
    brightest = images.max((0, 1, 2))
    rows = []
    for position, number in enumerate(numbers):
        masks = {name: np.asarray(masks[position]) > 0 for name, masks in outlines.items()}
        paths = {name: outline(mask) for name, mask in masks.items()}
        pictures = [_picture(images[position, ..., channel], top) for channel, top in enumerate(brightest)]
        rows.append({**paths, "pictures": pictures, "reading": _reading(number, masks)})
    return rows


def _reading(number, masks):
    """One slice in words: its number, the tumour's share, and the Dice where there is a prediction."""
    truth = masks["truth"]
    text = f"slice {number}: " + (f"tumour on {truth.mean():.1%} of it" if truth.any() else "no tumour")
    if "prediction" not in masks:
        return text
    predicted = masks["prediction"]
    if not truth.any() and not predicted.any():
        return f"{text}, none predicted"
    score = metrics.dice((truth & predicted).sum(), (~truth & predicted).sum(), (truth & ~predicted).sum())
    return f"{text}, Dice {score:.2f}"


def outline(mask):
    """Outline of a mask (side, side) of 0 and 1 as an SVG path, in pixels from the upper left corner; '' if empty."""
    lines = contourpy.contour_generator(z=np.pad(np.asarray(mask, dtype=float), 1)).lines(0.5)
    # Contours run through pixel centres: half a pixel to their edges, less one for the padding.
    return "".join("M" + "L".join(f"{x - 0.5:.4g} {y - 0.5:.4g}" for x, y in line) for line in lines)


def _panel(name, side, patient, outlines):
    """One channel's panel, still empty."""
    paths = "".join(f'<path class="{outline_name}"/>' for outline_name in outlines)
    return (
        f'<div class="panel"><svg viewBox="0 0 {side} {side}" role="img" aria-label="{name} slice of {escape(str(patient))}">'
        f'<image width="{side}" height="{side}"/>{paths}</svg>{name}</div>'
    )


def _picture(channel, brightest):
    """One channel of a slice (side, side) as the address of a picture; `brightest` of the volume becomes white."""
    stretched = np.round(channel * (255 / max(brightest, 1))).astype(np.uint8)
    _, encoded = cv2.imencode(".webp", stretched, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    return "data:image/webp;base64," + base64.b64encode(encoded).decode()


def _toggle(name):
    """A check box that shows or hides an outline."""
    sample = f'<svg width="26" height="8" aria-hidden="true"><path class="{name}" d="M0 4H26"/></svg>'
    return f'<label><input type="checkbox" name="{name}" checked> {name} {sample}</label>'


def hover_curves(history, kind):
    """The four curves of a history table, with epoch and values under the pointer; kind: what the data are."""
    import altair

    curves = history.melt("epoch", [name for name in history if name.removeprefix("val_") in SCORES], "curve", "value")
    named = curves.assign(
        score=curves["curve"].str.removeprefix("val_"),
        set=np.where(curves["curve"].str.startswith("val_"), "validation", "training"),
    )
    line = altair.Chart(named).encode(
        x=altair.X("epoch:Q", axis=altair.Axis(tickMinStep=1)),
        y=altair.Y("value:Q", title=None, scale=altair.Scale(zero=False)),
        color=altair.Color(
            "set:N", scale=altair.Scale(range=[GREY, ORANGE]), title=None, legend=altair.Legend(orient="top")
        ),
        tooltip=["epoch:Q", "set:N", altair.Tooltip("value:Q", format=".4f")],
    )
    drawn = (line.mark_line() + line.mark_point(filled=True, size=30, opacity=1)).properties(width=270, height=150)
    chart = drawn.facet(altair.Facet("score:N", title=None, sort=SCORES), columns=2)
    return _frame(chart.resolve_scale(y="independent"), f"Curves of the training to hover over ({kind})", 520)


def hover_patients(per_patient, kind):
    """Dice of each test patient, sorted, with the patient's name and slices under the pointer; kind: what the data are."""
    import altair

    chosen = per_patient.loc[per_patient["split"] == "test", ["patient", "slices", "tumour_slices", "dice"]]
    chart = (
        altair.Chart(chosen)
        .mark_bar(color=BLUE)
        .encode(
            x=altair.X("dice:Q", scale=altair.Scale(domain=[0, 1]), title="Dice per patient"),
            y=altair.Y("patient:N", sort="-x", title=None),
            tooltip=["patient:N", altair.Tooltip("dice:Q", format=".3f"), "slices:Q", "tumour_slices:Q"],
        )
    )
    sized = chart.properties(width=420, height=altair.Step(20))
    return _frame(sized, f"Dice of each patient to hover over ({kind})", 110 + 20 * len(chosen))


def _frame(chart, title, height):
    """A chart in a frame of its own, with all scripts it needs; height in pixels."""
    page = chart.properties(title=title).to_html(inline=True, embed_options={"renderer": "svg", "actions": False})
    return HTML(
        f'<div class="chart"><iframe title="{escape(title)}" srcdoc="{escape(page)}" loading="lazy" '
        f'style="width: 100%; height: {height}px; border: 0; background: #fff; border-radius: 4px"></iframe></div>'
    )
