"""Uncertainty: bootstrap over patients, paired differences, random test sets, power."""

import warnings

import numpy as np
import pandas as pd
import scipy  # its parts are loaded when they are used, and scipy.stats takes a second

RESAMPLES = 2000
DRAWS = 5000


def interval_over_patients(statistic, patients, resamples=RESAMPLES):
    """Return the 95% interval (low, high) of scores by the percentile bootstrap over patients.

    statistic(drawn): the scores of resampled patients, whose numbers from 0 are in the last axis of
    `drawn` (..., patients); resamples: how often they are drawn. NaN for fewer than two patients,
    and for no resamples.
    """
    if patients < 2 or not resamples:
        return np.nan, np.nan
    with warnings.catch_warnings():
        # A score that is undefined in every draw has no interval; the tables say so.
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
        options = {"n_resamples": resamples, "vectorized": True, "method": "percentile"}
        numbers, rng = (np.arange(patients),), np.random.default_rng(0)
        result = scipy.stats.bootstrap(
            numbers, lambda drawn, axis: statistic(drawn), rng=rng, **options
        )
    return result.confidence_interval


def _quantile_of_t(level, freedom):
    """Return the quantile of Student's t; `scipy.special` loads in a tenth of `scipy.stats`."""
    return scipy.special.stdtrit(freedom, level)


def prediction_interval(values, groups=None, level=0.95):
    """Return (centre, half-width) of the interval for one more value of the same kind.

    values: float (m,), from a normal distribution; groups: labels (m,) of values that share a
    draw, such as a split, n different ones, at least 2; by default each value is a group. The mean
    of the groups' means +- t(n - 1) sqrt(s^2 (1 + 1/n) + w^2 (1 - mean of 1/k)): s is their
    standard deviation, w that within groups, k the size of each. With groups of one this is the
    interval of Hahn and Meeker, "Statistical Intervals", 1991. A mean of k values spreads less than
    one value; the last term makes up for it, as in a one-way random model (Searle, Casella and
    McCulloch, "Variance Components", 1992).
    """
    values = np.asarray(values, dtype=float)
    labels = np.arange(len(values)) if groups is None else np.asarray(groups)
    _, group, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    means = np.bincount(group, values) / sizes
    n, between = len(means), means.var(ddof=1)
    within = ((values - means[group]) ** 2).sum() / max(1, len(values) - n)
    variance = between * (1 + 1 / n) + within * (1 - (1 / sizes).mean())
    return means.mean(), _quantile_of_t((1 + level) / 2, n - 1) * np.sqrt(variance)


def interval_over_seeds(values):
    """Return (mean, low, high) of a score that each training has once: its 95% t interval."""
    values = np.asarray(values, dtype=float)
    n, mean = len(values), values.mean()
    half = _quantile_of_t(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)
    return mean, mean - half, mean + half


def interval_over_seeds_and_patients(differences, without):
    """Return (mean, low, high): the 95% interval of a mean difference over seeds and patients.

    differences: float (seeds,); without: the same with each patient left out in turn, float
    (patients, seeds). The variance joins the jackknife over patients, of the mean over seeds, and
    the spread between seeds, s^2/n, less the part that both contain (a patient's luck with a seed);
    that part is what the jackknife of single seeds has more than that of their mean. After
    Obuchowski and Rockette, Communications in Statistics 24, 1995, with the degrees of freedom of
    Hillis, Statistics in Medicine 26, 2007, at most one less than patients. With one seed, the
    interval is over patients alone.
    """
    seeds, patients = len(differences), len(without)
    variance = _jackknife_variance(without.mean(axis=1))
    freedom = patients - 1.0
    if seeds > 1:
        shared = (_jackknife_variance(without).mean() - variance) / (seeds - 1)
        over_seeds = differences.var(ddof=1) / seeds
        variance = over_seeds + max(0.0, variance - shared)
        if over_seeds:
            freedom = min(freedom, variance**2 / (over_seeds**2 / (seeds - 1)))
    half = _quantile_of_t(0.975, freedom) * np.sqrt(variance)
    return differences.mean(), differences.mean() - half, differences.mean() + half


def _jackknife_variance(without):
    """Return the jackknife variance over the first axis of scores with one unit left out each."""
    n = len(without)
    return (n - 1) / n * ((without - without.mean(axis=0)) ** 2).sum(axis=0)


def paired_difference(differences):
    """Summarise differences paired by patient, float (n,): difference (mean), low, high (95%
    interval) and p.

    p is Wilcoxon's signed-rank test, not corrected for the number of comparisons.
    """
    values = np.asarray(differences, dtype=float)
    low, high = interval_over_patients(lambda drawn: values[drawn].mean(-1), len(values))
    p = scipy.stats.wilcoxon(values).pvalue if values.any() else 1.0
    return {"difference": values.mean(), "low": low, "high": high, "p": p}


def compare_conditions(scores, baseline="none"):
    """Compare each condition with the baseline, paired by patient: condition and
    `paired_difference`, p_holm, patients, seeds.

    scores: a table condition, seed, patient, dice; seeds are averaged first. p_holm is corrected by
    `holm` over all conditions. The intervals say nothing of other seeds.
    """
    dice = scores.pivot_table(index="patient", columns="condition", values="dice", sort=False)
    others = [name for name in dice if name != baseline]
    table = pd.DataFrame(
        [{"condition": name, **paired_difference(dice[name] - dice[baseline])} for name in others]
    )
    return table.assign(p_holm=holm(table["p"]), patients=len(dice), seeds=scores["seed"].nunique())


def holm(p):
    """Return p-values corrected for their number m: the k-th smallest is multiplied by m + 1 - k;
    monotone, at most 1.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6, 1979.
    """
    ordered = pd.Series(np.asarray(p, dtype=float)).sort_values()
    corrected = (ordered * np.arange(len(ordered), 0, -1)).cummax().clip(upper=1)
    return corrected.sort_index().to_numpy()


def draw(values, size, draws=DRAWS, replace=False):
    """Return `draws` random selections of `size` of the values (n, ...): (draws, size, ...)."""
    rng = np.random.default_rng(0)
    return np.stack([values[rng.choice(len(values), size, replace=replace)] for _ in range(draws)])


def draw_sums(values, size, draws=DRAWS):
    """Return the sums of `draws` random selections of `size` of the values (n, k): (draws, k).

    Nothing is drawn twice into one selection. Fast enough to count what happens once in thousands.
    """
    rng = np.random.default_rng(0)
    sums = []
    for chunk in np.array_split(np.arange(draws), max(1, draws * len(values) // 5_000_000)):
        keys = rng.random((len(chunk), len(values)))
        chosen = np.argpartition(keys, size - 1, axis=1)[:, :size]
        sums.append(values[chosen].sum(axis=1))
    return np.concatenate(sums)


def two_sets_within(score, labels, draws=RESAMPLES):
    """Return the 95% quantile of the absolute difference between two sets drawn like this one.

    score(rows): the scores, float (k,), of the rows drawn, in random order; labels: one per row,
    rows of one label are drawn together, with replacement; draws: sets drawn, of which each is
    compared with one other.
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
    """Return the smallest true difference that this many pairs would detect at the 5% level with
    about the given power.

    differences: float (n,), paired. By the t distribution: (t of 0.975 + t of power) standard
    errors; for three pairs, 5% too small.
    """
    n = len(differences)
    error = np.std(differences, ddof=1) / np.sqrt(n)
    return float((_quantile_of_t(0.975, n - 1) + _quantile_of_t(power, n - 1)) * error)
