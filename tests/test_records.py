"""The records: every number follows from the counts beside it."""

import json
import re
import shutil
import time
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from lggseg_utils import arms, cli, data, evaluate, metrics, records, runs, sources, stats, verdict
from lggseg_utils.predict import REFERENCE
from lggseg_utils.settings import UserError, load_experiment

SCORED = [name for name in records.BOOKS_OWN if (records.RECORDS / name / "metrics.json").exists()]
ABLATIONS = [name for name in records.BOOKS_OWN if name not in SCORED]


@pytest.mark.parametrize("name", SCORED)
def test_a_records_scores_follow_from_its_slices(name):
    record = records.load_record(name)
    protocol = record.run["experiment"]["split"]
    for part, scored in record.per_slice.groupby("split"):
        again = evaluate.set_scores(scored, protocol == "patient", resamples=0)
        for score, entry in again.items():
            assert record.metrics[part][score]["value"] == pytest.approx(
                entry["value"], rel=1e-5
            ), (part, score)
    table = evaluate.per_patient_table(record.per_slice).sort_values(
        ["patient", "split"], ignore_index=True
    )
    stored = record.per_patient.sort_values(["patient", "split"], ignore_index=True)
    pd.testing.assert_frame_equal(stored[table.columns], table, check_dtype=False, rtol=1e-6)


@pytest.mark.parametrize("name", SCORED)
def test_every_pixel_of_a_slice_is_counted_once(name):
    scored = records.load_record(name).per_slice
    assert (scored[evaluate.COUNTS].sum(axis=1) == 128 * 128).all()


@pytest.mark.parametrize("name", SCORED)
def test_a_record_was_scored_against_the_cohorts_truth(name):
    cohort = runs.read_csv(records.RECORDS / "cohort.csv").set_index(["patient", "slice"])[
        "tumour_area"
    ]
    scored = records.load_record(name).per_slice
    truth = scored.set_index(["patient", "slice"])[["tp", "fn"]].sum(axis=1)
    assert truth.index.is_unique and (cohort[truth.index] == truth).all()


@pytest.mark.parametrize("name", records.BOOKS_OWN)
def test_a_record_names_command_commit_and_data(name):
    record = runs.read_record(records.RECORDS / name)
    assert record["command"].startswith("lggseg ") and len(record["git_commit"]) == 12
    assert {"python", "keras", "numpy"} <= set(record["versions"]) and "tensorflow" in " ".join(
        record["versions"]
    )
    ended = record.get("ended", {}).get("git_commit", "")
    assert "dirty" not in record["git_commit"] + ended and record["machine"]["processor"]
    assert runs.recorded_experiment(records.RECORDS / name).seed == record["experiment"]["seed"]


@pytest.mark.parametrize("name", ABLATIONS)
def test_a_recorded_ablation_follows_from_its_patients(name):
    record, summary = (
        records.load_record(name),
        runs.read_csv(records.RECORDS / name / "ablation.csv"),
    )
    means = record.ablation.groupby(["condition", "seed"])["dice"].mean()
    stored = summary.set_index(["condition", "seed"])["dice_patient_mean"]
    assert stored.to_numpy() == pytest.approx(means[stored.index].to_numpy(), rel=1e-6)
    assert summary["epochs"].nunique() == 1


@pytest.mark.parametrize("name", ["report64", "report64-plain"])
def test_own_grid_scores_are_of_the_same_slices(name):
    record = records.load_record(name)
    keys = ["patient", "slice", "split"]
    tables = [
        table.query("split != 'train'")[keys] for table in (record.own_grid, record.per_slice)
    ]
    first, second = (table.sort_values(keys, ignore_index=True) for table in tables)
    assert first.equals(second)
    assert (record.own_grid[evaluate.COUNTS].sum(axis=1) == 64 * 64).all()


def test_recorded_precisions_are_of_the_same_seeds_and_patients():
    table = runs.read_csv(records.RECORDS / "precision.csv")
    keys = [
        set(zip(part["seed"], part["patient"], strict=True))
        for _, part in table.groupby("precision")
    ]
    assert len(keys) == 2 and keys[0] == keys[1]


def test_the_reference_network_has_not_seen_the_sample():
    split = runs.read_csv(REFERENCE / "split.csv").set_index("patient")["split"]
    sample = set(data.read_cohort().slices["patient"])
    assert sample == set(split.index[split == "test"]) and split.value_counts().to_dict() == {
        "train": 85,
        "test": 16,
        "val": 9,
    }
    record = runs.read_record(REFERENCE)
    assert record["data"]["kind"] == "LGG cohort" and "dirty" not in record["git_commit"]
    assert runs.recorded_experiment(REFERENCE) == load_experiment(
        "ensemble", 0, {"networks": 1, "hold_out": True}
    )


def test_the_reference_network_scores_what_is_recorded():
    from lggseg_utils import preprocess, train

    network, settings = train.load_trained(REFERENCE)
    dataset = preprocess.prepare(data.read_cohort(), settings)
    probabilities = evaluate.predict(network, dataset.images, settings)
    scored = evaluate.score_slices(dataset.slices, dataset.truths, probabilities).assign(
        split="test"
    )
    stored = json.loads((REFERENCE / "metrics.json").read_text())["test"]
    # Kernels are stored in half precision, and this machine's arithmetic may differ.
    assert np.mean(evaluate.per_patient_table(scored)["dice"]) == pytest.approx(
        stored["dice_patient_mean"]["value"], abs=0.01
    )
    # What the caption of chapter 6 says: overconfident where it is rather sure.
    rather_sure = (probabilities > 0.8) & (probabilities < 0.9)
    assert 0.65 < dataset.truths[rather_sure].mean() < 0.75


