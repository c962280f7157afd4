"""The answers as HTML: a card for each question, which unfolds."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from lggseg_utils import verdict
from lggseg_utils.arms import CLAIMS

TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
HERE = "07_verdict"  # the chapter that shows the cards; its own do not link to it


def cards(group):
    """Return the cards of one group of `claims.yml` as HTML, each with the question's id."""
    chosen = [question for question in CLAIMS["questions"] if question["group"] == group]
    template = TEMPLATES.get_template("cards.html")
    shown = list(map(_card, chosen))
    return template.render(cards=shown, downloads="../book/downloads.html")


def _card(question):
    """Return what a card shows of one question, as a dictionary."""
    found = verdict.judge(question["id"])
    evidence = found.evidence[0].upper() + found.evidence[1:]
    chapter = "" if question["chapter"] == HERE else question["chapter"]
    return {
        **question,
        "answer": found.answer,
        "css": css_class(found.answer),
        "strength": found.strength,
        "number": in_words(question, found),
        "evidence": evidence,
        "records": found.records,
        "chapter": chapter,
    }


def in_words(question, found):
    """Return the number that carries an answer, and what it counts."""
    if "found" not in question:
        return found.number
    return question["found"][found.claim].format(found.number)


def css_class(answer):
    """Return the class of an answer's colour in the book's style sheet: 'not-replicated'."""
    return answer.replace(" ", "-")


def tally():
    """Return how many questions have each answer: answer -> number, in the order of `Verdict`."""
    answers = [verdict.judge(question["id"]).answer for question in CLAIMS["questions"]]
    return {answer: answers.count(answer) for answer in verdict.Verdict}
