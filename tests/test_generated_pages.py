"""The parts of pages that are made from the records: each number under its head, beside its name."""

import re

import numpy as np
import pandas as pd
import pytest
from conftest import extension
from markupsafe import escape

from lggseg_utils import arms, cards, predictions, records, runs, self_test, sources, verdict
from lggseg_utils.arms import CLAIMS
from lggseg_utils.settings import Experiment


@pytest.fixture(scope="module")
def pages():
    return extension("generated_pages")


def rows_of(table):
    """Return the rows of a Markdown table, its head first, as lists of cells."""
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_table_of_all_questions_shows_what_was_found(pages):
    shown = pages.all_questions()
    for name, question in verdict.QUESTIONS.items():
        found = verdict.judge(name)
        (row,) = re.findall(rf'<tr>(?:(?!</tr>).)*#{name}".*?</tr>', shown, re.DOTALL)
        cells = re.findall("<td>(.*?)</td>", row, re.DOTALL)
        assert cells[1:] == [
            str(escape(question["reported"])),
            str(escape(cards.in_words(question, found))),
        ]
        assert str(found.answer) in cells[0] and str(escape(found.strength)) in row


def test_the_first_pages_numbers_are_those_of_the_records(pages, monkeypatch):
    text = " ".join(pages.groups().split())
    loss = verdict.judge("new-patients").table.iloc[0]
    assert (
        f"loses {loss['difference']:.3f} of Dice (95% interval {loss['low']:.3f} to {loss['high']:.3f})"
        in text
    )
    train = sources.implied_dice().set_index("set").loc["train"]
    assert (
        f"an IoU of {train['iou']:.3f} allows a Dice of {train['implied']:.3f} at most; the report prints {train['dice']:.3f}"
        in text
    )
    met = predictions.new_trainings("plain64")["met"]
    repeated = f"{met.sum()} of {len(met)} lie where those say"
    assert repeated in " ".join(text.split())
    names = arms.with_other_settings()
    tried = self_test.by_table(self_test.try_rule_for_numbers(names)).query(
        "kind == 'other settings'"
    )
    test = tried[tried["set"] == "test"]
    assert (
        f"{(test['answer'] == 'replicated').sum()} of {len(test)} trainings of ours with other settings pass"
        in text
    )
    text = " ".join(text.split())
    assert "size and augmentation have 0.893, 0.814, 0.813." in text, "report128, -1 and -2"
    way = ("dice", "masks", "batch", 1)
    calm = {arm: arms.ended_calmly(arms.trainings(arm)) for arm in ("augmented64", "plain64")}
    with_, without = (
        arms.by_split(names, arms.scores_of(names, "train", "all slices", way)).mean()
        for names in calm.values()
    )
    assert f"their Dice is {with_:.3f} (without: {without:.3f}; reported: 0.957)" in text
    way = ("dice", "probabilities", "slice", 1)
    plain = arms.scores_of(arms.trainings("plain64"), "val", "slices with tumour", way)
    assert f"(the best: {plain.max():.3f})" in text
    assert plain.max() < sources.reported("val", "dice")
    own = arms.scores_of(arms.trainings("plain64"), "val", "slices with tumour", way, "own")
    own = own[~np.isnan(own)]
    assert f"own 64x64 grid, {(own > 0.793).sum()} of {len(own)} do" in text
    assert "(reported: 0.793)" in text
    rises = [arms.training_score(f"augmented64-{seed}", "rise") for seed in range(3)]
    assert f"it ends at {min(rises):.2f} to {max(rises):.2f} times" in text


def test_an_amendment_says_what_was_known(pages):
    early = {"rule": "ratio", "what": "It changes", "when": "2026-11-29T22:35"}
    assert pages._amendment(early).endswith("UTC, before any training for it was scored.)")
    assert pages._amendment({**early, "known": ["a", "b"]}).endswith("UTC, known then: `a`, `b`.)")


def test_groups_of_trainings_are_counted(pages):
    listed = {
        row[0].strip("`"): int(row[1]) for row in rows_of(pages.groups_of_trainings_table())[1:]
    }
    assert listed == {name: len(arms.trainings(name)) for name in CLAIMS["arms"]}


