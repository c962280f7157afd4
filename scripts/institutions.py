"""Draw folds by institution: python scripts/institutions.py COHORT_FOLDER RUN_FOLDER

Opens RUN_FOLDER for the profile `ensemble` with one network per fold, and writes its split.csv:
each fold tests all patients of one institution and trains on all others. An institution with fewer
than ten patients is never tested. The command that it prints trains the folds.
"""

import shlex
from pathlib import Path

import click
import numpy as np

from lggseg_utils import cli, data, preprocess, runs

SMALLEST = 10  # patients of an institution that is tested


def draw_institutions(slices):
    """Divide a table of slices as `preprocess.draw_folds`, but by institution: part 2k is fold k,
    and odd parts are empty.

    Institutions with fewer than SMALLEST patients come last, and their `split` is 'train'.
    """
    places = data.institutions(slices["patient"])
    sizes = slices["patient"].groupby(places).nunique()
    fold = places.map([*sizes.index[sizes >= SMALLEST], *sizes.index[sizes < SMALLEST]].index)
    split = np.where(places.map(sizes) >= SMALLEST, "test", "train")
    part = preprocess.PARTS // preprocess.FOLDS * fold
    return slices[["patient", "slice"]].assign(split=split, part=part, fold=fold)


@click.command()
@click.argument("cohort_folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("run_folder", type=click.Path(path_type=Path))
def main(cohort_folder, run_folder):
    """Draw the folds."""
    run = runs.open_run(
        "ensemble", cohort_folder.resolve(), run_folder, 0, {"networks": 1}, "crossval"
    )
    runs.write_csv(run.path("split.csv"), draw_institutions(data.read_cohort(cohort_folder).slices))
    command = run.record()["command"].replace("DATA_FOLDER", shlex.quote(str(cohort_folder)))
    print(command, "--out", shlex.quote(str(run_folder)))


if __name__ == "__main__":
    cli.main(main)
