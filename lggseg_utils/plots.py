"""The book's style, its tables, and the figures that more than one chapter uses."""

import html

import altair
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib_inline.backend_inline import set_matplotlib_formats

from lggseg_utils import data, preprocess, records

# Okabe and Ito's colours, distinguishable with every common colour blindness.
BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
PURPLE = "#CC79A7"
GREY = "#8A8A8A"
INK = "#2B2B2B"
TRUTH = "#F0E442"
PREDICTION = "#56B4E9"
SET_COLOURS = {"train": GREY, "val": ORANGE, "test": BLUE}
SET_NAMES = records.SET_NAMES
WIDTH = 6.0  # inches of every figure, so that all type has one size
FONT_SIZE = 11  # points: 9 pixels or more on a screen 420 pixels wide
VEGA_LITE = f"application/vnd.vegalite.v{altair.SCHEMA_VERSION[1]}+json"

# Seaborn's style "ticks" as far as it shows here; seaborn itself takes seconds to load.
STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.labelsize": FONT_SIZE,
    "axes.linewidth": 1.25,
    "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, PURPLE, GREY]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": FONT_SIZE,
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "figure.figsize": (WIDTH, 3),
    "font.size": FONT_SIZE,
    "grid.color": "0.8",
    "grid.linewidth": 1,
    "legend.fontsize": FONT_SIZE,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
    "patch.edgecolor": "white",
    "patch.force_edgecolor": True,
    "savefig.dpi": 160,
    "text.color": "0.15",
    "xtick.color": "0.15",
    "xtick.labelsize": FONT_SIZE,
    "xtick.major.size": 6,
    "xtick.major.width": 1.25,
    "xtick.minor.size": 4,
    "xtick.minor.width": 1,
    "ytick.color": "0.15",
    "ytick.labelsize": FONT_SIZE,
    "ytick.major.size": 6,
    "ytick.major.width": 1.25,
    "ytick.minor.size": 4,
    "ytick.minor.width": 1,
}


def set_style():
    """Set the book's style of figures: quiet axes, one type size, sharp on fine screens."""
    plt.rcParams.update(STYLE)
    # Cut to its content, a figure would be enlarged on the page, and its type with it.
    set_matplotlib_formats("png", dpi=160, bbox_inches=None)
    # Beside its HTML a chart keeps its specification, from which the book draws it without a
    # network.
    altair.renderers.enable("html")
    as_html = altair.renderers.get()
    altair.renderers.register("book", lambda spec, **_: {**as_html(spec), VEGA_LITE: spec})
    altair.renderers.enable("book")


def table(frame, caption):
    """Return a table for a page, a pandas `Styler`: no index, numbers with three decimals.

    Numbers are aligned to the right; a dash stands for no value. caption: plain text.
    """
    numbers = frame.select_dtypes("number").columns
    return (
        frame.style.hide(axis="index")
        .format(precision=3, na_rep="–", thousands=",", escape="html")
        .set_properties(subset=list(numbers), **{"text-align": "right"})
        .set_caption(html.escape(caption, quote=False))
        .set_table_attributes('class="table"')
    )


def score(entry):
    """Return an entry of metrics.json as text: the value, and its interval where it has one."""
    if pd.isna(entry["value"]):
        return "–"
    if pd.isna(entry["low"]):
        return f"{entry['value']:.3f}"
    return f"{entry['value']:.3f} ({entry['low']:.3f} to {entry['high']:.3f})"


def show_slice(
    axis, image, title="", truth=None, prediction=None, channel=data.FLAIR, linewidth=1.6
):
    """Show one channel of an image (height, width, 3) on black, with the outlines of its masks.

    truth, prediction: (height, width) of 0 and 1, or None; linewidth: of the outlines, in points.
    """
    shown = image[..., channel]
    axis.imshow(shown, cmap="gray", vmin=0, vmax=max(float(np.max(shown)), 1e-6))
    for mask, colour, style in ((truth, TRUTH, "-"), (prediction, PREDICTION, "--")):
        if mask is not None and np.any(mask):
            axis.contour(
                np.asarray(mask, dtype=float),
                [0.5],
                colors=[colour],
                linewidths=linewidth,
                linestyles=[style],
            )
    axis.set_title(title, color="white")
    axis.axis("off")
    axis.figure.set_facecolor("black")


