"""Predictions, counted and scored (report, section 1-6)."""

from dataclasses import replace

import cv2
import numpy as np
import pandas as pd

from lggseg_utils import metrics, preprocess, stats

THRESHOLD = 0.5
COUNTS = ["tp", "fp", "fn", "tn"]
SOFT_SUMS = ["soft_intersection", "soft_sum"]
PER_SLICE_COLUMNS = ["patient", "slice", "split", *COUNTS, *SOFT_SUMS, "loss"]
# Slices predicted at once: all probabilities of a cohort would take gigabytes.
CHUNK = 512


def predict(network, images, experiment):
    """Return the probability of tumour on the scoring grid: float32 (n, score_size, score_size).

    images: of a `preprocess.Dataset`. The network predicts on its own grid, and its probabilities
    are interpolated.
    """
    grid = (experiment.score_size, experiment.score_size)
    probabilities = []
    for start in range(0, len(images), metrics.SCORED_BATCH):
        batch = images[start : start + metrics.SCORED_BATCH]
        scaled = preprocess.minmax(batch, experiment.scaling)
        for probability in network.predict_on_batch(scaled)[..., 0]:
            probabilities.append(cv2.resize(probability, grid))
    return np.stack(probabilities)


def count(truths, probabilities, threshold=THRESHOLD):
    """Return each slice's counts: a table tp, fp, fn, tn, in pixels.

    What is above the threshold counts as tumour.

    truths: (n, side, side) of 0 and 1; probabilities: float (n, side, side).
    """
    truth = np.asarray(truths) > 0
    predicted = np.asarray(probabilities) > threshold
    counts = {
        "tp": truth & predicted,
        "fp": ~truth & predicted,
        "fn": truth & ~predicted,
        "tn": ~truth & ~predicted,
    }
    return pd.DataFrame({name: pixels.sum((1, 2)) for name, pixels in counts.items()})


def score_slices(slices, truths, probabilities):
    """Return counts and scores of slices: the columns of per_slice.csv except `split`.

    slices: a table patient, slice; truths: (n, side, side) of 0 and 1; probabilities: float
    (n, side, side). soft_intersection is the sum of truth times probability, soft_sum that of
    both, loss the mean binary cross-entropy per pixel.
    """
    keys = slices[["patient", "slice"]].reset_index(drop=True)
    # As in Keras: keeps the logarithm finite.
    p = np.clip(probabilities.astype(np.float64), 1e-7, 1 - 1e-7)
    return pd.concat([keys, count(truths, probabilities)], axis=1).assign(
        soft_intersection=(truths * probabilities).sum((1, 2), dtype=float),
        soft_sum=(truths + probabilities).sum((1, 2), dtype=float),
        loss=-np.log(np.where(truths > 0, p, 1 - p)).mean((1, 2)),
    )


