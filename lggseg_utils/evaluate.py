"""What the trained model predicts, counted and scored (report, section 1-6)."""

import json
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from scipy import ndimage
from tqdm import tqdm

from lggseg_utils import data, metrics, preprocess
from lggseg_utils.config import UserError, read_csv, write_csv, write_json

THRESHOLD = 0.5
EPSILON = 1e-7  # as in Keras: keeps the logarithm finite
COUNTS = ["tp", "fp", "fn", "tn"]
PER_SLICE_COLUMNS = ["patient", "slice", "split", *COUNTS, "soft_intersection", "soft_sum", "loss"]
INTERVAL_METRICS = (
    "loss",
    "accuracy",
    "dice_coef",
    "jacard_coef",
    "mean_iou",
    "precision",
    "sensitivity",
    "specificity",
    "dice_pooled",
    "iou_pooled",
    "dice_slice_mean",
    "dice_slice_tumour_mean",
)
FLIPS = ([], [1], [2], [1, 2])  # axes to mirror: nothing, up-down, left-right, both
PATIENT_METRICS = ("dice_patient_mean", "dice_patient_median")


@dataclass(frozen=True)
class Evaluation:
    """The tables of one evaluated run, as in per_slice.csv, per_patient.csv, metrics.json and floors.csv.

    A cross-validation has the test set alone, and no floors."""

    per_slice: pd.DataFrame
    per_patient: pd.DataFrame
    metrics: dict
    floors: pd.DataFrame


def probabilities(model, cohort, rows, experiment):
    """Yield (rows, probability of tumour float32 (n, score_size, score_size)) batch by batch, in the order of `rows`.

    A model of another size predicts on its own grid; the probabilities are interpolated to the scoring grid. With the
    setting largest_component, what is predicted elsewhere in a patient than in the largest connected piece becomes 0.
    """
    batches = _predict_batches(model, cohort, rows, experiment)
    return _keep_largest(batches, cohort) if experiment.largest_component else batches


def _predict_batches(model, cohort, rows, experiment):
    """`probabilities`, as the network gives them."""
    import tensorflow as tf

    grid = (experiment.score_size,) * 2
    for start in range(0, len(rows), metrics.SCORED_BATCH):
        part = rows[start : start + metrics.SCORED_BATCH]
        images = preprocess.minmax(preprocess.network_inputs(cohort, part, experiment.context), experiment.scaling)
        flips = FLIPS if experiment.test_time_flips else FLIPS[:1]
        predicted = [tf.reverse(model.predict_on_batch(tf.reverse(images, axes)), axes) for axes in flips]
        yield part, tf.image.resize(sum(predicted)[..., -1:] / len(flips), grid).numpy()[..., 0]


def _keep_largest(batches, cohort):
    """Probabilities of whole patients with the largest piece of each alone, in the order and batches they came in."""
    rows, predicted = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    patients = cohort.slices["patient"].to_numpy()[rows]
    for patient in np.unique(patients):
        stack = np.flatnonzero(patients == patient)
        stack = stack[np.argsort(rows[stack])]
        predicted[stack] *= largest_piece(predicted[stack] > THRESHOLD) | (predicted[stack] <= THRESHOLD)
    starts = range(0, len(rows), metrics.SCORED_BATCH)
    return [(rows[at : at + metrics.SCORED_BATCH], predicted[at : at + metrics.SCORED_BATCH]) for at in starts]


def largest_piece(volume):
    """The largest connected piece of a mask, bool (slices, height, width); pieces that touch at a corner are one."""
    pieces, count = ndimage.label(volume, np.ones((3, 3, 3)))
    if count < 2:
        return volume
    return pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()


def predicted_masks(model, cohort, rows, experiment):
    """Masks that a model predicts for some rows, bool (n, score_size, score_size)."""
    return np.concatenate([predicted > THRESHOLD for _, predicted in probabilities(model, cohort, rows, experiment)])


def score_slices(predictions, cohort):
    """Count and score slices against the truth: a table with the columns of per_slice.csv, less split.

    predictions: pairs (rows, probabilities (n, score_size, score_size)) as from `probabilities`. Counts are in
    pixels of the scoring grid, soft_sum is the sum of truth and probability, loss the mean binary cross-entropy.
    """
    tables = []
    for rows, predicted in predictions:
        truth = cohort.truths[rows].astype(np.float32)
        table = cohort.slices.iloc[rows][["patient", "slice"]].reset_index(drop=True)
        tables.append(table.assign(**_counts(truth, predicted > THRESHOLD), **_soft(truth, predicted)))
    return pd.concat(tables, ignore_index=True)