def test_what_the_opening_picture_says_holds():
    known, new = (
        records.load_record(name).per_patient for name in ("known-patients", "new-patients")
    )
    both = known.merge(new, on="patient")
    assert len(both) == 110
    failed = both["dice_y"] < 0.5
    assert both.loc[failed, "dice_x"].mean() - both.loc[failed, "dice_y"].mean() > 0.2


def test_what_chapter_5_says_of_batch_size_and_dropout_holds():
    ends, gaps = {}, {}
    for arm in ("batch16", "batch32", "dropout1", "dropout2"):
        losses = [
            records.load_record(f"grid64-{arm}-{seed}").history[["loss", "val_loss"]]
            for seed in range(3)
        ]
        ends[arm] = [table.rolling(10).mean().dropna() for table in losses]
        gaps[arm] = [table["val_loss"].iloc[-1] - table["loss"].iloc[-1] for table in ends[arm]]
    plain = [*ends["batch16"], *ends["batch32"]]
    assert all(table["val_loss"].iloc[-1] > 1.2 * table["val_loss"].min() for table in plain)
    assert all(
        table["loss"].iloc[-1] < table["loss"][table["val_loss"].idxmin()] for table in plain
    ), "caveat of long training"
    assert max(gaps["dropout1"] + gaps["dropout2"]) < 0.5 * min(gaps["batch16"] + gaps["batch32"])
    assert abs(np.mean(gaps["batch16"]) - np.mean(gaps["batch32"])) < 0.001


def test_what_chapter_5_says_of_the_curves_at_128x128_holds():
    history = records.load_record("report128").history
    more = (
        runs.read_csv(records.RECORDS / "seeds128-history.csv.gz")
        .query("size == 128")
        .groupby("seed")
    )
    histories = [history, *(each for _, each in more)]
    smooth = [each["val_loss"].rolling(10).mean() for each in histories]
    assert all(len(each) == 128 for each in histories)
    assert all(each.iloc[-1] < 1.1 * each.min() for each in smooth), (
        "hardly overfits, with any seed"
    )
    end, train, val = history.iloc[-1], sources.TABLES["train"], sources.TABLES["val"]
    assert abs(end["dice_coef"] - end["val_dice_coef"]) < 0.02
    for score in ("dice_coef", "jacard_coef", "accuracy"):
        assert train[score] > end[score]
        assert train[score] - val[score] > 2 * (end[score] - end[f"val_{score}"]), (
            "diamonds lie further apart"
        )
    assert val["dice_coef"] < end["val_dice_coef"] and val["accuracy"] < end["val_accuracy"]
    assert train["loss"] < end["loss"] and val["loss"] > end["val_loss"]
    late = [each["dice_coef"].tail(10).mean() for each in histories]
    assert min(late[0] - each for each in late[1:]) > 0.04, "the weaker two learned less"
    last = histories[1].tail(2)
    assert (last[["dice_coef", "val_dice_coef"]].diff().iloc[1] < -0.04).all(), (
        "seed 1 ends on a bad epoch"
    )
    earlier = runs.read_csv(records.RECORDS / "report128-cut-off.csv.gz")
    again = [each.query("63 <= epoch <= 72")["val_dice_coef"].mean() for each in (earlier, history)]
    assert np.round(again, 2).tolist() == [0.81, 0.80] and len(earlier) == 72, "records/README.md"


def test_what_chapter_8_says_of_definitions_holds_for_the_reports_best_model_too():
    sets = records.load_record("report128").per_slice.groupby("split")
    told = [
        [sources.TABLES[part][score] for score in ("dice_coef", "jacard_coef")] for part, _ in sets
    ]
    foreground = [definition for definition in metrics.DEFINITIONS if not definition.background]
    ours = [
        [metrics.dice_and_iou(scored, definition) for _, scored in sets]
        for definition in foreground
    ]
    met = (np.abs(np.subtract(ours, told)) <= 0.02).sum((1, 2))
    assert len(met) == 20 and max(met) == 3


def test_what_chapter_9_says_of_drawn_sets_holds():
    def spread(name, table, size):
        counts = getattr(records.load_record(name), table)[["tp", "fp", "fn"]].to_numpy()
        return np.quantile(
            metrics.dice(*stats.draw(counts, size).sum(axis=1).T), (0.025, 0.5, 0.975)
        )

    eleven, new = (
        spread("new-patients", "per_patient", 11),
        spread("new-patients", "per_slice", 393),
    )
    known = spread("known-patients", "per_slice", 393)
    assert (
        np.ptp(eleven) > 3 * np.ptp(new)
        and 1.5 < np.ptp(new) / np.ptp(known) < 2
        and known[0] > new[2]
    )


