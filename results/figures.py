"""Draw the recorded figures of real slices again: python results/figures.py DATA_FOLDER RUNS_FOLDER

RUNS_FOLDER holds the run folders report64, leak-slice and leak-patient with their networks, as the commands in results/*/run.json
leave them. Writes results/figures/*.jpg. Every figure shows slices of the LGG cohort, whose terms (CC BY-NC-SA 4.0) hold for it.
"""

from pathlib import Path

import click
import numpy as np
import pandas as pd

from lggseg_utils import augment, config, evaluate, plots, preprocess, train

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


def draw_gallery(cohort, per_slice):
    """Slices of patients with small to large tumours, in all three channels."""
    volumes = (per_slice["tp"] + per_slice["fn"]).groupby(per_slice["patient"]).sum().sort_values()
    patients = volumes.index[np.linspace(0, len(volumes) - 1, SHOWN).astype(int)]
    rows = rows_of(cohort, largest_slices(per_slice, patients))
    titles = [f"{row.patient}\nslice {row.slice}" for row in cohort.slices.iloc[rows].itertuples()]
    side = cohort.truths.shape[1]
    save(
        plots.slice_gallery(preprocess.resize_images(cohort.images[rows], side), cohort.truths[rows], titles), "gallery"
    )


def draw_augmentations(cohort, per_slice):
    """One slice under each augmentation."""
    rows = rows_of(cohort, per_slice.loc[[(per_slice["tp"] + per_slice["fn"]).idxmax()]])
    image, mask = preprocess.minmax(cohort.images[rows]), cohort.masks[rows][..., None].astype(np.float32)
    changed = {
        name: [np.asarray(part)[0] for part in act(image, mask, (0, 4))] for name, act in augment.FUNCTIONS.items()
    }
    shown = {name: (pixels, outline[..., 0]) for name, (pixels, outline) in changed.items()}
    save(plots.augmentation_examples(image[0].numpy(), mask[0, ..., 0], shown), "augmentations")


def draw_examples(run, cohort):
    """Best, median and worst test slice with tumour of a run."""
    examples = evaluate.example_slices(pd.read_csv(run.path("per_slice.csv")))
    rows = rows_of(cohort, examples)
    predicted = evaluate.predicted_masks(train.load_model(run.path("model.keras")), cohort, rows, run.experiment)
    images = preprocess.resize_images(cohort.images[rows], run.experiment.score_size)
    save(plots.predictions(images, cohort.truths[rows], predicted, examples), "report64")


def draw_leak(by_slice, by_patient, cohort):
    """The patients that fail when held out, predicted under both protocols."""
    worst = pd.read_csv(by_patient.path("per_patient.csv")).sort_values("dice")["patient"].head(SHOWN)
    shown = largest_slices(pd.read_csv(by_patient.path("per_slice.csv")), worst)
    predicted = {}
    for label, run in (("patient not seen", by_patient), ("other slices seen", by_slice)):
        fold = pd.read_csv(run.path("split.csv"))[["patient", "slice", "fold"]]
        predicted[label] = predict_by_fold(run, cohort, shown[["patient", "slice"]].merge(fold))
    rows = rows_of(cohort, shown)
    images = preprocess.resize_images(cohort.images[rows], by_patient.experiment.score_size)
    titles = [f"{row.patient}\nslice {row.slice}" for row in shown.itertuples()]
    save(plots.prediction_rows(images, cohort.truths[rows], predicted, titles), "leak")


def draw_alarms(run, cohort):
    """The slices without tumour, one a patient, in which most is marked."""
    per_slice = pd.read_csv(run.path("per_slice.csv"))
    healthy = per_slice[per_slice["tp"] + per_slice["fn"] == 0].sort_values("fp", ascending=False)
    shown = healthy.drop_duplicates("patient").head(SHOWN)
    rows = rows_of(cohort, shown)
    titles = [f"{row.patient}\nslice {row.slice}: {row.fp} pixels" for row in shown.itertuples()]
    images = preprocess.resize_images(cohort.images[rows], run.experiment.score_size)
    predicted = {"no tumour here": predict_by_fold(run, cohort, shown)}
    save(plots.prediction_rows(images, cohort.truths[rows], predicted, titles), "alarms")


@click.command()
@click.argument("data_folder", type=click.Path(exists=True, path_type=Path))
@click.argument("runs_folder", type=click.Path(exists=True, path_type=Path))
def main(data_folder, runs_folder):
    """Draw all recorded figures."""
    plots.set_style()
    names = ("report64", "leak-slice", "leak-patient")
    report, by_slice, by_patient = (config.reopen(runs_folder / name, data_folder) for name in names)
    cohort = preprocess.load_cohort(by_patient)
    per_slice = pd.read_csv(by_patient.path("per_slice.csv"))
    draw_gallery(cohort, per_slice)
    draw_augmentations(cohort, per_slice)
    draw_examples(report, preprocess.load_cohort(report))
    draw_leak(by_slice, by_patient, cohort)
    draw_alarms(by_patient, cohort)


if __name__ == "__main__":
    main()