def _counts(truth, predicted):
    """tp, fp, fn and tn of each slice."""
    truth = truth > 0
    pairs = {"tp": truth & predicted, "fp": ~truth & predicted, "fn": truth & ~predicted, "tn": ~truth & ~predicted}
    return {name: hits.sum((1, 2)) for name, hits in pairs.items()}


def _soft(truth, predicted):
    """Soft intersection, soft sum and mean binary cross-entropy of each slice, in float64."""
    p = np.clip(predicted.astype(np.float64), EPSILON, 1 - EPSILON)
    loss = -(truth * np.log(p) + (1 - truth) * np.log(1 - p)).mean((1, 2))
    return {
        "soft_intersection": (truth * predicted).sum((1, 2), dtype=float),
        "soft_sum": (truth + predicted).sum((1, 2), dtype=float),
        "loss": loss,
    }


def per_patient_table(per_slice):
    """Sum a per-slice table a patient and set: patient, split, slices, tumour_slices, tp, fp, fn, tn, dice, iou."""
    has_tumour = per_slice["tp"] + per_slice["fn"] > 0
    grouped = per_slice.assign(slices=1, tumour_slices=has_tumour.astype(int)).groupby(["patient", "split"], sort=False)
    table = grouped[["slices", "tumour_slices", *COUNTS]].sum().reset_index()
    return table.assign(
        dice=metrics.dice(table["tp"], table["fp"], table["fn"]), iou=metrics.iou(table["tp"], table["fp"], table["fn"])
    )


def score_patients(model, cohort, rows, experiment):
    """`per_patient_table` of a network's predictions for the rows of validation patients."""
    predictions = probabilities(model, cohort, rows, experiment)
    return per_patient_table(score_slices(predictions, cohort).assign(split="val"))


def _patient_sums(scored):
    """What adds up over slices, a patient a row: counts, loss, Dice per slice, and how many slices."""
    truth = scored["tp"] + scored["fn"] > 0
    slice_dice = metrics.dice(scored["tp"], scored["fp"], scored["fn"])
    columns = scored[[*COUNTS, "loss"]].assign(
        slices=1.0, tumour_slices=truth.astype(float), dice=slice_dice, tumour_dice=slice_dice * truth
    )
    return columns.groupby(scored["patient"], sort=False).sum()


def _pooled_scores(total):
    """Every score that follows from sums over slices; `total` maps a name of `_patient_sums` to an array."""
    tp, fp, fn, tn = (total[name] for name in COUNTS)
    return {
        "loss": total["loss"] / total["slices"],
        "accuracy": (tp + tn) / (tp + fp + fn + tn),
        "mean_iou": metrics.mean_iou(tp, fp, fn, tn),
        "precision": metrics.precision(tp, fp),
        "sensitivity": metrics.sensitivity(tp, fn),
        "specificity": metrics.specificity(tn, fp),
        "dice_pooled": metrics.dice(tp, fp, fn),
        "iou_pooled": metrics.iou(tp, fp, fn),
        "dice_slice_mean": total["dice"] / total["slices"],
        "dice_slice_tumour_mean": np.divide(
            total["tumour_dice"],
            total["tumour_slices"],
            out=np.full(np.shape(tp), np.nan),
            where=total["tumour_slices"] > 0,
        ),
    }


def set_scores(scored, whole_patients, resamples=metrics.RESAMPLES):
    """Score one set of slices: a dictionary name -> {'value', 'low', 'high'}.

    scored: a per-slice table. The 95 % interval is the percentile bootstrap over patients (scipy), with their
    slices kept together; None where there are fewer than two patients or no number. `dice_coef` and `jacard_coef`
    are taken batch by batch of 16, in the order of the table; for the interval, in a shuffled one. The Dice per
    patient is given only where whole patients were held out.
    """
    names = INTERVAL_METRICS + (PATIENT_METRICS if whole_patients else ())
    statistic, patients = _scores_of_drawn(scored, names), scored["patient"].nunique()
    values = statistic(np.arange(patients), axis=-1)[:, 0]
    in_order = metrics.batch_scores(scored["soft_intersection"].to_numpy(), scored["soft_sum"].to_numpy())
    values[[names.index("dice_coef"), names.index("jacard_coef")]] = in_order
    ends = metrics.interval_over_patients(statistic, patients, resamples)
    low, high = (np.broadcast_to(end, len(names)) for end in ends)
    return {
        name: {"value": _number(values[i]), "low": _number(low[i]), "high": _number(high[i])}
        for i, name in enumerate(names)
    }