def test_what_chapter_12_says_of_the_search_holds():
    tried = runs.read_csv(records.RECORDS / "search.csv.gz")
    dice = tried.pivot(index="patient", columns=["attempt", "prediction"], values="dice")
    late = ["more filters", "finer grid", "higher learning rate", "tumour twice", "neighbours"]
    early = ["base", "head cropped", "longer", "more augmentation", "missing sequences"]
    assert set(dice.columns.levels[0]) == {*early, "base again", *late}
    plain, one_fold = dice.xs("plain", axis=1, level="prediction"), "more augmentation"
    assert plain.count().drop(one_fold).eq(33).all() and plain[one_fold].count() == 11
    changed = {name: stats.paired_difference(plain[name] - plain["base again"]) for name in late}
    assert all(changed[name]["high"] < 0 for name in ("more filters", "higher learning rate"))
    assert all(
        changed[name]["low"] < 0 < changed[name]["high"]
        for name in ("finer grid", "tumour twice", "neighbours")
    )
    assert max(changed, key=lambda name: changed[name]["difference"]) == "tumour twice"
    assert (
        round(changed["tumour twice"]["low"], 3) == -0.001
        and abs(changed["finer grid"]["difference"]) < 0.005
    )
    wider, again = (
        stats.paired_difference(plain[name] - plain["base"])
        for name in ("more filters", "base again")
    )
    assert wider["difference"] < 0 < wider["high"]
    assert again["low"] < -0.01 and again["high"] > 0.01
    first = tried.query("fold == 0")["patient"].unique()
    assert stats.paired_difference((plain["finer grid"] - plain["base"])[first])["low"] > 0
    commits = set(tried[tried["attempt"].isin(["base again", *late])]["git_commit"])
    assert commits == {"efc76252ccdd", "ca994d74bdec"}
    cheap = dice["base"].mean() - plain["base"].mean()
    assert len(cheap) == 6 and cheap.abs().max() < 0.005
    assert abs((plain["head cropped"] - plain["base"]).mean()) < 0.005
    changes = plain["longer"] - plain["base"], plain["more augmentation"] - plain["longer"]
    longer, more = (stats.paired_difference(change.dropna()) for change in changes)
    assert (
        longer["low"] < 0 < longer["difference"] < longer["high"]
        and round(longer["difference"], 3) == 0.011
    )
    assert more["low"] < 0 < more["high"]
    kinds = ("base", "longer", "missing sequences")
    turned = {name: (dice[name, "mirrored"] - dice[name, "plain"]).mean() for name in kinds}
    assert turned["base"] < turned["longer"]
    assert round(turned["longer"], 3) == 0.007 and abs(turned["missing sequences"]) < 0.001
    lost = {
        name: (plain[name] - dice[name, "FLAIR only"]).mean() / plain[name].mean()
        for name in ("longer", "missing sequences")
    }
    assert {name: round(share, 2) for name, share in lost.items()} == {
        "longer": 0.18,
        "missing sequences": 0.04,
    }
    alone = dice.xs("FLAIR only", axis=1, level="prediction").drop(columns="missing sequences")
    shares = 1 - alone.sum() / plain[alone.columns].sum()
    assert (shares.idxmin(), round(shares.min(), 2), round(shares.max(), 2)) == (
        "more augmentation",
        0.06,
        0.35,
    )
    again = dice["more augmentation", "plain"] - dice["more augmentation", "FLAIR only"]
    known = (plain["longer"] - dice["longer", "FLAIR only"])[again.notna()]
    assert 0 < again.mean() < known.mean()
    both, once = (
        stats.paired_difference(plain["missing sequences"] - plain[name])
        for name in ("base", "longer")
    )
    assert both["low"] > 0 and round(both["difference"], 3) == 0.022
    assert once["low"] < 0 and round(once["difference"], 3) == 0.011
    step, steps = (
        stats.paired_difference(dice["longer", "mirrored"] - plain[name])
        for name in ("longer", "base")
    )
    assert step["low"] < 0 < steps["low"]
    whole = dice[~dice.index.isin(runs.read_csv(records.RECORDS / "sequences.csv")["patient"])]
    assert len(whole) == 32
    for how in ("plain", "mirrored"):
        kept = stats.paired_difference(whole["missing sequences", how] - whole["longer", how])
        assert 0 <= kept["difference"] < kept["high"]
        assert round(kept["low"], 3) == {"plain": -0.006, "mirrored": -0.012}[how]


def test_what_headings_and_captions_say_holds():
    cohort = runs.read_csv(records.RECORDS / "cohort.csv")
    lengths, tumour = (
        cohort.groupby("patient").size(),
        cohort[cohort["tumour_area"] > 0]["tumour_area"],
    )
    assert round(cohort["tumour_area"].sum() / (len(cohort) * 128**2), 2) == 0.01
    assert (lengths < 45).mean() > 0.5 and (tumour / 128**2 < 0.05).mean() > 0.5
    new, recipe, plain = (
        records.load_record(name) for name in ("new-patients", "recipe-cv", "report64-plain")
    )
    assert new.per_patient["dice"].median() > new.per_patient["dice"].mean() + 0.05
    assert (recipe.per_patient["dice"] < 0.5).sum() < (new.per_patient["dice"] < 0.5).sum() / 2
    change = (
        recipe.per_patient.set_index("patient")["dice"]
        - new.per_patient.set_index("patient")["dice"]
    )
    assert 0.15 < (change < 0).mean() < 0.25 and (change[change < 0] > -0.1).mean() > 0.5
    ends = plain.history.iloc[-1]
    assert 0 < ends["dice_coef"] - ends["val_dice_coef"] < 0.06
    late = records.load_record("report64").history.tail(50)
    assert (late["val_dice_coef"] - late["dice_coef"]).median() > 0
    smooth = records.load_record("report64").history["val_loss"].rolling(10).mean()
    assert smooth.iloc[-1] < 1.02 * smooth.min()
    knowing = verdict.compare_arms([["known-patients-77"]], [["new-patients-1"]])
    more = verdict.compare_arms([["known-patients-1"]], [["known-patients-77"]])
    assert (
        knowing["patients"] == 77
        and knowing["low"] > 0
        and knowing["difference"] > 1.5 * more["difference"]
    )
    six = pd.DataFrame(sources.REPORTED["runs"]).set_index("run")
    assert (
        six["val_dice"].max() - six["val_dice"].min() < 0.07
        and six["val_iou"].max() - six["val_iou"].min() < 0.07
    )
    assert six.loc[6, "train_dice"] - six.loc[6, "val_dice"] > 1.5 * (
        ends["dice_coef"] - ends["val_dice_coef"]
    )
    institutions = data.patient_table(cohort)["institution"].value_counts()
    assert institutions.iloc[:2].sum() > len(lengths) / 2
    medians = (
        new.per_patient["dice"].groupby(data.institutions(new.per_patient["patient"])).median()
    )
    assert medians.drop(index="EZ").max() - medians.min() < 0.06
    worst = new.per_patient.nsmallest(12, "dice").set_index("patient")
    tumour = worst["tp"] + worst["fn"]
    assert (worst["tp"] / tumour < 0.2).sum() > 6
    assert (worst["fp"] / tumour).filter(like="FG_A60K").iloc[0] > 5
    three = verdict.compare_arms(
        [["new-patients-1"]], [["mixing-none-1"]], score="dice_patient_mean"
    )
    assert three["low"] < 0 < three["high"], "heading of chapter 3"
    composed = (
        stats.compare_conditions(records.load_record("ablation-composed").ablation)
        .set_index("condition")
        .loc["all"]
    )
    assert composed["low"] < 0 < composed["high"], "chapter 3: the interval includes 0"
    first = stats.compare_conditions(records.load_record("ablation").ablation).set_index(
        "condition"
    )
    assert (first.drop(index="all")["difference"] > 0).all() and first["p_holm"].min() > 0.05
    healthy = new.per_slice[new.per_slice["tp"] + new.per_slice["fn"] == 0]
    alarms = healthy[healthy["fp"] > 0]
    assert len(alarms) < 0.05 * len(healthy) and alarms["fp"].median() > 0.01 * 128**2
    for name in ABLATIONS:
        if "all" in set(records.load_record(name).ablation["condition"]):
            assert (
                stats.compare_conditions(records.load_record(name).ablation)
                .set_index("condition")
                .loc["all", "difference"]
                < 0
            )
    scored = new.per_slice.assign(area=new.per_slice["tp"] + new.per_slice["fn"]).query("area > 0")
    found = (
        (scored["tp"] / scored["area"]).groupby(pd.qcut(scored["area"], 4), observed=True).median()
    )
    assert found.iloc[0] < 0.5 and found.iloc[-1] > 0.85


