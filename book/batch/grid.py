"""A grid of runs: the same lines in this process, over local processes, or on a Dask cluster.

python grid.py DATA OUT                          one after the other
python grid.py DATA OUT --jobs 2                 two processes of this machine
python grid.py DATA OUT --scheduler tcp://...    the workers of a Dask scheduler
"""

import argparse
from pathlib import Path

import joblib
import pandas as pd
from sklearn.model_selection import ParameterGrid

from lggseg_utils import config, evaluate

GRID = ParameterGrid({"seed": [0], "dropout": [0.0, 0.2]})


def one(data, out, seed, **settings):
    """Train and score one point of the grid on its validation patients; done already, it is only read."""
    folder = Path(out) / "-".join(f"{name}{value}" for name, value in {"seed": seed, **settings}.items())
    run = config.open_run("smoke", data, folder, seed, {"epochs": 1, **settings})
    scores = evaluate.evaluate(run).metrics["val"]
    return {"seed": seed, **settings, "loss": scores["loss"]["value"], "dice": scores["dice_pooled"]["value"]}


def main():
    """Read the command line, run the grid where it says, and write OUT/grid.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--scheduler")
    options = parser.parse_args()
    if options.scheduler:
        from distributed import Client

        Client(options.scheduler, set_as_default=True)
    with joblib.parallel_config("dask" if options.scheduler else "loky", n_jobs=options.jobs):
        rows = joblib.Parallel()(joblib.delayed(one)(options.data, options.out, **point) for point in GRID)
    table = pd.DataFrame(rows)
    table.to_csv(Path(options.out) / "grid.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
