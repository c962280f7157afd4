"""The verdict: criteria older than the runs, rules that can come out either way, all by hand."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import pages_of_the_book

from lggseg_utils import arms, cards, metrics, records, runs, verdict
from lggseg_utils.arms import CLAIMS
from lggseg_utils.verdict import QUESTIONS, Verdict

GIT = runs.REPOSITORY / ".git"
HAS_HISTORY = GIT.exists() and not (GIT / "shallow").exists()
# Display, which decides nothing and may be reworded.
SHOWN = ("question", "reported", "found", "takes", "chapter", "model", "hangs", "group")


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_is_complete_and_answered(name):
    question = QUESTIONS[name]
    assert question["group"] in {group["id"] for group in CLAIMS["groups"]}
    assert question["criterion"]
    assert question["question"].endswith("?")
    assert f"notebooks/{question['chapter']}" in pages_of_the_book()
    answer = verdict.judge(name)
    assert str(answer.answer) in CLAIMS["answers"]
    assert (answer.strength == "") == (answer.answer == Verdict.NOT_DECIDED)
    assert not re.search(r"\bnan\b", answer.evidence + answer.number)
    if answer.answer == Verdict.NOT_DECIDED:
        assert question["takes"], "what it would take to decide"
    for part in filter(None, answer.strength.split("; ")):
        assert part in CLAIMS["strengths"] or part.startswith("hangs on ")


@pytest.mark.parametrize("prediction", CLAIMS["predictions"], ids=lambda each: each["id"])
def test_predictions_and_criteria_are_older_than_the_trainings_that_test_them(prediction):
    made = [name for name in arms.made(prediction["records"]) if arms.is_new(name)]
    for name in made:
        commit = _commit_of(name, prediction)
        command = ["git", "show", f"{commit}:lggseg_utils/claims.yml"]
        shown = subprocess.run(
            command, cwd=runs.REPOSITORY, capture_output=True, text=True, check=False
        )
        if not HAS_HISTORY:
            pytest.skip("a download and a shallow clone have no history")
        then = yaml.safe_load(shown.stdout)
        assert prediction in then["predictions"], name
        assert _deciding(then) == _deciding(CLAIMS), name
        ended = runs.read_record(records.RECORDS / name)["ended"]["time"]
        for each in CLAIMS["amendments"]:
            known = each.get("known", [])
            assert each["when"] < ended or name in known, "amended before it was scored"


def _commit_of(name, prediction):
    """Return the commit at which a training was started, or its earlier epoch scored."""
    if prediction["id"] == "earlier-epoch":
        early = records.read_early()
        return early.loc[early["training"] == name, "git_commit"].iloc[0]
    return runs.read_record(records.RECORDS / name)["git_commit"]


def _deciding(claims):
    """Return what decides of a whole claims.yml."""
    questions = [
        {key: value for key, value in question.items() if key not in SHOWN}
        for question in claims["questions"]
    ]
    kept = ("margin", "wide", "seeds", "spike", "reading_error", "ways", "arms", "rules")
    return questions, {key: claims[key] for key in kept}


def test_every_question_of_the_first_edition_is_answered_again():
    assert set(CLAIMS["first_edition"]) == set(QUESTIONS)
    for old in CLAIMS["first_edition"].values():
        assert set(old) == {"answer", "why"}, "a comma without quotes cuts a reason off"


def test_every_rule_is_printed_as_it_is_in_force():
    assert set(CLAIMS["in_force"]) == set(CLAIMS["rules"])


def test_judging_loads_no_tensorflow():
    code = (
        "import sys; from lggseg_utils import records, stats, verdict;"
        "verdict.judge('size'); print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("answers", "whole"),
    [
        (("replicated", "replicated"), Verdict.REPLICATED),
        (("replicated", "not decided"), Verdict.NOT_DECIDED),
        (("not decided", "not replicated"), Verdict.NOT_REPLICATED),
    ],
)
def test_of_several_claims_one_that_fails_decides(answers, whole):
    assert verdict.together(map(Verdict, answers)) == whole


# The rule for numbers


@pytest.fixture
def scored(monkeypatch):
    """Let `scores_of` return these values for Dice and IoU, whatever is asked."""

    def put(dice, iou):
        values = {"dice": np.array(dice), "iou": np.array(iou)}
        monkeypatch.setattr(
            arms, "scores_of", lambda names, part, subset, way, grid: values[way[0]]
        )

    return put


def judge_pair(dice, iou, reading=0.0):
    """Judge a reported pair by whatever `scored` has put."""
    names = ["x-0", "x-1", "x-2"]
    way = verdict.WAYS["masks, by batch"]
    return verdict.judge_pair({"dice": dice, "iou": iou}, names, "test", "all slices", way, reading)


def test_a_number_is_met_within_the_interval_for_one_more_training(scored):
    """Of 0.80, 0.81, 0.79: t of 0.9875 for two degrees of freedom is 6.205 (a printed table)."""
    scored([0.80, 0.81, 0.79], [0.700, 0.701, 0.699])
    half = 6.205 * 0.01 * np.sqrt(4 / 3)
    result = judge_pair(0.80, 0.70)
    assert result["dice_half"] == pytest.approx(half, rel=1e-3)
    assert half > 0.05
    assert result["answer"] == Verdict.NOT_DECIDED, "too wide to say anything"
    scored([0.80, 0.804, 0.796], [0.700, 0.701, 0.699])
    half = 6.205 * 0.004 * np.sqrt(4 / 3)
    assert judge_pair(0.80 + half - 1e-3, 0.70)["answer"] == Verdict.REPLICATED
    assert judge_pair(0.80 + half + 1e-3, 0.70)["answer"] == Verdict.NOT_REPLICATED


@pytest.mark.parametrize(("spread", "said"), [(0.001, False), (0.03, True)])
def test_a_number_whose_interval_is_too_wide_says_so(scored, spread, said, monkeypatch):
    names = [f"grid64-dropout2-{seed}" for seed in range(3)]
    monkeypatch.setattr(arms, "trainings", lambda arm: names)
    scored([0.74, 0.74 + spread, 0.74 - spread], [0.71, 0.71 + spread, 0.71 - spread])
    answer = verdict.judge.__wrapped__("run-6")
    assert answer.number.startswith("Dice 0.740 ± ")
    assert ("too wide" in answer.number) == said


def test_dice_and_iou_are_judged_together(scored):
    scored([0.80, 0.801, 0.799], [0.700, 0.701, 0.699])
    assert judge_pair(0.80, 0.70)["answer"] == Verdict.REPLICATED
    assert judge_pair(0.80, 0.75)["answer"] == Verdict.NOT_REPLICATED
    assert judge_pair(0.85, 0.70)["answer"] == Verdict.NOT_REPLICATED


def test_a_distance_below_the_margin_does_not_matter_and_readings_may_err(scored):
    scored([0.80, 0.8001, 0.7999], [0.700, 0.7001, 0.6999])
    assert judge_pair(0.819, 0.719)["answer"] == Verdict.REPLICATED
    assert judge_pair(0.825, 0.70)["answer"] == Verdict.NOT_REPLICATED
    assert judge_pair(0.825, 0.70, reading=0.01)["answer"] == Verdict.REPLICATED


def test_two_splits_decide_nothing_however_many_trainings_share_them(scored):
    names = ["x-0", "y-0", "x-1", "y-1"]
    scored([0.80] * 4, [0.70] * 4)
    pair = {"dice": 0.80, "iou": 0.70}
    way = verdict.WAYS["masks, by batch"]
    result = verdict.judge_pair(pair, names, "test", "all slices", way)
    assert (result["n"], result["answer"]) == (2, Verdict.NOT_DECIDED)


def test_only_trainings_whose_seed_both_sides_have_decide(monkeypatch):
    monkeypatch.setattr(arms, "recorded", lambda: ["a-0", "a-1", "b-1", "b-2"])
    assert verdict._paired_names("a", "b") == ["a-1", "b-1"]


@pytest.mark.parametrize(
    ("answers", "best"),
    [
        (("replicated", "not replicated"), Verdict.REPLICATED),
        (("not replicated", "not replicated"), Verdict.NOT_REPLICATED),
        (("not replicated", "not decided"), Verdict.NOT_DECIDED),
    ],
)
def test_one_way_of_counting_that_replicates_suffices(answers, best):
    assert verdict.best_of(map(Verdict, answers)) == best


def test_the_way_found_by_searching_counts_with_new_trainings_alone():
    table = verdict.judge_arm(QUESTIONS["test-scores"], "plain64")
    new = [name for name in arms.ended_calmly(arms.trainings("plain64")) if arms.is_new(name)]
    splits = len(set(map(arms.split_of, new)))
    assert set(table.loc[table["way"] == verdict.JOINED, "n"]) == {splits}
    assert not arms.is_new("report128-1")
    assert not arms.is_new("grid64-batch16-0")


def test_the_card_of_that_way_names_the_trainings_that_it_rests_on(monkeypatch):
    monkeypatch.setattr(arms, "is_new", {"x-1", "x-2"}.__contains__)
    monkeypatch.setattr(arms, "ended_calmly", list)
    monkeypatch.setattr(arms, "calm_on_own_grid", lambda names: [])
    row = {"way": verdict.JOINED, "slices": "all slices", "n": 2}
    row |= {f"{score}_{key}": 0.0 for score in ("dice", "iou") for key in ("mean", "half", "met")}
    names, answers = ["x-0", "x-1", "x-2"], pd.Series(["not replicated"])
    said = verdict._pair_sentence(QUESTIONS["test-scores"], row, names, answers)
    assert f"Counted by {verdict.JOINED}, on all slices" in said
    assert "so of 3 trainings only those made since count; 2 of them did not end in a spike" in said
    row["way"] = "masks, pooled"
    said = verdict._pair_sentence(QUESTIONS["test-scores"], row, names, answers)
    assert "Of 3 trainings, the 3 that did not end in a spike judge" in said


def test_run_6_is_judged_by_its_own_dropout_and_with_its_reading_error(monkeypatch):
    asked = []

    def judge_pair(reported, names, part, subset, way, reading, grid):
        asked.append((part, reading, {name.rpartition("-")[0] for name in names}))
        pair = {f"{score}_{key}": 0.0 for score in reported for key in ("mean", "half", "met")}
        return {"answer": Verdict.NOT_REPLICATED, "n": 3, **pair}

    monkeypatch.setattr(verdict, "judge_pair", judge_pair)
    verdict.judge_arm(QUESTIONS["run-6"], "dropout64")
    verdict.judge_arm(QUESTIONS["test-scores"], "dropout64")
    both = {"grid64-dropout1", "grid64-dropout2"}
    of_run_6 = [each for each in asked if each[0] == "val" and each[2]]
    assert of_run_6
    assert all(each == ("val", 0.01, {"grid64-dropout2"}) for each in of_run_6)
    assert ("test", 0.0, both) in asked


def test_trainings_of_another_dropout_do_not_decide_about_run_6(monkeypatch):
    names = ["grid64-dropout1-0", "grid64-dropout1-1", "grid64-dropout1-2", "grid64-dropout2-0"]
    monkeypatch.setattr(arms, "trainings", lambda arm: names)
    monkeypatch.setattr(arms, "is_new", lambda name: True)
    question = {**QUESTIONS["run-6"], "arms": ["plain64", "dropout64"]}
    with pytest.raises(StopIteration):
        verdict._numbers(question)
    _, arm, table = numbers_of_three(monkeypatch, names)
    assert "exploratory" in verdict._hinges(question, arm, table)


def test_the_row_that_is_shown_meets_most_and_comes_nearest():
    rows = [(False, True, 0.80), (True, True, 0.79), (True, True, 0.81), (True, True, 0.84)]
    table = pd.DataFrame(rows, columns=["dice_met", "iou_met", "dice_mean"])
    table = table.assign(answer=Verdict.REPLICATED, iou_mean=0.7)
    shown = verdict._shown(table, Verdict.REPLICATED, {"dice": 0.805, "iou": 0.7})
    assert shown["dice_mean"] == 0.81


# The rule for differences


@pytest.mark.parametrize(
    ("name", "claim", "part", "score"),
    [
        ("mixing", 0, "test", "dice_patient_mean"),
        ("size", 0, "test", "dice_pooled"),
        ("dropout", 3, "val", "dice_pooled"),
    ],
)
def test_a_difference_is_of_the_score_that_the_question_names(
    monkeypatch, name, claim, part, score
):
    asked = {}

    def compare_arms(more, less, **how):
        asked.update(how)
        return {"low": 0.0, "high": 0.0}

    monkeypatch.setattr(verdict, "compare_arms", compare_arms)
    verdict.claim_difference(QUESTIONS[name]["claims"][claim])
    assert asked == {"part": part, "score": score}


def sums(patients, tp, fp=10, fn=10):
    """Return counts of some patients, as `_patient_sums` does."""
    table = pd.DataFrame({"tp": tp, "fp": fp, "fn": fn}, index=[f"p{i}" for i in range(patients)])
    return table.astype(float)


@pytest.fixture
def counted(monkeypatch):
    """Let these tables of counts a patient be what trainings scored."""

    def put(**tables):
        monkeypatch.setattr(verdict, "_patient_sums", lambda name, part: tables[name])

    return put


def test_arms_are_compared_on_the_patients_that_all_have(counted):
    counted(a=sums(4, [80, 70, 60, 50]), b=sums(3, [70, 60, 50]))
    result = verdict.compare_arms([["a"]], [["b"]])
    assert result["patients"] == 3
    assert result["more"] == pytest.approx(2 * 210 / (2 * 210 + 60))
    assert result["difference"] == pytest.approx(result["more"] - 2 * 180 / (2 * 180 + 60))
    assert not result["signs_differ"]
    assert verdict.compare_arms([["a"], ["b"]], [["b"], ["a"]])["signs_differ"]
    by_patient = verdict.compare_arms([["a"]], [["b"]], score="dice_patient_mean")
    by_hand = np.mean([160 / 180, 140 / 160, 120 / 140])
    assert by_patient["more"] == pytest.approx(by_hand)


def test_trainings_of_one_seed_are_averaged(counted):
    counted(a=sums(3, 80), b=sums(3, 60), c=sums(3, 50))
    result = verdict.compare_arms([["a", "b"]], [["c"]])
    assert result["more"] == pytest.approx((160 / 180 + 120 / 140) / 2)


def test_leaving_out_a_patient_by_hand():
    whole, without = verdict._scores_without(sums(3, [80, 70, 60]), "dice_pooled")
    assert whole == pytest.approx(420 / 480)
    assert without == pytest.approx([260 / 300, 280 / 320, 300 / 340])
    missing = sums(3, [80, 70, 60])
    missing.iloc[2] = np.nan
    whole, without = verdict._scores_without(missing, "dice_patient_mean")
    assert whole == pytest.approx((160 / 180 + 140 / 160) / 2)
    assert without == pytest.approx([140 / 160, 160 / 180, whole])


@pytest.mark.parametrize(
    ("low", "high", "claimed", "answer"),
    [
        (0.01, 0.05, None, Verdict.REPLICATED),
        (-0.01, 0.05, None, Verdict.NOT_DECIDED),
        (0.001, 0.019, None, Verdict.NOT_REPLICATED),
        (0.03, 0.05, "less than the margin", Verdict.NOT_REPLICATED),
        (0.01, 0.05, "less than the margin", Verdict.NOT_DECIDED),
        (-0.01, 0.019, "less than the margin", Verdict.REPLICATED),
    ],
)
def test_a_difference_is_judged_by_its_interval(low, high, claimed, answer):
    assert verdict._beyond(low, high, {"claimed": claimed}) == answer


@pytest.mark.parametrize(("seeds", "answer"), [(3, Verdict.REPLICATED), (2, Verdict.NOT_DECIDED)])
def test_two_seeds_decide_no_difference_however_alike_they_are(monkeypatch, seeds, answer):
    monkeypatch.setattr(verdict, "compare_arms", lambda *_, **__: {"low": 0.05, "high": 0.06})
    claim = {**QUESTIONS["new-patients"]["claims"][0], "claimed": None}
    few = {**claim, "more": claim["more"][:seeds], "less": claim["less"][:seeds]}
    assert verdict.claim_difference(few)["answer"] == answer


# The rule for ratios


def test_a_ratio_is_judged_by_the_interval_of_its_logarithm():
    """t of 0.975 for two degrees of freedom, from a printed table: 4.303."""
    ratios = np.exp([0.5, 0.6, 0.7])
    result = verdict.judge_ratios(ratios, matters=1.2)
    half = 4.303 * 0.1 / np.sqrt(3)
    assert result["ratio"] == pytest.approx(np.exp(0.6))
    assert np.log(result["high"]) == pytest.approx(0.6 + half, rel=1e-3)
    assert result["answer"] == Verdict.REPLICATED
    assert verdict.judge_ratios(ratios, matters=3)["answer"] == Verdict.NOT_REPLICATED
    assert verdict.judge_ratios([0.5, 1, 2], matters=1.2)["answer"] == Verdict.NOT_DECIDED
    assert verdict.judge_ratios([2, 2.1], matters=1.2)["answer"] == Verdict.NOT_DECIDED
    assert verdict.judge_ratios([2, 2.1, -1], matters=1.2)["answer"] == Verdict.NOT_DECIDED
    above_one = [1.06, 1.07, 1.08]
    assert verdict.judge_ratios(above_one, matters=1.07)["answer"] == Verdict.REPLICATED
    assert verdict.judge_ratios(above_one, 1.07, null=1.07)["answer"] == Verdict.NOT_DECIDED


def test_trainings_compared_with_one_count_by_split_and_must_pass_what_matters(monkeypatch):
    rises = {"a-0": 1.2, "b-0": 1.4, "a-1": 1.31, "a-2": 1.32}
    monkeypatch.setattr(arms, "training_score", lambda name, score: rises[name])
    claim = {"score": "rise", "matters": 1.1}
    outcome = verdict.claim_ratio_to_one(claim, list(rises))
    assert outcome["by_seed"] == pytest.approx((1.3, 1.31, 1.32))
    assert outcome["answer"] == Verdict.REPLICATED
    assert verdict.claim_ratio_to_one({**claim, "matters": 1.3}, list(rises))["answer"] == (
        Verdict.NOT_DECIDED
    )


def test_a_value_that_is_not_positive_leaves_a_ratio_undecided(monkeypatch):
    monkeypatch.setattr(arms, "training_score", lambda name, score: -0.001)
    answer = verdict.judge.__wrapped__("batch")
    assert answer.answer == Verdict.NOT_DECIDED
    assert "one that is not positive" in cards.in_words(QUESTIONS["batch"], answer)


def test_the_number_of_an_answer_is_that_of_the_claim_that_carries_it(monkeypatch):
    outcomes = iter(["replicated", "replicated", "not decided", "replicated"])

    def judged(question, claim):
        found = {"answer": Verdict(next(outcomes)), "ratio": 2.0, "low": 1.0, "high": 4.0}
        told = {"claim": claim["text"], "score": claim["score"], "parts": [], "names": []}
        return {**told, **found, "seeds": 3}

    monkeypatch.setattr(verdict, "_ratio_claim", judged)
    answer = verdict.judge.__wrapped__("dropout")
    assert (answer.answer, answer.claim) == (Verdict.NOT_DECIDED, 2)
    shown = cards.in_words(QUESTIONS["dropout"], answer)
    assert shown == "steps of the Dice 2.00 times (1.00 to 4.00) as large"


@pytest.mark.parametrize("name", [name for name in QUESTIONS if "found" in QUESTIONS[name]])
def test_each_claim_says_what_its_number_counts(name):
    question = QUESTIONS[name]
    assert len(question["found"]) == len(question["claims"])
    assert all(text.count("{}") == 1 for text in question["found"])


# Arithmetic


@pytest.mark.parametrize(
    ("by_slice", "by_patient", "answer"),
    [
        ((0.2, 0.1), (0.0, 0.0), Verdict.REPLICATED),
        ((0.2, 0.0), (0.0, 0.2), Verdict.NOT_DECIDED),
        ((0.2, 0.004), (0.2, 0.0), Verdict.NOT_DECIDED),
        ((0.2, 0.0), (0.2, 0.0009), Verdict.NOT_REPLICATED),
    ],
)
def test_two_signs_must_be_usual_in_draws_of_one_kind(by_slice, by_patient, answer):
    shares = pd.DataFrame([by_slice, by_patient], columns=["error ratio", "tumour share"])
    assert verdict._by_signs(shares) == answer


def numbers_of_three(monkeypatch, names=("x-0", "x-1", "x-2")):
    """Let these trainings, calm ones, be every arm; return what `_hinges` asks."""
    monkeypatch.setattr(arms, "trainings", lambda arm: list(names))
    monkeypatch.setattr(arms, "ended_calmly", list)
    question = {**QUESTIONS["test-scores"], "against": []}
    return question, "plain64", verdict.judge_arm(question, "plain64", keep=list)


class TestWhatAnAnswerHangsOn:
    """Choices of ours that change an answer stand beside it."""

    @pytest.mark.parametrize(("low", "hangs"), [(0.0201, True), (0.03, False)])
    def test_a_margin_that_decides_by_a_hair_is_named(self, low, hangs):
        claim = {"claimed": "less than the margin"}
        row = {"low": low, "high": 0.1, "answer": verdict.Verdict.NOT_REPLICATED}
        assert verdict._hangs_on_margin(claim, row) is hangs

    def test_of_such_an_interval_the_end_next_to_the_margin_is_printed(self):
        assert "the interval's lower end is 0.0201" in verdict.judge("new-patients").evidence
        assert "To four digits" not in verdict.judge("mixing").evidence

    def test_the_upper_end_is_printed_where_that_lies_next_to_the_margin(self, monkeypatch):
        row = {"low": 0.001, "high": 0.0199, "difference": 0.01, "by_seed": (), "seeds": 3}
        found = {**row, "patients": 9, "signs_differ": False}
        monkeypatch.setattr(verdict, "compare_arms", lambda *_, **__: found)
        evidence = verdict.judge_difference(QUESTIONS["new-patients"]).evidence
        assert "the interval's upper end is 0.0199" in evidence

    def test_what_networks_nearer_to_the_report_lose_stands_beside_the_answer(self):
        dice = [records.load_record(f"plain-{kind}").per_slice for kind in ("known", "new")]
        known, new = (metrics.dice(*each[["tp", "fp", "fn"]].sum()) for each in dice)
        evidence = verdict.judge("new-patients").evidence
        assert f"nearer to the report's (one seed) it is {known - new:.3f} (" in evidence

    def test_of_several_trainings_that_change_an_answer_each_is_named(self):
        said = verdict._without_sentence({"not decided": ["x-0", "x-2"], "replicated": ["x-1"]}, 4)
        assert said == (
            ". Without any one of x-0 and x-2, the answer would be not decided"
            ". Without x-1, the answer would be replicated"
        )

    def test_nothing_decided_hangs_on_nothing(self):
        row = {"low": 0.0199, "high": 0.1, "answer": verdict.Verdict.NOT_DECIDED}
        assert not verdict._hangs_on_margin({"claimed": "less than the margin"}, row)

    def test_a_number_outside_its_interval_is_met_by_the_margin_alone(self):
        row = {"dice_met": True, "dice_mean": 0.95, "dice_half": 0.004}
        assert verdict._met_by_margin(row, {"dice": 0.957}, "dice")
        assert not verdict._met_by_margin(row, {"dice": 0.953}, "dice")
        assert not verdict._met_by_margin({**row, "dice_met": False}, {"dice": 0.99}, "dice")

    @pytest.mark.parametrize(("own", "hangs"), [(0.0, False), (0.1, True)])
    def test_another_answer_on_the_networks_own_grid_is_named(self, monkeypatch, own, hangs):
        """Three trainings give the report's numbers on the 128x128 grid, and so much more."""

        def scores_of(names, part, subset, way, grid="128"):
            reported = verdict._reported(QUESTIONS["test-scores"]["claims"][0])
            return np.full(len(names), reported[way[0]] + (own if grid == "own" else 0.0))

        monkeypatch.setattr(arms, "scores_of", scores_of)
        found = verdict._hinges(*numbers_of_three(monkeypatch))
        assert ("hangs on the grid" in found) is hangs

    @pytest.mark.parametrize(
        ("apart", "who", "other"),
        [
            # Three miss; the fourth widens the interval.
            ([0.030, 0.030, 0.030, 0.046], "x-3", "not replicated"),
            # Three leave an interval that is too wide, whichever they are.
            ([-0.009, -0.007, 0.007, 0.009], "any one of those that judge", "not decided"),
            ([0.000, 0.000, 0.000, 0.000], "", ""),
            ([0.030, 0.030, 0.030, 0.030], "", ""),
        ],
    )
    def test_trainings_without_which_an_answer_changes_are_named(
        self, monkeypatch, apart, who, other
    ):
        """How far four trainings lie below the report's scores, under every way."""
        names = [f"x-{seed}" for seed in range(4)]

        def scores_of(names, part, subset, way, grid="128"):
            reported = verdict._reported(QUESTIONS["test-scores"]["claims"][0])[way[0]]
            return reported - np.array([apart[arms.split_of(name)] for name in names])

        monkeypatch.setattr(arms, "scores_of", scores_of)
        monkeypatch.setattr(arms, "is_new", lambda name: True)
        monkeypatch.setattr(arms, "calm_on_own_grid", lambda names: [])
        monkeypatch.setattr(arms, "spike", lambda name: 1.0)
        question, _, _ = numbers_of_three(monkeypatch, names)
        answer = verdict._numbers(question)
        assert ("hangs on one training" in answer.strength) is bool(who)
        if who:
            assert f". Without {who}, the answer would be {other}" in answer.evidence
        else:
            assert "Without" not in answer.evidence

    @pytest.mark.parametrize(
        ("new", "exploratory"),
        [({"x-0", "x-1", "x-2"}, False), ({"x-0", "x-1", "y-0"}, True), ({"x-0"}, True)],
    )
    def test_an_answer_is_exploratory_until_three_new_splits_joined(
        self, monkeypatch, new, exploratory
    ):
        monkeypatch.setattr(arms, "scores_of", lambda names, *_: np.full(len(names), 0.8))
        monkeypatch.setattr(arms, "is_new", new.__contains__)
        found = verdict._hinges(*numbers_of_three(monkeypatch, names=["x-0", "x-1", "x-2", "y-0"]))
        assert ("exploratory" in found) is exploratory

    @pytest.mark.parametrize(("iou_by", "hangs"), [("batch", True), ("nothing", False)])
    def test_a_pair_of_two_definitions_that_replicates_is_named(self, monkeypatch, iou_by, hangs):
        """The Dice of masks comes out slice by slice alone, their IoU batch by batch alone."""
        unit_of = {"dice": "slice", "iou": iou_by}

        def scores_of(names, part, subset, way, grid="128"):
            reported = verdict._reported(QUESTIONS["test-scores"]["claims"][0])[way[0]]
            there = way[1:3] == ("masks", unit_of[way[0]])
            return np.full(len(names), reported + (0.0 if there else 0.3))

        monkeypatch.setattr(arms, "scores_of", scores_of)
        monkeypatch.setattr(arms, "is_new", lambda name: False)
        question, arm, table = numbers_of_three(monkeypatch)
        assert verdict.best_of(verdict._that_count(table)["answer"]) == Verdict.NOT_REPLICATED
        assert ("hangs on the definition" in verdict._hinges(question, arm, table)) is hangs

    @pytest.mark.parametrize(
        ("plain", "augmented", "spread", "hangs"),
        [
            (0.0, 0.0, 0.0, False),
            (0.0, -0.3, 0.0, True),
            (0.0, -0.3, 0.3, False),  # too wide to decide
            (-0.3, 0.0, 0.0, True),
            (-0.3, 0.3, 0.0, False),
        ],
    )
    def test_a_contrary_answer_of_augmented_trainings_is_named(
        self, monkeypatch, plain, augmented, spread, hangs
    ):
        """How far plain and augmented trainings lie from the report's scores, under every way."""
        monkeypatch.setattr(arms, "trainings", lambda arm: [f"{arm}-{seed}" for seed in range(3)])
        monkeypatch.setattr(arms, "is_new", lambda name: True)
        monkeypatch.setattr(arms, "spike", lambda name: 1.0)
        question = {**QUESTIONS["test-scores"], "against": ["augmented64"]}

        def score(name, reported):
            if name.startswith("plain"):
                return reported + plain
            return reported + augmented + spread * (arms.split_of(name) - 1)

        def scores_of(names, part, subset, way, grid="128"):
            reported = verdict._reported(question["claims"][0])[way[0]]
            return np.array([score(name, reported) for name in names])

        monkeypatch.setattr(arms, "scores_of", scores_of)
        found = verdict._hinges(question, "plain64", verdict.judge_arm(question, "plain64"))
        assert ("hangs on augmentation" in found) is hangs

    def test_augmentation_says_the_contrary_if_it_replicates_under_no_way(self):
        """Without augmentation, the first two ways replicate."""
        plain = pd.DataFrame({"answer": ["replicated", "replicated", "not replicated"]})
        for answers, contrary in (
            (["not replicated", "replicated", "not replicated"], False),
            (["not replicated", "not decided", "not replicated"], False),
            (["not replicated", "not replicated", "replicated"], False),
            (["not replicated", "not replicated", "not decided"], True),
        ):
            assert verdict._contradicts(pd.DataFrame({"answer": answers}), plain) == contrary

    @pytest.mark.parametrize(
        ("rises", "hangs"),
        [([1.0, 1.01, 1.02], True), ([1.0, 1.1, 1.3], False), ([1.5, 1.5, 1.6], False)],
    )
    def test_a_ratio_hangs_on_augmentation_where_that_decides_the_contrary(
        self, monkeypatch, rises, hangs
    ):
        """Without augmentation losses end at 1.6 times their lowest; 1.1 matters."""
        values = {f"augmented-{seed}": rise for seed, rise in enumerate(rises)}
        plain = {f"plain-{seed}": 1.6 + seed / 100 for seed in range(3)}
        named = {"plain64": list(plain), "augmented64": list(values)}
        scores = {**plain, **values}
        monkeypatch.setattr(arms, "trainings", named.get)
        monkeypatch.setattr(arms, "spike", lambda name: 1.0)
        monkeypatch.setattr(arms, "training_score", lambda name, score: scores[name])
        claim = {"text": "rises", "score": "rise", "larger": ["plain64"], "matters": 1.1}
        found = verdict._ratio_claim({"against": ["augmented64"]}, claim)
        assert ("hangs on augmentation" in found["parts"]) is hangs
        beside = found["augmented"]["augmented64"]
        assert f"with augmentation (augmented64) {beside['answer']}, {beside['ratio']:.2f}" in (
            verdict._ratio_sentence(found)
        )

    @pytest.mark.parametrize(("larger", "hangs"), [(0.0009, False), (0.0011, True)])
    def test_a_reading_error_a_tenth_larger_that_changes_an_answer_is_named(
        self, monkeypatch, larger, hangs
    ):
        """One sign that is rarer than 1 in 1,000 in both kinds of draw excludes the claim."""
        signs = {"error ratio": 0.2, "tumour share": 0.0005, "as read": 0.0, "by run 1": 0.2}
        found = {**signs, "larger error": larger}
        monkeypatch.setattr(verdict, "_signs_in_tenths", lambda by, name: {"drawn": by, **found})
        answer = verdict._sets_alike(QUESTIONS["sets-alike"])
        assert answer.answer == Verdict.NOT_REPLICATED
        assert ("hangs on the reading error" in answer.strength) is hangs
        other = "not decided" if hangs else "not replicated"
        assert f"With a reading error of 0.011, the answer would be: {other}" in answer.evidence

    @pytest.mark.parametrize("one_decides", [True, False])
    def test_a_seed_that_says_the_contrary_is_named(self, monkeypatch, one_decides):
        found = {"difference": 0.05, "low": 0.03, "high": 0.07, "by_seed": (), "seeds": 3}
        found |= {"patients": 9, "signs_differ": one_decides}
        monkeypatch.setattr(verdict, "compare_arms", lambda *_, **__: found)
        strength = verdict.judge_difference(QUESTIONS["mixing"]).strength
        assert ("hangs on a seed" in strength) is one_decides

    def test_what_augmentation_gives_stands_beside_an_answer_counted_in_the_same_way(self):
        dice, iou = (
            arms.scores_of(
                arms.trainings("augmented64"), "train", "all slices", (score, "masks", "batch", 1)
            ).mean()
            for score in ("dice", "iou")
        )
        evidence = verdict.judge("training-scores").evidence
        assert re.search(
            rf"Counted by masks, by batch, .* \(augmented64\) give a Dice of {dice:.3f} ± .* and an "
            rf"IoU of {iou:.3f} ± \S+: not replicated",
            evidence,
        )
        assert "augmented128" not in evidence, "one of its three ended in a spike"
        way = {"dice": ("probabilities", "slice", 1), "iou": ("masks", "batch", 1)}
        names = arms.trainings("augmented64")
        dice, iou = (
            arms.scores_of(names, "val", "slices with tumour", (score, *definition)).mean()
            for score, definition in way.items()
        )
        evidence = verdict.judge("validation-scores").evidence
        assert re.search(
            rf"\(augmented64\) give a Dice of {dice:.3f} .* IoU of {iou:.3f}", evidence
        )

    def test_the_answer_with_spikes_is_told_where_it_is_another(self):
        with_spikes = (
            "If the trainings that ended in a spike judged too, the answer would be not decided"
        )
        assert verdict.judge("test-scores").evidence.endswith(with_spikes)
        assert verdict._spike_sentence("replicated", "replicated") == ""
        assert verdict._spike_sentence("not decided", "not decided") == ""

    def test_leaving_out_spikes_is_named_where_it_changes_the_answer(self):
        assert "hangs on leaving out spikes" in verdict.judge("test-scores").strength
        assert "spikes" not in verdict.judge("overfitting").strength
