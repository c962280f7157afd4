"""Try changes of the recipe on validation patients: python scripts/search.py COHORT_FOLDER WORK_FOLDER [ATTEMPT ...]

Each attempt of `attempts.yml` changes settings of the profile `recipe`. It is trained on the training patients of three folds and
scored on their validation patients, never on those that the fold tests. Rows are added to WORK_FOLDER/search.csv: attempt, fold,
patient, dice, hd95, surface_dice, minutes, git_commit. After an interruption, the same command resumes.
"""

from pathlib import Path

import click
import pandas as pd
import yaml

from lggseg_utils import cli, data, evaluate, experiments, preprocess, runs
from lggseg_utils.settings import UserError, load_experiment

ATTEMPTS = yaml.safe_load(Path(__file__).with_name("attempts.yml").read_text(encoding="utf-8"))
FOLDS = (0, 1, 2)


def train(name, cohort, folds, work_folder):
    """Train and score one attempt in each fold; return its rows."""
    experiment = load_experiment("recipe", 0, ATTEMPTS[name])
    splits = [preprocess.split_of_fold(folds, fold) for fold in FOLDS]
    jobs = [experiments.Job(str(fold), experiment, split, ("val",)) for fold, split in zip(FOLDS, splits, strict=True)]
    results = experiments.run_jobs(jobs, preprocess.prepare(cohort, experiment), work_folder / name, "fold")
    rows = []
    for fold, (per_slice, history, surfaces) in zip(FOLDS, results, strict=True):
        table = evaluate.per_patient_table(per_slice).merge(surfaces, on=["patient", "split"])
        minutes = round(history["seconds"].sum() / 60, 1)
        rows.append(table[["patient", "dice", "hd95", "surface_dice"]].assign(fold=fold, minutes=minutes))
    return pd.concat(rows).assign(attempt=name, git_commit=runs.git_commit())


@click.command()
@click.argument("cohort_folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("work_folder", type=click.Path(path_type=Path))
@click.argument("names", nargs=-1, type=click.Choice(ATTEMPTS))
def main(cohort_folder, work_folder, names):
    """Train what is not in the table yet."""
    if runs.git_commit().endswith("-dirty"):
        raise UserError("commit the changes first: a row names the commit that made it.")
    cohort = data.read_cohort(cohort_folder)
    folds = preprocess.draw_folds(cohort.slices, "patient", seed=0)
    target = work_folder / "search.csv"
    for name in names or ATTEMPTS:
        done = runs.read_csv(target) if target.exists() else pd.DataFrame(columns=["attempt"])
        if name not in set(done["attempt"]):
            rows = train(name, cohort, folds, work_folder)
            runs.write_csv(target, pd.concat([done, rows]))
            print(name, f"mean Dice {rows['dice'].mean():.4f}, median {rows['dice'].median():.4f}", flush=True)


if __name__ == "__main__":
    cli.main(main)
