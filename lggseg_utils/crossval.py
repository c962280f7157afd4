"""Five-fold cross-validation: every slice, or every patient, is predicted once by a network that was not shown it."""

import pandas as pd
from joblib import Parallel, delayed
from tqdm import tqdm

from lggseg_utils import evaluate, preprocess, train
from lggseg_utils.config import read_csv, write_csv, write_json

SPLIT_COLUMNS = ["patient", "slice", "split", "part", "fold"]


def cross_validate(run):
    """Cross-validate a run's experiment, or load it: the per-slice table of all test predictions, with `fold`.

    The folds are split as the setting `split` says. Writes split.csv (the part each slice is in and the fold that tests
    it; `preprocess.split_of_fold` gives training and validation of a fold), history.csv, per_slice.csv,
    per_patient.csv and, last, metrics.json, which holds the test scores over all folds. Each fold leaves its own files
    under folds/, so that an interrupted cross-validation goes on where it stopped; folds are independent jobs, given
    to joblib.
    """
    if not run.path("metrics.json").exists():
        cohort = preprocess.load_cohort(run)
        parts = _load_parts(run, cohort.slices)
        jobs = (delayed(_run_fold)(run, cohort, parts, fold) for fold in range(preprocess.FOLDS))
        folds = list(
            tqdm(Parallel(return_as="generator")(jobs), total=preprocess.FOLDS, desc="folds", unit="fold", leave=False)
        )
        _write_tables(run, *(pd.concat(tables, ignore_index=True) for tables in zip(*folds, strict=True)))
    return read_csv(run.path("per_slice.csv"))


def _load_parts(run, slices):
    """The table patient, slice, split, part, fold; drawn and written to split.csv when it is missing."""
    if not run.path("split.csv").exists():
        parts = preprocess.parts_table(slices, run.experiment.split, run.experiment.seed)
        fold = parts["part"] // (preprocess.PARTS // preprocess.FOLDS)
        write_csv(run.path("split.csv"), parts.assign(split="test", fold=fold)[SPLIT_COLUMNS])
    split = read_csv(run.path("split.csv"))
    preprocess.refuse_other_slices(run.path("split.csv"), split, slices)
    return split


def _run_fold(run, cohort, parts, fold):
    """Train and score one fold, or load it: (per-slice table of its test slices, history), both with `fold`."""
    folder = run.path("folds", str(fold))
    if not (folder / "per_slice.csv").exists():
        split = preprocess.split_of_fold(parts, fold)
        rows = preprocess.rows_by_set(split)
        model, _ = train.fit(run.experiment, cohort, rows["train"], rows["val"], folder)
        if run.experiment.weights == "best":
            model = train.load_model(folder / "model_best.keras")
        train.save_model(model, folder / "model.keras")
        test = evaluate.shuffled(rows["test"], run.experiment.seed)
        scored = evaluate.score_slices(evaluate.probabilities(model, cohort, test, run.experiment), cohort)
        write_csv(folder / "per_slice.csv", scored.assign(split="test")[evaluate.PER_SLICE_COLUMNS])
    return tuple(read_csv(folder / name).assign(fold=fold) for name in ("per_slice.csv", "history.csv"))


def _write_tables(run, per_slice, history):
    """Write what all folds show together, and the cost in run.json; metrics.json comes last."""
    run.note(training={"folds": preprocess.FOLDS, "seconds": round(float(history["seconds"].sum()), 1)})
    write_csv(run.path("history.csv"), history)
    write_csv(run.path("per_slice.csv"), per_slice)
    write_csv(run.path("per_patient.csv"), _per_patient(per_slice, run.experiment.split))
    whole = run.experiment.split == "patient"
    run.note_end()
    write_json(run.path("metrics.json"), {"test": evaluate.set_scores(per_slice, whole)})


def _per_patient(per_slice, protocol):
    """The table a patient; with `fold` where a patient's slices all stand in one."""
    table = evaluate.per_patient_table(per_slice)
    if protocol == "slice":
        return table
    return table.merge(per_slice[["patient", "fold"]].drop_duplicates(), on="patient", validate="one_to_one")