def _scores_of_drawn(scored, names):
    """The named scores of resampled patients, as `metrics.interval_over_patients` asks for them: a function."""
    sums, shuffle = _patient_sums(scored), np.random.default_rng(0)
    soft = [part[["soft_intersection", "soft_sum"]].to_numpy() for _, part in scored.groupby("patient", sort=False)]
    dice = metrics.dice(sums["tp"], sums["fp"], sums["fn"])

    def statistic(drawn, axis):
        drawn = np.atleast_2d(drawn)
        scores = _pooled_scores({name: sums[name].to_numpy()[drawn].sum(axis) for name in sums})
        slices = (shuffle.permutation(np.concatenate([soft[patient] for patient in row])) for row in drawn)
        batches = [metrics.batch_scores(*pairs.T) for pairs in slices]
        scores["dice_coef"], scores["jacard_coef"] = np.array(batches).T
        scores |= {"dice_patient_mean": dice[drawn].mean(axis), "dice_patient_median": np.median(dice[drawn], axis)}
        return np.stack([scores[name] for name in names])

    return statistic


def _number(value):
    """A float for JSON, None for NaN."""
    return None if not np.isfinite(value) else float(value)


def all_scores(per_slice, protocol, resamples=metrics.RESAMPLES):
    """`set_scores` of each set of a per-slice table; protocol: 'slice' or 'patient'."""
    return {
        name: set_scores(per_slice[per_slice["split"] == name], protocol == "patient", resamples)
        for name in preprocess.SETS
    }


def otsu_mask(flair):
    """Floor: brighter than Otsu's threshold within the head; flair uint8 (side, side), returns bool.

    A first threshold parts head from air (holes filled), a second one is taken over the head's pixels alone.
    """
    air, _ = cv2.threshold(flair, 0, 255, cv2.THRESH_OTSU)
    head = ndimage.binary_fill_holes(flair > air)
    if not head.any():
        return head
    level, _ = cv2.threshold(flair[head], 0, 255, cv2.THRESH_OTSU)
    return head & (flair > level)


def _floor_predictions(cohort, rows, floor):
    """Predictions of a floor as (rows, 0 or 1 on the scoring grid), in one piece a batch."""
    for start in range(0, len(rows), metrics.SCORED_BATCH):
        part = rows[start : start + metrics.SCORED_BATCH]
        predicted = np.zeros(cohort.truths[part].shape, np.float32)
        if floor == "Otsu on FLAIR":
            masks = (otsu_mask(np.ascontiguousarray(image[..., data.FLAIR])) for image in cohort.images[part])
            predicted = np.stack([preprocess.resize_mask(mask.astype(np.uint8), predicted.shape[1]) for mask in masks])
        yield part, predicted.astype(np.float32)


def score_floors(cohort, split, protocol):
    """Score what needs no training: a table floor, split, and the scores of metrics.json without intervals."""
    rows = []
    for floor in ("all background", "Otsu on FLAIR"):
        scored = score_slices(_floor_predictions(cohort, np.arange(len(split)), floor), cohort).assign(
            split=split["split"]
        )
        for name, scores in all_scores(scored, protocol, resamples=0).items():
            rows.append({"floor": floor, "split": name, **{metric: entry["value"] for metric, entry in scores.items()}})
    return pd.DataFrame(rows)


def shuffled(rows, seed):
    """Rows of a set in the order in which they are scored."""
    return np.random.default_rng(seed).permutation(rows)


