"""Predictions, counted and scored (report, section 1-6)."""

import cv2
import numpy as np
import pandas as pd

from lggseg_utils import metrics, preprocess, stats

THRESHOLD = 0.5
COUNTS = ["tp", "fp", "fn", "tn"]
PER_SLICE_COLUMNS = ["patient", "slice", "split", *COUNTS, "soft_intersection", "soft_sum", "loss"]


def predict(network, images, experiment):
    """Return the probability of tumour on the scoring grid: float32 (n, score_size, score_size).

    images: of a `preprocess.Dataset`. The network predicts on its own grid, and its probabilities are interpolated.
    """
    probabilities = []
    for start in range(0, len(images), metrics.SCORED_BATCH):
        scaled = preprocess.minmax(images[start : start + metrics.SCORED_BATCH], experiment.scaling)
        probabilities.extend(network.predict_on_batch(np.asarray(scaled))[..., 0])
    return np.stack(
        [cv2.resize(probability, 2 * [experiment.score_size]) for probability in probabilities]
    )


def count(truths, probabilities):
    """Return each slice's counts at threshold 0.5: a table tp, fp, fn, tn. truths: (n, side, side) of 0 and 1."""
    truth, predicted = np.asarray(truths) > 0, np.asarray(probabilities) > THRESHOLD
    pairs = {
        "tp": truth & predicted,
        "fp": ~truth & predicted,
        "fn": truth & ~predicted,
        "tn": ~truth & ~predicted,
    }
    return pd.DataFrame({name: hits.sum((1, 2)) for name, hits in pairs.items()})


def score_slices(slices, truths, probabilities):
    """Return counts and scores of slices: the columns of per_slice.csv except `split`.

    slices: a table patient, slice; truths (n, side, side) of 0 and 1; probabilities float (n, side, side). soft_intersection
    is the sum of truth times probability, soft_sum that of both, loss the mean binary cross-entropy.
    """
    p = np.clip(
        probabilities.astype(np.float64), 1e-7, 1 - 1e-7
    )  # as in Keras: keeps the logarithm finite
    table = pd.concat(
        [slices[["patient", "slice"]].reset_index(drop=True), count(truths, probabilities)], axis=1
    )
    return table.assign(
        soft_intersection=(truths * probabilities).sum((1, 2), dtype=float),
        soft_sum=(truths + probabilities).sum((1, 2), dtype=float),
        loss=-np.log(np.where(truths > 0, p, 1 - p)).mean((1, 2)),
    )


