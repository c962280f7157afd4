"""Look at the patients on whom a cross-validation fails: python scripts/failures.py COHORT_FOLDER
RUN_FOLDER

Writes records/contrast.csv: how well brightness on FLAIR alone tells a patient's tumour from the
rest of the head, as an area under the ROC curve (patient, contrast, git_commit). Draws
records/figures/worst.jpg: the four patients with the lowest Dice in RUN_FOLDER, a finished
cross-validation, each on the slice where the tumour is largest.
"""

from pathlib import Path

import click
import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from lggseg_utils import cli, data, evaluate, plots, preprocess, records, runs, train

WORST = 4


def contrast(images, truths):
    """Return how often a tumour pixel is brighter on FLAIR than another pixel of the head, 0 to 1;
    ties count half.

    images: uint8 (n, side, side, 3); truths: (n, side, side) of 0 and 1. Slices without tumour do
    not count.
    """
    shown = truths.any(axis=(1, 2))
    flair, tumour = images[shown, ..., data.FLAIR], truths[shown] > 0
    head = tumour | (flair > preprocess.HEAD * np.percentile(flair, 99))
    return roc_auc_score(tumour[head], flair[head])


def contrasts(cohort, truths):
    """Return a table patient, contrast of a cohort, on the grid of its truths (n, side, side)."""
    images = np.stack([preprocess.resize_image(image, truths.shape[1]) for image in cohort.images])
    rows = {name: table.index for name, table in cohort.slices.groupby("patient")}
    values = {name: contrast(images[index], truths[index]) for name, index in rows.items()}
    return pd.Series(values, name="contrast").rename_axis("patient").reset_index()


def draw_worst(run_folder, cohort, dataset, experiment):
    """Return the figure of the worst patients, each cropped to the head."""
    worst = runs.read_csv(run_folder / "per_patient.csv").nsmallest(WORST, "dice")
    areas = pd.Series(dataset.truths.sum((1, 2)), dataset.slices.index)
    rows = [areas[dataset.slices["patient"] == patient].idxmax() for patient in worst["patient"]]
    masks = []
    for fold, row in zip(worst["fold"], rows, strict=True):
        network = train.load_network(run_folder / "folds" / str(fold) / "model.keras")
        masks.append(
            evaluate.predict(network, dataset.images[[row]], experiment)[0] > evaluate.THRESHOLD
        )
    shown = dataset.slices.iloc[rows]
    names = shown["patient"].str[5:12].str.replace("_", " ")
    titles = names + ", slice " + shown["slice"].astype(str)
    images = [preprocess.resize_image(cohort.images[row], experiment.score_size) for row in rows]
    return plots.slices(images, titles, dataset.truths[rows], masks, columns=2, to_head=True)


@click.command()
@click.argument("cohort_folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("run_folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(cohort_folder, run_folder):
    """Write the table and draw the figure."""
    commit, experiment = runs.git_commit(), runs.recorded_experiment(run_folder)
    cohort = data.read_cohort(cohort_folder)
    dataset = preprocess.prepare(cohort, experiment)
    runs.write_csv(
        records.RECORDS / "contrast.csv",
        contrasts(cohort, dataset.truths).assign(git_commit=commit),
    )
    plots.set_style()
    figure = draw_worst(run_folder, cohort, dataset, experiment)
    figure.savefig(records.RECORDS / "figures" / "worst.jpg", pil_kwargs={"quality": 85})


if __name__ == "__main__":
    cli.main(main)