def test_what_chapter_11_says_of_missing_sequences_holds():
    missing = runs.read_csv(records.RECORDS / "sequences.csv").set_index("patient")["missing"]
    assert missing.value_counts().to_dict() == {
        "pre-contrast and post-contrast": 6,
        "post-contrast": 4,
    }
    as_small = []
    for name in ("new-patients", "new-patients-1", "new-patients-2", "recipe-cv"):
        patients = records.load_record(name).per_patient.set_index("patient")
        dice, area = patients["dice"], patients["tp"] + patients["fn"]
        none, post, both = (
            dice.groupby(dice.index.map(missing).fillna("none"))
            .mean()
            .sort_index()[["none", "post-contrast", "pre-contrast and post-contrast"]]
        )
        assert both < none - 0.15 and both < post < none
        fourth = area[missing.index[missing.str.contains(" and ")]].nsmallest(4).max()
        assert fourth < 0.7 * area.median()
        as_small.append(dice[(area <= fourth) & ~dice.index.isin(missing.index)].mean())
    assert (round(min(as_small), 2), round(max(as_small), 2)) == (0.68, 0.78)


@pytest.mark.parametrize("name", ["new-patients", "new-patients-1", "new-patients-2"])
def test_what_chapter_11_says_of_the_ends_of_the_stack_holds(name):
    scored = records.load_record(name).per_slice
    scored["area"], scored["dice"] = (
        scored["tp"] + scored["fn"],
        metrics.dice(scored["tp"], scored["fp"], scored["fn"]),
    )
    place = scored.groupby("patient")["slice"].transform(
        lambda number: (number - number.min()) / np.ptp(number)
    )
    scored["end"] = ~place.between(0.4, 0.8, inclusive="right")
    tumour = scored[scored["area"] > 0]
    areas = tumour.groupby("end")["area"].median()
    assert areas[True] < 0.65 * areas[False]
    small = tumour["area"] <= tumour["area"].median()
    dice = tumour.groupby([small, "end"])["dice"].median()
    assert (
        dice[True, True] < dice[True, False] - 0.05
        and dice[False, True] > dice[False, False] - 0.02
    )


def found_where_the_tumour_is_largest(record, patients):
    """The share of the tumour that is found on each patient's slice with the most tumour."""
    scored = record.per_slice.assign(area=record.per_slice["tp"] + record.per_slice["fn"])
    largest = (
        scored.loc[scored.groupby("patient")["area"].idxmax()]
        .set_index("patient")
        .loc[list(patients)]
    )
    return largest["tp"] / largest["area"]


def test_what_the_captions_of_the_worst_patients_say_holds():
    known, new, last = (
        records.load_record(name) for name in ("known-patients", "new-patients", "ensemble-cv")
    )
    worst = new.per_patient.nsmallest(5, "dice")["patient"]
    more = found_where_the_tumour_is_largest(known, worst) > found_where_the_tumour_is_largest(
        new, worst
    )
    assert more.sum() == 4
    still_worst = last.per_patient.nsmallest(10, "dice")["patient"]
    assert (found_where_the_tumour_is_largest(last, still_worst) < 0.5).sum() == 3


