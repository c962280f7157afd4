"""The verdict: reported beside reproduced, and each claim of the sources judged."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from lggseg_utils import evaluate, metrics, preprocess
from lggseg_utils.config import REPOSITORY, UserError, load_experiment, write_whole

REPORTED = yaml.safe_load((Path(__file__).parent / "reported.yml").read_text(encoding="utf-8"))
# The report's own tables: set -> {metric: value}. The README repeats one of them.
TABLES = {
    name: {metric: value for metric, value in table.items() if metric != "source"}
    for name, table in REPORTED["tables"].items()
    if name != "readme"
}
RECORDS = REPOSITORY / "results"
REPRODUCED, NOT_REPRODUCED, NOT_TESTABLE, CONTRADICTS = (
    "reproduced",
    "not reproduced",
    "not testable",
    "contradicts itself",
)
NO_VERDICT = "no verdict"
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
# What must agree with the report's best model before a number of ours can confirm or contradict one of its.
PROTOCOL = (
    "size", "scaling", "split", "filters", "depth", "dropout", "normalization", "output", "loss", "batch_size", "epochs",
    "learning_rate", "schedule", "augmentation", "early_stopping", "weights",
)  # fmt: skip


@dataclass(frozen=True)
class Evidence:
    """What one run offers as evidence: its record, scores, tables, and history."""

    record: dict
    evaluation: evaluate.Evaluation
    history: pd.DataFrame
    ablation: pd.DataFrame

    @property
    def kind(self):
        """'phantom cohort', 'LGG cohort' or 'own data'."""
        return self.record["data"]["kind"]

    def deviations(self):
        """Settings in which the run differs from the profile after the report's best model, as 'name ours (theirs)'."""
        ours, theirs = self.record["experiment"], load_experiment("report128").model_dump()
        return [f"{name} {ours[name]} ({theirs[name]})" for name in PROTOCOL if ours[name] != theirs[name]]


@dataclass(frozen=True)
class Claim:
    """One claim of the sources, where it stands, and how evidence decides it: judge(Evidence) -> (status, why)."""

    text: str
    source: str
    judge: Callable


def dice_from_iou(iou):
    """Dice of the set of pixels whose intersection over union is `iou`: 2 IoU/(1 + IoU)."""
    return 2 * iou / (1 + iou)


def tumour_iou_from_mean(mean_iou, accuracy):
    """Tumour IoU that a two-class mean IoU and an accuracy imply, where tumour is rare.

    The background's IoU is then the accuracy to within the errors times the tumour share: TN/(TN + FP + FN).
    """
    return 2 * mean_iou - accuracy


def true_positive_share(iou, accuracy):
    """Share of all pixels that are true positives: IoU/(1 - IoU) x (1 - accuracy), from FP + FN = 1 - accuracy."""
    return iou / (1 - iou) * (1 - accuracy)


def load_evidence(folder):
    """Read the evidence of a finished run folder, or of a record under results/."""
    folder = Path(folder)
    if not (folder / "metrics.json").exists():
        raise UserError(f"{folder} holds no finished run: metrics.json is missing. Run the evaluation first.")
    ablation = folder / "ablation_patients.csv"
    return Evidence(
        json.loads((folder / "run.json").read_text(encoding="utf-8")),
        evaluate.load_evaluation(folder),
        pd.read_csv(folder / "history.csv"),
        pd.read_csv(ablation) if ablation.exists() else pd.DataFrame(),
    )


def compare(evaluation):
    """Reported beside reproduced: set, source, metric, reported, reproduced, low, high, difference."""
    rows = []
    for name, table in REPORTED["tables"].items():
        ours = evaluation.metrics["val" if name == "readme" else name]
        for metric in [key for key in table if key != "source"]:
            entry = ours[metric]
            rows.append(
                {
                    "set": name,
                    "source": table["source"],
                    "metric": metric,
                    "reported": table[metric],
                    "reproduced": entry["value"],
                    "low": entry["low"],
                    "high": entry["high"],
                    "difference": entry["value"] - table[metric],
                }
            )
    return pd.DataFrame(rows)


