"""Does augmentation help? The same small training under each condition, over seeds (report, section 1-3)."""

from functools import lru_cache

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy import stats
from tqdm import tqdm

from lggseg_utils import evaluate, metrics, preprocess
from lggseg_utils.config import read_csv, write_csv

BASELINE = "none"
PRIMARY = "all"  # compared with none first, as the report's claim is about mixing
LEVEL = 0.05
LEARNT = 0.2  # mean Dice below which a network is no ground for a comparison; our choice


def conditions_of(experiment):
    """The conditions compared, `none` first: it is what the others are paired with."""
    return (BASELINE, *(name for name in experiment.ablation_conditions if name != BASELINE))


def ablate(run):
    """Run a run's ablation, or load it: (ablation.csv, ablation_patients.csv) as tables.

    Jobs are independent; each leaves its rows in the folder ablation/, so an interrupted ablation goes on with
    the jobs that are missing. They are handed to joblib: `joblib.parallel_config` chooses processes or a cluster.
    ablation.csv: condition, seed, epochs, dice_patient_mean, dice_pooled, iou_pooled, all on validation patients.
    ablation_patients.csv: condition, seed, patient, dice.
    """
    if not run.path("ablation.csv").exists():
        cohort = preprocess.load_cohort(run)
        split = preprocess.draw_split(cohort.slices, "patient", run.experiment.seed)
        jobs = [
            (condition, seed)
            for condition in conditions_of(run.experiment)
            for seed in range(run.experiment.ablation_seeds)
        ]
        tables = Parallel(return_as="generator")(delayed(_job)(run, cohort, split, *job) for job in jobs)
        patients = pd.concat(
            tqdm(tables, total=len(jobs), desc="ablation", unit="training", leave=False), ignore_index=True
        )
        write_csv(run.path("ablation_patients.csv"), patients[["condition", "seed", "patient", "dice"]])
        run.note_end()
        write_csv(run.path("ablation.csv"), _summary(patients, run.experiment.ablation_epochs))
    return read_csv(run.path("ablation.csv")), read_csv(run.path("ablation_patients.csv"))


def _job(run, cohort, split, condition, seed):
    """Train under one condition and seed and score the validation patients; the rows are kept in a file."""
    path = run.path("ablation", f"{condition}-{seed}.csv")
    if not path.exists():
        from lggseg_utils import train

        experiment = _job_experiment(run, condition, seed)
        rows = preprocess.rows_by_set(split)
        work = run.path("ablation", f"{condition}-{seed}")
        network = _network(_job_experiment(run, BASELINE, 0), len(rows["train"]))
        model, _ = train.fit(experiment, cohort, rows["train"], rows["val"], work, network, keep=False)
        scored = evaluate.score_patients(model, cohort, rows["val"], experiment)
        write_csv(path, scored.assign(condition=condition, seed=seed))
    return read_csv(path)


def _job_experiment(run, condition, seed):
    """The run's experiment as one condition and seed of the ablation train it."""
    changed = {
        "augmentation": condition,
        "seed": seed,
        "split": "patient",
        "epochs": run.experiment.ablation_epochs,
        "filters": run.experiment.ablation_filters,
        "early_stopping": 0,
    }
    return run.experiment.model_copy(update=changed)


@lru_cache(maxsize=1)
def _network(experiment, slices):
    """One compiled network for all jobs of this process: tracing it takes longer than training it for an epoch."""
    from lggseg_utils import train

    train.set_up(experiment)
    return train.compile_unet(experiment, train.training_steps(slices, experiment.batch_size) * experiment.epochs)


def _summary(patients, epochs):
    """One row per condition and seed from the rows a patient."""
    grouped = patients.groupby(["condition", "seed"], sort=False)
    total = grouped[["tp", "fp", "fn"]].sum()
    return pd.DataFrame(
        {
            "epochs": epochs,
            "dice_patient_mean": grouped["dice"].mean(),
            "dice_pooled": metrics.dice(total["tp"], total["fp"], total["fn"]),
            "iou_pooled": metrics.iou(total["tp"], total["fp"], total["fn"]),
        }
    ).reset_index()