def test_what_chapter_12_says_of_the_last_recipe_holds():
    def dice_of(*names):
        return (
            pd.concat([records.load_record(name).per_patient for name in names])
            .groupby("patient")["dice"]
            .mean()
        )

    members = runs.read_csv(records.RECORDS / "members.csv.gz")
    dice = members.pivot(index="patient", columns=["mirrored", "network"], values="dice")
    once, turned, together = dice[False, "0"], dice[True, "0"], dice[True, "all"]
    assert len(members) == 2 * 4 * 110 and len(once) == 110
    plain = dice_of("new-patients", "new-patients-1", "new-patients-2")
    recipe, single, last = map(dice_of, ("recipe-cv", "mirrored-cv", "ensemble-cv"))
    np.testing.assert_allclose(turned[single.index], single, rtol=1e-6)
    np.testing.assert_allclose(together[last.index], last, rtol=1e-6)
    seeds = dice.drop(columns="all", level="network")
    ways = [plain, recipe, seeds[False].mean(axis=1), seeds[True].mean(axis=1), last]
    steps = [stats.paired_difference(more - less) for less, more in pairwise(ways)]
    assert min(step["low"] for step in steps) > 0 and max(step["high"] for step in steps[2:]) < 0.01
    assert round(last.mean() - plain.mean(), 2) == 0.12, "heading"
    assert [round(dice.mean(), 3) for dice in ways] == [0.717, 0.799, 0.831, 0.835, 0.840], (
        "alternative text"
    )
    published = sources.REPORTED["others"][1]
    assert round(last.mean() - published["mean"], 3) == 0.004
    entry = records.load_record("ensemble-cv").metrics["test"]["dice_patient_mean"]
    assert [round(entry[end], 3) for end in ("low", "high")] == [0.814, 0.860]
    assert sources.REPORTED["others"][0]["mean"] < published["mean"]
    assert [(dice < 0.5).sum() for dice in (recipe, last)] == [7, 3], "title"
    missing = runs.read_csv(records.RECORDS / "sequences.csv").set_index("patient")["missing"]
    gains = (last - recipe).groupby(last.index.map(missing).fillna("none")).mean()
    assert gains.idxmax() == "pre-contrast and post-contrast"
    alone, whole = missing[missing == gains.idxmax()].index, last.index.difference(missing.index)
    assert (round(single[alone].mean(), 2), round(single[whole].mean(), 2)) == (0.75, 0.84), (
        "model card"
    )
    assert seeds[True].loc[alone].mean().round(2).tolist() == [0.75, 0.80, 0.82], "model card"
    assert seeds[False].filter(like="HT_A61B", axis=0).iloc[0].round(2).tolist() == [
        0.74,
        0.79,
        0.69,
    ]
    said = {"HT_A61B": [0.47, 0.72, 0.81], "CS_5395": [0.57, 0.38, 0.36]}
    assert {
        name: seeds[True].filter(like=name, axis=0).iloc[0].round(2).tolist() for name in said
    } == said
    assert round(last.filter(like="HT_A61B").iloc[0], 2) == 0.74
    one = once.filter(like="HT_A61B").iloc[0], single.filter(like="HT_A61B").iloc[0]
    assert round(one[0] - one[1], 2) == 0.27, "model card"


def test_what_chapter_12_says_of_the_worst_patients_holds():
    patients = records.load_record("ensemble-cv").per_patient.set_index("patient")
    contrast = runs.read_csv(records.RECORDS / "contrast.csv").set_index("patient")["contrast"][
        patients.index
    ]
    area = patients["tp"] + patients["fn"]
    missing = patients.index.isin(runs.read_csv(records.RECORDS / "sequences.csv")["patient"])
    small, faint = area <= area.quantile(0.25), contrast <= contrast.quantile(0.25)
    signs = pd.DataFrame({"missing": missing, "small": small, "faint": faint})
    some = signs.any(axis=1)
    assert 0.45 < some.mean() < 0.55
    assert patients["dice"].groupby(some).mean().round(2).to_dict() == {False: 0.88, True: 0.80}
    worst = patients.nsmallest(10, "dice").rename(lambda name: name[5:12].replace("_", " "))
    signs = signs.rename(lambda name: name[5:12].replace("_", " ")).loc[worst.index]
    said = {name: ", ".join(row.index[row]) for name, row in signs.iterrows()}
    small_and_faint = dict.fromkeys(("DU A5TY", "DU 6405"), "small, faint") | {
        "DU 8165": "missing, small, faint"
    }
    small = dict.fromkeys(("CS 5397", "CS 5395", "DU 5852", "DU 7299", "CS 6188"), "small")
    assert said == small | small_and_faint | {"DU 7018": "faint", "DU 7013": "missing"}
    tumour = worst["tp"] + worst["fn"]
    found, wrong = ((worst[counted] / tumour).round(2) for counted in ("tp", "fp"))
    assert found["CS 5397"] < 0.1 and (found["DU 7018"], found["CS 6188"]) == (0.15, 0.59)
    both = found[list(small_and_faint)]
    assert (both.min(), both.max()) == (0.48, 0.74)
    assert found[["CS 5395", "DU 5852", "DU 7299", "DU 7013"]].min() > 0.7
    assert wrong[["CS 5395", "DU 5852", "DU 7299", "DU 7013", "CS 6188"]].tolist() == [
        1.90,
        1.56,
        0.61,
        0.32,
        0.04,
    ]
    assert contrast.filter(like="DU_7018").iloc[0] > 0.5, "a little brighter"
    scored = records.load_record("ensemble-cv").per_slice
    healthy = scored[scored["tp"] + scored["fn"] == 0].groupby("patient")["fp"].sum()
    shares = [
        healthy.filter(like=name).iloc[0] / worst.loc[name.replace("_", " "), "fp"]
        for name in ("CS_5395", "DU_5852", "DU_7299")
    ]
    assert shares[0] > 0.9 and shares[1] == 0 and shares[2] < 0.2
    assert (
        records.load_record("recipe-cv")
        .per_patient.nsmallest(1, "dice")["patient"]
        .iloc[0]
        .startswith("TCGA_CS_5397")
    )


