"""Train in float32 and in the machine's own precision, over seeds: python results/precision.py DATA_FOLDER WORK_FOLDER

The settings are those of the profile crossval64 with fewer epochs; the networks are scored on the validation patients of one fold.
What is done is kept in WORK_FOLDER, so the same command goes on. Writes results/precision.csv: COLUMNS.
"""

import itertools
from pathlib import Path

import click
import pandas as pd

from lggseg_utils import cli, config, evaluate, preprocess, records, train

FOLD, SEEDS = 0, 4
CHANGED = {"epochs": 8}
COLUMNS = ["precision", "seed", "patient", "dice", "git_commit"]
RESULT = Path(__file__).parent / "precision.csv"


def train_once(data_folder, work, precision, seed):
    """Train with one precision and seed and score the validation patients, or read what is kept: a table a patient."""
    settings = {**CHANGED, "precision": precision}
    run = config.open_run("crossval64", data_folder, work / f"{precision}-{seed}", seed, settings)
    path = run.path("dice.csv")
    if not path.exists():
        cohort = preprocess.load_cohort(run)
        records.refuse_phantom(cohort.kind)
        # The split is that of seed 0 for all: what differs are weights, order and augmentation.
        parts = preprocess.parts_table(cohort.slices, "patient", 0)
        rows = preprocess.rows_by_set(preprocess.split_of_fold(parts, FOLD))
        model, _ = train.fit(run.experiment, cohort, rows["train"], rows["val"], run.folder)
        table = evaluate.score_patients(model, cohort, rows["val"], run.experiment)
        config.write_csv(path, table[["patient", "dice"]].assign(precision=precision, seed=seed))
    return config.read_csv(path).assign(git_commit=run.record()["git_commit"])


@click.command()
@click.argument("data_folder", type=click.Path(exists=True, path_type=Path))
@click.argument("work_folder", type=click.Path(path_type=Path))
def main(data_folder, work_folder):
    """Run what is missing and write the table down."""
    if train.machine_precision() == "float32":
        raise config.UserError("this machine trains in float32 alone: there is nothing to compare it with.")
    trainings = itertools.product(range(SEEDS), ("float32", train.machine_precision()))
    tables = [train_once(data_folder.resolve(), work_folder, precision, seed) for seed, precision in trainings]
    config.write_csv(RESULT, pd.concat(tables)[COLUMNS])


if __name__ == "__main__":
    cli.main(main)
