"""Signs of the keyboard become those of the printer."""

import pytest
from conftest import extension

typography = extension("typography")


@pytest.mark.parametrize(
    ("typed", "printed"),
    [
        ("-0.017 (-0.04 to 0)", "−0.017 (−0.04 to 0)"),
        ("at 64x64", "at 64×64"),
        ("section 1-1, 2026-11-29, grid64-batch16-3, 80/10/10", None),
        ("x64, 0.5x", None),
    ],
)
def test_minus_and_times(typed, printed):
    assert typography.typeset(typed) == (printed or typed)