def test_what_chapter_12_says_of_unknown_hospitals_holds():
    known, new = (
        records.load_record(name).per_patient.set_index("patient")["dice"]
        for name in ("mirrored-cv", "institutions-cv")
    )
    split = records.load_record("institutions-cv").split
    places = data.institutions(split["patient"])
    assert split["fold"].groupby(places).nunique().eq(1).all() and set(
        places[split["split"] == "train"]
    ) == {"EZ"}
    change = (new - known).dropna()
    assert len(change) == 109
    by_place = {
        name: stats.paired_difference(part)
        for name, part in change.groupby(data.institutions(change.index.to_series()))
    }
    assert by_place["DU"]["high"] < 0 and all(
        by_place[name]["high"] > 0 for name in ("CS", "FG", "HT")
    ), "heading"
    assert (
        min(by_place[name]["difference"] for name in ("CS", "HT"))
        >= 0
        > by_place["FG"]["difference"]
    )
    assert abs(change[~change.index.str.contains("_DU_")].sum()) < 0.1 * abs(change.sum()), (
        "nearly cancel"
    )
    one, whole = change.filter(like="FG_A60K").iloc[0], change.filter(like="_FG_").sum()
    assert whole < 0 and one < 0.75 * whole
    slices = [
        (table["fold"] != fold).sum()
        for table, fold in ((split, 1), (records.load_record("mirrored-cv").split, 0))
    ]
    assert 0.3 < 1 - slices[0] / slices[1] < 0.38


def test_earlier_networks_are_of_the_first_epoch_with_the_reports_training_loss():
    for name, scores in records.read_early().groupby("training"):
        loss = records.load_record(name).history.set_index("epoch")["loss"]
        first = (loss <= sources.TABLES["train"]["loss"]).idxmax()
        assert scores["epoch"].unique().tolist() == [first]


def test_what_chapter_12_says_of_calibration_holds():
    tenths = runs.read_csv(records.RECORDS / "calibration.csv").set_index("probability")
    assert tenths["pixels"].sum() == 3929 * 128**2
    assert (tenths["tumour"] < tenths["mean_probability"])[0.5:].all() and (
        tenths["tumour"] > tenths["mean_probability"]
    )[:0.4].all()
    assert tenths.loc[0.7, ["mean_probability", "tumour"]].round(2).tolist() == [0.75, 0.67]


def test_what_is_said_of_definitions_holds():
    record = records.load_record("report64-plain")
    sets = {name: record.per_slice[record.per_slice["split"] == name] for name in sources.TABLES}

    def met(definition, names, tables=sets, within=0.02):
        """Count the reported scores of some sets that come this near to ours under a definition."""
        pairs = [
            (metrics.dice_and_iou(tables[name], definition), sources.TABLES[name]) for name in names
        ]
        keys = ("dice_coef", "jacard_coef")
        return sum(
            abs(our - table[key]) <= within
            for ours, table in pairs
            for our, key in zip(ours, keys, strict=True)
        )

    assert (
        max(
            met(definition, sets) for definition in metrics.DEFINITIONS if not definition.background
        )
        == 3
    )
    # Chapter 8: as a mean over slices of both classes, our mean IoU differs from the printed one by less than chance.
    both = metrics.Definition(soft=False, unit="slice", background=True)
    assert (
        abs(metrics.dice_and_iou(sets["test"], both)[1] - sources.TABLES["test"]["mean_iou"]) < 0.01
    )


def test_what_chapter_5_says_of_sizes_and_of_overfitting_holds():
    pairs = [("report128", "size64"), ("report128-1", "size64-1"), ("report128-2", "size64-2")]
    found = [verdict.compare_arms([[large]], [[small]]) for large, small in pairs]
    assert [round(each["difference"], 3) for each in found] == [0.025, -0.069, -0.042]
    assert all(each["low"] * each["high"] > 0 for each in found), "none includes 0"
    augmented = [name for pair in pairs for name in pair]
    rises = [arms.training_score(name, "rise") for name in augmented]
    plain = [arms.training_score(name, "rise") for name in arms.trainings("plain64")]
    assert max(rises) < 1.1
    assert min(plain) > 1.29
    val = records.load_record("report64-plain").per_slice.query("split == 'val'")
    soft = metrics.Definition(soft=True, unit="batch", smooth=1)
    tumour = val[val["tp"] + val["fn"] > 0]
    assert round(metrics.dice_and_iou(tumour[:144], soft)[0], 3) == 0.837, "chapter 8"


# The table of scores


@pytest.mark.parametrize("name", ["grid64-batch16-0", "report64", "report128-1", "new-patients/3"])
def test_the_table_of_scores_follows_from_the_records(name):
    stored = records.read_scores().query("training == @name").drop(columns="training")
    again = records.score_training(name).drop(columns="training")
    keys = [column for column in again if column != "value"]
    both = stored.merge(again, on=keys, suffixes=("", "_again"))
    assert len(both) == len(stored) == len(again)
    assert both["value"].to_numpy() == pytest.approx(both["value_again"].to_numpy(), rel=1e-5)


def test_the_table_of_scores_has_every_training():
    assert set(records.read_scores()["training"]) == set(records.training_names())


@pytest.mark.parametrize("unit", ["pooled", "batch", "slice"])
@pytest.mark.parametrize("soft", [True, False])
def test_the_table_counts_as_the_chapters_do(unit, soft):
    scored = records.load_record("report64").per_slice.query("split == 'test'")
    definition = metrics.Definition(soft=soft, unit=unit, smooth=1)
    table = records.score_set(scored).set_index(records.WAY)["value"]
    values = "probabilities" if soft else "masks"
    found = [table[score, values, unit, 1] for score in ("dice", "iou")]
    assert found == pytest.approx(metrics.dice_and_iou(scored, definition))