def test_each_record_has_its_minutes(pages):
    """Each record stands in one row, with its minutes and its seed."""
    minutes = {}
    for names, _, took, _command in rows_of(pages.commands_table())[1:]:
        minutes.update(zip(names.split(", "), took.split(", "), strict=True))
    assert sorted(minutes) == records.record_names()
    seconds = runs.read_record(records.RECORDS / "report64")["training"]["seconds"]
    assert minutes["report64"] == f"{seconds / 60:.0f}"


def test_a_readers_record_stands_beside_the_books(pages, monkeypatch):
    row = {"record": "mine", "of_book": "patient64", "data": "16 patients", "differ": ""}
    row |= {
        "dice": 0.5,
        "low": 0.4,
        "high": 0.6,
        "dice_of_book": 0.7,
        "low_of_book": 0.65,
        "high_of_book": 0.75,
    }
    monkeypatch.setattr(records, "readers_names", lambda: ["mine"])
    monkeypatch.setattr(records, "compare_with_book", lambda names: pd.DataFrame([row]))
    assert rows_of(pages.own_records_table())[1] == [
        "`mine`",
        "0.500 (0.400 to 0.600)",
        "16 patients",
        "`patient64`",
        "0.700 (0.650 to 0.750)",
        "nothing",
    ]


def test_first_and_second_edition_stand_under_their_heads(pages):
    head, *rows = rows_of(pages.first_edition_table())
    assert head[1:3] == ["first edition", "second edition"]
    for row, (name, old) in zip(rows, CLAIMS["first_edition"].items(), strict=True):
        assert row[1:3] == [old["answer"], str(verdict.judge(name).answer)]


def test_the_rule_for_numbers_is_counted_under_its_heads(pages):
    head, *rows = rows_of(pages.test_of_numbers_table())
    tried = pages.numbers_tried()
    for kind, part, count, *counts in rows:
        name = {"training": "train", "validation": "val", "test": "test"}[part]
        answers = tried[(tried["kind"] == kind) & (tried["set"] == name)]["answer"]
        assert [int(each) for each in (count, *counts)] == [
            len(answers),
            *((answers == each).sum() for each in head[3:]),
        ]


def test_the_way_found_by_searching_is_counted_as_it_judges(pages):
    tried = pages.numbers_tried_by_way()
    tried = tried[(tried["way"] == verdict.JOINED) & (tried["set"] == "val")]
    text = pages.searched_way_text()
    for kind in ("same settings", "other settings"):
        answers = tried.loc[tried["kind"] == kind, "answer"]
        replicated = (answers == "replicated").sum()
        assert re.search(rf"{replicated} of {len(answers)} (trainings )?with( the)? {kind}", text)
    four = tried[tried["splits"] == 4]
    same, other = (
        four.loc[four["kind"] == f"{kind} settings", "answer"] for kind in ("same", "other")
    )
    counted = (
        f"{(same == 'replicated').sum()} of {len(same)} and "
        f"{(other == 'replicated').sum()} of {len(other)}"
    )
    assert f"Where four judge, it calls {counted} replicated" in text


def test_the_first_page_explains_each_label_that_it_shows(pages):
    table, note = pages.all_questions().split("</table>")
    labels = re.findall(r'<span class="strength">(.*?)</span>', table)
    parts = {part for label in labels for part in label.split("; ")}
    explained = " ".join(note.split())
    for part in parts - {"firm"}:
        word = part.removeprefix("hangs on ").replace("leaving out ", "").removeprefix("the ")
        assert word.replace("&#39;", "'").lower() in explained.lower(), part


def test_every_module_is_described(pages):
    """Every module but the command line is described."""
    modules = {path.stem for path in (runs.REPOSITORY / "lggseg_utils").glob("[!_]*.py")}
    assert set(pages.MODULES) == modules - {"cli"}


def test_every_setting_is_described(pages):
    listed = [row[0].strip("`") for row in rows_of(pages.settings_table())[1:]]
    assert listed == [name for name in Experiment.model_fields if name not in ("profile", "seed")]
