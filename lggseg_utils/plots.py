"""Every figure of the book, in one style; each function returns a matplotlib figure and says what it shows."""

import html
import re

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.ticker import MaxNLocator

from lggseg_utils import data, metrics

# Okabe and Ito's colours, told apart with every common colour blindness.
BLUE, ORANGE, GREEN, PURPLE, GREY, INK = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#8A8A8A", "#2B2B2B"
TRUTH, PREDICTION = "#F0E442", "#56B4E9"
SET_COLOURS = {"train": GREY, "val": ORANGE, "test": BLUE}
SET_NAMES = {"train": "training", "val": "validation", "test": "test"}
HATCHES = {"train": "..", "val": "//", "test": "xx"}


def set_style():
    """Set the book's figure style: quiet axes, white ground, sharp at twice the resolution."""
    sns.set_theme(
        context="notebook",
        style="ticks",
        rc={
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "axes.titlesize": 11,
            "axes.labelsize": 10.5,
            "xtick.labelsize": 9.5,
            "ytick.labelsize": 9.5,
            "legend.fontsize": 9.5,
            "legend.frameon": False,
            "figure.facecolor": "white",
            "figure.dpi": 80,
            "savefig.dpi": 160,
            "axes.titleweight": "regular",
            "figure.constrained_layout.use": True,
            # A patient's name may hold dollar signs.
            "text.parse_math": False,
            "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, PURPLE, GREY]),
        },
    )
    try:
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:
        return
    set_matplotlib_formats("png", facecolor="white", dpi=160)


def mark(figure, kind):
    """Write on a figure what its data are, e.g. 'phantom cohort', so that it can't be mistaken elsewhere."""
    figure.suptitle(kind, x=0.995, ha="right", fontsize=8.5, color=GREY)
    return figure


def table(frame, caption, kind, digits=3):
    """Lay a table out for a page: caption with what the data are, no index, floats with `digits` decimals."""
    return (
        frame.style.hide(axis="index")
        .format(precision=digits, na_rep="–", thousands=",", escape="html")
        .format_index(axis="columns", escape="html")
        .set_caption(html.escape(f"{caption} ({kind})", quote=False))
        .set_table_attributes('class="table"')
    )


def plain(name):
    """A name, such as a patient's, for Markdown: nothing in it is read as Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]()#+.!|~$-])", r"\\\1", html.escape(str(name), quote=False))


def _show(axis, image, title="", channel=data.FLAIR):
    """Show one channel of an image (height, width, 3), or a map, without axes."""
    shown = image[..., channel] if np.ndim(image) == 3 else image
    axis.imshow(shown, cmap="gray", vmin=0, vmax=max(float(np.max(shown)), 1e-6))
    axis.set_title(title, fontsize=8)
    axis.axis("off")


def _contour(axis, mask, colour, style="-"):
    """Draw a mask's outline, where there is one."""
    if np.any(mask):
        axis.contour(np.asarray(mask, dtype=float), [0.5], colors=[colour], linewidths=1.4, linestyles=[style])


def cohort_overview(slices):
    """Three panels: slices per patient, tumour area a slice, patients per institution."""
    patients = data.patient_table(slices)
    figure, axes = plt.subplots(1, 3, figsize=(10, 2.9))
    sns.histplot(patients["slices"], ax=axes[0], color=BLUE, discrete=True)
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_xlim(patients["slices"].min() - 4, patients["slices"].max() + 4)
    axes[0].set(xlabel="slices per patient", ylabel=f"patients (n = {len(patients)})")
    with_tumour = slices[slices["tumour_area"] > 0]
    share = 100 * with_tumour["tumour_area"] / (with_tumour["height"] * with_tumour["width"])
    sns.histplot(share, ax=axes[1], color=ORANGE, bins=24)
    axes[1].set(xlabel="tumour area, % of the slice", ylabel=f"slices with tumour (n = {len(with_tumour)})")
    counts = patients["institution"].replace("", "?").value_counts().sort_index()
    axes[2].bar(counts.index, counts, color=GREEN)
    axes[2].set(xlabel="institution (letters in the name)", ylabel=f"patients (n = {len(patients)})")
    return figure


