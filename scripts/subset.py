"""Copy some patients of a cohort, drawn at random, into a folder: python scripts/subset.py
COHORT_FOLDER TARGET --patients 77

Records on a part of the cohort name this command. The same number gives the same patients.
"""

import shutil
from pathlib import Path

import click
import numpy as np

from lggseg_utils import cli, data
from lggseg_utils.settings import UserError


@click.command()
@click.argument("cohort", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--patients", type=click.IntRange(1), required=True, help="How many.")
def main(cohort, target, patients):
    """Copy the slices of the patients drawn."""
    names = [path.relative_to(cohort).as_posix() for path in cohort.rglob("*") if path.is_file()]
    found = data.find_slices(names, cohort)
    known = sorted(found["patient"].unique())
    if patients > len(known):
        raise UserError(f"{cohort} holds {len(known)} patients, not {patients}.")
    drawn = {known[row] for row in np.random.default_rng(0).permutation(len(known))[:patients]}
    for row in found[found["patient"].isin(drawn)].itertuples():
        for name in filter(None, (row.image, row.mask)):
            (target / row.patient).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(cohort / name, target / row.patient / Path(name).name)


if __name__ == "__main__":
    cli.main(main)
