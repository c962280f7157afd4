"""Uncertainty: bootstrap over patients, paired differences, random test sets, power."""

import warnings

import numpy as np
import pandas as pd
from scipy import stats

RESAMPLES = 2000
DRAWS = 5000


def interval_over_patients(statistic, patients, resamples=RESAMPLES):
    """Return the 95% interval (low, high) of scores by the percentile bootstrap over patients; NaN for fewer than two.

    statistic(drawn): the scores of resampled patients, whose numbers from 0 are in the last axis of `drawn` (..., patients).
    """
    if patients < 2 or not resamples:
        return np.nan, np.nan
    with warnings.catch_warnings():
        # A score that is undefined in every draw has no interval; the tables say so.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        options = {"n_resamples": resamples, "vectorized": True, "method": "percentile"}
        numbers, rng = (np.arange(patients),), np.random.default_rng(0)
        result = stats.bootstrap(numbers, lambda drawn, axis: statistic(drawn), rng=rng, **options)
    return result.confidence_interval


def paired_difference(differences):
    """Summarise differences paired by patient, float (n,): difference (mean), low, high (95% interval) and p.

    p is Wilcoxon's signed-rank test, not corrected for the number of comparisons.
    """
    values = np.asarray(differences, dtype=float)
    low, high = interval_over_patients(lambda drawn: values[drawn].mean(-1), len(values))
    p = stats.wilcoxon(values).pvalue if values.any() else 1.0
    return {"difference": values.mean(), "low": low, "high": high, "p": p}


def compare_conditions(scores, baseline="none"):
    """Compare each condition with the baseline, paired by patient: condition and `paired_difference`, p_holm, patients, seeds.

    scores: a table condition, seed, patient, dice; seeds are averaged first. p_holm is corrected by `holm` over all conditions.
    The intervals say nothing of other seeds.
    """
    dice = scores.pivot_table(index="patient", columns="condition", values="dice", sort=False)
    others = [name for name in dice if name != baseline]
    table = pd.DataFrame(
        [{"condition": name, **paired_difference(dice[name] - dice[baseline])} for name in others]
    )
    return table.assign(p_holm=holm(table["p"]), patients=len(dice), seeds=scores["seed"].nunique())


def holm(p):
    """Return p-values corrected for their number m: the k-th smallest is multiplied by m + 1 - k; monotone, at most 1.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
    """
    ordered = pd.Series(np.asarray(p, dtype=float)).sort_values()
    corrected = (ordered * np.arange(len(ordered), 0, -1)).cummax().clip(upper=1)
    return corrected.sort_index().to_numpy()


def draw(values, size, draws=DRAWS, replace=False):
    """Return `draws` random selections of `size` of the values (n, ...): (draws, size, ...)."""
    rng = np.random.default_rng(0)
    return np.stack([values[rng.choice(len(values), size, replace=replace)] for _ in range(draws)])


def two_sets_within(score, labels, draws=RESAMPLES):
    """Return the 95% quantile of the absolute difference between two sets drawn like this one.

    score(rows): the scores, float (k,), of the rows drawn, in random order; labels: one per row, rows of one label are
    drawn together, with replacement; draws: sets drawn, of which each is compared with one other.
    """
    rng, labels = np.random.default_rng(0), np.asarray(labels)
    groups = [np.flatnonzero(labels == label) for label in dict.fromkeys(labels)]
    drawn = (
        [groups[group] for group in rng.integers(len(groups), size=len(groups))]
        for _ in range(draws)
    )
    scores = np.array([score(rng.permutation(np.concatenate(rows))) for rows in drawn])
    half = draws // 2
    return np.quantile(np.abs(scores[:half] - scores[half : 2 * half]), 0.95, axis=0)


def detectable(differences, power=0.8):
    """Return the smallest true difference that this many pairs would detect at the 5% level with about the given power.

    differences: float (n,), paired. By the t distribution: (t of 0.975 + t of power) standard errors; for three pairs, 5% too small.
    """
    n = len(differences)
    error = np.std(differences, ddof=1) / np.sqrt(n)
    return float((stats.t.ppf(0.975, n - 1) + stats.t.ppf(power, n - 1)) * error)
