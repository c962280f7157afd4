"""Copy some patients of a cohort, drawn at random, into a folder: python scripts/subset.py COHORT_FOLDER TARGET --patients 77

Records on a part of the cohort name this command. The same number gives the same patients.
"""

import shutil
from pathlib import Path

import click
import numpy as np


@click.command()
@click.argument("cohort", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--patients", type=int, required=True, help="How many.")
def main(cohort, target, patients):
    """Copy the folders of the patients drawn."""
    folders = sorted({path.parent for path in cohort.rglob("*_mask.tif")})
    for row in np.random.default_rng(0).permutation(len(folders))[:patients]:
        shutil.copytree(folders[row], target / folders[row].name)


if __name__ == "__main__":
    main()