def score_model(model, cohort, split, experiment):
    """Per-slice table of a model over train, val and test, in that order; within a set the slices are shuffled by seed.

    Neighbouring slices in one batch would give other values of the scores that are averaged over batches, and the
    report's likeliest split, scikit-learn's, shuffles.
    """
    tables = []
    for name in preprocess.SETS:
        rows = shuffled(preprocess.rows_of(split, name), experiment.seed)
        batches = tqdm(
            probabilities(model, cohort, rows, experiment),
            total=-(-len(rows) // metrics.SCORED_BATCH),
            desc=f"predicting {name}",
            unit="batch",
            leave=False,
        )
        tables.append(score_slices(batches, cohort).assign(split=name))
    return pd.concat(tables, ignore_index=True)[PER_SLICE_COLUMNS]


def evaluate(run):
    """Score a run's model, or load its scores: an `Evaluation`.

    Writes per_slice.csv, per_patient.csv, floors.csv and, last, metrics.json; where last-epoch weights are
    scored, metrics_best.json holds the best checkpoint's scores beside them.
    """
    from lggseg_utils import train

    if not run.path("metrics.json").exists():
        cohort = preprocess.load_cohort(run)
        split = preprocess.load_split(run, cohort.slices)
        model, _ = train.train(run)
        per_slice = score_model(model, cohort, split, run.experiment)
        write_csv(run.path("per_slice.csv"), per_slice)
        write_csv(run.path("per_patient.csv"), per_patient_table(per_slice))
        write_csv(run.path("floors.csv"), score_floors(cohort, split, run.experiment.split))
        if run.experiment.weights == "last":
            best = train.load_model(run.path("model_best.keras"))
            scored = score_model(best, cohort, split, run.experiment)
            write_json(run.path("metrics_best.json"), all_scores(scored, run.experiment.split))
        run.note_end()
        write_json(run.path("metrics.json"), all_scores(per_slice, run.experiment.split))
    return load_evaluation(run.folder)


def load_evaluation(folder):
    """Read the tables of an evaluated run, or of a record under results/, as an `Evaluation`."""
    read = {name: read_csv(folder / f"{name}.csv") for name in ("per_slice", "per_patient")}
    floors = read_csv(folder / "floors.csv") if (folder / "floors.csv").exists() else pd.DataFrame()
    return Evaluation(**read, floors=floors, metrics=json.loads((folder / "metrics.json").read_text(encoding="utf-8")))


def metrics_table(scores):
    """Lay one set's scores out as text: metric, value, 95 % interval."""
    rows = [
        {"metric": name, "value": number(entry["value"]), "95 % interval": interval(entry)}
        for name, entry in scores.items()
    ]
    return pd.DataFrame(rows)


def number(value):
    """A score as text; small ones keep three significant digits, those just below 1 four decimals; none is a dash."""
    if value is None or not np.isfinite(value):
        return "–"
    if 0 < abs(value) < 0.01:
        return f"{value:.3g}"
    return f"{value:.4f}" if 0.99 < value < 1 else f"{value:.3f}"


def interval(entry):
    """An interval as text, a dash where there is none."""
    return "–" if pd.isna(entry["low"]) else f"{number(entry['low'])} to {number(entry['high'])}"


def with_interval(entry):
    """A score with its interval as text, where it has one."""
    return number(entry["value"]) + ("" if pd.isna(entry["low"]) else f" ({interval(entry)})")


def dice_by_size(per_slice):
    """Median Dice per slice of the smaller and the larger half of the tumours in the test set.

    Returns a dictionary: slices (with tumour), median_area in pixels of the scoring grid, and the medians small and large.
    """
    chosen = per_slice[(per_slice["split"] == "test") & (per_slice["tp"] + per_slice["fn"] > 0)]
    area = chosen["tp"] + chosen["fn"]
    dice = pd.Series(metrics.dice(chosen["tp"], chosen["fp"], chosen["fn"]), chosen.index)
    small = area <= area.median()
    return {
        "slices": len(chosen),
        "median_area": area.median(),
        "small": dice[small].median(),
        "large": dice[~small].median(),
    }


def example_slices(per_slice):
    """Pick the best, the median and the worst test slice with tumour by Dice: rows of the table with `dice`.

    Raises `UserError` for a test set without tumour.
    """
    chosen = per_slice[(per_slice["split"] == "test") & (per_slice["tp"] + per_slice["fn"] > 0)]
    if chosen.empty:
        raise UserError("no slice of the test set shows tumour, so there is nothing to find: try another seed.")
    ranked = chosen.assign(dice=metrics.dice(chosen["tp"], chosen["fp"], chosen["fn"])).sort_values(
        "dice", ignore_index=True
    )
    return (
        ranked.iloc[[len(ranked) - 1, len(ranked) // 2, 0]]
        .assign(rank=["best", "median", "worst"])
        .reset_index(drop=True)
    )
