"""Random tenths of the cohort: what is drawn, and how much of it."""

import numpy as np
import pandas as pd
import pytest

from lggseg_utils import records, sources


def test_error_ratios_are_of_tenths_that_have_nothing_in_common():
    """Ten slices with 1 to 10 errors: a tenth is one of them, and the other tenth is another one."""
    table = pd.DataFrame({"patient": range(10), "fp": 1, "fn": range(10)})
    ratios = sources.error_ratios(table, "slice", draws=2000)
    assert (ratios.min(), ratios.max()) == pytest.approx((10 / 9, 10))


def test_error_ratios_know_what_they_draw():
    """Slices of one patient go together."""
    table = pd.DataFrame(
        {"patient": np.repeat(range(20), 10), "fp": np.repeat(range(1, 21), 10), "fn": 0}
    )
    by_slice, by_patient = (
        sources.error_ratios(table, by, draws=500) for by in ("slice", "patient")
    )
    assert np.median(by_patient) - 1 > 2 * (np.median(by_slice) - 1)


def test_tumour_shares_are_those_of_tenths(monkeypatch):
    """A random tenth: the spread of 6 of 60 slices, of which one in six is tumour."""
    slices = pd.DataFrame(
        {"patient": range(60), "tumour_area": ([100] + 5 * [0]) * 10, "height": 10, "width": 10}
    )
    monkeypatch.setattr(records, "read_csv", lambda path: slices)
    shares = sources.tumour_shares("slice", draws=4000)
    p = 1 / 6
    assert shares.std() == pytest.approx(np.sqrt(p * (1 - p) / 6 * 54 / 59), rel=0.05)
