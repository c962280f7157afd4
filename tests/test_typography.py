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


@pytest.mark.parametrize(
    ("typed", "printed"),
    [
        ("<p><b>Evidence.</b> The difference is -0.029.</p>", "−0.029"),
        ("<td>tumour_area</td>", "tumour_<wbr>area"),
        ("<p>tumour_area</p>", "tumour_area"),
        ("<code>-1 64x64</code> -1", "<code>-1 64x64</code> −1"),
        ("<style>a {margin: -1px}</style>", "margin: -1px"),
    ],
)
def test_texts_of_html_are_typeset_and_code_is_not(typed, printed):
    assert printed in typography.typeset_html(typed)
