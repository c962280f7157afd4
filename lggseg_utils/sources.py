"""What the sources report, and what follows from it by arithmetic and by drawing sets at random."""

from pathlib import Path

import pandas as pd
import yaml

from lggseg_utils import metrics, records, stats

REPORTED = yaml.safe_load((Path(__file__).parent / "reported.yml").read_text(encoding="utf-8"))
TABLES = REPORTED["tables"]  # the report's own: set -> score -> number
# What the report's tables call the scores of this package: as the history of a training does.
NAMES = records.HISTORY_SCORES


def reported(part, score):
    """Return one number of tables 1 to 3: loss, accuracy, dice or iou of a set."""
    theirs = next(name for name, ours in NAMES.items() if ours == score)
    return TABLES[part][theirs]


def implied_dice():
    """Return, for each reported pair, the Dice that its IoU implies.

    A table set, iou, dice, implied, gap (dice less implied).
    """
    rows = [(name, table["jacard_coef"], table["dice_coef"]) for name, table in TABLES.items()]
    table = pd.DataFrame(rows, columns=["set", "iou", "dice"])
    table["implied"] = metrics.dice_from_iou(table["iou"])
    return table.assign(gap=table["dice"] - table["implied"])


def implied_tumour_iou():
    """Return the tumour IoU that the mean IoU and the accuracy of table 3 imply.

    A mean IoU averages tumour and background; where tumour is rare, the background's IoU is nearly
    the accuracy.
    """
    return 2 * TABLES["test"]["mean_iou"] - TABLES["test"]["accuracy"]


def error_ratio():
    """Return the reported error rate of validation over that of test; errors are 1 - accuracy."""
    return (1 - TABLES["val"]["accuracy"]) / (1 - TABLES["test"]["accuracy"])


def error_ratios(scored, by, draws=stats.DRAWS):
    """Draw pairs of random tenths of a per-slice table; return their ratios of error rates.

    by: 'slice' or 'patient', what is drawn; the two tenths of a pair have none in common. Returns
    the larger error rate over the smaller, float (draws,).
    """
    counts = scored[["fp", "fn"]].sum(axis=1).to_frame("errors").assign(slices=1)
    unit = scored["patient"] if by == "patient" else scored.index
    sums = counts.groupby(unit).sum().to_numpy()
    tenth = round(len(sums) / 10)
    pairs = stats.draw(sums, 2 * tenth, draws).reshape(draws, 2, tenth, 2).sum(2)
    rates = pairs[..., 0] / pairs[..., 1]
    return rates.max(1) / rates.min(1)


def tumour_shares(by, draws=stats.DRAWS):
    """Draw random tenths of the cohort, by 'slice' or 'patient'; return their tumour shares.

    Returns the shares of pixels that are tumour, float (draws,).
    """
    slices = records.read_csv(records.RECORDS / "cohort.csv")
    counts = slices[["tumour_area"]].assign(pixels=slices["height"] * slices["width"])
    unit = slices["patient"] if by == "patient" else slices.index
    sums = counts.groupby(unit).sum().to_numpy()
    drawn = stats.draw_sums(sums, round(len(sums) / 10), draws)
    return drawn[:, 0] / drawn[:, 1]
