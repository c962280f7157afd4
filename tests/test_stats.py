"""Intervals, paired comparisons, draws, power."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from lggseg_utils import stats


def ablation(gain, spread=0.2, seeds=2, patients=12):
    """Dice of patients that differ among themselves much more than `better` differs from `none`."""
    rng = np.random.default_rng(0)
    level = rng.uniform(0.4, 0.4 + spread, patients)
    rows = [
        (
            condition,
            seed,
            f"P{patient}",
            level[patient] + (gain if condition == "better" else 0) + rng.normal(0, 0.003),
        )
        for condition in ("none", "better", "all")
        for seed in range(seeds)
        for patient in range(patients)
    ]
    return pd.DataFrame(rows, columns=["condition", "seed", "patient", "dice"])


def test_pairing_sees_a_gain_that_is_smaller_than_the_spread_of_patients():
    table = stats.compare_conditions(ablation(0.02)).set_index("condition")
    assert table.loc["better", "difference"] == pytest.approx(0.02, abs=0.003)
    assert table.loc["better", "low"] > 0 and table.loc["better", "p"] < 0.05
    assert table.loc["all", "low"] < 0 < table.loc["all", "high"]
    assert (table["patients"] == 12).all() and (table["seeds"] == 2).all()


def test_every_comparison_is_corrected_for_their_number():
    table = stats.compare_conditions(ablation(0.01)).sort_values("p")
    assert table["p_holm"].tolist() == pytest.approx(
        [2 * table["p"].iloc[0], max(2 * table["p"].iloc[0], table["p"].iloc[1])]
    )


def test_one_patient_has_no_interval():
    one = stats.compare_conditions(ablation(0.1, patients=1))
    assert one["low"].isna().all()


def test_no_difference_at_all_has_p_1():
    assert stats.paired_difference(np.zeros(5)) == {"difference": 0, "low": 0, "high": 0, "p": 1.0}


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([0.6, 0.9]).tolist() == [1, 1] and len(stats.holm([])) == 0


def test_the_bootstrap_interval_of_a_mean_is_near_that_of_the_normal_distribution():
    values = np.random.default_rng(1).normal(0.7, 0.1, 100)
    low, high = stats.interval_over_patients(lambda drawn: values[drawn].mean(-1), 100)
    error = values.std() / 10
    assert (low, high) == pytest.approx(
        (values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.004
    )


def test_draws_are_without_replacement_and_spread_less_when_larger():
    values = np.random.default_rng(0).random(40)
    few, many = (stats.draw(values, size).mean(1) for size in (5, 20))
    assert few.std() > 1.5 * many.std()
    assert stats.draw(values, 40, draws=10).mean(1) == pytest.approx(values.mean())
    assert all(len(set(drawn)) == 20 for drawn in stats.draw(np.arange(40), 20, draws=50))


def test_two_sets_differ_more_where_labels_go_together():
    values = np.repeat(np.random.default_rng(0).random(10), 20)
    apart = {
        name: stats.two_sets_within(
            lambda rows: np.array([values[rows].mean()]), labels, draws=400
        )[0]
        for name, labels in {
            "alone": np.arange(200),
            "together": np.repeat(np.arange(10), 20),
        }.items()
    }
    # Two means of 200 values with standard deviation s differ by less than 1.96 sqrt(2) s/sqrt(200) in 95 %.
    assert apart["alone"] == pytest.approx(1.96 * np.sqrt(2) * values.std() / np.sqrt(200), rel=0.2)
    assert apart["together"] > 3 * apart["alone"]


def test_a_difference_as_large_as_detectable_is_found_four_times_in_five():
    from scipy.stats import ttest_1samp

    rng = np.random.default_rng(0)
    pairs = rng.normal(0, 0.1, (2000, 30))
    shift = np.mean([stats.detectable(row) for row in pairs])
    assert np.mean(ttest_1samp(pairs + shift, 0, axis=1).pvalue < 0.05) == pytest.approx(
        0.8, abs=0.04
    )


def test_the_interval_for_one_more_value_by_hand():
    """Mean 2, standard deviation 1, t of 0.975 for two degrees of freedom: 4.303 (a table)."""
    centre, half = stats.prediction_interval([1, 2, 3])
    assert centre == 2
    assert half == pytest.approx(4.303 * np.sqrt(4 / 3), rel=1e-3)
    assert stats.prediction_interval([1, 2, 3], level=0.99)[1] > half


def test_the_interval_for_one_more_value_of_groups_by_hand():
    """Means 2 and 6, s^2 = 8; within w^2 = 2 and 1/k of 1/2 and 1; t of 0.975 for 1: 12.706."""
    centre, half = stats.prediction_interval([1, 6, 3], groups=[7, 5, 7])
    assert centre == 4
    assert half == pytest.approx(12.706 * np.sqrt(8 * 3 / 2 + 2 * (1 - 3 / 4)), rel=1e-4)


@pytest.mark.parametrize("shared", [0.3, 1, 3])
def test_the_interval_for_one_more_value_of_groups_holds_at_least_19_in_20(shared):
    """Values of a group share a part with this spread, and each has one of its own, spread 1."""
    rng = np.random.default_rng(1)
    groups = np.repeat(range(4), (3, 2, 1, 1))
    inside = []
    for _ in range(2000):
        together, own = rng.normal(0, shared, 5), rng.normal(0, 1, 8)
        centre, half = stats.prediction_interval(together[groups] + own[:7], groups)
        inside.append(abs(together[4] + own[7] - centre) <= half)
    assert 0.94 < np.mean(inside) < 0.985


def test_the_interval_for_one_more_value_holds_19_in_20():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(4000, 6))
    inside = [
        abs(one - centre) <= half
        for one, (centre, half) in zip(
            draws[:, 0], map(stats.prediction_interval, draws[:, 1:]), strict=True
        )
    ]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.01)


def simulated(patients, seeds, patient, seed, both, rng):
    """Return mean scores a seed, and without each patient, of differences with these deviations."""
    values = rng.normal(0, patient, (patients, 1)) + rng.normal(0, seed, (1, seeds))
    values = values + rng.normal(0, both, (patients, seeds))
    without = (values.sum(axis=0) - values) / (patients - 1)
    return values.mean(axis=0), without


@pytest.mark.parametrize("seed", [0.0, 0.1])
def test_the_interval_over_seeds_and_patients_holds_19_in_20(seed):
    """The true difference is 0; patients, seeds, and a patient's luck with a seed all vary."""
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(1500):
        differences, without = simulated(60, 3, 0.5, seed, 0.3, rng)
        _, low, high = stats.interval_over_seeds_and_patients(differences, without)
        inside.append(low < 0 < high)
    assert 0.92 <= np.mean(inside) <= 0.99


