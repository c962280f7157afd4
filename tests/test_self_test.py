"""The rules, tried on our own trainings: none judges itself, and both rates stand."""

from itertools import product

import pytest

from lggseg_utils import arms, exploration, self_test, verdict


def test_no_training_judges_itself_or_its_split(monkeypatch):
    judged_by = {}
    asked = []

    def pair_of(name, part, subset, way):
        asked.append((name, way))
        return {"dice": 0.5, "iou": 0.5}

    def judge_pair(pair, judging, *_):
        judged_by[asked[-1]] = judging
        return {"n": len(set(map(arms.split_of, judging))), "answer": None}

    monkeypatch.setattr(exploration, "pair_of", pair_of)
    monkeypatch.setattr(verdict, "judge_pair", judge_pair)
    self_test.try_rule_for_numbers(["report64"])
    calm = arms.ended_calmly(arms.trainings("plain64"))
    assert list(judged_by) == list(product([*calm, "report64"], verdict.WAYS))
    for (name, way), judging in judged_by.items():
        assert judging
        assert arms.split_of(name) not in set(map(arms.split_of, judging))
        assert (set(judging) <= set(filter(arms.is_new, calm))) is (way == verdict.JOINED)


def test_a_training_takes_the_reports_place_only_on_sets_on_which_it_is_scored():
    tried = self_test.try_rule_for_numbers(["report64", "report128-1"])
    sets = tried.groupby("training")["set"].unique().map(set)
    assert sets["report64"] == {"train", "val", "test"}
    assert sets["report128-1"] == {"test"}


@pytest.mark.parametrize(
    ("low", "high", "found"), [(-0.05, 0.05, False), (0.01, 0.03, True), (0.001, 0.01, False)]
)
def test_a_difference_is_found_where_its_interval_excludes_0_and_reaches_the_margin(
    monkeypatch, low, high, found
):
    monkeypatch.setattr(verdict, "compare_arms", lambda *_, **__: {"low": low, "high": high})
    tried = self_test.try_rule_for_differences(list("abcdef"), list("ghi"))
    assert (tried["found"] == found).all()


def test_the_rule_for_numbers_rejects_none_of_our_own_trainings_and_most_others():
    others = [*arms.trainings("dropout64"), "patient64", "report64", "size64"]
    tried = self_test.try_rule_for_numbers(others)
    same = tried[tried["kind"] == "same settings"]
    assert (same["answer"] == "not replicated").mean() <= 0.1
    decided = same[same["answer"] != "not decided"]
    assert decided.empty or (decided["answer"] == "replicated").mean() >= 0.9
    other = tried[(tried["kind"] == "other settings") & tried["way"].isin(verdict.SINGLE)]
    rejected = other.groupby(["training", "way"])["answer"].agg(verdict.together)
    assert (rejected == "not replicated").mean() >= 0.9
    by_kind = self_test.by_table(tried).query("set == 'train'").groupby("kind")["answer"]
    answers = by_kind.unique().map(set)
    assert answers["same settings"] == {"replicated"}
    assert "replicated" not in answers["other settings"]


def test_the_other_rules_find_differences_where_there_are_some():
    plain = arms.ended_calmly(arms.trainings("plain64"))[:6]
    dropout = arms.ended_calmly(arms.trainings("dropout64"))
    dropout = [name for name in dropout if arms.training_score(name, "gap") > 0]
    for tried in (
        self_test.try_rule_for_differences(plain, dropout),
        self_test.try_rule_for_ratios(plain, dropout),
    ):
        found = tried.groupby("kind")["found"].mean()
        assert found["same settings"] <= 0.1
        assert found["other settings"] > 0.5


def test_groups_of_three_have_none_in_common_and_come_once():
    pairs = self_test.groups_of_three(list("abcdef"))
    assert len(pairs) == 10
    assert all(not set(first) & set(second) for first, second in pairs)
