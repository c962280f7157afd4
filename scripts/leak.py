"""Draw what a leak looks like: python scripts/leak.py COHORT_FOLDER NEW_RUN KNOWN_RUN

NEW_RUN and KNOWN_RUN: cross-validations of one network, split by patient and by slice, whose fold 0
is trained. Draws records/figures/leak.jpg: of the patients that fold 0 of both tests, the two with
the lowest Dice when new, each on the slice with the largest tumour; and
records/figures/opening.jpg: the first of them alone, larger.
"""

from pathlib import Path

import click
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lggseg_utils import cli, data, evaluate, plots, preprocess, records, runs, train

SHOWN = 2


def predict_tested(run_folder, dataset, experiment):
    """Return (rows, probabilities) of the slices that fold 0 of a cross-validation tests."""
    split = preprocess.split_of_fold(runs.read_csv(run_folder / "split.csv"), 0)
    rows = preprocess.rows_by_set(split)["test"]
    network = train.load_network(run_folder / "folds" / "0" / "model.keras")
    return rows, evaluate.predict(network, dataset.images[rows], experiment)


def choose(dataset, new, known):
    """Return rows of the slices shown: of the patients with the lowest Dice when new, in order."""
    rows, probabilities = new
    scored = evaluate.score_slices(
        dataset.slices.iloc[rows].reset_index(drop=True), dataset.truths[rows], probabilities
    )
    worst_first = evaluate.per_patient_table(scored.assign(split="test")).sort_values("dice")
    both = np.intersect1d(rows, known[0])
    area = pd.Series(dataset.truths[both].sum((1, 2)), both)
    patients = dataset.slices["patient"].iloc[both]
    largest = area.groupby(patients.to_numpy()).idxmax()
    shown = [patient for patient in worst_first["patient"] if area.get(largest.get(patient), 0)]
    return largest[shown].to_numpy()


def head(image):
    """Return the square (rows, columns) around the head on an image (side, side, 3)."""
    flair = image[..., data.FLAIR]
    inside = np.argwhere(flair > preprocess.HEAD * np.percentile(flair, 99))
    low, high = inside.min(0), inside.max(0) + 1
    half = (high - low).max() // 2 + 3
    middle = np.clip((low + high) // 2, half, len(flair) - half)
    return tuple(slice(centre - half, centre + half) for centre in middle)


def draw(cohort, dataset, shown, masks):
    """Return a figure: a row a patient, a column for each name of `masks` (name -> row -> mask)."""
    size = (plots.WIDTH, 0.5 + len(shown) * plots.WIDTH / 2)
    figure, axes = plt.subplots(len(shown), 2, figsize=size, squeeze=False)
    for line, row in zip(axes, shown, strict=True):
        image = preprocess.resize_image(cohort.images[row], dataset.truths.shape[1])
        box = head(image)
        for axis, (name, by_row) in zip(line, masks.items(), strict=True):
            truth = dataset.truths[row]
            plots.show_slice(axis, image[box], "", truth[box], by_row[row][box], linewidth=2.6)
            axis.set_title(name if row == shown[0] else "", color="white")
    plots.add_legend_of_outlines(figure)
    return figure


@click.command()
@click.argument("cohort_folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("new_run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("known_run", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(cohort_folder, new_run, known_run):
    """Draw the two figures."""
    experiment = runs.recorded_experiment(new_run)
    cohort = data.read_cohort(cohort_folder)
    dataset = preprocess.prepare(cohort, experiment)
    new, known = (predict_tested(run, dataset, experiment) for run in (new_run, known_run))
    masks = {
        name: dict(zip(rows, probabilities > evaluate.THRESHOLD, strict=True))
        for name, (rows, probabilities) in {
            "the patient is new to the network": new,
            "other slices were in training": known,
        }.items()
    }
    shown = choose(dataset, new, known)
    print(dataset.slices.loc[shown[:SHOWN], ["patient", "slice"]].to_string(index=False))
    plots.set_style()
    for name, rows in {"opening": shown[:1], "leak": shown[:SHOWN]}.items():
        figure = draw(cohort, dataset, rows, masks)
        figure.savefig(records.RECORDS / "figures" / f"{name}.jpg", pil_kwargs={"quality": 88})


if __name__ == "__main__":
    cli.main(main)