def score_split(network, dataset, split, experiment, sets=preprocess.SETS):
    """Predict and score some sets of a split.

    Returns a table with the columns of per_slice.csv, and its `per_patient_table` with hd95 and
    surface_dice as `metrics.surface_scores`. The slices of a set are shuffled, since `dice_coef`
    and `jacard_coef` depend on which share a batch.
    """
    rows_of = preprocess.rows_by_set(split)
    tables = []
    for name in sets:
        rows = np.random.default_rng(experiment.seed).permutation(rows_of[name])
        for chunk in np.array_split(rows, len(rows) // CHUNK + 1):
            scored = _score_rows(network, dataset, chunk, experiment)
            tables.append(scored.assign(split=name))
    scored = pd.concat(tables, ignore_index=True)
    per_patient = per_patient_table(scored).merge(_surface_table(scored), on=["patient", "split"])
    return scored[PER_SLICE_COLUMNS], per_patient


def score_own_grid(network, dataset, split, experiment):
    """Return the per-slice table of `score_split` on the network's own grid."""
    own = replace(dataset, truths=dataset.masks)
    settings = experiment.model_copy(update={"score_size": experiment.size})
    return score_split(network, own, split, settings)[0]


def _score_rows(network, dataset, rows, experiment):
    """Return `score_slices` of some rows of a dataset, and `distances`, their surface distances."""
    probabilities = predict(network, dataset.images[rows], experiment)
    truths = dataset.truths[rows]
    distances = []
    for truth, probability in zip(truths, probabilities, strict=True):
        distances.append(metrics.surface_distances(truth > 0, probability > THRESHOLD))
    scored = score_slices(dataset.slices.iloc[rows], truths, probabilities)
    return scored.assign(distances=distances)


def _surface_table(scored):
    """Return a table patient, split, hd95 (pixels), surface_dice from `distances` per slice."""
    rows = []
    for (patient, name), slices in scored.groupby(["patient", "split"], sort=False):
        hd95, surface_dice = metrics.surface_scores(slices["distances"])
        rows.append((patient, name, hd95, surface_dice))
    return pd.DataFrame(rows, columns=["patient", "split", "hd95", "surface_dice"])


def per_patient_table(per_slice):
    """Return a per-slice table summed per patient and set, in the order of their first slices.

    Columns: patient, split, slices, tumour_slices, tp, fp, fn, tn, dice, iou.
    """
    has_tumour = per_slice["tp"] + per_slice["fn"] > 0
    counted = per_slice.assign(slices=1, tumour_slices=has_tumour.astype(int))
    grouped = counted.groupby(["patient", "split"], sort=False)
    table = grouped[["slices", "tumour_slices", *COUNTS]].sum().reset_index()
    counts = (table["tp"], table["fp"], table["fn"])
    return table.assign(dice=metrics.dice(*counts), iou=metrics.iou(*counts))


def set_scores(scored, whole_patients, resamples=stats.RESAMPLES):
    """Return the scores of one set of slices: a dictionary name -> {'value', 'low', 'high'}.

    scored: a per-slice table. low and high are the 95% interval by bootstrap over patients with
    all their slices, drawn `resamples` times; None if that is 0, for fewer than two patients, and
    where the score of a draw has no number. `dice_coef` and `jacard_coef` are averaged over batches
    of 16 slices in the order of the table; for their intervals, in random order. `whole_patients`
    adds the Dice per patient.
    """
    resampled = ResampledPatients(scored)
    everyone = np.arange(resampled.count)
    values = {name: value[0] for name, value in resampled.scores(everyone).items()}
    in_order = metrics.batch_scores(*scored[SOFT_SUMS].to_numpy().T)
    values.update(zip(("dice_coef", "jacard_coef"), in_order, strict=True))
    low, high = stats.interval_over_patients(resampled.score_array, resampled.count, resamples)
    table = pd.DataFrame({"value": pd.Series(values), "low": low, "high": high})
    if not whole_patients:
        table = table.drop(index=["dice_patient_mean", "dice_patient_median"])
    return table.astype(object).where(np.isfinite(table), None).to_dict("index")


class ResampledPatients:
    """Scores of a set of slices with its patients drawn anew, each with all slices.

    count: number of patients; they are numbered in the order of their first slices.
    """

    def __init__(self, scored):
        dice = metrics.dice(scored["tp"], scored["fp"], scored["fn"])
        has_tumour = scored["tp"] + scored["fn"] > 0
        per_slice = scored[[*COUNTS, "loss"]].assign(
            slices=1.0, tumour_slices=1.0 * has_tumour, dice=dice, tumour_dice=dice * has_tumour
        )
        sums = per_slice.groupby(scored["patient"], sort=False).sum()
        self.count = len(sums)
        self._sums = {name: sums[name].to_numpy() for name in sums}
        self._dice = metrics.dice(sums["tp"], sums["fp"], sums["fn"])
        grouped = scored.groupby("patient", sort=False)
        self._soft_sums = [slices[SOFT_SUMS].to_numpy() for _, slices in grouped]
        self._rng = np.random.default_rng(0)

    def scores(self, drawn):
        """Return the scores of drawn patients, a dictionary name -> float (draws,).

        drawn: patients' numbers, int (draws, patients) or, for one draw, (patients,).
        """
        drawn = np.atleast_2d(drawn)
        batches = np.array([self._batch_scores(patients) for patients in drawn])
        total = {name: values[drawn].sum(-1) for name, values in self._sums.items()}
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
            "dice_coef": batches[:, 0],
            "jacard_coef": batches[:, 1],
            "dice_patient_mean": np.mean(self._dice[drawn], axis=-1),
            "dice_patient_median": np.median(self._dice[drawn], axis=-1),
        }

    def score_array(self, drawn):
        """Return `scores` as one array, float (scores, draws)."""
        return np.stack(list(self.scores(drawn).values()))

    def _batch_scores(self, patients):
        """Return `metrics.batch_scores` of patients' slices in random order."""
        slices = np.concatenate([self._soft_sums[patient] for patient in patients])
        return metrics.batch_scores(*self._rng.permutation(slices).T)
