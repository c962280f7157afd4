"""What recorded runs say beyond their scores: definitions, chance, the leak, failures. Tables in, tables out."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from lggseg_utils import data, evaluate, metrics, preprocess

ORDERS = 1000
FAILED = 0.5  # Dice of a patient below which we speak of a failure; our choice
UNITS = ("pooled", "batch", "slice", "tumour slice", "patient")


@dataclass(frozen=True)
class Definition:
    """One way to compute Dice and IoU of a set of slices.

    soft: from probabilities, otherwise from masks; unit: what is counted together before the mean is taken, one of UNITS;
    smooth: number added above and below; background: mean of tumour's and background's score, otherwise tumour's alone.
    """

    soft: bool
    unit: str
    smooth: float
    background: bool

    def __str__(self):
        kind = "probabilities" if self.soft else "masks"
        mean = "pooled" if self.unit == "pooled" else f"mean over {self.unit}{'es' if self.unit == 'batch' else 's'}"
        smooth = f", plus {self.smooth:g}" if self.smooth else ""
        return f"{kind}, {mean}{smooth}{', with background' if self.background else ''}"


DEFINITIONS = tuple(
    Definition(*values) for values in product((False, True), UNITS, (0.0, metrics.SMOOTH), (False, True))
)


def dice_and_iou(scored, definition):
    """Dice and IoU of a per-slice table under a definition.

    scored: columns of per_slice.csv, in the order of evaluation (batches are 16 consecutive rows). Both are 1 where truth
    and prediction are empty and nothing is added.
    """
    shared = scored["soft_intersection"] if definition.soft else scored["tp"].astype(float)
    total = scored["soft_sum"] if definition.soft else 2.0 * scored["tp"] + scored["fp"] + scored["fn"]
    classes = [(shared, total)]
    if definition.background:
        pixels = scored[evaluate.COUNTS].sum(axis=1)
        classes.append((pixels - total + shared, 2 * pixels - total))
    return tuple(np.mean([_class_scores(*sums, scored, definition) for sums in classes], axis=0))


def _class_scores(shared, total, scored, definition):
    """Mean Dice and mean IoU of one class; shared: intersection of truth and prediction a slice, total: their sum."""
    sums = pd.DataFrame({"shared": shared, "total": total}).groupby(_unit_of(scored, definition.unit)).sum()
    union = sums["total"] - sums["shared"] + definition.smooth
    dice = (2 * sums["shared"] + definition.smooth) / (sums["total"] + definition.smooth)
    iou = (sums["shared"] + definition.smooth) / union
    return dice.fillna(1).mean(), iou.fillna(1).mean()


def _unit_of(scored, unit):
    """Label of what each slice is counted with; NaN for slices that are left out."""
    position = pd.Series(np.arange(len(scored), dtype=float), scored.index)
    if unit == "pooled":
        return position * 0
    if unit == "batch":
        return position // metrics.SCORED_BATCH
    if unit == "patient":
        return scored["patient"]
    return position.where(scored["tp"] + scored["fn"] > 0) if unit == "tumour slice" else position


def definitions_table(scored, definitions=DEFINITIONS):
    """Every definition on one per-slice table: definition, Dice, IoU, gap; gap = Dice - 2 IoU/(1 + IoU)."""
    rows = [{"definition": str(definition), **_pair(*dice_and_iou(scored, definition))} for definition in definitions]
    return pd.DataFrame(rows)


def _pair(dice, iou):
    """A pair of scores with its gap; what is 0 but for rounding is 0."""
    gap = dice - metrics.dice_from_iou(iou)
    return {"Dice": dice, "IoU": iou, "gap": np.where(np.abs(gap) < 1e-12, 0.0, gap)[()]}


def mixed_pairs(scored_sets, reported):
    """Every pair of a definition of Dice with one of IoU, by how far its gaps are from the reported ones.

    scored_sets: set -> per-slice table; reported: set -> (Dice, IoU). Returns a table dice_as, iou_as, a column of gaps
    a set, and `farthest`: the largest distance between a gap of ours and the reported one, least first.
    """
    ours = {name: definitions_table(scored).set_index("definition") for name, scored in scored_sets.items()}
    wanted = {name: _pair(*pair)["gap"] for name, pair in reported.items()}
    names = next(iter(ours.values())).index
    table = pd.DataFrame(list(product(names, names)), columns=["dice_as", "iou_as"])
    for name, scores in ours.items():
        dice, iou = scores["Dice"].loc[table["dice_as"]].to_numpy(), scores["IoU"].loc[table["iou_as"]].to_numpy()
        table[name] = _pair(dice, iou)["gap"]
    farthest = np.max([np.abs(table[name] - gap) for name, gap in wanted.items()], axis=0)
    return table.assign(farthest=farthest).sort_values("farthest", ignore_index=True)


def tumour_shares(slices, part, draws=5000):
    """Share of tumour pixels in sets drawn at random: a table draw, share.

    slices: a per-slice table of the whole cohort; part: share of it that is drawn, 0 to 1. `draw` is 'slices', 'patients' or
    'slices with tumour' (as many slices as in the first, but at most all of them), each drawn `draws` times without replacement.
    """
    rng = np.random.default_rng(0)
    tumour = (slices["tp"] + slices["fn"]).to_numpy()
    pixels = slices[evaluate.COUNTS].iloc[0].sum()
    size, positive = round(part * len(slices)), tumour[tumour > 0]
    per_patient = pd.DataFrame({"tumour": tumour, "slices": 1}).groupby(slices["patient"].to_numpy()).sum()
    drawn_patients = _draw(rng, per_patient.to_numpy(), round(part * len(per_patient)), draws).sum(1)
    shares = {
        "slices": _draw(rng, tumour, size, draws).mean(1) / pixels,
        "patients": drawn_patients[:, 0] / drawn_patients[:, 1] / pixels,
        "slices with tumour": _draw(rng, positive, min(size, len(positive)), draws).mean(1) / pixels,
    }
    return pd.DataFrame({"draw": np.repeat(list(shares), draws), "share": np.concatenate(list(shares.values()))})


def _draw(rng, values, size, draws):
    """`size` of the values (n, ...) drawn without replacement, `draws` times: (draws, size, ...)."""
    return np.stack([values[rng.choice(len(values), size, replace=False)] for _ in range(draws)])


def draws_of_patients(per_patient, size, draws=5000):
    """Mean Dice of `size` patients drawn without replacement, `draws` times: float (draws,)."""
    return _draw(np.random.default_rng(0), per_patient["dice"].to_numpy(), size, draws).mean(1)


def differences_of_draws(per_patient, size, draws=5000):
    """Difference in mean Dice between two sets of `size` patients without a patient in common, `draws` times: float (draws,)."""
    pairs = _draw(np.random.default_rng(0), per_patient["dice"].to_numpy(), 2 * size, draws)
    return pairs[:, :size].mean(1) - pairs[:, size:].mean(1)


def draws_of_slices(per_slice, size, draws=5000):
    """Pooled Dice of `size` slices drawn without replacement, `draws` times: float (draws,)."""
    counts = per_slice[["tp", "fp", "fn"]].to_numpy()
    return metrics.dice(*_draw(np.random.default_rng(0), counts, size, draws).sum(1).T)


def batch_score_spread(scored, units, draws=metrics.RESAMPLES):
    """`dice_coef` and `jacard_coef` of sets drawn from this one with replacement, in random order: float (draws, 2).

    units: a label a slice; slices with the same label are drawn together.
    """
    rng = np.random.default_rng(0)
    soft = [part[["soft_intersection", "soft_sum"]].to_numpy() for _, part in scored.groupby(units)]
    drawn = ([soft[unit] for unit in rng.integers(len(soft), size=len(soft))] for _ in range(draws))
    shuffled = (rng.permutation(np.concatenate(parts)) for parts in drawn)
    return np.array([metrics.batch_scores(*pairs.T) for pairs in shuffled])


def beyond_resampling(scored, reported):
    """Is a reported pair further from ours than two sets drawn alike are from each other?

    scored: per-slice table of a test set; reported: dictionary with dice_coef and jacard_coef. Ours is the mean over ORDERS random
    orders of the slices, since what shares a batch moves both. Returns a table metric, reported, reproduced, difference, slices
    and patients (95 % of the differences between two sets are smaller, where slices or whole patients are drawn anew), beyond
    (larger than both).
    """
    names = ("dice_coef", "jacard_coef")
    table = pd.DataFrame(
        {"metric": names, "reported": [reported[name] for name in names], "reproduced": _over_orders(scored)}
    )
    table["difference"] = table["reproduced"] - table["reported"]
    table["slices"] = _two_sets_within(batch_score_spread(scored, np.arange(len(scored))))
    table["patients"] = _two_sets_within(batch_score_spread(scored, scored["patient"].to_numpy()))
    return table.assign(beyond=table["difference"].abs() > table[["slices", "patients"]].max(axis=1))


def _over_orders(scored):
    """Mean `dice_coef` and `jacard_coef` over random orders of the slices: float (2,)."""
    rng = np.random.default_rng(0)
    soft = scored[["soft_intersection", "soft_sum"]].to_numpy()
    return np.mean([metrics.batch_scores(*rng.permutation(soft).T) for _ in range(ORDERS)], axis=0)


def _two_sets_within(draws):
    """What 95 % of the differences between two drawn sets are smaller than; draws: float (n, scores)."""
    half = len(draws) // 2
    return np.quantile(np.abs(draws[:half] - draws[half : 2 * half]), 0.95, axis=0)


def with_and_without_empty(scored):
    """loss, accuracy, dice_coef and jacard_coef of a set: {'all slices': ..., 'slices with tumour alone': ...}."""
    with_tumour = scored[scored["tp"] + scored["fn"] > 0]
    names = ("loss", "accuracy", "dice_coef", "jacard_coef")
    sets = {"all slices": scored, "slices with tumour alone": with_tumour}
    scores = {title: evaluate.set_scores(chosen, False, resamples=0) for title, chosen in sets.items()}
    return {title: {name: every[name]["value"] for name in names} for title, every in scores.items()}


def slice_dice(scored):
    """Dice of each slice of a per-slice table, 1 where truth and prediction are empty."""
    return metrics.dice(scored["tp"], scored["fp"], scored["fn"])


def paired_slices(by_slice, by_patient):
    """The same slices predicted under both protocols: patient, slice, tumour, by_slice, by_patient (Dice), fp of each.

    by_slice, by_patient: per-slice tables of two cross-validations of one cohort. Raises ValueError where they do not
    hold the same slices with the same truth.
    """
    tables = [
        scored.assign(tumour=scored["tp"] + scored["fn"], dice=slice_dice(scored)) for scored in (by_slice, by_patient)
    ]
    keys = ["patient", "slice", "tumour"]
    columns = [*keys, "dice", "tp", "fp", "fn"]
    paired = tables[0][columns].merge(tables[1][columns], on=keys, suffixes=("_by_slice", "_by_patient"))
    if not len(paired) == len(by_slice) == len(by_patient):
        raise ValueError("the two cross-validations do not hold the same slices")
    return paired


def leak_effect(paired):
    """What the leak adds, with 95 % bootstrap intervals over patients: a table score, by slice, by patient, difference, low, high.

    paired: as from `paired_slices`. Each resample draws patients with all their slices, the same for both protocols.
    """
    sums = paired.assign(slices=1).groupby("patient").apply(_leak_sums, include_groups=False).to_numpy()

    def differences(drawn, axis):
        """What the scores of resampled patients, their numbers in `drawn` (..., patients), differ by."""
        return np.subtract(*np.split(_leak_scores(sums[drawn].sum(-2)), 2))

    by_slice, by_patient = _leak_scores(sums.sum(0)).reshape(2, -1)
    low, high = metrics.interval_over_patients(differences, len(sums))
    return pd.DataFrame(
        {
            "score": ["Dice pooled", "Dice per slice with tumour, mean", "slices without tumour left empty"],
            "by slice": by_slice,
            "by patient": by_patient,
            "difference": by_slice - by_patient,
            "low": low,
            "high": high,
        }
    )


def _leak_sums(slices):
    """What adds up over one patient's slices, first under the split by slice, then by patient."""
    tumour = slices["tumour"] > 0
    sums = {}
    for protocol in ("by_slice", "by_patient"):
        counts = {name: slices[f"{name}_{protocol}"].sum() for name in ("tp", "fp", "fn")}
        silent = (~tumour & (slices[f"fp_{protocol}"] == 0)).sum()
        means = {"dice": slices.loc[tumour, f"dice_{protocol}"].sum(), "tumour": tumour.sum()}
        empty = {"silent": silent, "empty": (~tumour).sum()}
        sums |= {f"{name}_{protocol}": value for name, value in (counts | means | empty).items()}
    return pd.Series(sums, dtype=float)


