"""Draw folds by institution: python scripts/institutions.py COHORT_FOLDER RUN_FOLDER

Opens RUN_FOLDER for the profile `ensemble` and writes its split.csv: each of the five folds tests all patients of one institution and
trains on all others. The command that it prints trains them.
"""

from pathlib import Path

import click
import pandas as pd

from lggseg_utils import cli, data, preprocess, runs


def draw_institutions(slices):
    """Divide a table of slices as `preprocess.draw_folds`, but by institution: part 2k is fold k, and odd parts are empty."""
    fold, _ = pd.factorize(data.institutions(slices["patient"]), sort=True)
    return slices[["patient", "slice"]].assign(
        split="test", part=preprocess.PARTS // preprocess.FOLDS * fold, fold=fold
    )


@click.command()
@click.argument("cohort_folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("run_folder", type=click.Path(path_type=Path))
def main(cohort_folder, run_folder):
    """Draw the folds."""
    run = runs.open_run("ensemble", cohort_folder.resolve(), run_folder, command="crossval")
    runs.write_csv(run.path("split.csv"), draw_institutions(data.read_cohort(cohort_folder).slices))
    print(run.record()["command"].replace("DATA_FOLDER", str(cohort_folder)), "--out", run_folder)


if __name__ == "__main__":
    cli.main(main)
