"""What the book makes of a chapter's plain Markdown."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lggseg_utils import myst, runs

SOURCES = {"https://doi.org/10.1/buda": "buda2019"}


def staged(*cells, terms=()):
    """Return the cells of a notebook as the book shows them."""
    notebook = new_notebook(cells=list(cells))
    myst.to_myst(notebook, "chapter", terms, SOURCES)
    return notebook.cells


class TestCaptions:
    def test_a_text_below_a_figure_becomes_its_caption(self):
        figure = new_code_cell("draw()", metadata={"mystnb": {"image": {"alt": "A line."}}})
        (cell,) = staged(figure, new_markdown_cell("**Figure.** It rises."))
        assert cell.metadata["mystnb"]["figure"]["caption"] == "It rises."
        assert cell.metadata["mystnb"]["image"] == {"alt": "A line."}

    def test_so_does_markdown_that_code_made(self):
        made = new_output("display_data", {"text/markdown": "**Figure.** Of 3 patients."})
        words = new_code_cell("Markdown(text)", outputs=[made])
        (cell,) = staged(new_code_cell("draw()"), words)
        assert cell.metadata["mystnb"]["figure"]["caption"] == "Of 3 patients."

    def test_each_figure_has_a_name_of_its_own(self):
        pairs = [new_code_cell("draw()"), new_markdown_cell("**Figure.** One.")] * 2
        names = [cell.metadata["mystnb"]["figure"]["name"] for cell in staged(*map(copied, pairs))]
        assert len(set(names)) == 2 and all(name.startswith("chapter") for name in names)

    def test_other_texts_stay(self):
        cells = staged(new_code_cell("draw()"), new_markdown_cell("A figure."))
        assert [cell.cell_type for cell in cells] == ["code", "markdown"]


def copied(cell):
    """Return a copy of a cell."""
    return nbformat.from_dict(dict(cell, metadata={}))


@pytest.mark.parametrize(
    ("tag", "known", "label"),
    [
        ("solution", "hide-cell", "Show the solution"),
        ("plotting", "hide-input", "Show the plotting code"),
    ],
)
def test_code_is_folded_by_its_tag(tag, known, label):
    (cell,) = staged(new_code_cell("x = 1", metadata={"tags": [tag]}))
    assert cell.metadata["tags"] == [known]
    assert cell.metadata["mystnb"]["code_prompt_show"] == label


def test_an_exercise_becomes_a_box_with_all_its_lines():
    (cell,) = staged(new_markdown_cell("> **Exercise 2.** Guess first.\n> Then count."))
    expected = ":::{admonition} Exercise 2\n:class: tip\nGuess first.\nThen count.\n:::"
    assert cell.source == expected


class TestCitations:
    def test_a_link_to_a_work_of_the_bibliography_becomes_a_citation(self):
        text = "[Buda et al. (2019)](https://doi.org/10.1/buda) published them."
        assert myst.cite(text, SOURCES) == "{cite:t}`buda2019` published them."

    def test_in_parentheses_it_becomes_one_in_parentheses(self):
        text = "As shown ([Buda 2019](https://doi.org/10.1/buda)), it is."
        assert myst.cite(text, SOURCES) == "As shown {cite:p}`buda2019`, it is."

    @pytest.mark.parametrize(
        "text", ["[The data](https://doi.org/10.1/buda)", "[chapter 2](02_x.ipynb)"]
    )
    def test_other_links_stay(self, text):
        assert myst.cite(text, SOURCES) == text


class TestTerms:
    def test_the_first_use_leads_to_the_glossary_and_no_other(self):
        cells = staged(
            new_markdown_cell("Folds are parts."),
            new_markdown_cell("A fold is a part."),
            terms=["fold"],
        )
        assert [cell.source for cell in cells] == [
            "{term}`Folds <fold>` are parts.",
            "A fold is a part.",
        ]

    def test_a_long_term_is_not_cut_by_a_short_one(self):
        text = myst.mark_terms("Batch normalisation.", ["batch normalisation", "batch"])
        assert text == "{term}`Batch normalisation <batch normalisation>`."

    @pytest.mark.parametrize(
        "text",
        [
            "`fold`",
            "$fold$",
            "[a fold](x.md)",
            "# A fold",
            "**fold**",
            "twofold",
            "fold-wise",
            "```\nfold\n```",
        ],
    )
    def test_code_mathematics_links_and_headings_are_left_alone(self, text):
        assert myst.mark_terms(text, ["fold"]) == text

    def test_the_glossary_is_read_with_its_longest_terms_first(self):
        page = "# G\n\n```{glossary}\n:sorted:\n\nfold\n    A part.\n\ncross-validation\n    All.\n```\n"
        assert myst.read_terms(page) == ["cross-validation", "fold"]


def test_the_bibliography_is_found_by_url_and_doi():
    found = myst.read_sources(
        (runs.REPOSITORY / "book" / "references.bib").read_text(encoding="utf-8")
    )
    assert found["https://doi.org/10.1016/j.compbiomed.2019.05.002"] == "buda2019"
    assert found["https://arxiv.org/abs/2210.13336"] == "alnasim2022"


def test_everyday_words_are_not_linked():
    notebook = new_notebook(cells=[new_markdown_cell("A grid and a fold.")])
    myst.to_myst(notebook, "x", ["grid", "fold"], {})
    assert notebook.cells[0].source == "A grid and a {term}`fold`.".replace(
        "`fold`", "`fold <fold>`"
    )


@pytest.mark.parametrize("text", ["$$fold$$", '<img alt="a fold">', "$$\na\nfold\n$$"])
def test_formulas_and_html_are_left_alone(text):
    assert myst.mark_terms(text, ["fold"]) == text


def test_folded_code_says_how_to_hide_it():
    notebook = new_notebook(cells=[new_code_cell("x", metadata={"tags": ["solution"]})])
    myst.to_myst(notebook, "x", [], {})
    assert notebook.cells[0].metadata["mystnb"]["code_prompt_hide"] == "Hide the solution"


def test_a_term_after_code_is_linked_at_its_place():
    assert (
        myst.mark_terms("`fold` is code; a fold is a part.", ["fold"])
        == "`fold` is code; a {term}`fold <fold>` is a part."
    )


def test_terms_come_longest_first_whatever_the_alphabet():
    page = "```{glossary}\nfold\n    A part.\n\nvalidation\n    B.\n\nband\n    C.\n```\n"
    assert myst.read_terms(page) == ["validation", "fold", "band"]
