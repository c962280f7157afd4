"""Say what averaging brings, and how sure the networks are: python scripts/members.py COHORT_FOLDER
RUN_FOLDER

RUN_FOLDER is a cross-validation over mirror images. Writes into it, over the patients of its
finished folds: members.csv, the Dice of each network and of their average, without and with mirror
images (network, mirrored, fold, patient, dice, git_commit); calibration.csv, for the average with
mirror images (probability, the lower end of a tenth; pixels; mean_probability; tumour, the share of
the pixels that are tumour; git_commit). With --score-size 256 and a cohort of original images, they
are scored on their own grid; the files are then members_256.csv and calibration_256.csv.
"""

from pathlib import Path

import click
import numpy as np
import pandas as pd
from tqdm import tqdm

from lggseg_utils import cli, data, evaluate, model, preprocess, runs, train


def predictions(average, images, experiment):
    """Yield (network, mirrored, probabilities) for each of several networks, and for their mean,
    which is called 'all'.
    """
    networks = [average.get_layer(f"network_{number}") for number in range(experiment.networks)]
    for mirrored in (False, True):
        each = [
            evaluate.predict(model.average([network], mirrored), images, experiment)
            for network in networks
        ]
        for number, probabilities in enumerate(each if len(each) > 1 else []):
            yield number, mirrored, probabilities
        yield "all", mirrored, np.mean(each, 0)


def bins(truths, probabilities):
    """Return the pixels of each tenth of the probabilities: a table of sums pixels,
    mean_probability, tumour.
    """
    tenth = np.minimum((10 * probabilities).astype(int), 9).ravel()
    columns = {"pixels": None, "mean_probability": probabilities.ravel(), "tumour": truths.ravel()}
    return pd.DataFrame(
        {name: np.bincount(tenth, weights, minlength=10) for name, weights in columns.items()}
    )


def score_fold(folder, dataset, rows, experiment):
    """Return a fold's table of Dice (network, mirrored, patient, dice), and its `bins`."""
    average = train.load_network(folder / "model.keras")
    truths = dataset.truths[rows]
    tables = []
    slices = dataset.slices[["patient"]].iloc[rows].reset_index(drop=True).assign(split="test")
    for network, mirrored, probabilities in predictions(average, dataset.images[rows], experiment):
        dice = evaluate.per_patient_table(slices.join(evaluate.count(truths, probabilities)))[
            ["patient", "dice"]
        ]
        tables.append(dice.assign(network=network, mirrored=mirrored))
    # The last probabilities are those of all networks over mirror images.
    return pd.concat(tables), bins(truths, probabilities)


@click.command()
@click.argument("cohort_folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("run_folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--score-size", type=int, help="Side of the grid to score on.  [default: the run's]")
def main(cohort_folder, run_folder, score_size):
    """Score the networks of all folds."""
    commit = runs.git_commit()
    experiment = runs.recorded_experiment(run_folder)
    experiment = experiment.model_copy(update={"score_size": score_size or experiment.score_size})
    dataset = preprocess.prepare(data.read_cohort(cohort_folder), experiment)
    folds = preprocess.load_split(
        runs.Run(experiment, run_folder, ""), dataset.slices, preprocess.draw_folds
    )
    tables = []
    sums = 0
    finished = sorted(int(path.parent.name) for path in run_folder.glob("folds/*/model.keras"))
    for fold in tqdm(finished, unit="fold", leave=False):
        rows = preprocess.rows_by_set(preprocess.split_of_fold(folds, fold))["test"]
        dice, counted = score_fold(run_folder / "folds" / str(fold), dataset, rows, experiment)
        tables.append(dice.assign(fold=fold))
        sums = sums + counted
    means = sums[["mean_probability", "tumour"]].div(sums["pixels"], axis=0)
    calibration = pd.DataFrame(
        {"probability": np.arange(10) / 10, "pixels": sums["pixels"].astype(int), **means}
    )
    suffix = f"_{score_size}" if score_size else ""
    dice = pd.concat(tables)[["network", "mirrored", "fold", "patient", "dice"]]
    for name, table in (("members", dice), ("calibration", calibration)):
        runs.write_csv(run_folder / f"{name}{suffix}.csv", table.assign(git_commit=commit))
    print(f"{dice['patient'].nunique()} patients")
    print(dice.groupby(["mirrored", "network"])["dice"].mean().unstack().round(4))


if __name__ == "__main__":
    cli.main(main)
