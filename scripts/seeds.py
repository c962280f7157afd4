"""Collect further trainings of the profile report128: python scripts/seeds.py RUN_FOLDER...

Writes records/seeds128.csv.gz, the rows of their per_slice.csv on the test set, and
records/seeds128-history.csv.gz, their history.csv; each row with size, seed and commit of its run.
A record of each would take too much room.
"""

import sys
from pathlib import Path

import pandas as pd

from lggseg_utils import records


def named(folder):
    """Return the test rows of a run's per_slice.csv and its history.csv, with the columns size,
    seed and git_commit.
    """
    record = records.load_record(Path(folder).resolve())
    experiment = record.run["experiment"]
    columns = {
        "size": experiment["size"],
        "seed": experiment["seed"],
        "git_commit": record.run["git_commit"],
    }
    return [
        table.assign(**columns)
        for table in (record.per_slice.query("split == 'test'"), record.history)
    ]


if __name__ == "__main__":
    for name, tables in zip(
        ("seeds128", "seeds128-history"), zip(*map(named, sys.argv[1:]), strict=True), strict=True
    ):
        target = records.RECORDS / f"{name}.csv.gz"
        pd.concat(tables).to_csv(
            target, index=False, float_format="%.9g", compression={"method": "gzip", "mtime": 0}
        )
        print(target)
