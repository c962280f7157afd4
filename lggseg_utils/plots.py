"""The book's style, its tables, and the figures that more than one chapter uses."""

import html

import altair
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.lines import Line2D
from matplotlib_inline.backend_inline import set_matplotlib_formats

from lggseg_utils import data

# Okabe and Ito's colours, distinguishable with every common colour blindness.
BLUE, ORANGE, GREEN, PURPLE, GREY, INK = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#8A8A8A",
    "#2B2B2B",
)
TRUTH, PREDICTION = "#F0E442", "#56B4E9"
SET_COLOURS = {"train": GREY, "val": ORANGE, "test": BLUE}
SET_NAMES = {"train": "training", "val": "validation", "test": "test"}
WIDTH = 6.0  # inches of every figure, so that all type has one size
VEGA_LITE = f"application/vnd.vegalite.v{altair.SCHEMA_VERSION[1]}+json"
FONT_SIZE = 11  # points: 9 pixels or more on a screen 420 pixels wide


def set_style():
    """Set the book's figure style: quiet axes, one type size, white ground, sharp on fine screens."""
    parts = ("axes.title", "axes.label", "xtick.label", "ytick.label", "legend.font")
    size = {f"{part}size": FONT_SIZE for part in parts}
    colours = {"axes.edgecolor": INK, "axes.labelcolor": INK, "figure.facecolor": "white"}
    quiet = {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "figure.dpi": 100,
    }
    layout = {
        "savefig.dpi": 160,
        "figure.constrained_layout.use": True,
        "figure.figsize": (WIDTH, 3),
    }
    cycle = {"axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, PURPLE, GREY])}
    sns.set_theme(
        style="ticks", rc={**size, **colours, **quiet, **layout, **cycle, "font.size": FONT_SIZE}
    )
    # Cut to its content, a figure would be enlarged on the page, and its type with it.
    set_matplotlib_formats("png", dpi=160, bbox_inches=None)
    # Beside its HTML a chart keeps its specification, from which the book draws it without a network.
    altair.renderers.enable("html")
    as_html = altair.renderers.get()
    altair.renderers.register("book", lambda spec, **_: {**as_html(spec), VEGA_LITE: spec})
    altair.renderers.enable("book")


def table(frame, caption):
    """Return a table for a page: no index, numbers right-aligned with three decimals, a dash for no value."""
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
    if entry["low"] is None:
        return "–" if entry["value"] is None else f"{entry['value']:.3f}"
    return f"{entry['value']:.3f} ({entry['low']:.3f} to {entry['high']:.3f})"


def show_slice(axis, image, title="", truth=None, prediction=None, channel=data.FLAIR):
    """Show one channel of an image (height, width, 3) with the outlines of masks (height, width), on black."""
    shown = image[..., channel]
    axis.imshow(shown, cmap="gray", vmin=0, vmax=max(float(np.max(shown)), 1e-6))
    for mask, colour, style in ((truth, TRUTH, "-"), (prediction, PREDICTION, "--")):
        if mask is not None and np.any(mask):
            axis.contour(
                np.asarray(mask, dtype=float),
                [0.5],
                colors=[colour],
                linewidths=1.4,
                linestyles=[style],
            )
    axis.set_title(title, color="white")
    axis.axis("off")
    axis.figure.set_facecolor("black")


def slices(images, titles, truths=None, predictions=None, columns=5):
    """Draw slices side by side in rows, with the outlines of truth and prediction. images (n, h, w, 3), masks (n, h, w)."""
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(WIDTH, 0.3 + rows * (WIDTH / columns + 0.25)), squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for position, (axis, image, title) in enumerate(zip(axes.flat, images, titles, strict=False)):
        masks = [None if volume is None else volume[position] for volume in (truths, predictions)]
        show_slice(axis, image, title, *masks)
    if predictions is not None:
        lines = {"truth": (TRUTH, "-"), "prediction": (PREDICTION, "--")}
        handles = [
            Line2D([], [], color=colour, linestyle=style, label=name)
            for name, (colour, style) in lines.items()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, labelcolor="white")
    return figure


def forest(compared, xlabel):
    """Draw differences with their 95% intervals, a row per condition: a table of `stats.compare_conditions`."""
    figure, axis = plt.subplots(figsize=(WIDTH, 1 + 0.32 * len(compared)))
    position = np.arange(len(compared))[::-1]
    axis.axvline(0, color=GREY, linewidth=1)
    gaps = [compared["difference"] - compared["low"], compared["high"] - compared["difference"]]
    axis.errorbar(compared["difference"], position, xerr=gaps, fmt="o", color=BLUE, capsize=3)
    axis.set_yticks(position, compared["condition"].str.replace("_", " "))
    axis.set(xlabel=xlabel, ylim=(-0.6, len(compared) - 0.4))
    return figure


def dice_bars(per_patient):
    """Draw the Dice of each patient, sorted, with mean and median."""
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
    """Draw the Dice of each patient under two cross-validations, float (n,) each, and the line where both are equal."""
    figure, axis = plt.subplots(figsize=(WIDTH, WIDTH * 0.55))
    axis.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    axis.scatter(x, y, color=BLUE, s=24, alpha=0.7, linewidths=0)
    span, ticks = (-0.03, 1.03), np.linspace(0, 1, 6)
    axis.set(aspect="equal", xlim=span, ylim=span, xticks=ticks, yticks=ticks)
    axis.set(xlabel=xlabel, ylabel=f"{ylabel}\n(n = {len(x)} patients)")
    return figure