def slice_gallery(images, masks, titles):
    """Slices side by side: the three channels in rows, the mask's outline on each. images (n, h, w, 3), masks (n, h, w)."""
    figure, axes = plt.subplots(3, len(images), figsize=(1.75 * len(images), 5.4), squeeze=False)
    for column, (image, mask, title) in enumerate(zip(images, masks, titles, strict=True)):
        for channel, name in enumerate(data.CHANNELS):
            _show(axes[channel, column], image, title if channel == 0 else "", channel)
            _contour(axes[channel, column], mask, TRUTH)
            if column == 0:
                axes[channel, 0].text(
                    -0.08, 0.5, name, rotation=90, va="center", ha="right", transform=axes[channel, 0].transAxes
                )
    return figure


def volume_strip(images, masks, numbers, predicted=None, columns=8):
    """One patient's FLAIR slices in order, with the outlines of mask and prediction; numbers: slice numbers."""
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.3 * columns, 1.5 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, mask, number in zip(axes.flat, images, masks, numbers, strict=False):
        _show(axis, image, f"slice {number}")
        _contour(axis, mask, TRUTH)
    for axis, prediction in zip(axes.flat, () if predicted is None else predicted, strict=False):
        _contour(axis, prediction, PREDICTION, "--")
    return figure


def before_and_after(original, resized, mask, resized_mask):
    """FLAIR of one slice before and after resizing, with the mask's outline and the sizes in the titles."""
    figure, axes = plt.subplots(1, 2, figsize=(6, 3.2))
    for axis, image, outline, name in ((axes[0], original, mask, "file"), (axes[1], resized, resized_mask, "resized")):
        _show(axis, image, f"{name}: {image.shape[1]}x{image.shape[0]} pixels")
        _contour(axis, outline, TRUTH)
    return figure


def scalings(scaled):
    """One dim slice under each MinMax range, on one grey scale; scaled: name -> float (h, w, 3)."""
    figure, axes = plt.subplots(1, len(scaled), figsize=(3 * len(scaled), 3.2))
    for axis, (name, image) in zip(axes, scaled.items(), strict=True):
        axis.imshow(image[..., data.FLAIR], cmap="gray", vmin=0, vmax=1)
        axis.set_title(
            f"range over the {name}\nFLAIR maximum {float(np.max(image[..., data.FLAIR])):.2f}", fontsize=9.5
        )
        axis.axis("off")
    return figure


