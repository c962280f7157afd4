"""A grid of trainings: in this process, in several of this machine, or on a Dask cluster.

python grid.py DATA OUT                          one after the other
python grid.py DATA OUT --jobs 2                 two processes of this machine
python grid.py DATA OUT --scheduler tcp://...    the workers of a Dask scheduler

What is done in OUT is read again: name another OUT for other data or settings.
"""

from pathlib import Path

import click
import pandas as pd
from sklearn.model_selection import ParameterGrid

from lggseg_utils import cli, data, evaluate, experiments, preprocess
from lggseg_utils.settings import load_experiment

GRID = ParameterGrid({"seed": [0], "dropout": [0.0, 0.2]})


def job_of(point, slices):
    """Return the training of one point of the grid, scored on its validation slices."""
    settings = load_experiment("smoke", point["seed"], {"epochs": 1, "dropout": point["dropout"]})
    split = preprocess.draw_split(slices, settings.split, settings.seed)
    name = "-".join(f"{key}{value}" for key, value in point.items())
    return experiments.Job(name, settings, split, ("val",))


@click.command()
@click.argument("data_dir", metavar="DATA")
@click.argument("out", type=Path)
@click.option("--jobs", default=1)
@click.option("--scheduler", default="")
def main(data_dir, out, jobs, scheduler):
    """Train each point of the grid, and write OUT/grid.csv."""
    cohort = data.read_cohort(data_dir)
    grid = [job_of(point, cohort.slices) for point in GRID]
    dataset = preprocess.prepare(cohort, grid[0].experiment)
    workers = experiments.Workers(jobs, scheduler)
    results = experiments.run_jobs(grid, dataset, out, "training", workers)
    scores = [
        evaluate.set_scores(result.per_slice, True, resamples=0)["dice_pooled"]["value"]
        for result in results
    ]
    table = pd.DataFrame(list(GRID)).assign(dice_pooled=scores)
    table.to_csv(out / "grid.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    cli.main(main)  # one line for a mistake, as for lggseg
