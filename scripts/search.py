"""Try changes of the recipe on validation patients: python scripts/search.py COHORT_FOLDER
WORK_FOLDER [ATTEMPT ...]

Each attempt of `attempts.yml` is trained on the training patients of the first three folds and
scored on their validation patients, never on those that the same fold tests. WORK_FOLDER/search.csv
receives a row per attempt, prediction and patient: attempt, prediction, fold, patient, dice,
epochs, minutes, git_commit. The prediction is `plain`, `mirrored` (mean over a slice and its three
mirror images), `threshold 0.3` and the like, `largest piece` (of the volume), or `FLAIR only` (in
all three channels, as where the others are missing). After an interruption, the same command
resumes.
"""

from pathlib import Path

import click
import numpy as np
import pandas as pd
import yaml
from scipy import ndimage

from lggseg_utils import cli, data, evaluate, experiments, model, preprocess, runs, train
from lggseg_utils.settings import UserError, load_experiment

ATTEMPTS = yaml.safe_load(Path(__file__).with_name("attempts.yml").read_text(encoding="utf-8"))
FOLDS = range(3)
THRESHOLDS = (0.3, 0.4, 0.6)


def settings_of(name):
    """Return the settings that an attempt changes in the profile `recipe`, and maybe
    `tumour_twice`.
    """
    changes = dict(ATTEMPTS[name])
    return settings_of(changes.pop("of")) | changes if "of" in changes else changes


def largest_piece(volume):
    """Return the largest connected piece of a mask (n, height, width), bool."""
    pieces, _ = ndimage.label(volume)
    return pieces == 1 + np.argmax(np.bincount(pieces.ravel(), minlength=2)[1:])


def predictions(network, dataset, rows, experiment):
    """Yield each way to predict, with its masks: bool (rows, score_size, score_size)."""
    images = dataset.images[rows]
    plain = evaluate.predict(network, images, experiment)
    yield "plain", plain > evaluate.THRESHOLD
    yield from ((f"threshold {threshold}", plain > threshold) for threshold in THRESHOLDS)
    volumes = dataset.slices["patient"].iloc[rows]
    pieces = [
        largest_piece(plain[volumes == patient] > evaluate.THRESHOLD)
        for patient in volumes.unique()
    ]
    yield "largest piece", np.concatenate(pieces)
    yield (
        "mirrored",
        evaluate.predict(model.average([network], mirrored=True), images, experiment)
        > evaluate.THRESHOLD,
    )
    yield (
        "FLAIR only",
        evaluate.predict(network, images[..., [data.FLAIR] * 3], experiment) > evaluate.THRESHOLD,
    )


def score(network, dataset, rows, experiment):
    """Return a table prediction, patient, dice of the slices in `rows`."""
    slices = dataset.slices[["patient"]].iloc[rows].reset_index(drop=True).assign(split="val")
    tables = []
    for name, masks in predictions(network, dataset, rows, experiment):
        table = evaluate.per_patient_table(slices.join(evaluate.count(dataset.truths[rows], masks)))
        tables.append(table[["patient", "dice"]].assign(prediction=name))
    return pd.concat(tables)


def repeat_tumour(dataset, splits):
    """Return dataset and splits with each training slice with tumour twice; the copies of other
    slices are in no set.
    """
    count = len(dataset.slices)
    rows = np.append(np.arange(count), np.flatnonzero(dataset.masks.any(axis=(1, 2))))
    copied = np.arange(len(rows)) >= count
    longer = []
    for split in splits:
        sets = split["split"].iloc[rows]
        longer.append(split.iloc[rows].assign(split=sets.where(~copied | (sets == "train"), "")))
    arrays = (getattr(dataset, name)[rows] for name in ("images", "masks", "truths"))
    return preprocess.Dataset(dataset.slices.iloc[rows], *arrays), longer


def attempt(name, cohort, folds, folder):
    """Train and score one attempt in each fold; return its rows."""
    settings = settings_of(name)
    twice = settings.pop("tumour_twice", False)
    experiment = load_experiment("recipe", 0, settings)
    dataset = preprocess.prepare(cohort, experiment)
    splits = [preprocess.split_of_fold(folds, fold) for fold in FOLDS]
    if twice:
        dataset, splits = repeat_tumour(dataset, splits)
    jobs = [
        experiments.Job(str(fold), experiment, split, ("val",))
        for fold, split in zip(FOLDS, splits, strict=True)
    ]
    tables = []
    for job, (_, _, history) in zip(
        jobs, experiments.run_jobs(jobs, dataset, folder, "fold"), strict=True
    ):
        network = train.load_network(folder / job.name / "model.keras")
        rows = preprocess.rows_by_set(job.split)["val"]
        spent = {
            "fold": int(job.name),
            "epochs": len(history),
            "minutes": round(history["seconds"].sum() / 60, 1),
        }
        tables.append(score(network, dataset, rows, experiment).assign(**spent))
    return pd.concat(tables).assign(attempt=name, git_commit=runs.git_commit())


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
            rows = attempt(name, cohort, folds, work_folder / runs.git_commit() / name)
            runs.write_csv(target, pd.concat([done, rows]))
            print(
                name,
                rows.groupby("prediction", sort=False)["dice"].mean().round(4).to_dict(),
                flush=True,
            )


if __name__ == "__main__":
    cli.main(main)