def test_scores_of_three_slices_by_hand():
    """One slice with tumour half found, one empty and left empty, one with a false alarm."""
    table = pd.DataFrame({"tp": [10, 0, 0], "fp": [0, 0, 5], "fn": [10, 0, 0]})
    table["tn"] = 100 - table.sum(axis=1)
    table["soft_intersection"] = 1.0 * table["tp"]
    table["soft_sum"] = 2.0 * table["tp"] + table["fp"] + table["fn"]
    table["loss"] = [0.1, 0.2, 0.3]
    found = records.score_set(table).set_index(records.WAY)["value"]
    assert found["dice", "masks", "pooled", 0] == pytest.approx(20 / 35)
    assert found["dice", "masks", "slice", 0] == pytest.approx((20 / 30 + 1 + 0) / 3)
    assert found["dice", "masks", "slice", 1] == pytest.approx((21 / 31 + 1 + 1 / 6) / 3)
    assert found["iou", "masks", "slice", 1] == pytest.approx((11 / 21 + 1 + 1 / 6) / 3)
    assert found["iou", "probabilities", "batch", 10] == pytest.approx(20 / 35)
    assert found["mean_iou", "masks", "pooled", 0] == pytest.approx((10 / 25 + 275 / 290) / 2)
    assert found["accuracy", "masks", "pooled", 0] == pytest.approx(1 - 15 / 300)
    assert found["loss", "probabilities", "pooled", 0] == pytest.approx(0.2)


def test_what_the_criteria_ask_for_is_listed_as_the_books():
    groups = [*arms.CLAIMS["arms"].values(), *arms.CLAIMS["predictions"]]
    asked = {name for group in groups for name in [*group["records"], *group.get("to_come", [])]}
    folders = {name for name in asked if (records.RECORDS / name).exists()}
    assert len(folders) > 10 and folders <= set(records.BOOKS_OWN)
    assert set(records.BOOKS_OWN) <= set(records.record_names())


@pytest.fixture
def readers_record(tmp_path, monkeypatch):
    """The folder of a reader's record, among others: five of the book and an ablation."""
    for name in ("ablation", "patient64", "new-patients", "report64-plain"):
        shutil.copytree(records.RECORDS / name, tmp_path / name)
    shutil.copytree(tmp_path / "patient64", tmp_path / "mine")
    shutil.copytree(tmp_path / "patient64", tmp_path / "far")
    facts = runs.read_record(tmp_path / "mine")
    facts["experiment"].update(size=32, scaling="head", schedule="constant")
    (tmp_path / "far" / "run.json").write_text(json.dumps(facts))
    facts = runs.read_record(tmp_path / "mine")
    facts["experiment"].update(profile="my.yml", epochs=2, filters=4, ablation_seeds=3)
    facts["data"] = {"kind": "16 patients", "patients": 16, "fingerprint": "another"}
    (tmp_path / "mine" / "run.json").write_text(json.dumps(facts))
    shutil.copytree(tmp_path / "ablation", tmp_path / "my-ablation")
    monkeypatch.setattr(records, "RECORDS", tmp_path)
    books_own = ["ablation", "far", "new-patients", "patient64", "report64-plain"]
    monkeypatch.setattr(records, "BOOKS_OWN", books_own)
    return tmp_path / "mine"


def test_a_readers_record_is_compared_with_the_nearest_of_the_book(readers_record):
    assert records.readers_names() == ["mine"]
    (row,) = records.compare_with_book(["mine"]).to_dict("records")
    assert (row["record"], row["of_book"], row["same_data"]) == ("mine", "patient64", False)
    assert row["differ"] == "filters 4 instead of 16, epochs 2 instead of 20"
    scores = records.load_record("patient64").metrics["test"]["dice_patient_mean"]
    assert [row[key] for key in ("dice", "low", "high")] == list(scores.values())
    assert row["dice_of_book"] == row["dice"] and row["patients"] == row["patients_of_book"] == 11
    assert (row["data"], row["data_of_book"]) == ("16 patients", "110 patients, the LGG cohort")


def test_like_is_compared_with_like(readers_record):
    for settings, command, expected in (
        ({"split": "slice"}, "run", "report64-plain"),
        ({"split": "patient"}, "crossval", "new-patients"),
        ({"split": "patient"}, "train", "patient64"),
    ):
        facts = runs.read_record(readers_record)
        facts["experiment"].update(settings)
        facts["command"] = f"lggseg {command} --profile my.yml"
        (readers_record / "run.json").write_text(json.dumps(facts))
        assert records.nearest_of_book("mine") == expected


def test_recording_a_run_ends_with_the_comparison(readers_record, capsys):
    cli._print_comparison(records.compare_with_book(["mine"]).to_dict("records")[0])
    own, of_book, settings, data = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"mine: test Dice 0\.7\d\d \(95% .*\), 11 patients; data: 16 patients\.", own
    )
    assert of_book.startswith("patient64, of the book: test Dice 0.7")
    assert settings == "Settings that differ: filters 4 instead of 16, epochs 2 instead of 20."
    assert data == "The data differ, so these numbers do not say which network is better."


def test_a_readers_record_may_have_the_name_of_a_training_kept_in_a_table(tmp_path, monkeypatch):
    shutil.copytree(records.RECORDS / "patient64", tmp_path / "report128-long")
    monkeypatch.setattr(records, "RECORDS", tmp_path)
    per_slice, history = records.load_training.__wrapped__("report128-long")
    assert set(per_slice["split"]) == {"train", "val", "test"}
    assert len(history)


def test_a_record_is_read_once_for_all_its_scores(monkeypatch):
    read = []
    monkeypatch.setattr(records, "load_record", lambda name: read.append(name) or loaded)
    loaded = records.Record("r", {}, None, *6 * [None])
    records.load_once.cache_clear()
    records.load_training.cache_clear()
    records.training_names()
    records.load_training("patient64")
    records._own_grid("patient64")
    assert sorted(read) == records.record_names()
    records.load_once.cache_clear()
    records.load_training.cache_clear()


