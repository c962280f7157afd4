"""Draw what a leak looks like: python scripts/leak.py COHORT_FOLDER NEW_RUN KNOWN_RUN

NEW_RUN and KNOWN_RUN: cross-validations of one network, split by patient and by slice, whose fold 0
is trained. Draws records/figures/leak.jpg: of the patients that fold 0 of both tests, the two who
gain most from being known, each on the slice with the largest tumour of those tested; and
records/figures/opening.jpg: the first of them alone. The gain is that of the records known-patients
and new-patients over three seeds, since a single training may be lucky on a slice. Draws
records/figures/alarms.jpg: of the slices without tumour that fold 0 of NEW_RUN tests, those with
most marked, one a patient. Writes records/leak.csv: of the patients that fold 0 of both tests, the
Dice on that slice by the networks drawn, and the gain in the records (patient, slice, new, known,
gain, git_commit).
"""

from pathlib import Path

import click
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lggseg_utils import cli, data, evaluate, metrics, plots, preprocess, records, runs, train

SHOWN = 2
SEEDS = ("", "-1", "-2")
ALARMS = 2
TITLES = {"new": "patient is new", "known": "other slices known"}


def predict_tested(run_folder, dataset, experiment):
    """Return the mask, bool (side, side), of each slice that fold 0 of a cross-validation tests."""
    split = preprocess.split_of_fold(runs.read_csv(run_folder / "split.csv"), 0)
    rows = preprocess.rows_by_set(split)["test"]
    network = train.load_network(run_folder / "folds" / "0" / "model.keras")
    masks = evaluate.predict(network, dataset.images[rows], experiment) > evaluate.THRESHOLD
    return dict(zip(rows, masks, strict=True))


def recorded_gain(slices):
    """Return what each slice gains in Dice where its patient is known, the mean over three seeds.

    slices: a table patient, slice.
    """
    sides = []
    for kind in ("known", "new"):
        tables = [records.load_record(f"{kind}-patients{seed}").per_slice for seed in SEEDS]
        scored = pd.concat(tables)
        scored["dice"] = metrics.dice(scored["tp"], scored["fp"], scored["fn"])
        sides.append(scored.groupby(["patient", "slice"])["dice"].mean())
    gain = sides[0] - sides[1]
    return gain[pd.MultiIndex.from_frame(slices)].to_numpy()


def largest_gains(dataset, new, known):
    """Return a table new, known (Dice of a slice), gain (in the records), largest gain first.

    new, known: masks by row of the slice. Each patient that both have appears once, on the slice
    with the largest tumour; the index is the row of the slice.
    """
    both = sorted(set(new) & set(known))
    area = pd.Series(dataset.truths[both].sum((1, 2)), both)
    rows = area.groupby(dataset.slices["patient"].loc[both]).idxmax()
    rows = rows[area[rows].to_numpy() > 0].to_numpy()
    table = pd.DataFrame(index=rows)
    for name, masks in {"new": new, "known": known}.items():
        counts = evaluate.count(dataset.truths[rows], np.stack([masks[row] for row in rows]))
        table[name] = metrics.dice(*counts[["tp", "fp", "fn"]].to_numpy().T)
    table["gain"] = recorded_gain(dataset.slices.loc[rows, ["patient", "slice"]])
    return table.sort_values("gain", ascending=False)


def draw(cohort, dataset, gains, masks):
    """Return a figure: a row for each slice of `gains`, a column for each kind of mask."""
    size = (plots.WIDTH, 0.5 + len(gains) * (plots.WIDTH / 2 + 0.3))
    figure, axes = plt.subplots(len(gains), 2, figsize=size, squeeze=False)
    for line, (row, dice) in zip(axes, gains.iterrows(), strict=True):
        image = preprocess.resize_image(cohort.images[row], dataset.truths.shape[1])
        box, truth = plots.head_box(image), dataset.truths[row]
        for axis, (name, by_row) in zip(line, masks.items(), strict=True):
            title = f"{TITLES[name]}: Dice {dice[name]:.2f}"
            plots.show_slice(axis, image[box], title, truth[box], by_row[row][box], linewidth=2.6)
    plots.add_legend_of_outlines(figure)
    return figure


def largest_alarms(dataset, masks):
    """Return the rows of the slices without tumour with the most pixels marked, one a patient.

    masks: by row of the slice.
    """
    marked = pd.Series(
        {row: mask.sum() for row, mask in masks.items() if not dataset.truths[row].any()}
    )
    by_patient = marked.groupby(dataset.slices["patient"].loc[marked.index])
    return marked[by_patient.idxmax()].nlargest(ALARMS).index


def draw_alarms(cohort, dataset, masks):
    """Return the figure of the largest false alarms; masks: by row of the slice."""
    rows = largest_alarms(dataset, masks)
    side = dataset.truths.shape[1]
    images = [preprocess.resize_image(cohort.images[row], side) for row in rows]
    names = dataset.slices["patient"].loc[rows].str[5:12].str.replace("_", " ")
    alarms = [masks[row] for row in rows]
    titles = [f"{name}: {mask.sum():,} px" for name, mask in zip(names, alarms, strict=True)]
    return plots.slices(images, titles, predictions=alarms, columns=ALARMS, to_head=True)


def save(figure, name):
    """Write a figure to records/figures."""
    path = records.RECORDS / "figures" / f"{name}.jpg"
    figure.savefig(path, pil_kwargs={"quality": 88})


@click.command()
@click.argument("cohort_folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("new_run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("known_run", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(cohort_folder, new_run, known_run):
    """Draw the figures."""
    experiment = runs.recorded_experiment(new_run)
    cohort = data.read_cohort(cohort_folder)
    dataset = preprocess.prepare(cohort, experiment)
    masks = {
        name: predict_tested(run, dataset, experiment)
        for name, run in {"new": new_run, "known": known_run}.items()
    }
    gains = largest_gains(dataset, **masks)
    table = dataset.slices[["patient", "slice"]].join(gains.round(4), how="right")
    runs.write_csv(records.RECORDS / "leak.csv", table.assign(git_commit=runs.git_commit()))
    plots.set_style()
    for name, count in {"opening": 1, "leak": SHOWN}.items():
        save(draw(cohort, dataset, gains[:count], masks), name)
    save(draw_alarms(cohort, dataset, masks["new"]), "alarms")


if __name__ == "__main__":
    cli.main(main)
