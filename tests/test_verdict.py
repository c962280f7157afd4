"""The verdict: criteria older than the runs, rules that can come out either way, arithmetic by hand."""

import subprocess

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import pages_of_the_book

from lggseg_utils import metrics, records, runs, verdict
from lggseg_utils.verdict import QUESTIONS

SHALLOW = (runs.REPOSITORY / ".git" / "shallow").exists()
CRITERION = (
    "rule",
    "criterion",
    "margin",
    "score",
    "more",
    "less",
    "claimed",
    "records",
    "subsets",
    "grid",
    "set",
    "metric",
    "value",
)


def test_the_reports_numbers_are_those_printed():
    assert (
        verdict.TABLES["test"]["dice_coef"] == 0.86219
        and verdict.TABLES["test"]["mean_iou"] == 0.93896
    )
    assert verdict.TABLES["val"]["accuracy"] == 0.9936 and len(verdict.REPORTED["runs"]) == 6


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_is_complete_and_answered(name):
    question = QUESTIONS[name]
    assert question["claims"] and all(
        claim["text"] and claim["source"] for claim in question["claims"]
    )
    known = {
        "text",
        "source",
        "set",
        "metric",
        "value",
        "found",
        "score",
        "more",
        "less",
        "margin",
        "claimed",
    }
    assert all(claim.keys() <= known for claim in question["claims"])
    assert question["topic"] and question["reported"]
    assert question["criterion"] and question["question"].endswith("?")
    page = (
        "book/sources" if question["chapter"] == "sources" else f"notebooks/{question['chapter']}"
    )
    assert page in pages_of_the_book()
    answer = verdict.judge(question)
    assert (
        answer.answer in verdict.CLAIMS["answers"]
        and answer.evidence
        and 0 < len(answer.number) < 45
        and "nan" not in answer.evidence + answer.number
        and "()" not in answer.evidence
    )


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_criterion_is_older_than_the_runs_it_judges(name):

    def criteria(claims):
        """What decides the question by a whole claims.yml."""
        question = next(each for each in claims["questions"] if each["id"] == name)
        parts = [
            {key: part.get(key) for key in CRITERION} for part in (question, *question["claims"])
        ]
        return parts, claims["margin"], claims["scorings"]

    for record in set(verdict.deciding_records(QUESTIONS[name])) & set(records.record_names()):
        commit = runs.read_record(records.RECORDS / record)["git_commit"]
        shown = subprocess.run(
            ["git", "show", f"{commit}:lggseg_utils/claims.yml"],
            cwd=runs.REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        if shown.returncode and SHALLOW:
            pytest.skip("a shallow clone has no history")
        assert criteria(yaml.safe_load(shown.stdout)) == criteria(verdict.CLAIMS), record


def test_a_question_without_its_run_is_untested_and_says_which():
    question = {**QUESTIONS["test-scores"], "records": ["no-such-run"]}
    answer = verdict.judge(question)
    assert (answer.answer, answer.number) == (
        verdict.UNTESTED,
        "run missing",
    ) and "no-such-run" in answer.evidence


def test_run_6_is_compared_on_its_own_grid_and_two_subsets_as_its_criterion_says():
    own = records.load_record("report64").own_grid.query("split == 'val'")
    subsets = (own, own[own["tp"] + own["fn"] > 0])
    dice = [
        metrics.dice_and_iou(table, each)[0]
        for table in subsets
        for each in verdict.SCORINGS.values()
    ]
    assert f"Dice {min(dice):.2f}–{max(dice):.2f}, " in verdict.judge(QUESTIONS["run-6"]).number


def table_of(tp, fp, fn, patients=10, seed=0):
    """A per-slice test table: `patients` with four slices each and these counts on average."""
    rng = np.random.default_rng(seed)
    counts = {
        name: rng.poisson(mean, 4 * patients) for name, mean in (("tp", tp), ("fp", fp), ("fn", fn))
    }
    table = pd.DataFrame(counts).assign(
        tn=1000, split="test", patient=np.repeat(np.arange(patients), 4).astype(str)
    )
    table["soft_intersection"], table["soft_sum"] = (
        1.0 * table["tp"],
        2.0 * table["tp"] + table["fp"] + table["fn"],
    )
    return table


@pytest.fixture
def recorded(monkeypatch):
    """Let per-slice tables, or whole records, be all that is recorded: recorded(name=table, ...)."""

    def put(**given):
        found = {
            name: each
            if isinstance(each, records.Record)
            else records.Record(name, {"experiment": {}}, {}, each, None, None, None, None, None)
            for name, each in given.items()
        }
        monkeypatch.setattr(verdict.runs, "record_names", lambda: list(found))
        monkeypatch.setattr(verdict.runs, "load_record", found.__getitem__)

    return put


@pytest.mark.parametrize(("shift", "answer"), [(0.005, verdict.HOLDS), (-0.3, verdict.FAILS)])
def test_a_number_holds_near_ours_and_fails_far_away(recorded, shift, answer):
    table = table_of(80, 10, 10)
    recorded(ours=table)
    claims = [
        {"text": "x", "set": "test", "metric": name, "value": score + shift}
        for name, score in zip(
            ("dice", "iou"), metrics.dice_and_iou(table, verdict.SCORINGS["pooled"]), strict=True
        )
    ]
    question = {"rule": "number", "records": ["ours"], "claims": claims}
    assert verdict.judge(question).answer == answer


def test_a_number_that_flips_between_scorings_depends_on_the_definition(recorded):
    table = table_of(80, 10, 10)
    table["soft_intersection"] *= 0.5
    recorded(ours=table)
    value = metrics.dice_and_iou(table, verdict.SCORINGS["pooled"])[0]
    question = {
        "rule": "number",
        "records": ["ours"],
        "claims": [{"text": "x", "set": "test", "metric": "dice", "value": value}],
    }
    answer = verdict.judge(question)
    assert answer.answer == verdict.DEPENDS and set(answer.table["answer"]) == {
        verdict.HOLDS,
        verdict.FAILS,
    }


@pytest.mark.parametrize(
    ("fewer_hits", "claimed", "answer"),
    [
        (20, None, verdict.HOLDS),
        (0, None, verdict.FAILS),
        (20, "less than the margin", verdict.FAILS),
        (0, "less than the margin", verdict.HOLDS),
    ],
)
def test_an_effect_is_judged_by_its_interval(recorded, fewer_hits, claimed, answer):
    recorded(
        a=table_of(80, 10, 10, 40), b=table_of(80 - fewer_hits, 10, 10 + fewer_hits, 40, seed=1)
    )
    question = {
        "rule": "effect",
        "more": ["a"],
        "less": ["b"],
        "score": "dice_pooled",
        "claimed": claimed,
    }
    assert verdict.judge({**question, "loser": "b"}).answer == answer


def test_an_effect_against_the_claim_is_told_as_a_gain(recorded):
    recorded(a=table_of(60, 10, 30, 40), b=table_of(80, 10, 10, 40, seed=1))
    question = {
        "rule": "effect",
        "more": ["a"],
        "less": ["b"],
        "score": "dice_pooled",
        "loser": "b",
    }
    answer = verdict.judge(question)
    assert answer.answer == verdict.FAILS and answer.number.startswith("b gains 0.1")
    low, high = (-answer.table.loc[0, name] for name in ("high", "low"))
    assert (
        "Pooled Dice rises from 0.75" in answer.evidence
        and f"interval {low:.3f} to {high:.3f}" in answer.evidence
    )


def test_an_effect_that_few_patients_cannot_show_is_inconclusive(recorded):
    noisy, other = table_of(80, 10, 10, 4), table_of(80, 10, 10, 4, seed=5)
    noisy.loc[noisy["patient"] == "0", ["tp", "fn"]] = [0, 90]
    other.loc[other["patient"] == "1", ["tp", "fn"]] = [10, 80]
    recorded(a=noisy, b=other)
    answer = verdict.judge(
        {"rule": "effect", "more": ["a"], "less": ["b"], "score": "dice_patient_mean", "loser": "b"}
    )
    assert answer.answer == verdict.INCONCLUSIVE and "could show a difference of" in answer.evidence


@pytest.mark.parametrize("score", ["dice_pooled", "dice_patient_mean"])
def test_arms_are_compared_on_common_patients_and_averaged_over_seeds(score):
    first, second, third = (table_of(60 + 5 * seed, 10, 10, seed=seed) for seed in range(3))
    effect = verdict.arm_difference([first, second], [third[third["patient"] != "9"]], score)

    def by_hand(table):
        sums = table[table["patient"] != "9"].groupby("patient")[["tp", "fp", "fn"]].sum()
        return (
            metrics.dice(*sums.sum())
            if score == "dice_pooled"
            else metrics.dice(sums.tp, sums.fp, sums.fn).mean()
        )

    assert effect["patients"] == 9 and effect["more"] == pytest.approx(
        (by_hand(first) + by_hand(second)) / 2
    )
    assert effect["difference"] == pytest.approx(effect["more"] - by_hand(third))
    assert effect["low"] < effect["difference"] < effect["high"]
    # 1.96 standard errors are half the interval; 80% of a normal distribution lie below 0.8416.
    assert effect["detectable"] == pytest.approx(
        (effect["high"] - effect["low"]) / 2 * (1 + 0.8416 / 1.96), rel=1e-3
    )


def training(recorded_as, val_loss, loss=0.01, seed=0, per_slice=None):
    """A record of one training: its losses, epoch by epoch."""
    history = pd.DataFrame(
        {"epoch": np.arange(1, len(val_loss) + 1), "loss": loss, "val_loss": val_loss}
    )
    run = {"experiment": {"seed": seed}}
    return records.Record(recorded_as, run, {}, per_slice, None, history, None, None, None)


@pytest.mark.parametrize(
    ("gaps", "answer"),
    [
        ((0.030, 0.031, 0.029), verdict.HOLDS),
        ((0.001, 0.002, 0.0), verdict.FAILS),
        ((0.03, -0.02, 0.01), verdict.INCONCLUSIVE),
    ],
)
def test_a_gap_is_compared_over_seeds(recorded, gaps, answer):
    """Ten epochs count: the first fifty of these would say the opposite."""
    arms = {}
    for seed, gap in enumerate(gaps):
        arms[f"grid64-batch16-{seed}"] = training(
            "x", np.r_[np.full(50, 9.0), np.full(50, 0.02)], 0.01, seed
        )
        arms[f"grid64-batch32-{seed}"] = training(
            "x", np.r_[np.full(50, 0.0), np.full(50, 0.02 + gap)], 0.01, seed
        )
    recorded(**arms)
    judged = verdict.judge(QUESTIONS["batch"])
    assert judged.answer == answer and judged.table["difference"][0] == pytest.approx(np.mean(gaps))
    # Student's t for two degrees of freedom, from a printed table: 4.303.
    half = 4.303 * np.std(gaps, ddof=1) / np.sqrt(3)
    assert judged.table["high"][0] - judged.table["low"][0] == pytest.approx(2 * half, rel=1e-3)
    # From the same table, what is exceeded by one fifth: 1.061.
    assert judged.table["detectable"][0] == pytest.approx(half * (1 + 1.061 / 4.303), rel=1e-3)
    assert f"3 seeds could show {judged.table['detectable'][0]:.4f}" in judged.evidence


def test_both_rates_of_dropout_count_alike_and_the_worst_claim_decides(recorded):
    def arm(name, gap, jump, hits, seed):
        zigzag = 0.01 + gap + jump * (np.arange(100) % 2)
        return training(name, zigzag, 0.01, seed, table_of(hits, 10, 10, 40).assign(split="val"))

    arms = {f"grid64-batch16-{seed}": arm("x", 0.05, 0.0, 80, seed) for seed in range(3)}
    for rate, gap in ((1, 0.01), (2, 0.02)):
        for seed in range(3):
            arms[f"grid64-dropout{rate}-{seed}"] = arm(
                "x", gap + seed / 1000, 0.02 * rate, 80, seed
            )
    recorded(**arms)
    table = verdict.judge(QUESTIONS["dropout"]).table.set_index("score")
    # Of ten epochs, half jump up: means 0.015 + 0.001 + 0.015 against 0.05; jumps of 0.02 and 0.04.
    assert table.loc["loss gap", "difference"] == pytest.approx(0.05 - (0.015 + 0.001 + 0.015))
    assert table.loc["loss steps", "difference"] == pytest.approx(0.03)
    assert table.loc["Dice", "difference"] == 0 and set(table["answer"]) == {verdict.HOLDS}
    for seed in range(3):
        arms[f"grid64-dropout2-{seed}"] = arm("x", 0.02, 0.04, 400, seed)
    recorded(**arms)
    answer = verdict.judge(QUESTIONS["dropout"])
    assert answer.answer == verdict.FAILS and answer.number.startswith("Dice +")


@pytest.mark.parametrize(
    ("late", "first_loss", "answer"),
    [
        (0.03, 0.1, verdict.HOLDS),
        (0.0205, 0.1, verdict.INCONCLUSIVE),
        (0.019, 0.002, verdict.FAILS),
    ],
)
def test_overfitting_is_read_from_smoothed_losses(recorded, late, first_loss, answer):
    """The validation loss rests at 0.02, then ends at `late`; the training loss goes from `first_loss` to 0.002."""
    loss = np.r_[np.linspace(first_loss, 0.002, 100), np.full(28, 0.002)]
    val_loss = np.r_[np.full(90, 0.02), np.linspace(0.02, late, 20), np.full(18, late)]
    recorded(report128=training("report128", val_loss, loss))
    assert verdict.judge(QUESTIONS["overfitting"]).answer == answer


def test_implied_scores_by_hand():
    table = verdict.implied_dice().set_index("set")
    assert table["implied"].round(4).tolist() == [0.9466, 0.8743, 0.8713]
    assert table.loc["train", "gap"] == pytest.approx(0.9568 - 0.9466, abs=1e-4)
    assert "a tumour IoU of 0.880, not 0.77195" in verdict.judge(QUESTIONS["one-quantity"]).evidence


def test_the_arithmetic_holds_on_simulated_masks():
    rng = np.random.default_rng(0)
    truth = rng.random((200, 64, 64)) < 0.01
    predicted = truth ^ (rng.random(truth.shape) < 0.0025)
    tp, fp, fn, tn = (
        (truth & predicted).sum(),
        (~truth & predicted).sum(),
        (truth & ~predicted).sum(),
        (~truth & ~predicted).sum(),
    )
    rates = metrics.rates(tp, fp, fn, tn)
    assert 2 * rates["mean_iou"] - rates["accuracy"] == pytest.approx(
        metrics.iou(tp, fp, fn), abs=0.001
    )


def test_tumour_shares_know_what_they_draw():
    slices = runs.read_csv(records.RECORDS / "cohort.csv")
    whole = slices["tumour_area"].sum() / (len(slices) * 128**2)
    by_slice, by_patient = (verdict.tumour_shares(by, draws=800) for by in ("slice", "patient"))
    assert by_slice.mean() == pytest.approx(whole, rel=0.02) and by_patient.mean() == pytest.approx(
        whole, rel=0.04
    )
    assert by_patient.std() > 2 * by_slice.std()


def test_error_ratios_are_one_where_all_slices_are_alike():
    table = table_of(50, 5, 5).assign(fp=3, fn=4)
    for by in ("slice", "patient"):
        assert verdict.error_ratios(table, by, draws=50) == pytest.approx(1)
