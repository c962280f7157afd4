"""The cards of the answers: each once, with what was found as it was said."""

import re
from types import SimpleNamespace

from markupsafe import escape

from lggseg_utils import cards, verdict
from lggseg_utils.arms import CLAIMS
from lggseg_utils.verdict import QUESTIONS


def test_cards_show_every_question_once_and_escape_what_they_show():
    shown = "".join(cards.cards(group["id"]) for group in CLAIMS["groups"])
    for name, question in QUESTIONS.items():
        found = verdict.judge(name)
        assert shown.count(f'id="{name}"') == 1
        assert str(escape(question["question"])) in shown
        assert str(escape(found.evidence[1:])) in shown
    assert '<span class="chip not-replicated">not replicated</span>' in shown
    assert 'href="11_leak.html"' in shown
    assert "07_verdict.html" not in shown
    assert sum(cards.tally().values()) == len(QUESTIONS)


def test_a_card_shows_strength_number_and_trainings():
    shown = "".join(cards.cards(group["id"]) for group in CLAIMS["groups"])
    for name, question in verdict.QUESTIONS.items():
        found = verdict.judge(name)
        (card,) = re.findall(rf'id="{name}">.*?</details>', shown, re.DOTALL)
        assert str(escape(found.strength)) in card
        assert f"Found: {escape(cards.in_words(question, found))}." in card
        assert str(escape(", ".join(found.records))) in card


def test_the_tally_has_all_four_answers_in_order(monkeypatch):
    monkeypatch.setattr(
        verdict, "judge", lambda name: SimpleNamespace(answer=verdict.Verdict.NOT_DECIDED)
    )
    assert list(cards.tally().values()) == [0, 0, len(verdict.QUESTIONS), 0]