def test_with_one_seed_the_interval_is_over_patients():
    values = np.random.default_rng(0).normal(0.1, 0.2, (50, 1))
    without = (values.sum(axis=0) - values) / 49
    mean, low, high = stats.interval_over_seeds_and_patients(values.mean(axis=0), without)
    error = values.std(ddof=1) / np.sqrt(50)
    assert mean == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(2.0096 * error, rel=1e-3), "t for 49, from a table"


def test_the_interval_over_seeds_is_students():
    mean, low, high = stats.interval_over_seeds([1.0, 2.0, 3.0])
    assert mean == 2
    assert (high - low) / 2 == pytest.approx(4.303 / np.sqrt(3), rel=1e-3)


def test_sums_of_drawn_selections():
    values = np.arange(20.0).reshape(10, 2)
    sums = stats.draw_sums(values, 10, draws=5)
    assert (sums == values.sum(axis=0)).all(), "all of them, each once"
    singles = stats.draw_sums(values, 1, draws=4000)
    assert set(map(tuple, singles)) == set(map(tuple, values))
    assert singles.mean(axis=0) == pytest.approx(values.mean(axis=0), rel=0.03)


def test_the_interval_over_seeds_and_patients_follows_from_an_analysis_of_variance():
    """Patients and seeds crossed: the variance of the mean is (MSp + MSs - MSps)/(P S)."""
    rng = np.random.default_rng(1)
    values = rng.normal(0, 1, (12, 1)) + rng.normal(0, 0.6, (1, 4)) + rng.normal(0, 1, (12, 4))
    patients, seeds = values.shape
    rest = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    between_patients = seeds * values.mean(axis=1).var(ddof=1)
    between_seeds = patients * values.mean(axis=0).var(ddof=1)
    within = (rest**2).sum() / (patients - 1) / (seeds - 1)
    variance = (between_patients + between_seeds - within) / values.size
    freedom = variance**2 / ((between_seeds / values.size) ** 2 / (seeds - 1))
    half = scipy.stats.t.ppf(0.975, min(freedom, patients - 1)) * np.sqrt(variance)
    without = (values.sum(axis=0) - values) / (patients - 1)
    found = stats.interval_over_seeds_and_patients(values.mean(axis=0), without)
    assert found == pytest.approx((values.mean(), values.mean() - half, values.mean() + half))


def test_a_loss_is_as_significant_as_a_gain():
    """A loss is as significant as a gain."""
    gain = np.linspace(0.01, 0.1, 12)
    assert stats.paired_difference(-gain)["p"] == stats.paired_difference(gain)["p"] < 0.01


def test_more_can_be_drawn_than_there_are_with_replacement():
    """Chapter 10 draws test sets larger than the cohort."""
    drawn = stats.draw(np.arange(5), 20, draws=30, replace=True)
    assert drawn.shape == (30, 20)


def test_batches_of_a_random_set_hold_slices_of_several_patients():
    """Scores by batch need slices of different patients in a batch."""
    orders = []
    stats.two_sets_within(
        lambda rows: orders.append(rows) or np.zeros(1), np.repeat(range(3), 4), draws=9
    )
    assert any((np.diff(rows // 4) != 0).sum() > 2 for rows in orders)


def test_what_is_detectable_depends_on_the_power():
    values = np.random.default_rng(0).normal(0, 1, 1000)
    error = values.std(ddof=1) / np.sqrt(1000)
    assert stats.detectable(values, power=0.95) == pytest.approx((1.96 + 1.645) * error, rel=5e-3)


def test_the_same_is_drawn_each_time():
    values = np.arange(50)
    assert np.array_equal(stats.draw(values, 5, 20), stats.draw(values, 5, 20))