def differences(patients, baseline=BASELINE):
    """Compare each condition with a baseline, paired by patient: condition, difference, low, high, p, p_corrected, patients, seeds.

    The difference is that of the Dice per patient, averaged over seeds; the 95 % interval is the percentile
    bootstrap over patients (NaN with fewer than two). It says nothing of other seeds. p: Wilcoxon's signed-rank test over
    patients. p_corrected: the same for PRIMARY, the contrast chosen beforehand; for the others corrected by `holm`.
    """
    dice = patients.pivot_table(index="patient", columns="condition", values="dice", aggfunc="mean")
    others = [name for name in patients["condition"].unique() if name != baseline]
    rows = [{"condition": name, **_change((dice[name] - dice[baseline]).to_numpy())} for name in others]
    table = pd.DataFrame(rows, columns=["condition", "difference", "low", "high", "p"])
    secondary = table["condition"] != PRIMARY
    table["p_corrected"] = table["p"].mask(
        secondary, pd.Series(holm(table.loc[secondary, "p"]), table.index[secondary])
    )
    return table.assign(patients=len(dice), seeds=patients["seed"].nunique())


def _change(paired):
    """Mean of differences paired by patient, with its interval and p."""
    low, high = metrics.interval_over_patients(lambda drawn, axis: paired[drawn].mean(axis), len(paired))
    p = stats.wilcoxon(paired).pvalue if paired.any() else 1.0
    return {"difference": paired.mean(), "low": low, "high": high, "p": p}


def changes(recorded, conditions):
    """Some conditions of several ablations against none: a table record, condition, epochs, none (mean Dice a patient), difference,
    low, high, p (not corrected).

    recorded: name -> Evidence, as from `records.load_records`.
    """
    tables = [
        differences(evidence.ablation).assign(
            record=name,
            epochs=evidence.record["experiment"]["ablation_epochs"],
            none=evidence.ablation.query("condition == @BASELINE")["dice"].mean(),
        )
        for name, evidence in recorded.items()
    ]
    table = pd.concat(tables).query("condition in @conditions")
    columns = ["record", "condition", "epochs", "none", "difference", "low", "high", "p"]
    return table.sort_values(["condition", "epochs"], kind="stable", ignore_index=True)[columns]


def holm(p):
    """Correct p-values for their number: the k-th smallest of m times m + 1 - k, never below a smaller one's, at most 1.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
    """
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return corrected


def has_learnt(patients):
    """Does the network without augmentation reach a mean Dice of LEARNT? patients: table of ablation_patients.csv."""
    return bool(patients.loc[patients["condition"] == BASELINE, "dice"].mean() >= LEARNT)


def seeds_of(patients):
    """How many seeds an ablation had, in words; patients: table of ablation_patients.csv."""
    count = patients["seed"].nunique()
    return f"{count} seed{'s' if count > 1 else ''}"


def conclusion(patients, epochs, kind):
    """Say in a sentence or two what ablation_patients.csv allows to conclude at this budget."""
    compared = differences(patients)
    if compared.empty:
        return "Only one condition was run: nothing is compared."
    budget = f"{epochs} epochs, {compared['patients'].iloc[0]} validation patients of the {kind}, {seeds_of(patients)}"
    if not has_learnt(patients):
        return (
            f"At this budget ({budget}) the network without augmentation has a mean Dice below {LEARNT}: it has hardly "
            "learnt anything yet, and the comparison means nothing."
        )
    means = patients.groupby(["condition", "seed"])["dice"].mean()
    warning = (
        f"{(means < LEARNT).sum()} of {len(means)} trainings have hardly learnt anything (mean Dice below {LEARNT}), which weighs "
        "more than what augmentation does. "
        if (means < LEARNT).any()
        else ""
    )
    return (
        f"{warning}{_clear_differences(compared)} The budget: {budget}. It can't say what happens in a longer training, with "
        "other seeds, or on other data."
    )


def _clear_differences(compared):
    """Name the conditions that differ from none at LEVEL, corrected for their number."""
    clear = compared[compared["p_corrected"] < LEVEL]
    if clear.empty:
        alone = int(((compared["low"] > 0) | (compared["high"] < 0)).sum())
        intervals = f"Of {len(compared)} intervals, which are not corrected, {alone} exclude zero"
        interval = f"Its interval {'excludes' if alone else 'includes'} zero"
        return f"No condition differs from none: no corrected p is below {LEVEL}. {intervals if len(compared) > 1 else interval}."
    parts = [
        f"{row.condition} {'gains' if row.difference > 0 else 'loses'} {abs(row.difference):.3f} ({row.low:+.3f} to {row.high:+.3f}, "
        f"p = {row.p_corrected:.2g})"
        for row in clear.itertuples()
    ]
    return f"By the corrected p: {'; '.join(parts)}."