def score_split(network, dataset, split, experiment, sets=preprocess.SETS):
    """Predict and score some sets of a split.

    Returns a table with the columns of per_slice.csv, and its `per_patient_table` with hd95 and surface_dice as
    `metrics.surface_scores`. The slices of a set are shuffled, since `dice_coef` and `jacard_coef` depend on which share a batch.
    """
    tables = []
    for name in sets:
        rows = np.random.default_rng(experiment.seed).permutation(
            preprocess.rows_by_set(split)[name]
        )
        # A chunk at a time: all probabilities of a cohort at once would take gigabytes.
        for part in np.array_split(rows, len(rows) // 512 + 1):
            probabilities = predict(network, dataset.images[part], experiment)
            truths = dataset.truths[part]
            borders = map(metrics.surface_distances, truths > 0, probabilities > THRESHOLD)
            scored = score_slices(dataset.slices.iloc[part], truths, probabilities)
            tables.append(scored.assign(split=name, distances=list(borders)))
    scored = pd.concat(tables, ignore_index=True)
    distances = scored.groupby(["patient", "split"], sort=False)["distances"]
    hd95, surface_dice = zip(
        *(metrics.surface_scores(of_patient) for _, of_patient in distances), strict=True
    )
    return scored[PER_SLICE_COLUMNS], per_patient_table(scored).assign(
        hd95=hd95, surface_dice=surface_dice
    )


def per_patient_table(per_slice):
    """Return a per-slice table summed per patient and set: patient, split, slices, tumour_slices, tp, fp, fn, tn, dice, iou."""
    has_tumour = per_slice["tp"] + per_slice["fn"] > 0
    grouped = per_slice.assign(slices=1, tumour_slices=has_tumour.astype(int)).groupby(
        ["patient", "split"], sort=False
    )
    table = grouped[["slices", "tumour_slices", *COUNTS]].sum().reset_index()
    tp, fp, fn = table["tp"], table["fp"], table["fn"]
    return table.assign(dice=metrics.dice(tp, fp, fn), iou=metrics.iou(tp, fp, fn))


def set_scores(scored, whole_patients, resamples=stats.RESAMPLES):
    """Return the scores of one set of slices: a dictionary name -> {'value', 'low', 'high'}.

    scored: a per-slice table. low and high are the 95% interval by bootstrap over patients with all their slices; None for
    fewer than two patients, and where the score of a draw has no number. `dice_coef` and `jacard_coef` are averaged over batches
    of 16 slices in the order of the table; for their intervals, in random order. `whole_patients` adds the Dice per patient.
    """
    scores, patients = _scores_of_drawn(scored), scored["patient"].nunique()
    values = pd.Series({name: value[0] for name, value in scores(np.arange(patients)).items()})
    values[["dice_coef", "jacard_coef"]] = metrics.batch_scores(
        *scored[["soft_intersection", "soft_sum"]].to_numpy().T
    )
    low, high = stats.interval_over_patients(
        lambda drawn: np.stack([*scores(drawn).values()]), patients, resamples
    )
    table = pd.DataFrame({"value": values, "low": low, "high": high})
    table = (
        table if whole_patients else table.drop(index=["dice_patient_mean", "dice_patient_median"])
    )
    return table.astype(object).where(np.isfinite(table), None).to_dict("index")


def _scores_of_drawn(scored):
    """Return a function that scores resampled patients, given by their numbers (..., patients): name -> (...)."""
    tumour, dice = (
        scored["tp"] + scored["fn"] > 0,
        metrics.dice(scored["tp"], scored["fp"], scored["fn"]),
    )
    columns = {
        "slices": 1.0,
        "tumour_slices": 1.0 * tumour,
        "dice": dice,
        "tumour_dice": dice * tumour,
    }
    sums = scored[[*COUNTS, "loss"]].assign(**columns).groupby(scored["patient"], sort=False).sum()
    soft = [
        part[["soft_intersection", "soft_sum"]].to_numpy()
        for _, part in scored.groupby("patient", sort=False)
    ]
    patient_dice, shuffle = (
        metrics.dice(sums["tp"], sums["fp"], sums["fn"]),
        np.random.default_rng(0),
    )

    def scores(drawn):
        drawn = np.atleast_2d(drawn)
        slices = (
            shuffle.permutation(np.concatenate([soft[patient] for patient in row])) for row in drawn
        )
        batches = np.array([metrics.batch_scores(*pairs.T) for pairs in slices]).T
        total = {name: sums[name].to_numpy()[drawn].sum(-1) for name in sums}
        tp, fp, fn, tn = (total[name] for name in COUNTS)
        return {
            "loss": total["loss"] / total["slices"],
            **metrics.rates(tp, fp, fn, tn),
            "dice_pooled": metrics.dice(tp, fp, fn),
            "iou_pooled": metrics.iou(tp, fp, fn),
            "dice_slice_mean": total["dice"] / total["slices"],
            "dice_slice_tumour_mean": metrics.ratio(
                total["tumour_dice"], total["tumour_slices"], np.nan
            ),
            "dice_coef": batches[0],
            "jacard_coef": batches[1],
            "dice_patient_mean": np.mean(patient_dice[drawn], axis=-1),
            "dice_patient_median": np.median(patient_dice[drawn], axis=-1),
        }

    return scores
