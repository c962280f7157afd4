"""Train with batches of 16 and 32 and with dropout 0, 0.1 and 0.2, as the report did: python results/grid.py DATA_FOLDER WORK_FOLDER

The settings are those of the profile report64 with half the filters and fewer epochs; the split is that of seed 0 for all. At its end
each network is scored on its training and its validation slices, without dropout on both. What is done is kept in WORK_FOLDER, so the
same command goes on. Writes results/grid/history.csv, the curves, and results/grid/ends.csv, the last scores.
"""

import itertools
from pathlib import Path

import click
import pandas as pd

from lggseg_utils import cli, config, evaluate, preprocess, records, train

CHANGED = {"filters": 16, "epochs": 30}
# Batch size and dropout of the report's runs.
CONDITIONS = ((16, 0.0), (32, 0.0), (16, 0.1), (16, 0.2))
SEEDS = 2
SCORES = ("loss", "accuracy", "dice_coef", "jacard_coef", "dice_pooled")
RESULT = Path(__file__).parent / "grid"


def train_once(data_folder, work, batch_size, dropout, seed):
    """Train under one condition and seed, or read what is kept: (history, ends), tables with the condition beside them."""
    condition = {"batch_size": batch_size, "dropout": dropout}
    folder = work / f"batch-{batch_size}-dropout-{dropout}-{seed}"
    run = config.open_run("report64", data_folder, folder, seed, {**CHANGED, **condition})
    path = run.path("ends.csv")
    if not path.exists():
        cohort = preprocess.load_cohort(run)
        records.refuse_phantom(cohort.kind)
        rows = preprocess.rows_by_set(preprocess.draw_split(cohort.slices, "slice", 0))
        model, _ = train.fit(run.experiment, cohort, rows["train"], rows["val"], run.folder)
        config.write_csv(path, pd.DataFrame([score(model, cohort, rows, name, run) for name in ("train", "val")]))
    facts = {**condition, "seed": seed, "git_commit": run.record()["git_commit"]}
    return tuple(config.read_csv(table).assign(**facts) for table in (run.path("history.csv"), path))


def score(model, cohort, rows, name, run):
    """Scores of one set's slices, shuffled as a run's evaluation does."""
    order = evaluate.shuffled(rows[name], run.experiment.seed)
    scored = evaluate.score_slices(evaluate.probabilities(model, cohort, order, run.experiment), cohort)
    scores = evaluate.set_scores(scored, whole_patients=False, resamples=0)
    return {"split": name, **{metric: scores[metric]["value"] for metric in SCORES}}


@click.command()
@click.argument("data_folder", type=click.Path(exists=True, path_type=Path))
@click.argument("work_folder", type=click.Path(path_type=Path))
def main(data_folder, work_folder):
    """Run what is missing and write the tables down."""
    trainings = itertools.product(range(SEEDS), CONDITIONS)
    done = [train_once(data_folder.resolve(), work_folder, *condition, seed) for seed, condition in trainings]
    for name, tables in zip(("history", "ends"), zip(*done, strict=True), strict=True):
        config.write_csv(RESULT / f"{name}.csv", pd.concat(tables, ignore_index=True))


if __name__ == "__main__":
    cli.main(main)
