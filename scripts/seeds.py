"""Collect further trainings of the profile report128: python scripts/seeds.py RUN_FOLDER...

Writes records/seeds128.csv.gz, the rows of their per_slice.csv on the test set, and
records/seeds128-history.csv.gz, their history.csv; each row with size, seed and commit of its run.
A record of each would take too much room.
"""

from pathlib import Path

import click
import pandas as pd

from lggseg_utils import cli, records, runs


def named(table, run):
    """Return a table of a run with the columns size, seed and git_commit."""
    experiment = run["experiment"]
    return table.assign(
        size=experiment["size"], seed=experiment["seed"], git_commit=run["git_commit"]
    )


def write(tables, name):
    """Write tables together into the records, compressed; the same give the same bytes."""
    with runs.write_whole(records.RECORDS / name) as temporary:
        pd.concat(tables).to_csv(
            temporary, index=False, float_format="%.9g", compression={"method": "gzip", "mtime": 0}
        )
    print(name)


@click.command()
@click.argument("run_folders", nargs=-1, required=True, type=click.Path(path_type=Path))
def main(run_folders):
    """Collect the finished runs RUN_FOLDERS."""
    found = [records.load_record(folder.resolve()) for folder in run_folders]
    tests = [named(each.per_slice.query("split == 'test'"), each.run) for each in found]
    write(tests, "seeds128.csv.gz")
    write([named(each.history, each.run) for each in found], "seeds128-history.csv.gz")


if __name__ == "__main__":
    cli.main(main)