def _number_claim(name, metric):
    """Judge of one reported number: ours confirms it when it lies within our interval and the protocol agrees."""
    reported = TABLES[name][metric]

    def judge(evidence):
        entry = evidence.evaluation.metrics[name][metric]
        ours = f"{evaluate.number(entry['value'])} ({evaluate.interval(entry)})"
        if evidence.deviations():
            return NOT_TESTABLE, f"this run has {ours}, under other settings (listed above)"
        inside = entry["low"] is not None and entry["low"] <= reported <= entry["high"]
        return REPRODUCED if inside else NOT_REPRODUCED, f"{ours} against {reported}"

    return judge


def _same_quantity(evidence):
    """Do the reported Dice and IoU belong to one set of pixels? Arithmetic on the report alone."""
    table = TABLES["train"]
    implied = dice_from_iou(table["jacard_coef"])
    return CONTRADICTS, (
        f"table 1 has IoU {table['jacard_coef']} with Dice {table['dice_coef']}, above the {implied:.4f} that this IoU allows, "
        "however it is averaged or smoothed alike; the pairs of tables 2 and 3 lie below, as averaging can make them"
    )


def _mean_iou(evidence):
    """Does the reported mean IoU fit the tumour IoU? Arithmetic on the report alone."""
    test = TABLES["test"]
    implied = tumour_iou_from_mean(test["mean_iou"], test["accuracy"])
    return NOT_TESTABLE, (
        f"if both are pooled, it implies a tumour IoU of {implied:.3f} with accuracy {test['accuracy']}, not {test['jacard_coef']}; "
        "an IoU averaged over batches may lie lower, as in our own runs"
    )


def _readme_table(evidence):
    """The README's table against the report's validation table."""
    readme, val = (
        {key: value for key, value in REPORTED["tables"][name].items() if key != "source"} for name in ("readme", "val")
    )
    same = "all four numbers are those of the report's validation table" if readme == val else "the numbers differ"
    return CONTRADICTS, f"introduced as test data, headed as validation data; {same}"


def _best_run(evidence):
    """The chosen run against the other runs' curves."""
    runs = pd.DataFrame(REPORTED["runs"]).set_index("run")
    dice, iou = runs["val_dice"].idxmax(), runs["val_iou"].idxmax()
    return NOT_TESTABLE, (
        f"read off the curves, run {iou} has the best validation IoU ({runs.loc[iou, 'val_iou']}), run {dice} the best Dice "
        f"({runs.loc[dice, 'val_dice']}), and run 4 a lower loss than run 1 ({runs.loc[4, 'val_loss']} against "
        f"{runs.loc[1, 'val_loss']}): by which score it was chosen is not said, and the gaps are those of one reading"
    )


def _captions(evidence):
    """Epochs in captions against epochs on axes."""
    runs = [row for row in REPORTED["runs"] if row["caption_epochs"] != row["axis_epochs"]]
    listed = ", ".join(
        f"run {row['run']}: {row['caption_epochs']} in the caption, {row['axis_epochs']} on the axis" for row in runs
    )
    return CONTRADICTS, listed


def _prevalence(evidence):
    """Shares of true-positive pixels that the three tables imply."""
    shares = [
        f"{name} {true_positive_share(table['jacard_coef'], table['accuracy']):.4f}" for name, table in TABLES.items()
    ]
    return NOT_TESTABLE, (
        f"if the IoU is pooled, it and the accuracy fix the share of true-positive pixels: {', '.join(shares)}. The validation "
        "set's is more than twice the others': it seems richer in tumour, or scored in another way. Without the lists of the "
        "split this can't be settled"
    )


