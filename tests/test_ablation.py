"""The ablation: paired, resumable, honest about what it can say."""

import numpy as np
import pandas as pd
import pytest

from lggseg_utils import ablation, cli, preprocess, records, train


def patients_table(gain, patients=12, seeds=2):
    """Made-up Dice per patient under none and all, with a gain for all."""
    rng = np.random.default_rng(1)
    base = rng.uniform(0.2, 0.8, patients)
    rows = [
        {
            "condition": condition,
            "seed": seed,
            "patient": f"P{number}",
            "dice": base[number] + gain * (condition == "all") + rng.normal(0, 0.01),
        }
        for condition in ("none", "all")
        for seed in range(seeds)
        for number in range(patients)
    ]
    return pd.DataFrame(rows)


def test_pairing_sees_a_gain_that_is_smaller_than_the_spread_of_patients():
    row = ablation.differences(patients_table(0.05)).iloc[0]
    assert row["condition"] == "all" and row["difference"] == pytest.approx(0.05, abs=0.01)
    assert 0 < row["low"] < row["difference"] < row["high"] < 0.1
    assert (row["patients"], row["seeds"]) == (12, 2)


def test_no_gain_is_called_no_gain():
    compared = ablation.differences(patients_table(0.0))
    assert compared["low"].iloc[0] < 0 < compared["high"].iloc[0]
    text = ablation.conclusion(patients_table(0.0), 8, "phantom cohort")
    assert (
        "No condition differs from none" in text
        and "8 epochs, 12 validation patients of the phantom cohort, 2 seeds" in text
    )


def test_a_clear_gain_is_named_with_its_interval():
    text = ablation.conclusion(patients_table(0.2), 8, "LGG cohort")
    assert text.startswith("By the corrected p: all gains 0.")


def test_networks_that_have_not_learnt_are_not_compared():
    text = ablation.conclusion(patients_table(0.05).assign(dice=0.01), 2, "phantom cohort")
    assert "has hardly learnt anything yet, and the comparison means nothing" in text


def test_ablations_stand_side_by_side():
    def evidence(gain, epochs):
        record = {"experiment": {"ablation_epochs": epochs}}
        return records.Evidence(record, evaluation=None, history=None, ablation=patients_table(gain))

    table = ablation.changes({"long": evidence(0.2, 15), "short": evidence(-0.1, 5)}, ["all", "report"])
    assert table[["record", "condition", "epochs"]].values.tolist() == [["short", "all", 5], ["long", "all", 15]]
    assert table["difference"].tolist() == pytest.approx([-0.1, 0.2], abs=0.01) and table["none"].nunique() == 1
    assert ((table["low"] < table["difference"]) & (table["difference"] < table["high"])).all()


def test_one_patient_has_no_interval_and_one_condition_no_comparison():
    assert np.isnan(ablation.differences(patients_table(0.1, patients=1))["low"].iloc[0])
    alone = patients_table(0.1).query("condition == 'none'")
    assert ablation.conclusion(alone, 1, "phantom cohort") == "Only one condition was run: nothing is compared."


def test_a_run_compares_its_conditions_on_validation_patients_and_resumes(phantom_folder, open_smoke, monkeypatch):
    run = open_smoke(phantom_folder, ablation_conditions=["report", "none"], split="slice")
    summary, patients = ablation.ablate(run)
    assert summary["condition"].tolist() == ["none", "report"] and (summary["epochs"] == 1).all()
    split = preprocess.draw_split(preprocess.load_cohort(run).slices, "patient", 0)
    assert set(patients["patient"]) == set(split.loc[split["split"] == "val", "patient"])
    run.path("ablation.csv").unlink()
    run.path("ablation", "report-0.csv").unlink()
    trained = []
    fit = train.fit
    monkeypatch.setattr(
        train,
        "fit",
        lambda experiment, *rest, **more: trained.append(experiment.augmentation) or fit(experiment, *rest, **more),
    )
    again, _ = ablation.ablate(run)
    assert trained == ["report"] and again["condition"].tolist() == ["none", "report"]


def test_holm_by_hand():
    assert ablation.holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert ablation.holm([0.6, 0.7]).tolist() == [1, 1] and ablation.holm([]).tolist() == []


def test_the_primary_contrast_is_not_corrected_and_the_others_are():
    table = patients_table(0.05)
    more = [table[table["condition"] == "all"].assign(condition=name) for name in ("flip", "noise", "shear")]
    compared = ablation.differences(pd.concat([table, *more])).set_index("condition")
    assert compared.loc["all", "p_corrected"] == compared.loc["all", "p"] == pytest.approx(2 / 2**12)
    assert compared.loc["flip", "p_corrected"] == pytest.approx(3 * compared.loc["flip", "p"])


def test_a_gain_that_many_comparisons_explain_is_not_called_clear():
    table = patients_table(0.0)
    weak = table[table["condition"] == "all"]["dice"].to_numpy() + np.resize([0.03] * 3 + [-0.01], len(table) // 2)
    names = [f"other{number}" for number in range(12)]
    more = [table[table["condition"] == "all"].assign(condition=name, dice=weak) for name in names]
    alone, many = (
        ablation.differences(pd.concat([table, *chosen])).set_index("condition") for chosen in (more[:1], more)
    )
    assert alone.loc["other0", "p_corrected"] < 0.05 < many.loc["other0", "p_corrected"]


def test_lggseg_ablate_compares_and_trains_nothing_else(phantom_folder, tmp_path, capsys):
    folder = tmp_path / "ablation"
    cli.commands(
        ["ablate", "--profile", "smoke", "--data", str(phantom_folder), "--out", str(folder)], standalone_mode=False
    )
    assert capsys.readouterr().out.strip().endswith("ablation.csv")
    evidence = records.load_evidence(folder)
    assert evidence.command == "ablate" and evidence.evaluation is None and evidence.record["ended"]
    assert evidence.ablation["condition"].unique().tolist() == ["none", "report"]
    assert not (folder / "model.keras").exists()
