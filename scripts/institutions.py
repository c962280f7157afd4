"""Cross-validate the recipe by institution: python scripts/institutions.py COHORT_FOLDER WORK_FOLDER

Each of the five folds tests all patients of one institution with a network trained on the others. WORK_FOLDER becomes a run folder
that `lggseg record` takes. After an interruption, the same command resumes.
"""

from pathlib import Path

import click
import pandas as pd

from lggseg_utils import cli, data, experiments, preprocess, runs


def draw_institutions(slices, *_):
    """Divide a table of slices as `preprocess.draw_folds`, but by institution: part 2k is fold k, and odd parts are empty."""
    fold, _ = pd.factorize(data.institutions(slices["patient"]), sort=True)
    return slices[["patient", "slice"]].assign(
        split="test", part=preprocess.PARTS // preprocess.FOLDS * fold, fold=fold
    )


@click.command()
@click.argument("cohort_folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("work_folder", type=click.Path(path_type=Path))
def main(cohort_folder, work_folder):
    """Train and score."""
    # Without this, a fold would leave out another institution to validate on.
    settings = {"hold_out": False}
    run = runs.open_run("recipe", cohort_folder.resolve(), work_folder, 0, settings, "institutions")
    experiments.cross_validate(run, data.load_cohort(run), draw_institutions)
    run.note(command="python scripts/institutions.py COHORT_FOLDER WORK_FOLDER")


if __name__ == "__main__":
    cli.main(main)