def _accuracy_says_little(evidence):
    """Accuracy of a prediction without any tumour."""
    floors = evidence.evaluation.floors
    floor = floors[(floors["floor"] == "all background") & (floors["split"] == "test")]["accuracy"].iloc[0]
    ours = evidence.evaluation.metrics["test"]["accuracy"]["value"]
    status = REPRODUCED if floor > 0.9 else NOT_REPRODUCED
    return status, f"predicting no tumour at all has a test accuracy of {floor:.4f}, the model {ours:.4f}"


def _overfitting(evidence):
    """Does the validation loss rise after its minimum while the training loss falls?"""
    loss, train_loss = evidence.history["val_loss"], evidence.history["loss"]
    best = int(loss.idxmin())
    rises = loss.iloc[-1] > 1.1 * loss[best] and train_loss.iloc[-1] < train_loss[best]
    why = (
        f"validation loss {loss[best]:.4f} at epoch {best + 1}, {loss.iloc[-1]:.4f} at epoch {len(loss)}; "
        f"training loss {train_loss[best]:.4f} and {train_loss.iloc[-1]:.4f}"
    )
    if evidence.deviations():
        return NOT_TESTABLE, f"{why}; under other settings (listed above)"
    return REPRODUCED if rises else NOT_REPRODUCED, why


def _mixing(evidence):
    """What mixing all augmentations does here, if the ablation was run."""
    from lggseg_utils.ablation import BASELINE, LEARNT, differences

    why = "the claim comes from another assignment and is about accuracy"
    if evidence.ablation.empty or "all" not in set(evidence.ablation["condition"]):
        return NOT_TESTABLE, f"{why}; this run has no ablation with 'all'"
    if evidence.ablation.loc[evidence.ablation["condition"] == BASELINE, "dice"].mean() < LEARNT:
        return (
            NOT_TESTABLE,
            f"{why}; in this run's ablation the network without augmentation has hardly learnt anything",
        )
    row = differences(evidence.ablation).set_index("condition").loc["all"]
    return NOT_TESTABLE, (
        f"{why}. What mixing does here: Dice a validation patient changes by {row['difference']:+.3f} "
        f"({evaluate.number(row['low'])} to {evaluate.number(row['high'])}) against none"
    )


def _needs_runs(what):
    """Judge of a claim that compares several trainings; one run can't decide it."""
    return lambda evidence: (NOT_TESTABLE, f"one run can't show it: it needs {what}")


def _on_paper(status, why):
    """Judge of a claim decided by the sources themselves."""
    return lambda evidence: (status, why)


ARITHMETIC = (
    Claim("The README's table shows the performance on test data", "README", _readme_table),
    Claim("Dice and IoU of tables 1 to 3 are computed alike, from the same predictions", "report, 1-6", _same_quantity),
    Claim("The mean IoU on test is 0.939", "report, table 3", _mean_iou),
    Claim("Training, validation and test were drawn alike and scored alike", "report, 1-1", _prevalence),
    Claim("The best model is run 1: 128x128, batch 16, 128 epochs", "report, 1-5", _best_run),
    Claim("Runs 1 and 2 were trained for 100 epochs", "report, 1-5, captions", _captions),
    Claim(
        "Accuracy is above 0.98 in every epoch",
        "report, 1-6",
        _on_paper(CONTRADICTS, "the validation curve of run 3 begins at about 0.970"),
    ),
    Claim(
        "Eight augmentations were applied",
        "README",
        _on_paper(CONTRADICTS, "the report applied two flips and 90-degree rotations"),
    ),
    Claim(
        "No tumour is predicted on a healthy slice",
        "report, 1-6",
        _on_paper(CONTRADICTS, "the report's own figure of that slice shows specks"),
    ),
    Claim(
        "False positive and false negative, as explained",
        "report, 1-4",
        _on_paper(CONTRADICTS, "the two explanations are exchanged; the formulas of IoU and Dice are right"),
    ),
)
EMPIRICAL = (
    *(
        Claim(f"{metric} is {value:g} on {name}", REPORTED["tables"][name]["source"], _number_claim(name, metric))
        for name, table in TABLES.items()
        for metric, value in table.items()
    ),
    Claim("A high accuracy says little here", "report, 1-6", _accuracy_says_little),
    Claim("The long training overfits: validation loss rises while training loss falls", "report, 1-5", _overfitting),
    Claim("Mixing all augmentations hurts", "report, 1-3", _mixing),
    Claim("A larger batch overfits more", "report, 1-5", _needs_runs("runs with batch 16 and 32")),
    Claim("Fewer epochs overfit less", "report, 1-5", _needs_runs("runs of 64 and 128 epochs")),
    Claim(
        "Dropout calms overfitting but does not improve results",
        "report, 1-5",
        _needs_runs("runs with dropout 0, 0.1 and 0.2"),
    ),
    Claim("64x64 is worse than 128x128", "report, 1-5", _needs_runs("runs at both sizes, scored on one grid")),
)


