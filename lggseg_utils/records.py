"""Evidence: finished runs, and what of them is recorded under results/."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lggseg_utils import evaluate, preprocess
from lggseg_utils.config import (
    REPOSITORY,
    UserError,
    load_experiment,
    read_csv,
    read_record,
    with_defaults,
    write_whole,
)

RECORDS = REPOSITORY / "results"

RECORDED_FILES = (
    "run.json",
    "split.csv",
    "history.csv",
    "metrics.json",
    "metrics_best.json",
    "per_slice.csv",
    "per_patient.csv",
    "floors.csv",
    "ablation.csv",
    "ablation_patients.csv",
)

# One of these is there when a run, a cross-validation or an ablation is done: it is written last.
FINISHED = ("metrics.json", "ablation.csv")

# What must agree with the report's run before a number of ours can confirm or contradict one of its.
PROTOCOL = (
    "size", "scaling", "context", "split", "filters", "depth", "dropout", "normalization", "output", "loss", "batch_size", "epochs",
    "learning_rate", "schedule", "augmentation", "early_stopping", "weights", "test_time_flips", "largest_component",
)  # fmt: skip


@dataclass(frozen=True)
class Evidence:
    """What one run, cross-validation or ablation offers as evidence; what it does not have is None.

    own_grid, own_grid_metrics: per-slice table and scores of validation and test on the grid of a network that works on
    another than the scoring grid.
    """

    record: dict
    evaluation: evaluate.Evaluation | None
    history: pd.DataFrame | None
    ablation: pd.DataFrame | None
    own_grid: pd.DataFrame | None = None
    own_grid_metrics: dict | None = None

    @property
    def kind(self):
        """'phantom cohort', 'LGG cohort' or 'own data'."""
        return self.record["data"]["kind"]

    @property
    def command(self):
        """Subcommand of lggseg that made it: 'run', 'crossval' or 'ablate'."""
        return self.record["command"].split()[1]

    def deviations(self, profile):
        """Settings in which the run differs from a profile after the report, as 'name ours (theirs)'."""
        ours, theirs = with_defaults(self.record["experiment"]), load_experiment(profile).model_dump()
        return [f"{name} {ours[name]} ({theirs[name]})" for name in PROTOCOL if ours[name] != theirs[name]]


def load_evidence(folder):
    """Read the evidence of a finished run folder, or of a record under results/."""
    folder = Path(folder)
    if not any((folder / name).exists() for name in FINISHED):
        raise UserError(f"{folder} holds no finished run: metrics.json is missing. Run the evaluation first.")
    paths = [folder / f"{name}.csv" for name in ("history", "ablation_patients", "per_slice_own_grid")]
    tables = [read_csv(path) if path.exists() else None for path in paths]
    evaluation = evaluate.load_evaluation(folder) if (folder / "metrics.json").exists() else None
    own_grid = folder / "metrics_own_grid.json"
    own_grid_metrics = json.loads(own_grid.read_text(encoding="utf-8")) if own_grid.exists() else None
    return Evidence(read_record(folder), evaluation, *tables, own_grid_metrics)


def load_records(*commands):
    """Recorded evidence by name, sorted; of these subcommands of lggseg, or of all."""
    loaded = {path.parent.name: load_evidence(path.parent) for path in sorted(RECORDS.glob("*/run.json"))}
    return {name: evidence for name, evidence in loaded.items() if not commands or evidence.command in commands}


def cohort_slices():
    """Every slice of the LGG cohort with its counts: a per-slice table of one of the records."""
    runs = load_records("run").values()
    return next(evidence for evidence in runs if evidence.kind == "LGG cohort").evaluation.per_slice


def leak_by_slice():
    """Say how much of the LGG cohort's test set a split by slice has shown in training, counted on a record's slices."""
    slices = cohort_slices().sort_values(["patient", "slice"], ignore_index=True)
    seen = preprocess.seen_in_training(preprocess.draw_split(slices, "slice", seed=0))
    return (
        f"Of {seen['slices']} test slices drawn at random, {seen['slices_with_neighbour']} have a direct neighbour in training, "
        f"and {seen['patients_seen']} of their {seen['patients']} patients are known from training."
    )


def at_a_glance():
    """Results on the LGG cohort at a glance as Markdown: a row a recorded run and held-out set, read from results/."""
    lines = [
        "| record | scored on | Dice per patient, mean (95 % interval) | median | Dice pooled (95 % interval) | patients | split by |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, evidence in load_records("run", "crossval").items():
        cross = evidence.command == "crossval"
        for part, label in (("test", "all, in five folds"),) if cross else (("val", "validation"), ("test", "test")):
            lines.append(_glance_row(name, evidence, part, label))
    return "\n".join(lines)


def _glance_row(name, evidence, part, label):
    """One row of the table at a glance."""
    scores, nothing = evidence.evaluation.metrics[part], {"value": None, "low": None}
    median = scores.get("dice_patient_median", nothing)["value"]
    cells = (
        f"`{name}`",
        label,
        evaluate.with_interval(scores.get("dice_patient_mean", nothing)),
        evaluate.number(median),
        evaluate.with_interval(scores["dice_pooled"]),
        evidence.evaluation.per_patient.query("split == @part")["patient"].nunique(),
        evidence.record["experiment"]["split"],
    )
    return f"| {' | '.join(map(str, cells))} |"


def load_precision():
    """The trainings in two precisions that results/precision.py made: precision, seed, patient (of validation), dice, git_commit."""
    return read_csv(RECORDS / "precision.csv")


def provenance(recorded):
    """Where each record comes from: a table record, command, commit (at begin and end), begun, minutes of training."""
    rows = []
    for name, evidence in recorded.items():
        record = evidence.record
        ended = record.get("ended", {}).get("git_commit", record["git_commit"])
        commits = dict.fromkeys((record["git_commit"], ended))
        seconds = record.get("training", {}).get("seconds")
        rows.append(
            {
                "record": name,
                "command": record["command"],
                "commit": ", ".join(commits),
                "begun": record["created"][:10],
                "minutes": "–" if seconds is None else str(round(seconds / 60)),
            }
        )
    return pd.DataFrame(rows)


def figure(name):
    """A recorded figure of real slices, to be shown in a notebook; results/figures.py draws them."""
    from IPython.display import Image

    return Image(filename=str(RECORDS / "figures" / f"{name}.jpg"))


def refuse_phantom(kind):
    """Raise `UserError` for the phantom cohort: what stands under results/ was made from real data."""
    if kind == "phantom cohort":
        raise UserError("only runs on real data are recorded; this one is on the phantom cohort.")


def record(run_folder, name):
    """Copy a finished run's numbers to results/NAME, never its images or weights; return that folder."""
    refuse_phantom(load_evidence(run_folder).kind)
    if not re.fullmatch(r"[\w-]+", name):
        raise UserError(f"'{name}' can't name a record: use letters, digits and hyphens.")
    target = RECORDS / name
    if target.exists():
        raise UserError(f"{target} is there already; remove it first, or choose another name.")
    target.mkdir(parents=True)
    for file in RECORDED_FILES:
        if Path(run_folder, file).exists():
            with write_whole(target / file) as temporary:
                shutil.copyfile(Path(run_folder, file), temporary)
    return target