def _leak_scores(sums):
    """The three scores under both protocols from sums (..., 14): array (6, ...), the split by slice first."""
    scores = []
    for part in np.split(np.moveaxis(sums, -1, 0), 2):
        tp, fp, fn, dice, tumour, silent, empty = part
        scores += [metrics.dice(tp, fp, fn), dice / tumour, silent / empty]
    return np.stack(scores)


def distance_to_training(parts):
    """Slices between each slice and the nearest training slice of the same patient, under the fold that tests it.

    parts: split.csv of a cross-validation. Returns the table with `distance`: 1 for a direct neighbour, infinite where no
    slice of the patient was in training.
    """
    tables = []
    for fold, tested in parts.groupby("fold"):
        split = preprocess.split_of_fold(parts, fold)
        train = split[split["split"] == "train"].groupby("patient")["slice"].apply(np.array)
        nearest = [
            np.abs(train[patient] - number).min() if patient in train else np.inf
            for patient, number in zip(tested["patient"], tested["slice"], strict=True)
        ]
        tables.append(tested.assign(distance=nearest))
    return pd.concat(tables, ignore_index=True)


def position_in_volume(scored):
    """Where each slice stands in its patient's stack, from 0 (lowest number) to 1 (highest)."""
    numbers = scored.groupby("patient")["slice"]
    low, high = numbers.transform("min"), numbers.transform("max")
    return (scored["slice"] - low) / (high - low).where(high > low, 1)