def intensity_histograms(before, after, name):
    """Histograms of the three channels over all pixels above 0: as stored, and after MinMax scaling."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
    for axis, images, label in (
        (axes[0], before, "stored value (0 to 255)"),
        (axes[1], after, f"scaled over the {name} (0 to 1)"),
    ):
        for channel, colour in enumerate((BLUE, ORANGE, GREEN)):
            values = np.asarray(images)[..., channel].ravel()
            counts, edges = np.histogram(values[values > 0], bins=64)
            axis.stairs(100 * counts / counts.sum(), edges, color=colour, label=data.CHANNELS[channel], linewidth=1.5)
        axis.set(xlabel=label)
    axes[0].set_ylabel(f"% of pixels above 0\n(n = {len(before)} slices)")
    axes[1].legend()
    return figure


def split_map(splits, slices):
    """Which set each slice stands in, a patient a row, under each protocol; splits: name -> table of split.csv."""
    patients = sorted(slices["patient"].unique())
    figure, axes = plt.subplots(1, len(splits), figsize=(10, 4.2), sharey=True)
    for axis, (name, split) in zip(axes, splits.items(), strict=True):
        row = split["patient"].map({patient: number for number, patient in enumerate(patients)})
        for part, colour in SET_COLOURS.items():
            chosen = split["split"] == part
            axis.scatter(
                split["slice"][chosen], row[chosen], c=colour, marker="s", s=9, linewidths=0, label=SET_NAMES[part]
            )
        axis.set(title=f"split by {name}", xlabel="slice number")
    axes[0].set_ylabel(f"patient (n = {len(patients)})")
    axes[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), markerscale=2.5)
    return figure


def augmentation_examples(image, mask, changed):
    """One slice and what each augmentation makes of it; changed: name -> (image, mask)."""
    shown = {"original": (image, mask), **changed}
    figure, axes = plt.subplots(2, -(-len(shown) // 2), figsize=(10.5, 4.2))
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, (pixels, outline)) in zip(axes.flat, shown.items(), strict=False):
        axis.imshow(pixels[..., data.FLAIR], cmap="gray", vmin=0, vmax=1)
        axis.set_title(name.replace("_", " "), fontsize=9)
        _contour(axis, outline, TRUTH)
    return figure


def forest(compared, kind, baseline="none"):
    """Difference of each condition from the baseline with its 95 % interval; compared: table of `ablation.differences`."""
    figure, axis = plt.subplots(figsize=(7.5, 1.1 + 0.42 * len(compared)))
    position = np.arange(len(compared))[::-1]
    axis.axvline(0, color=GREY, linewidth=1)
    axis.errorbar(
        compared["difference"],
        position,
        color=BLUE,
        fmt="o",
        capsize=3,
        linestyle="none",
        xerr=[compared["difference"] - compared["low"], compared["high"] - compared["difference"]],
    )
    axis.set_yticks(position, compared["condition"].str.replace("_", " "))
    axis.set_ylim(-0.6, len(compared) - 0.4)
    patients = compared["patients"].iloc[0] if len(compared) else 0
    axis.set(xlabel=f"change in mean Dice per patient against {baseline}\n(n = {patients} validation patients, {kind})")
    return figure


def unet(experiment):
    """The U of the network, drawn from its settings: a box a level, its channels and side, and what joins them."""
    figure, axis = plt.subplots(figsize=(10, 4.6))
    depth, bottom = experiment.depth, experiment.depth - 1
    columns = {("down", level): level for level in range(depth)} | {
        ("up", level): 2 * bottom - level for level in range(bottom)
    }
    boxes = {}
    for (side, level), column in columns.items():
        channels, pixels = experiment.filters * 2**level, experiment.size // 2**level
        boxes[side, level] = _box(axis, 1.7 * column, -1.35 * level, level, f"{channels}", f"{pixels}x{pixels}")
    for level in range(bottom):
        _arrow(axis, boxes["down", level], boxes["down", level + 1], GREY)
        _arrow(axis, boxes["up", level + 1] if level + 1 < bottom else boxes["down", bottom], boxes["up", level], GREEN)
        _arrow(axis, boxes["down", level], boxes["up", level], ORANGE, "--")
    _finish_unet(axis, experiment, boxes)
    return figure


def _box(axis, x, y, level, channels, size):
    """One level's box; returns its centre."""
    width, height = 0.62 + 0.1 * level, 0.95
    axis.add_patch(
        Rectangle(
            (x - width / 2, y - height / 2), width, height, facecolor=BLUE, alpha=0.16 + 0.1 * level, edgecolor=BLUE
        )
    )
    axis.text(x, y + 0.12, channels, ha="center", va="center", fontsize=11, color=INK)
    axis.text(x, y - 0.22, size, ha="center", va="center", fontsize=7.5, color=INK)
    return x, y


def _arrow(axis, start, end, colour, style="-"):
    """An arrow between two boxes."""
    axis.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=11,
            color=colour,
            linestyle=style,
            shrinkA=22,
            shrinkB=22,
            linewidth=1.4,
        )
    )


def _finish_unet(axis, experiment, boxes):
    """Input, output, legend and limits of the U figure."""
    end, channels = boxes["up", 0][0], 3 * (2 * experiment.context + 1)
    axis.text(
        -0.5,
        0,
        f"image\n{experiment.size}x{experiment.size}x{channels}",
        ha="right",
        va="center",
        fontsize=9,
    )
    axis.text(
        end + 0.5,
        0,
        f"1x1 convolution,\n{experiment.output}:\nprobability of tumour",
        ha="left",
        va="center",
        fontsize=9,
    )
    labels = {
        "2x2 max-pooling": (GREY, "-"),
        "2x2 transposed convolution": (GREEN, "-"),
        "copy and concatenate": (ORANGE, "--"),
    }
    handles = [Line2D([], [], color=colour, linestyle=style, label=label) for label, (colour, style) in labels.items()]
    level = "twice: 3x3 convolution, " + ("batch normalisation, " if experiment.normalization == "batch" else "")
    handles.append(
        Rectangle((0, 0), 1, 1, facecolor=BLUE, alpha=0.3, label=level + f"ReLU, dropout {experiment.dropout:g}")
    )
    axis.legend(handles=handles, loc="lower center", ncols=2, bbox_to_anchor=(0.5, -0.2))
    axis.set(xlim=(-2, end + 2.2), ylim=(-1.35 * (experiment.depth - 1) - 0.7, 0.8))
    axis.axis("off")