def head_box(image):
    """Return the smallest square around the head on an image (side, side, 3), with a margin of
    three pixels where the image has it: two slice objects, rows and columns.
    """
    flair = image[..., data.FLAIR]
    inside = np.argwhere(flair > preprocess.HEAD * np.percentile(flair, 99))
    low, high = inside.min(0), inside.max(0) + 1
    half = min((high - low).max() // 2 + 3, len(flair) // 2)
    middle = np.clip((low + high) // 2, half, len(flair) - half)
    return tuple(slice(centre - half, centre + half) for centre in middle)


def slices(images, titles, truths=None, predictions=None, columns=5, to_head=False):
    """Draw slices side by side in rows, with the outlines of truth and prediction.

    images: n of (height, width, 3); titles: n texts; masks: n of (height, width), or None. The
    fewer columns, the thicker the outlines. to_head: show of each slice the `head_box` alone.
    Returns the figure, as do the functions below.
    """
    rows = -(-len(images) // columns)
    size = (WIDTH, 0.5 + rows * (WIDTH / columns + 0.3))
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for position, (image, title) in enumerate(zip(images, titles, strict=False)):
        box = head_box(image) if to_head else np.s_[:, :]
        truth, prediction = (
            None if masks is None else masks[position][box] for masks in (truths, predictions)
        )
        show_slice(axes.flat[position], image[box], title, truth, prediction, linewidth=8 / columns)
    if predictions is not None:
        add_legend_of_outlines(figure, truth=truths is not None)
    return figure


def add_legend_of_outlines(figure, truth=True):
    """Say below a figure of slices which outline is which; truth: whether the figure shows it."""
    handles = [Line2D([], [], color=PREDICTION, linestyle="--", label="prediction")]
    if truth:
        handles.insert(0, Line2D([], [], color=TRUTH, linestyle="-", label="truth"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2, labelcolor="white")


def forest(compared, xlabel):
    """Draw differences with their 95% intervals, a row per condition.

    compared: a table of `stats.compare_conditions`.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 1 + 0.32 * len(compared)))
    position = np.arange(len(compared))[::-1]
    axis.axvline(0, color=GREY, linewidth=1)
    gaps = [compared["difference"] - compared["low"], compared["high"] - compared["difference"]]
    axis.errorbar(compared["difference"], position, xerr=gaps, fmt="o", color=BLUE, capsize=3)
    axis.set_yticks(position, compared["condition"].str.replace("_", " "))
    axis.set(xlabel=xlabel, ylim=(-0.6, len(compared) - 0.4))
    return figure


def dice_bars(per_patient):
    """Draw the Dice of each patient, the column `dice` of a table, sorted, with mean and median."""
    dice = per_patient["dice"].sort_values().to_numpy()
    figure, axis = plt.subplots(figsize=(WIDTH, 2.8))
    axis.bar(np.arange(len(dice)), dice, color=BLUE, width=0.8)
    axis.axhline(dice.mean(), color=ORANGE, label=f"mean {dice.mean():.3f}")
    axis.axhline(
        np.median(dice), color=GREEN, linestyle="--", label=f"median {np.median(dice):.3f}"
    )
    axis.set(
        ylabel="Dice per patient",
        xlabel=f"patients, sorted (n = {len(dice)})",
        xticks=[],
        ylim=(0, 1),
    )
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def paired_patients(x, y, xlabel, ylabel):
    """Draw the Dice of each patient under two cross-validations, and the line where both are equal.

    x, y: float (n,) each, 0 to 1.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, WIDTH * 0.55))
    axis.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    axis.scatter(x, y, color=BLUE, s=24, alpha=0.7, linewidths=0)
    span, ticks = (-0.03, 1.03), np.linspace(0, 1, 6)
    axis.set(aspect="equal", xlim=span, ylim=span, xticks=ticks, yticks=ticks)
    axis.set(xlabel=xlabel, ylabel=f"{ylabel}\n(n = {len(x)} patients)")
    return figure
