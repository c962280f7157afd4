"""Score a training's network as it was after an earlier epoch.

    python scripts/early.py COHORT_FOLDER RUN_FOLDER CHECKPOINT

RUN_FOLDER is a finished run of `lggseg train`; CHECKPOINT is a copy of its checkpoint.keras from
that epoch. Adds to records/early.csv.gz the network's scores on the 128x128 grid and on its own:
training, epoch, the columns of records/scores.csv.gz, git_commit.
"""

from pathlib import Path

import click
import pandas as pd

from lggseg_utils import cli, data, evaluate, preprocess, records, runs, train

TARGET = "early.csv.gz"


def epoch_of(network, split, experiment):
    """Return after how many epochs a network was saved."""
    count = (split["split"] == "train").sum()
    return train.epochs_trained(network, train.steps_per_epoch(experiment, count))


def scores(network, dataset, split, experiment):
    """Return the scores of a network on the scoring grid and on its own, as `score_set`."""
    grids = {
        "128": evaluate.score_split(network, dataset, split, experiment)[0],
        "own": evaluate.score_own_grid(network, dataset, split, experiment),
    }
    return pd.concat(records.score_sets(table).assign(grid=grid) for grid, table in grids.items())


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
    earlier = records.read_early()
    table = pd.concat([earlier[earlier["training"] != name], table])
    columns = ["training", "epoch", *records.SCORE_COLUMNS[1:], "git_commit"]
    records.write_scores(table[columns], TARGET)
    print(f"{TARGET}: {name} after epoch {epoch}, {len(table)} scores in all")


if __name__ == "__main__":
    cli.main(main)