def curves(history):
    """Loss, accuracy, Dice and IoU over the epochs, training and validation: the report's four curves."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 5.6), sharex=True)
    names = {
        "loss": "loss",
        "accuracy": "accuracy",
        "dice_coef": "dice_coef (soft, a batch)",
        "jacard_coef": "jacard_coef (soft IoU, a batch)",
    }
    for axis, (metric, label) in zip(axes.flat, names.items(), strict=True):
        axis.plot(history["epoch"], history[metric], color=GREY, label="training")
        axis.plot(history["epoch"], history[f"val_{metric}"], color=ORANGE, label="validation")
        axis.set_ylabel(label)
    best = history["epoch"][history["val_loss"].idxmin()]
    for axis in axes.flat:
        axis.axvline(best, color=BLUE, linewidth=1, linestyle=":", label=f"lowest validation loss (epoch {best})")
    for axis in axes[1]:
        axis.set_xlabel("epoch")
    axes[0, 0].legend()
    return figure


def dice_bars(per_patient):
    """Dice of each patient, sorted, with mean and median; pooled over the patient's slices in the table's set."""
    dice = per_patient["dice"].sort_values().to_numpy()
    figure, axis = plt.subplots(figsize=(9, 3))
    axis.bar(np.arange(len(dice)), dice, color=BLUE, width=0.8)
    axis.axhline(dice.mean(), color=ORANGE, label=f"mean {dice.mean():.3f}")
    axis.axhline(np.median(dice), color=GREEN, linestyle="--", label=f"median {np.median(dice):.3f}")
    axis.set(ylabel="Dice per patient", xlabel=f"patients, sorted (n = {len(dice)})", xticks=[], ylim=(0, 1))
    axis.margins(x=0.01)
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


def dice_against_size(per_slice):
    """Dice of each test slice with tumour against the tumour's area on the scoring grid."""
    chosen = per_slice[(per_slice["split"] == "test") & (per_slice["tp"] + per_slice["fn"] > 0)]
    figure, axis = plt.subplots(figsize=(7.5, 3.2))
    axis.scatter(
        chosen["tp"] + chosen["fn"], metrics.dice(chosen["tp"], chosen["fp"], chosen["fn"]), color=BLUE, alpha=0.6, s=22
    )
    axis.set(
        xscale="log",
        ylim=(-0.03, 1.03),
        xlabel="tumour area in the slice, pixels of the scoring grid (log scale)",
        ylabel=f"Dice per slice\n(n = {len(chosen)} test slices)",
    )
    return figure


def predictions(images, truths, predicted, examples):
    """FLAIR slices with the outlines of truth and prediction; examples: table with rank, patient, slice and dice."""
    figure, axes = plt.subplots(1, len(images), figsize=(3.3 * len(images), 3.9))
    for axis, image, truth, prediction, row in zip(axes, images, truths, predicted, examples.itertuples(), strict=True):
        _show(axis, image, f"{row.rank}: Dice {row.dice:.2f}\n{row.patient}, slice {row.slice}")
        _contour(axis, truth, TRUTH)
        _contour(axis, prediction, PREDICTION, "--")
    figure.legend(handles=_outlines(), loc="outside lower center", ncols=2)
    return figure


