"""Keep what a cross-validation predicts: python scripts/probabilities.py COHORT_FOLDER RUN_FOLDER TARGET

RUN_FOLDER is a finished cross-validation. Writes TARGET, an .npy.xz: the probability of each pixel on the network's own grid, from
the fold that tests its slice, in 255ths: uint8 (slices, size, size), in the order of split.csv.
"""

import lzma
from pathlib import Path

import click
import numpy as np

from lggseg_utils import cli, data, evaluate, preprocess, runs, train


@click.command()
@click.argument("cohort_folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("run_folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
def main(cohort_folder, run_folder, target):
    """Predict every slice."""
    experiment = runs.recorded_experiment(run_folder)
    own_grid = experiment.model_copy(update={"score_size": experiment.size})
    dataset = preprocess.prepare(data.read_cohort(cohort_folder), own_grid)
    folds = preprocess.load_split(runs.Run(experiment, run_folder, ""), dataset.slices, preprocess.draw_folds)
    kept = np.zeros(dataset.masks.shape, dtype=np.uint8)
    for fold in range(preprocess.FOLDS):
        rows = preprocess.rows_by_set(preprocess.split_of_fold(folds, fold))["test"]
        network = train.load_network(run_folder / "folds" / str(fold) / "model.keras")
        kept[rows] = np.round(255 * evaluate.predict(network, dataset.images[rows], own_grid))
    with runs.write_whole(target) as temporary, lzma.open(temporary, "wb") as file:
        np.save(file, kept)


if __name__ == "__main__":
    cli.main(main)