def tumour_slices_by(scored, group):
    """Dice per slice over groups of the slices with tumour: group, slices, patients, median and mean Dice, share missed.

    group: a label a slice, as long as the table. Missed: nothing of the tumour was found.
    """
    chosen = scored.assign(group=group, dice=slice_dice(scored), missed=scored["tp"] == 0)
    chosen = chosen[chosen["tp"] + chosen["fn"] > 0]
    return _grouped(chosen, {"missed entirely": ("missed", "mean")})


def _grouped(table, more):
    """Count slices and patients a group, take median and mean Dice, and what else is asked for."""
    columns = {
        "slices": ("dice", "size"),
        "patients": ("patient", "nunique"),
        "median Dice": ("dice", "median"),
        "mean Dice": ("dice", "mean"),
    }
    return table.groupby("group", observed=True).agg(**columns, **more).reset_index()


def patients_by_institution(per_patient):
    """Dice per patient by institution: group, patients, median and mean Dice, failed (below FAILED)."""
    table = per_patient.assign(group=per_patient["patient"].map(data.institution), failed=per_patient["dice"] < FAILED)
    named = {
        "patients": ("dice", "size"),
        "median Dice": ("dice", "median"),
        "mean Dice": ("dice", "mean"),
        "failed": ("failed", "sum"),
    }
    return table.groupby("group").agg(**named).sort_values("patients", ascending=False).reset_index()