def reported_and_reproduced(compared):
    """Reported numbers beside ours with 95 % intervals, on the four scores from 0 to 1; compared: `results.compare`."""
    shown = compared[
        (compared["set"] != "readme") & compared["metric"].isin(("dice_coef", "jacard_coef", "accuracy", "mean_iou"))
    ]
    figure, axis = plt.subplots(figsize=(8.5, 0.9 + 0.32 * len(shown)))
    position = np.arange(len(shown))[::-1]
    axis.scatter(shown["reported"], position, marker="D", color=ORANGE, label="reported", zorder=3)
    low, high = (shown[name].astype(float).fillna(shown["reproduced"]) for name in ("low", "high"))
    gaps = np.clip([shown["reproduced"] - low, high - shown["reproduced"]], 0, None)
    axis.errorbar(
        shown["reproduced"], position, xerr=gaps, fmt="o", color=BLUE, capsize=3, label="reproduced, 95 % interval"
    )
    axis.set_yticks(position, [f"{SET_NAMES[row.set]}: {row.metric}" for row in shown.itertuples()])
    axis.set(xlim=(-0.02, 1.04), xlabel="score (0 to 1)")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return figure


def levels(image, answers):
    """One slice on its way down and up a U-Net; image (h, w, 3), answers: name -> (h, w), as `model.activations`."""
    down = [name for name in answers if name.startswith("down")]
    rows = [["FLAIR", *down, "bottom"], ["probability", *(name.replace("down", "up") for name in down)]]
    figure, axes = plt.subplots(2, len(rows[0]), figsize=(1.75 * len(rows[0]), 4.1))
    for axis in axes.flat:
        axis.axis("off")
    for row, names in zip(axes, rows, strict=True):
        for axis, name in zip(row, names, strict=False):
            shown = image[..., data.FLAIR] if name == "FLAIR" else answers[name]
            axis.imshow(shown, cmap="gray", interpolation="nearest")
            axis.set_title(f"{name}\n{shown.shape[0]}x{shown.shape[1]}", fontsize=9)
    return figure


def overfit_curve(dice):
    """Soft Dice on a few slices after each training step."""
    figure, axis = plt.subplots(figsize=(6.5, 2.6))
    axis.plot(np.arange(1, len(dice) + 1), dice, color=BLUE)
    axis.axhline(1, color=GREY, linewidth=1)
    axis.set(xlabel="training step (n = 4 slices)", ylabel="soft Dice, one batch", ylim=(0, 1.05))
    return figure


def definition_pairs(ours, reported):
    """Pairs of IoU and Dice: ours under many definitions, the reported ones, and the curve that one set of pixels lies on.

    ours: table set, IoU, Dice; reported: set -> (Dice, IoU).
    """
    figure, axis = plt.subplots(figsize=(7, 4.6))
    iou = np.linspace(0.3, 1, 100)
    axis.plot(iou, metrics.dice_from_iou(iou), color=GREY, linewidth=1, label="Dice = 2 IoU/(1 + IoU)")
    for name, colour in SET_COLOURS.items():
        chosen = ours[ours["set"] == name]
        axis.scatter(chosen["IoU"], chosen["Dice"], color=colour, s=16, alpha=0.6, linewidths=0)
        dice, reported_iou = reported[name]
        label = f"reported, {SET_NAMES[name]}"
        axis.scatter(reported_iou, dice, marker="D", s=64, color=colour, edgecolor=INK, zorder=3, label=label)
    axis.scatter([], [], color=INK, s=16, label="ours, a definition each")
    axis.set(xlabel="IoU", ylabel="Dice", xlim=(0.45, 1.01), ylim=(0.6, 1.01))
    axis.legend(loc="lower right")
    return figure


