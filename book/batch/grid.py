"""A grid of trainings: the same lines in this process, over local processes, or on a Dask cluster.

python grid.py DATA OUT                          one after the other
python grid.py DATA OUT --jobs 2                 two processes of this machine
python grid.py DATA OUT --scheduler tcp://...    the workers of a Dask scheduler

What is done in OUT is read again: name another OUT for other data or settings.
"""

import argparse
from pathlib import Path

import joblib
import pandas as pd
from sklearn.model_selection import ParameterGrid

from lggseg_utils import data, evaluate, experiments, preprocess
from lggseg_utils.settings import load_experiment

GRID = ParameterGrid({"seed": [0], "dropout": [0.0, 0.2]})


def main():
    """Read the command line, run the grid where it says, and write OUT/grid.csv."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--scheduler")
    options = parser.parse_args()
    if options.scheduler:
        from distributed import Client

        Client(options.scheduler, set_as_default=True)
    cohort, jobs = data.read_cohort(options.data), []
    for point in GRID:
        settings = load_experiment(
            "smoke", point["seed"], {"epochs": 1, "dropout": point["dropout"]}
        )
        split = preprocess.draw_split(cohort.slices, settings.split, settings.seed)
        name = "-".join(f"{key}{value}" for key, value in point.items())
        jobs.append(experiments.Job(name, settings, split, ("val",)))
    dataset = preprocess.prepare(cohort, jobs[0].experiment)
    with joblib.parallel_config("dask" if options.scheduler else "loky", n_jobs=options.jobs):
        results = experiments.run_jobs(jobs, dataset, Path(options.out), "training")
    scores = [
        evaluate.set_scores(per_slice, True, resamples=0)["dice_pooled"]["value"]
        for per_slice, *_ in results
    ]
    table = pd.DataFrame(list(GRID)).assign(dice_pooled=scores)
    table.to_csv(Path(options.out) / "grid.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