def false_alarms(scored):
    """Slices without tumour, and what is wrongly marked there.

    Returns a dictionary: slices, marked (slices with any false positive), share, and the median of the pixels marked there.
    """
    healthy = scored[scored["tp"] + scored["fn"] == 0]
    marked = healthy[healthy["fp"] > 0]
    return {
        "slices": len(healthy),
        "marked": len(marked),
        "share": len(marked) / len(healthy),
        "median_pixels": marked["fp"].median(),
    }


def without_worst(per_patient, count):
    """Mean Dice per patient with and without the `count` worst patients."""
    dice = per_patient["dice"].sort_values()
    return dice.mean(), dice.iloc[count:].mean()


def seed_means(trained):
    """Where each training ends: precision, seed, dice (mean over patients); trained: precision, seed, patient, dice."""
    return trained.groupby(["precision", "seed"], as_index=False)["dice"].mean()


def by_precision(ends):
    """Table of `seed_means` in short: precision, trainings, then mean, lowest and highest over the seeds."""
    grouped = ends.groupby("precision")["dice"]
    return grouped.agg(trainings="size", mean="mean", lowest="min", highest="max").reset_index()


def within_seeds(summary):
    """Does each precision's mean lie between the other's lowest and highest seed? summary: `by_precision`, two rows."""
    other = summary[::-1].reset_index(drop=True)
    return bool(summary["mean"].between(other["lowest"], other["highest"]).all())