def judge(evidence, claims=(*ARITHMETIC, *EMPIRICAL)):
    """Judge claims by one run: claim, source, status, evidence.

    On anything but the LGG cohort only what the sources themselves decide is judged: neither a phantom nor other
    patients can confirm or refute the report.
    """
    rows = []
    for claim in claims:
        status, why = claim.judge(evidence)
        if evidence.kind != "LGG cohort" and claim in EMPIRICAL:
            status, why = NO_VERDICT, f"{why} (on: {evidence.kind})"
        rows.append({"claim": claim.text, "source": claim.source, "status": status, "evidence": why})
    return pd.DataFrame(rows)


def implied_dice():
    """For each reported pair, the Dice that its IoU implies: set, IoU, Dice reported, Dice implied, difference."""
    rows = [
        {
            "set": name,
            "IoU reported": table["jacard_coef"],
            "Dice reported": table["dice_coef"],
            "Dice implied by IoU": dice_from_iou(table["jacard_coef"]),
        }
        for name, table in TABLES.items()
    ]
    return pd.DataFrame(rows).assign(difference=lambda table: table["Dice reported"] - table["Dice implied by IoU"])


def records(command="run"):
    """Names of what a subcommand of lggseg made and is recorded under results/, sorted."""
    made_by = {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in RECORDS.glob("*/run.json")}
    return sorted(name for name, record in made_by.items() if record["command"].split()[1] == command)


def spread_of_draws(per_patient, size, draws=5000, seed=0):
    """Mean Dice of `size` patients drawn with replacement, `draws` times."""
    rng = np.random.default_rng(seed)
    dice = per_patient["dice"].to_numpy()
    return np.array([rng.choice(dice, size).mean() for _ in range(draws)])


def leak_by_slice():
    """Say how much of the LGG cohort's test set a split by slice has shown in training, counted on a record's slices."""
    slices = pd.read_csv(RECORDS / records()[0] / "split.csv")
    seen = preprocess.seen_in_training(preprocess.draw_split(slices, "slice", seed=0))
    return (
        f"Of {seen['slices']} test slices drawn at random, {seen['slices_with_neighbour']} have a direct neighbour in training, "
        f"and {seen['patients_seen']} of their {seen['patients']} patients are known from training."
    )


