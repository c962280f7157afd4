"""Intervals, paired comparisons, draws, power."""

import numpy as np
import pandas as pd
import pytest

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
