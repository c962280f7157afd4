"""Try recipes on inner validation patients: python results/recipe.py DATA_FOLDER WORK_FOLDER [NAME]...

Every attempt, good or bad, stands in ATTEMPTS and, once it is run, in results/recipe/attempts.csv. An attempt changes settings of
the profile crossval64 and is trained on the training patients of two folds of its cross-validation by patient; it is scored on
their validation patients, never on those that the fold tests. What is done is kept in WORK_FOLDER, so the same command goes on.
"""

import itertools
import json
from pathlib import Path

import click
import pandas as pd

from lggseg_utils import cli, config, evaluate, preprocess, records, train

MORE = "flip+rotation+crop_zoom+shear+contrast+brightness"
BESIDES = {"context": 1, "augmentation": MORE}
ATTEMPTS = {
    "plain": {},
    "volume": {"scaling": "volume"},
    "volume-together-long": {"scaling": "volume", **BESIDES, "epochs": 40},
    "head": {"scaling": "head"},
    "head-together": {"scaling": "head", **BESIDES},
}
FOLDS = (0, 2)
RESULT = Path(__file__).parent / "recipe" / "attempts.csv"
# Neither needs another training: each network is scored with and without.
AFTERWARDS = [
    {"test_time_flips": flips, "largest_component": largest}
    for flips, largest in itertools.product((False, True), repeat=2)
]


def run_attempt(name, fold, data_folder, work):
    """Train one attempt on one fold and score its validation patients, or read what is kept: a table a patient."""
    run = config.open_run("crossval64", data_folder, work / name, 0, {"split": "patient", **ATTEMPTS[name]})
    path = run.path(f"{fold}.csv")
    if not path.exists():
        cohort = preprocess.load_cohort(run)
        records.refuse_phantom(cohort.kind)
        parts = preprocess.parts_table(cohort.slices, "patient", 0)
        rows = preprocess.rows_by_set(preprocess.split_of_fold(parts, fold))
        model, history = train.fit(run.experiment, cohort, rows["train"], rows["val"], run.path(str(fold)))
        tables = [score(model, cohort, rows["val"], run.experiment, settings) for settings in AFTERWARDS]
        facts = {"attempt": name, "fold": fold, "minutes": round(history["seconds"].sum() / 60, 1)}
        config.write_csv(path, pd.concat(tables).assign(**facts, git_commit=run.record()["git_commit"]))
    return config.read_csv(path)


def score(model, cohort, rows, experiment, settings):
    """Dice of each patient, with these settings at test time."""
    table = evaluate.score_patients(model, cohort, rows, experiment.model_copy(update=settings))
    return table[["patient", "dice"]].assign(**settings)


@click.command()
@click.argument("data_folder", type=click.Path(exists=True, path_type=Path))
@click.argument("work_folder", type=click.Path(path_type=Path))
@click.argument("names", nargs=-1, type=click.Choice(ATTEMPTS))
def main(data_folder, work_folder, names):
    """Run the attempts named, or all, and write down every attempt whose folds are done."""
    for name, fold in itertools.product(names or ATTEMPTS, FOLDS):
        table = run_attempt(name, fold, data_folder.resolve(), work_folder)
        print(
            name,
            fold,
            table.groupby(["test_time_flips", "largest_component"])["dice"].agg(["mean", "median"]).round(3),
            flush=True,
        )
    write_down(work_folder)


def write_down(work_folder):
    """Add the attempts whose folds are done in WORK_FOLDER to those written down before; one that was done again replaces its rows."""
    paths = {name: [work_folder / name / f"{fold}.csv" for fold in FOLDS] for name in ATTEMPTS}
    done = {name: both for name, both in paths.items() if all(map(Path.exists, both))}
    new = [
        config.read_csv(path).assign(settings=json.dumps(ATTEMPTS[name]))
        for name, both in done.items()
        for path in both
    ]
    if RESULT.exists():
        new.insert(0, config.read_csv(RESULT).query("attempt not in @done"))
    config.write_csv(RESULT, pd.concat(new, ignore_index=True))


if __name__ == "__main__":
    cli.main(main)