def test_captions_say_what_the_patients_of_the_leak_gain():
    table = runs.read_csv(records.RECORDS / "leak.csv")
    assert table["gain"].is_monotonic_decreasing
    assert table["gain"].median() < 0.05
    dice = {}
    for kind in ("new", "known"):
        for seed in ("", "-1", "-2"):
            scored = records.load_record(f"{kind}-patients{seed}").per_slice
            scored["dice"] = metrics.dice(scored["tp"], scored["fp"], scored["fn"])
            scored = scored.set_index(["patient", "slice"])["dice"]
            dice[kind, seed] = scored[list(zip(table["patient"], table["slice"], strict=True))]
    upper, lower = (
        pd.Series({key: each.iloc[row] for key, each in dice.items()}) for row in (0, 1)
    )
    assert (upper["known"] - upper["new"] > 0.4).all()
    assert lower["new"][""] == 0
    assert (lower["new"][["-1", "-2"]] > 0.9).all()


def test_what_chapters_10_and_12_say_in_words_holds():
    new = records.load_record("new-patients").per_patient
    drawn = stats.draw(new[["tp", "fp", "fn"]].to_numpy(), 11).sum(axis=1)
    low, high = np.quantile(metrics.dice(*drawn.T), (0.025, 0.975))
    assert (round(low, 2), round(high, 2)) == (0.54, 0.87)
    dice = new["dice"].sort_values()
    assert round(dice.iloc[10:].mean() - dice.mean(), 2) == 0.06
    names = ("new-patients", "new-patients-1", "new-patients-2", "recipe-cv")
    tables = [records.load_record(name).per_patient.set_index("patient") for name in names]
    mean = sum(table["dice"] for table in tables) / len(tables)
    sequences = runs.read_csv(records.RECORDS / "sequences.csv").set_index("patient")["missing"]
    volume = tables[0]["tp"] + tables[0]["fn"]
    flair_alone = sequences.index[sequences == "pre-contrast and post-contrast"]
    small = volume[~volume.index.isin(sequences.index)] <= volume[flair_alone].median()
    assert small.sum() == 36
    assert round(mean[small.index[small]].mean(), 2) == 0.71
    assert mean[flair_alone].mean() < 0.6


def test_captions_count_the_patients_of_the_leak():
    count = len(runs.read_csv(records.RECORDS / "leak.csv"))
    for path in ("book/index.md", "notebooks/11_leak.ipynb"):
        assert (
            f"of {count} patients" in (runs.REPOSITORY / path).read_text(encoding="utf-8").lower()
        )


def test_a_relative_path_is_recorded(tmp_path, monkeypatch):
    """`lggseg record runs/demo name` is typed with a relative path."""
    run = runs.open_run("smoke", run_dir=tmp_path / "run")
    run.path("metrics.json").write_text("{}")
    (tmp_path / "records").mkdir()
    monkeypatch.setattr(records, "RECORDS", tmp_path / "records")
    monkeypatch.chdir(tmp_path)
    assert records.record("run", "kept") == tmp_path / "records" / "kept"


@pytest.mark.parametrize("name", [".hidden", "..", "-x", "a/b", ""])
def test_a_name_that_would_hide_or_leave_the_folder_is_refused(tmp_path, monkeypatch, name):
    run = runs.open_run("smoke", run_dir=tmp_path / "run")
    run.path("metrics.json").write_text("{}")
    monkeypatch.setattr(records, "RECORDS", tmp_path)
    with pytest.raises(UserError, match="names no record; use letters"):
        records.record(run.folder, name)


def test_compressed_tables_have_no_time(tmp_path, monkeypatch):
    """Recorded twice, the files are the same, so git sees no change."""
    table = pd.DataFrame({"a": range(9000)})
    monkeypatch.setattr(records, "RECORDS", tmp_path)
    monkeypatch.setattr(time, "time", lambda: 1e9)
    runs.write_csv(tmp_path / "history.csv", table)
    (tmp_path / "x").mkdir()
    records._copy(tmp_path / "history.csv", tmp_path / "x")
    records.write_scores(table, "y.gz")
    for path in (tmp_path / "x" / "history.csv.gz", tmp_path / "y.gz"):
        assert path.read_bytes()[4:8] == bytes(4), "no time in the header"


def test_every_table_is_recorded_and_comes_back_in_its_place(tmp_path, monkeypatch):
    """Every file that a record can hold is kept, and comes back in its place."""
    run = runs.open_run("smoke", run_dir=tmp_path / "run")
    for name in records.TABLES:
        run.path(f"{name}.csv").write_text(f"{name}\n1\n")
    run.path("metrics.json").write_text("{}")
    run.path("ablation.csv").write_text("a\n1\n")
    (tmp_path / "records").mkdir()
    monkeypatch.setattr(records, "RECORDS", tmp_path / "records")
    kept = records.record(run.folder, "kept")
    loaded = records.load_record("kept")
    tables = (
        loaded.per_slice,
        loaded.per_patient,
        loaded.history,
        loaded.split,
        loaded.ablation,
        loaded.own_grid,
    )
    assert [list(table) for table in tables] == [[name] for name in records.TABLES]
    assert (kept / "ablation.csv").exists()


def test_a_run_split_by_slice_is_compared_by_its_pooled_dice():
    """Where slices were split, the score is that of all test slices pooled."""
    (row,) = records.compare_with_book(["report64"]).to_dict("records")
    assert row["dice"] == records.load_record("report64").metrics["test"]["dice_pooled"]["value"]


def test_a_record_that_is_being_made_is_not_listed(tmp_path, monkeypatch):
    for name in (".part-x", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
    monkeypatch.setattr(records, "RECORDS", tmp_path)
    assert records.record_names() == ["mine"]


def test_settings_without_effect_do_not_differ(tmp_path, monkeypatch):
    for name, settings in (
        ("a", {}),
        (
            "b",
            {
                "kept_epochs": [1],
                "skip_bad": True,
                "ablation_conditions": ["none", "flip"],
                "ablation_seeds": 2,
            },
        ),
    ):
        runs.open_run("smoke", run_dir=tmp_path / name, overrides=settings)
    monkeypatch.setattr(records, "RECORDS", tmp_path)
    assert records._differ("a", "b") == []
