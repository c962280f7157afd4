"""Score a training's network as it was after an earlier epoch.

    python scripts/early.py COHORT_FOLDER RUN_FOLDER CHECKPOINT

RUN_FOLDER is a finished run of `lggseg train`; CHECKPOINT is a copy of its checkpoint.keras from
that epoch. Adds to records/early.csv.gz the network's scores on the 128x128 grid and on its own:
training, epoch, the columns of records/scores.csv.gz, git_commit.
"""

import gzip
import math
from dataclasses import replace
from pathlib import Path

import click
import pandas as pd

from lggseg_utils import cli, data, evaluate, preprocess, records, runs, train

TARGET = records.RECORDS / "early.csv.gz"


def epoch_of(network, split, experiment):
    """Return after how many epochs a network was saved."""
    steps = math.ceil((split["split"] == "train").sum() / experiment.batch_size)
    return int(network.optimizer.iterations) // steps


def scores(network, dataset, split, experiment):
    """Return the scores of a network on the scoring grid and on its own, as `score_set`."""
    own = experiment.model_copy(update={"score_size": experiment.size})
    grids = {"128": (dataset, experiment), "own": (replace(dataset, truths=dataset.masks), own)}
    tables = []
    for grid, (slices, settings) in grids.items():
        per_slice, _ = evaluate.score_split(network, slices, split, settings)
        tables.append(records.score_sets(per_slice).assign(grid=grid))
    return pd.concat(tables)


@click.command()
@click.argument("cohort_folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("run_folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(cohort_folder, run_folder, checkpoint):
    """Score CHECKPOINT, an earlier network of RUN_FOLDER, on the slices of COHORT_FOLDER."""
    experiment = runs.recorded_experiment(run_folder)
    dataset = preprocess.prepare(data.read_cohort(cohort_folder), experiment)
    split = runs.read_csv(run_folder / "split.csv")
    network = train.load_network(checkpoint)
    name, epoch = run_folder.name, epoch_of(network, split, experiment)
    table = scores(network, dataset, split, experiment).assign(
        training=name, epoch=epoch, git_commit=runs.git_commit()
    )
    if TARGET.exists():
        earlier = pd.read_csv(TARGET, dtype={"grid": str})
        table = pd.concat([earlier[earlier["training"] != name], table])
    columns = ["training", "epoch", *records.SCORE_COLUMNS[1:], "git_commit"]
    text = table[columns].to_csv(index=False, float_format="%.6g", lineterminator="\n")
    TARGET.write_bytes(gzip.compress(text.encode(), mtime=0))
    print(f"{TARGET}: {name} after epoch {epoch}, {len(table)} scores in all")


if __name__ == "__main__":
    cli.main(main)
