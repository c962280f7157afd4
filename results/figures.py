"""Draw recorded figures of real slices again: python results/figures.py DATA_FOLDER RUNS_FOLDER [FIGURE]...

RUNS_FOLDER holds the run folders that a figure needs (see DRAWN) with their networks, as the commands in results/*/run.json leave
them. Writes results/figures/FIGURE.jpg, for the figures named or for all. Every figure shows slices of the LGG cohort, whose terms
(CC BY-NC-SA 4.0) hold for it.
"""

from pathlib import Path

import click
import numpy as np

from lggseg_utils import augment, cli, config, evaluate, plots, preprocess, records, train

FIGURES = Path(__file__).parent / "figures"
SHOWN = 5


def save(figure, name):
    """Save a figure small enough for the repository."""
    FIGURES.mkdir(exist_ok=True)
    with config.write_whole(FIGURES / f"{name}.jpg") as temporary:
        plots.mark(figure, "LGG cohort, CC BY-NC-SA 4.0").savefig(
            temporary, dpi=110, facecolor="white", pil_kwargs={"quality": 85, "optimize": True}
        )


def rows_of(cohort, table):
    """Row numbers in the cohort of a table's slices, in the table's order."""
    numbered = cohort.slices[["patient", "slice"]].reset_index()
    return table[["patient", "slice"]].merge(numbered, how="left")["index"].to_numpy()


def largest_slices(per_slice, patients):
    """The slice with the largest tumour of each of these patients, in their order."""
    area = per_slice["tp"] + per_slice["fn"]
    largest = per_slice.loc[area.groupby(per_slice["patient"]).idxmax()].set_index("patient")
    return largest.loc[patients].reset_index()


def predict_by_fold(run, cohort, table):
    """Predicted masks of a table's slices, each by the network of the fold that tests it."""
    masks = []
    for row, fold in zip(rows_of(cohort, table), table["fold"], strict=True):
        model = train.load_model(run.path("folds", str(fold), "model.keras"))
        masks.append(evaluate.predicted_masks(model, cohort, np.array([row]), run.experiment)[0])
    return np.stack(masks)


def draw_gallery(run):
    """Slices of patients with small to large tumours, in all three channels."""
    cohort, per_slice = preprocess.load_cohort(run), config.read_csv(run.path("per_slice.csv"))
    volumes = (per_slice["tp"] + per_slice["fn"]).groupby(per_slice["patient"]).sum().sort_values()
    patients = volumes.index[np.linspace(0, len(volumes) - 1, SHOWN).astype(int)]
    rows = rows_of(cohort, largest_slices(per_slice, patients))
    titles = [f"{row.patient}\nslice {row.slice}" for row in cohort.slices.iloc[rows].itertuples()]
    side = cohort.truths.shape[1]
    save(
        plots.slice_gallery(preprocess.resize_images(cohort.images[rows], side), cohort.truths[rows], titles), "gallery"
    )


def draw_augmentations(run):
    """One slice under each augmentation."""
    cohort, per_slice = preprocess.load_cohort(run), config.read_csv(run.path("per_slice.csv"))
    (row,) = rows_of(cohort, per_slice.loc[[(per_slice["tp"] + per_slice["fn"]).idxmax()]])
    image, mask = preprocess.minmax(cohort.images[[row]]).numpy()[0], cohort.masks[row]
    save(plots.augmentation_examples(image, mask, augment.examples(image, mask, (0, 4))), "augmentations")


def draw_examples(run):
    """Best, median and worst test slice with tumour of a run."""
    cohort = preprocess.load_cohort(run)
    examples = evaluate.example_slices(config.read_csv(run.path("per_slice.csv")))
    rows = rows_of(cohort, examples)
    predicted = evaluate.predicted_masks(train.load_model(run.path("model.keras")), cohort, rows, run.experiment)
    images = preprocess.resize_images(cohort.images[rows], run.experiment.score_size)
    save(plots.predictions(images, cohort.truths[rows], predicted, examples), "report64")


def draw_leak(by_slice, by_patient):
    """The patients that fail when held out, predicted under both protocols."""
    draw_worst({"patient not seen": by_patient, "other slices seen": by_slice}, "leak")


def draw_failures(run):
    """The patients that fail under a recipe."""
    draw_worst({"recipe-cv": run}, "recipe")


def draw_worst(runs, name):
    """The largest slice of the patients with the lowest Dice in the first of these cross-validations, as each predicts it."""
    run = next(iter(runs.values()))
    cohort = preprocess.load_cohort(run)
    worst = config.read_csv(run.path("per_patient.csv")).sort_values("dice")["patient"].head(SHOWN)
    shown = largest_slices(config.read_csv(run.path("per_slice.csv")), worst)[["patient", "slice"]]
    predicted = {}
    for label, other in runs.items():
        fold = config.read_csv(other.path("split.csv"))[["patient", "slice", "fold"]]
        predicted[label] = predict_by_fold(other, cohort, shown.merge(fold))
    save_rows(run, cohort, shown, predicted, [f"slice {number}" for number in shown["slice"]], name)


def save_rows(run, cohort, shown, predicted, below, name):
    """Save a table's slices with predicted outlines; below: the second line of each title."""
    rows = rows_of(cohort, shown)
    images = preprocess.resize_images(cohort.images[rows], run.experiment.score_size)
    titles = [f"{patient}\n{line}" for patient, line in zip(shown["patient"], below, strict=True)]
    save(plots.prediction_rows(images, cohort.truths[rows], predicted, titles), name)


def draw_alarms(run):
    """The slices without tumour, one a patient, in which most is marked."""
    cohort, per_slice = preprocess.load_cohort(run), config.read_csv(run.path("per_slice.csv"))
    healthy = per_slice[per_slice["tp"] + per_slice["fn"] == 0].sort_values("fp", ascending=False)
    shown = healthy.drop_duplicates("patient").head(SHOWN)
    predicted = {"no tumour here": predict_by_fold(run, cohort, shown)}
    save_rows(
        run, cohort, shown, predicted, [f"slice {row.slice}: {row.fp} pixels" for row in shown.itertuples()], "alarms"
    )


DRAWN = {
    "gallery": (draw_gallery, ("leak-patient",)),
    "augmentations": (draw_augmentations, ("leak-patient",)),
    "report64": (draw_examples, ("report64",)),
    "leak": (draw_leak, ("leak-slice", "leak-patient")),
    "alarms": (draw_alarms, ("leak-patient",)),
    "recipe": (draw_failures, ("recipe-cv",)),
}


@click.command()
@click.argument("data_folder", type=click.Path(exists=True, path_type=Path))
@click.argument("runs_folder", type=click.Path(exists=True, path_type=Path))
@click.argument("names", nargs=-1, type=click.Choice(DRAWN))
def main(data_folder, runs_folder, names):
    """Draw the figures named, or all."""
    plots.set_style()
    for name in names or DRAWN:
        draw, needed = DRAWN[name]
        runs = [config.reopen(runs_folder / run, data_folder) for run in needed]
        for run in runs:
            records.refuse_phantom(preprocess.load_cohort(run).kind)
        draw(*runs)


if __name__ == "__main__":
    cli.main(main)