def share_histograms(shares, bounds):
    """Tumour shares of sets drawn in three ways, and the bounds that two of the report's tables set.

    shares: table draw, share; bounds: set -> (low, high).
    """
    figure, axis = plt.subplots(figsize=(8, 3.4))
    for (name, drawn), colour in zip(shares.groupby("draw", sort=False), (BLUE, ORANGE, GREEN), strict=True):
        counts, edges = np.histogram(100 * drawn["share"], bins=40)
        axis.stairs(100 * counts / counts.sum(), edges, fill=True, alpha=0.5, color=colour, label=name)
    axis.set_ylim(0, 1.25 * axis.get_ylim()[1])
    for name, (low, high) in bounds.items():
        label = f"the report's {SET_NAMES[name]} set"
        axis.axvspan(
            100 * low, 100 * high, alpha=0.25, color=SET_COLOURS[name], hatch=HATCHES[name], linewidth=0, label=label
        )
    number = len(shares) // shares["draw"].nunique()
    axis.set(xlabel="share of tumour pixels in the set, %", ylabel=f"% of draws (n = {number:,} each)")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def draw_histograms(draws):
    """Histograms of a score over sets drawn at random, with the range that holds 95 %; draws: label -> float (n,)."""
    figure, axes = plt.subplots(1, len(draws), figsize=(4.6 * len(draws), 3), squeeze=False)
    for axis, (label, values) in zip(axes[0], draws.items(), strict=True):
        low, high = np.quantile(values, (0.025, 0.975))
        axis.axvspan(low, high, color=BLUE, alpha=0.12, linewidth=0, label=f"95 %: {low:.2f} to {high:.2f}")
        axis.hist(values, bins=40, color=BLUE, histtype="stepfilled")
        axis.set(xlabel=label, xlim=(0, 1), ylabel=f"sets drawn (n = {len(values):,})")
        axis.legend(loc="upper left")
    return figure


def paired_patients(x, y, xlabel, ylabel):
    """Dice of each patient under two cross-validations, float (n,) each, and the line where both are equal."""
    figure, axis = plt.subplots(figsize=(4.8, 4.6))
    axis.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    axis.scatter(x, y, color=BLUE, s=24, alpha=0.7, linewidths=0)
    axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel=xlabel, ylabel=f"{ylabel}\n(n = {len(x)} patients)")
    return figure


def seed_dots(ends):
    """Where each training ends, a row a precision, with the mean over its seeds; ends: table of `findings.seed_means`."""
    groups = list(ends.groupby("precision")["dice"])
    figure, axis = plt.subplots(figsize=(7, 0.9 + 0.5 * len(groups)))
    for y, (_, dice) in enumerate(groups):
        axis.scatter(dice, np.full(len(dice), y), color=BLUE, s=36, alpha=0.8, linewidths=0)
        axis.plot([dice.mean()] * 2, [y - 0.25, y + 0.25], color=INK)
    axis.set_yticks(range(len(groups)), [f"{name} (n = {len(dice)} seeds)" for name, dice in groups])
    axis.set(xlabel="mean Dice per validation patient", ylim=(len(groups) - 0.4, -0.6))
    return figure


def dice_by_group(table, xlabel):
    """Median Dice a group with the number of slices behind it; table: group, slices, median Dice."""
    figure, axis = plt.subplots(figsize=(7, 0.9 + 0.36 * len(table)))
    position = np.arange(len(table))[::-1]
    axis.barh(position, table["median Dice"], color=BLUE, height=0.65)
    for y, row in zip(position, table.itertuples(), strict=True):
        axis.text(0.01, y, f"n = {row.slices:,}", va="center", color="white", fontsize=8.5)
    axis.set_yticks(position, table["group"].astype(str))
    axis.set(xlim=(0, 1), xlabel=xlabel)
    return figure


def prediction_rows(images, truths, predicted, titles):
    """FLAIR slices with the outlines of truth and prediction, a row for each network; predicted: label -> masks (n, h, w)."""
    figure, axes = plt.subplots(
        len(predicted), len(images), figsize=(2.1 * len(images), 2.5 * len(predicted)), squeeze=False
    )
    for number, (row, (label, masks)) in enumerate(zip(axes, predicted.items(), strict=True)):
        for axis, image, truth, mask, title in zip(row, images, truths, masks, titles, strict=True):
            _show(axis, image, "" if number else title)
            _contour(axis, truth, TRUTH)
            _contour(axis, mask, PREDICTION, "--")
        row[0].text(-0.06, 0.5, label, rotation=90, va="center", ha="right", transform=row[0].transAxes, fontsize=9)
    figure.legend(handles=_outlines(), loc="outside lower center", ncols=2)
    return figure


def _outlines():
    """What the two outlines are, for a legend; the truth's colour is darker than on the image, to be seen on white."""
    return [
        Line2D([], [], color="#B8A900", label="truth"),
        Line2D([], [], color=PREDICTION, linestyle="--", label="prediction"),
    ]