def at_a_glance():
    """Results on the LGG cohort at a glance as Markdown: one row per recorded run and held-out set, read from results/."""
    lines = [
        "| recorded run | set | Dice per patient, mean (95 % interval) | median | Dice pooled | patients | split by |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in records():
        evidence = load_evidence(RECORDS / name)
        for part, label in (("val", "validation"), ("test", "test")):
            scores = evidence.evaluation.metrics[part]
            patients = evidence.evaluation.per_patient.query("split == @part")["patient"].nunique()
            mean, median, pooled = (
                scores.get(key, {"value": None, "low": None})
                for key in ("dice_patient_mean", "dice_patient_median", "dice_pooled")
            )
            lines.append(
                f"| `{name}` | {label} | {evaluate.number(mean['value'])} ({evaluate.interval(mean)}) | "
                f"{evaluate.number(median['value'])} | {evaluate.number(pooled['value'])} | {patients} | "
                f"{evidence.record['experiment']['split']} |"
            )
    return "\n".join(lines)


def recheck(evidence):
    """Largest relative gap between metrics.json and the scores computed again from per_slice.csv, intervals left out."""
    again = evaluate.all_scores(evidence.evaluation.per_slice, evidence.record["experiment"]["split"], resamples=0)
    pairs = [
        (entry["value"], again[part][name]["value"])
        for part, scores in evidence.evaluation.metrics.items()
        for name, entry in scores.items()
    ]
    return max(abs(then - now) / max(abs(then), 1e-12) for then, now in pairs if then is not None)


def consistent(per_slice):
    """Largest gap over slices between Dice and 2 IoU/(1 + IoU); 0 but for rounding."""
    dice, iou = (score(per_slice["tp"], per_slice["fp"], per_slice["fn"]) for score in (metrics.dice, metrics.iou))
    return float(np.abs(dice - dice_from_iou(iou)).max())


def record(run_folder, name):
    """Copy a finished run's numbers to results/NAME, never its images or weights; return that folder."""
    if not Path(run_folder, "metrics.json").exists():
        raise UserError(f"{run_folder} holds no finished run: metrics.json is missing. Run the evaluation first.")
    facts = json.loads(Path(run_folder, "run.json").read_text(encoding="utf-8"))
    if facts["data"]["kind"] == "phantom cohort":
        raise UserError("only runs on real data are recorded; this one is on the phantom cohort.")
    if not re.fullmatch(r"[\w-]+", name):
        raise UserError(f"'{name}' can't name a record: use letters, digits and hyphens.")
    target = RECORDS / name
    target.mkdir(parents=True, exist_ok=True)
    for file in RECORDED_FILES:
        if Path(run_folder, file).exists():
            with write_whole(target / file) as temporary:
                shutil.copyfile(Path(run_folder, file), temporary)
    return target


def reading(name):
    """Say in a paragraph what a recorded run shows, and how little a small test set tells; numbers from its files."""
    evidence = load_evidence(RECORDS / name)
    scores, patients = evidence.evaluation.metrics, evidence.evaluation.per_patient
    if "dice_patient_mean" not in scores["test"]:
        return f"`{name}` split slices, not patients: it has no Dice of patients the network has never seen."
    mean = {part: scores[part]["dice_patient_mean"] for part in ("val", "test")}
    said = {part: f"{evaluate.number(entry['value'])} ({evaluate.interval(entry)})" for part, entry in mean.items()}
    held_out = patients[patients["split"] != "train"]
    size = int((patients["split"] == "test").sum())
    draws = spread_of_draws(held_out, size)
    low, high = np.quantile(draws, (0.025, 0.975))
    seconds = evidence.record["training"]["seconds"]
    text = (
        f"`{name}`: the mean Dice is {said['val']} on the validation patients and {said['test']} on the test patients, "
        f"with the same weights. How much of that is the luck of who was drawn? Of sets of {size} patients drawn with "
        f"replacement from these {len(held_out)}, 95 % have a mean between {low:.2f} and {high:.2f}. **A test set of {size} patients "
        f"says little.** Made by `{evidence.record['command']}` at commit `{evidence.record['git_commit']}`, with dropout "
        f"{evidence.record['experiment']['dropout']:g}, in {seconds / 60:.0f} minutes of training."
    )
    return text + _reading_of_ablation(evidence)


def _reading_of_ablation(evidence):
    """What a recorded ablation allows to conclude, as a paragraph; empty where there is none."""
    from lggseg_utils import ablation

    if evidence.ablation.empty:
        return ""
    epochs = evidence.record["experiment"]["ablation_epochs"]
    return f"\n\nIts ablation: {ablation.conclusion(evidence.ablation, epochs, evidence.kind)}"
