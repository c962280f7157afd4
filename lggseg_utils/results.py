"""The verdict: reported beside reproduced, and each claim of the sources judged."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from lggseg_utils import ablation, evaluate, findings, metrics, recipe, records

REPORTED = yaml.safe_load((Path(__file__).parent / "reported.yml").read_text(encoding="utf-8"))
# The report's own tables: set -> {metric: value}. The README repeats one of them.
TABLES = {
    name: {metric: value for metric, value in table.items() if metric != "source"}
    for name, table in REPORTED["tables"].items()
    if name != "readme"
}
REPRODUCED, NOT_REPRODUCED, NOT_TESTABLE, CONTRADICTS = (
    "reproduced",
    "not reproduced",
    "not testable as stated",
    "contradicts itself",
)
PLURAL = {CONTRADICTS: "in which the sources contradict themselves"}
NO_VERDICT = "no verdict"
SHORT_TRAINING = 64  # epochs of the report's run 3
END = 10  # epochs whose mean stands for the end of a curve; our choice, as are the next three
RISES = 1.1  # times the lowest validation loss, from where on we speak of overfitting
UNLIKELY = 0.05  # share of random draws below which a set was hardly drawn like that
LITTLE = 0.9  # accuracy that a prediction without tumour must exceed for accuracy to say little


@dataclass(frozen=True)
class Claim:
    """One claim of the sources, where it stands, the page that works it out, and how evidence decides it.

    judge(runs) -> (status, why), with runs: name -> Evidence.
    """

    text: str
    source: str
    page: str
    judge: Callable


def tumour_iou_from_mean(mean_iou, accuracy):
    """Tumour IoU that a two-class mean IoU and an accuracy imply, where tumour is rare.

    The background's IoU is then the accuracy to within the errors times the tumour share: TN/(TN + FP + FN).
    """
    return 2 * mean_iou - accuracy


def tumour_share_bounds(iou, accuracy):
    """Least and greatest share of tumour pixels that a pooled IoU of masks and an accuracy allow: (low, high).

    FP + FN = 1 - accuracy, so the true positives are IoU/(1 - IoU) x (1 - accuracy) of all pixels; the tumour is at least
    those, and at most those and all errors.
    """
    true_positives = iou / (1 - iou) * (1 - accuracy)
    return true_positives, true_positives + 1 - accuracy


def compare(evaluation):
    """Reported beside reproduced: set, source, metric, reported, reproduced, low, high, difference."""
    rows = []
    for name, table in TABLES.items():
        for metric, reported in table.items():
            entry = evaluation.metrics[name][metric]
            rows.append(
                {
                    "set": name,
                    "source": REPORTED["tables"][name]["source"],
                    "metric": metric,
                    "reported": reported,
                    "reproduced": entry["value"],
                    "low": entry["low"],
                    "high": entry["high"],
                    "difference": entry["value"] - reported,
                }
            )
    return pd.DataFrame(rows)


def _nearest(runs, profile):
    """Name and evidence of the run whose settings are nearest to a profile's; None where there is no scored run."""
    scored = {name: evidence for name, evidence in runs.items() if evidence.command == "run"}
    return min(scored.items(), key=lambda pair: len(pair[1].deviations(profile)), default=None)


def _from_nearest(profile):
    """Make a judge of several runs out of one of the run nearest to a profile: judge(evidence) -> (status, why).

    Where that run has other settings, what it shows stands as evidence, and nothing is decided.
    """

    def wrap(judge):
        def judge_runs(runs):
            nearest = _nearest(runs, profile)
            if nearest is None:
                return NOT_TESTABLE, "no run is scored"
            name, evidence = nearest
            status, why = judge(evidence)
            if evidence.deviations(profile):
                return NOT_TESTABLE, f"{name}, at other settings: {why}"
            return status, f"{name}: {why}"

        return judge_runs

    return wrap


def _number_claim(name, metric):
    """Judge of a number in the report's tables: ours confirms it when it lies within our interval."""
    reported = TABLES[name][metric]

    @_from_nearest("report128")
    def judge(evidence):
        return _inside(evidence.evaluation.metrics[name][metric], reported)

    return judge


def _curve_claim(name, metric, reported):
    """Judge of a number read off the curves of the report's run 6, to READ_OFF, on the network's own grid.

    Scores of a training curve are taken under dropout while the weights move, so nothing gives them an interval.
    """

    @_from_nearest("report64")
    def judge(evidence):
        last = evidence.history[metric if name == "train" else f"{name}_{metric}"].iloc[-1]
        curve = f"our own curve ends at {last:.3f}"
        scores = evidence.own_grid_metrics or evidence.evaluation.metrics
        if name == "train":
            return NOT_TESTABLE, f"{curve}, against {reported}; scores taken while the weights move have no interval"
        status, why = _inside(scores[name][metric], reported, READ_OFF)
        return status, f"{why}; {curve}"

    return judge


def _inside(entry, reported, tolerance=0.0):
    """Whether a reported number lies within an interval of ours, give or take a tolerance: (status, why)."""
    inside = entry["low"] is not None and entry["low"] - tolerance <= reported <= entry["high"] + tolerance
    why = f"{evaluate.number(entry['value'])} ({evaluate.interval(entry)}) against {reported}"
    return REPRODUCED if inside else NOT_REPRODUCED, why


def _same_quantity(runs):
    """Do the reported Dice and IoU belong to one set of pixels? Arithmetic on the report alone."""
    table = TABLES["train"]
    implied = metrics.dice_from_iou(table["jacard_coef"])
    return CONTRADICTS, (
        f"table 1 has IoU {table['jacard_coef']} with Dice {table['dice_coef']}, above the {implied:.4f} that this IoU allows, "
        "however it is averaged or smoothed alike; the pairs of tables 2 and 3 lie below, as averaging can make them"
    )


def _mean_iou(runs):
    """Does the reported mean IoU fit the tumour IoU? Arithmetic on the report alone."""
    test = TABLES["test"]
    implied = tumour_iou_from_mean(test["mean_iou"], test["accuracy"])
    return NOT_TESTABLE, (
        f"if both are pooled, it implies a tumour IoU of {implied:.3f} with accuracy {test['accuracy']}, not {test['jacard_coef']}; "
        "an IoU averaged over batches may lie lower, as in our own runs"
    )


def _readme_table(runs):
    """The README's table against the report's validation table."""
    readme, val = (
        {key: value for key, value in REPORTED["tables"][name].items() if key != "source"} for name in ("readme", "val")
    )
    same = "all four numbers are those of the report's validation table" if readme == val else "the numbers differ"
    return CONTRADICTS, f"introduced as test data, headed as validation data; {same}"


def _best_run(runs):
    """The chosen run against the other runs' curves."""
    runs = pd.DataFrame(REPORTED["runs"]).set_index("run")
    dice, iou = runs["val_dice"].idxmax(), runs["val_iou"].idxmax()
    return NOT_TESTABLE, (
        f"read off the curves, run {iou} has the best validation IoU ({runs.loc[iou, 'val_iou']}), run {dice} the best Dice "
        f"({runs.loc[dice, 'val_dice']}), and run 4 a lower loss than run 1 ({runs.loc[4, 'val_loss']} against "
        f"{runs.loc[1, 'val_loss']}): by which score it was chosen is not said, and the gaps are those of one reading"
    )


def _captions(runs):
    """Epochs in captions against epochs on axes."""
    runs = [row for row in REPORTED["runs"] if row["caption_epochs"] != row["axis_epochs"]]
    listed = ", ".join(
        f"run {row['run']}: {row['caption_epochs']} in the caption, {row['axis_epochs']} on the axis" for row in runs
    )
    return CONTRADICTS, listed


def _prevalence(runs):
    """Shares of tumour pixels that the three tables allow, against sets drawn from the cohort."""
    table = tumour_share_table()
    listed = "; ".join(
        f"{row['set']} {row['at least']:.4f} to {row['at most']:.4f}, where {row['slices']:,} of {row['draws']:,} draws of slices"
        for row in table.to_dict("records")
    )
    strange = " and ".join(row["set"] for row in table.to_dict("records") if row["slices"] < UNLIKELY * row["draws"])
    return NOT_TESTABLE, (
        f"if the IoU is pooled over masks, it and the accuracy bound the share of tumour pixels: {listed} fall between. "
        f"So {strange} were not drawn like that, or the IoU is not such an IoU. Without lists and code this can't be settled"
    )


def tumour_share_table():
    """Bounds of each set's tumour share (see `tumour_share_bounds`), and how many random draws from the cohort meet them.

    Columns: set, at least, at most, draws, and how many of so many draws of slices, of patients, and of slices with tumour
    alone lie between; training sets are drawn as four fifths, the others as a tenth.
    """
    slices, rows = cohort_shares(), []
    for name, table in TABLES.items():
        low, high = tumour_share_bounds(table["jacard_coef"], table["accuracy"])
        drawn = slices["train" if name == "train" else "tenth"]
        within = drawn["share"].between(low, high).groupby(drawn["draw"], sort=False).sum()
        counts = dict(zip(("slices", "patients", "slices with tumour"), within, strict=True))
        draws = len(drawn) // drawn["draw"].nunique()
        rows.append({"set": name, "at least": low, "at most": high, "draws": draws, **counts})
    return pd.DataFrame(rows)


@lru_cache(maxsize=1)
def cohort_shares():
    """Tumour shares of sets drawn from the LGG cohort: 'train' (four fifths) and 'tenth', as `findings.tumour_shares`."""
    slices = records.cohort_slices()
    return {"train": findings.tumour_shares(slices, 0.8), "tenth": findings.tumour_shares(slices, 0.1)}


def _accuracy_says_little(runs):
    """Accuracy of a prediction without any tumour, whatever the settings of the network beside it."""
    nearest = _nearest(runs, "report128")
    if nearest is None:
        return NOT_TESTABLE, "no run is scored"
    name, evidence = nearest
    floors = evidence.evaluation.floors
    floor = floors[(floors["floor"] == "all background") & (floors["split"] == "test")]["accuracy"].iloc[0]
    ours = evidence.evaluation.metrics["test"]["accuracy"]["value"]
    status = REPRODUCED if floor > LITTLE else NOT_REPRODUCED
    return status, f"{name}: predicting no tumour at all has a test accuracy of {floor:.4f}, the network {ours:.4f}"


@_from_nearest("report128")
def _overfitting(evidence):
    """Does the validation loss rise after its minimum while the training loss falls?"""
    loss, train_loss = evidence.history["val_loss"], evidence.history["loss"]
    best = int(loss.idxmin())
    end, train_end = loss.tail(END).mean(), train_loss.tail(END).mean()
    rises = end > RISES * loss[best] and train_end < train_loss[best]
    return REPRODUCED if rises else NOT_REPRODUCED, (
        f"validation loss {evaluate.number(loss[best])} at epoch {best + 1}, {evaluate.number(end)} over the last {END} of "
        f"{len(loss)} epochs; training loss {evaluate.number(train_loss[best])} and {evaluate.number(train_end)}"
    )


@_from_nearest("report128")
def _fewer_epochs(evidence):
    """Gap between validation and training loss around epoch 64 and at the end: at a constant rate one run holds both."""
    history = evidence.history
    if len(history) <= SHORT_TRAINING:
        return NOT_TESTABLE, f"the run has no more than {SHORT_TRAINING} epochs"
    gap = (history["val_loss"] - history["loss"]).to_numpy()
    early, late = gap[SHORT_TRAINING - END : SHORT_TRAINING].mean(), gap[-END:].mean()
    return REPRODUCED if early < late else NOT_REPRODUCED, (
        f"validation loss less training loss is {evaluate.number(early)} on average over the ten epochs up to {SHORT_TRAINING}, "
        f"and {evaluate.number(late)} over the last ten of {len(history)}"
    )


def _mixing(runs):
    """What mixing all augmentations does here, in each ablation that has it."""
    why = "the claim comes from another assignment and is about accuracy"
    found = [
        f"{name}: {_mixing_changes(evidence)}"
        for name, evidence in runs.items()
        if evidence.ablation is not None and ablation.PRIMARY in set(evidence.ablation["condition"])
    ]
    if not found:
        return NOT_TESTABLE, f"{why}; there is no ablation with 'all'"
    return (
        NOT_TESTABLE,
        f"{why}. What mixing does here to the mean Dice per validation patient, against no augmentation: {'; '.join(found)}",
    )


def _mixing_changes(evidence):
    """What mixing all augmentations does to the mean Dice per validation patient in one ablation, and its budget."""
    row = ablation.differences(evidence.ablation).set_index("condition").loc[ablation.PRIMARY]
    epochs, seeds = evidence.record["experiment"]["ablation_epochs"], ablation.seeds_of(evidence.ablation)
    budget = f"{epochs} epochs ({seeds}, {row['patients']:.0f} patients)"
    if not ablation.has_learnt(evidence.ablation):
        return f"nothing can be said after {budget}: the network without augmentation has hardly learnt anything"
    return f"{row['difference']:+.3f} ({evaluate.interval(row)}) after {budget}"


def _on_paper(status, why):
    """Judge of a claim decided by the sources themselves."""
    return lambda runs: (status, why)


def _needs_runs(what):
    """Judge of a claim that compares several trainings which are not recorded."""
    return _on_paper(NOT_TESTABLE, f"no recorded run can show it: it needs {what}")


MEANING, TRAINING, AUGMENTATION = "08_definitions", "05_training", "03_augmentation_ablation"
SOURCES = "../book/sources"
ARITHMETIC = (
    Claim("The README's table shows the performance on test data", "README", SOURCES, _readme_table),
    Claim(
        "Dice and IoU of tables 1 to 3 are computed alike, from the same predictions",
        "report, 1-6",
        MEANING,
        _same_quantity,
    ),
    Claim("The mean IoU on test is 0.939", "report, table 3", MEANING, _mean_iou),
    Claim("Training, validation and test were drawn alike and scored alike", "report, 1-1", MEANING, _prevalence),
    Claim("The best model is run 1: 128x128, batch 16, 128 epochs", "report, 1-5", SOURCES, _best_run),
    Claim("Runs 1 and 2 were trained for 100 epochs", "report, 1-5, captions", SOURCES, _captions),
    Claim(
        "Accuracy is above 0.98 in every epoch",
        "report, 1-6",
        SOURCES,
        _on_paper(CONTRADICTS, "the validation curve of run 3 begins at about 0.970"),
    ),
    Claim(
        "Eight augmentations were applied",
        "README",
        SOURCES,
        _on_paper(CONTRADICTS, "the report applied two flips and 90-degree rotations"),
    ),
    Claim(
        "No tumour is predicted on a healthy slice",
        "report, 1-6",
        "11_failures",
        _on_paper(CONTRADICTS, "the report's own figure of that slice shows specks"),
    ),
    Claim(
        "False positive and false negative are what the report says they are",
        "report, 1-4",
        SOURCES,
        _on_paper(CONTRADICTS, "the two explanations are exchanged; the formulas of IoU and Dice are right"),
    ),
)
# The report's run 6 is the one that a recorded run follows setting by setting; its numbers are read off curves.
READ_OFF = 0.01
RUN_6 = next(run for run in REPORTED["runs"] if run["run"] == 6)
NUMBERS = (
    *(
        Claim(
            f"{metric} is {value:g} on {name}",
            REPORTED["tables"][name]["source"],
            "07_replication",
            _number_claim(name, metric),
        )
        for name, table in TABLES.items()
        for metric, value in table.items()
    ),
    *(
        Claim(
            f"Run 6: {metric} is about {RUN_6[key]:g} on {name}",
            "report, 1-5, curves",
            "07_replication",
            _curve_claim(name, metric, RUN_6[key]),
        )
        for name, metric, key in (
            ("train", "dice_coef", "train_dice"),
            ("val", "dice_coef", "val_dice"),
            ("val", "jacard_coef", "val_iou"),
        )
    ),
)
CONCLUSIONS = (
    Claim("A high accuracy says little here", "report, 1-6", "06_evaluation", _accuracy_says_little),
    Claim(
        "The long training overfits: validation loss rises while training loss falls",
        "report, 1-5",
        TRAINING,
        _overfitting,
    ),
    Claim("Fewer epochs overfit less", "report, 1-5", TRAINING, _fewer_epochs),
    Claim("Mixing all augmentations hurts", "report, 1-3", AUGMENTATION, _mixing),
    Claim("A larger batch overfits more", "report, 1-5", TRAINING, _needs_runs("runs with batch 16 and 32")),
    Claim(
        "Dropout calms overfitting but does not improve results",
        "report, 1-5",
        TRAINING,
        _needs_runs("runs with dropout 0, 0.1 and 0.2"),
    ),
    Claim(
        "64x64 is worse than 128x128",
        "report, 1-5",
        TRAINING,
        _needs_runs("runs at both sizes, scored on one grid"),
    ),
)
EMPIRICAL = (*NUMBERS, *CONCLUSIONS)


def judge(runs, claims=(*ARITHMETIC, *EMPIRICAL)):
    """Judge claims by runs (name -> Evidence): a table claim, source, status, evidence, page.

    On anything but the LGG cohort only what the sources themselves decide is judged: neither a phantom nor other
    patients can confirm or refute the report.
    """
    others = sorted({evidence.kind for evidence in runs.values()} - {"LGG cohort"})
    rows = []
    for claim in claims:
        status, why = claim.judge(runs)
        if others and claim in EMPIRICAL:
            status, why = NO_VERDICT, f"{why} (on: {', '.join(others)})"
        rows.append(
            {"claim": claim.text, "source": claim.source, "status": status, "evidence": why, "page": claim.page}
        )
    return pd.DataFrame(rows)


def implied_dice():
    """For each reported pair, the Dice that its IoU implies: set, IoU, Dice reported, Dice implied, difference."""
    rows = [
        {
            "set": name,
            "IoU reported": table["jacard_coef"],
            "Dice reported": table["dice_coef"],
            "Dice implied by IoU": metrics.dice_from_iou(table["jacard_coef"]),
        }
        for name, table in TABLES.items()
    ]
    return pd.DataFrame(rows).assign(difference=lambda table: table["Dice reported"] - table["Dice implied by IoU"])


def in_short(recorded):
    """What the records say, in a few Markdown bullets; recorded: name -> Evidence, as from `load_records`."""
    said = (
        (_short_beside_report, {"report64"}),
        (_short_leak, {"leak-slice", "leak-patient"}),
        (_short_chance, {"leak-patient"}),
        (_short_mixing, {"ablation"}),
        (_short_recipe, {"leak-patient", "recipe-cv"}),
        (_short_tumour_slices, {"report64"}),
    )
    found = [say(recorded) for say, needed in said if needed <= recorded.keys()]
    counts = judge(recorded)["status"].value_counts()
    listed = ", ".join(f"{count} {PLURAL.get(name, name)}" for name, count in counts.items())
    tally = f"Of {counts.sum()} claims and numbers: {listed}."
    return "\n".join(f"- {sentence}" for sentence in (tally, *found, _short_arithmetic()))


def beyond_resampling(evidence):
    """Reported test scores beside ours on the network's own grid and on the scoring grid: grid, and `findings.beyond_resampling`."""
    size, score_size = (evidence.record["experiment"][name] for name in ("size", "score_size"))
    scored = {f"{size}x{size}": evidence.own_grid, f"{score_size}x{score_size}": evidence.evaluation.per_slice}
    tables = [
        findings.beyond_resampling(table[table["split"] == "test"], TABLES["test"]).assign(grid=grid)
        for grid, table in scored.items()
    ]
    columns = ["grid", "metric", "reported", "reproduced", "difference", "slices", "patients", "beyond"]
    return pd.concat(tables, ignore_index=True)[columns]


def _short_beside_report(recorded):
    """The report's test scores beside those of the run that follows its run 6."""
    rows = beyond_resampling(recorded["report64"])
    scores = "; ".join(
        f"{metric} {' and '.join(f'{row.reproduced:.3f} on the {row.grid} grid' for row in on_grids.itertuples())}, "
        f"{on_grids['reported'].iloc[0]:.3f} there"
        for metric, on_grids in rows.groupby("metric")
    )
    pooled = recorded["report64"].evaluation.metrics["test"]
    return (
        "**Random slices, the likeliest reading of the report.** A network with the settings of its run 6 (64x64, dropout 0.2) "
        f"beside its best model (128x128, none), on test, scored as we guess that it scored, over many orders of the "
        f"slices: {scores}. Two test sets drawn alike "
        f"are within {rows['slices'].min():.3f} to {rows['patients'].max():.3f} of each other in 95 of 100 draws, by score, grid and "
        f"what is drawn; {rows['beyond'].sum()} of these {len(rows)} differences are larger. The grid (ours 64x64, its 128x128) "
        "counts; so does the definition: pooled over all pixels, the same test predictions have a Dice of "
        f"{pooled['dice_pooled']['value']:.3f} and an IoU of {pooled['iou_pooled']['value']:.3f}. The report's test scores are "
        "neither confirmed nor refuted."
    )


def _short_leak(recorded):
    """What slices of known patients add to a pooled Dice."""
    tables = [recorded[name].evaluation.per_slice for name in ("leak-slice", "leak-patient")]
    row = findings.leak_effect(findings.paired_slices(*tables)).set_index("score").loc["Dice pooled"]
    return (
        f"**Patients not seen before.** The same slices, the same recipe: pooled Dice {row['by slice']:.3f} when other slices of "
        f"the same patients were in training, {row['by patient']:.3f} when none were ({row['difference']:+.3f}, "
        f"{evaluate.interval(row)}; one seed). Part of that may be that training then had slices of all patients, not of 7 in 10. "
        "The report does not say which of the two it measured."
    )


def _short_chance(recorded):
    """How much a test set of a tenth of the patients says."""
    per_patient = recorded["leak-patient"].evaluation.per_patient
    size = round(len(per_patient) / 10)
    low, high = np.quantile(findings.draws_of_patients(per_patient, size), (0.025, 0.975))
    return (
        f"**The luck of the draw.** Of test sets of {size} patients, predicted by networks trained alike, 95 % have a mean Dice "
        f"between {low:.2f} and {high:.2f}; all {len(per_patient)} together have {per_patient['dice'].mean():.3f}."
    )


def _short_mixing(recorded):
    """What mixing all augmentations does, at each budget that is recorded."""
    five_times = [_mixing_changes(recorded[name]) for name in ("ablation", "ablation-long") if name in recorded]
    once = recorded.get("ablation-composed")
    return (
        f"**Mixing all augmentations** changes the mean Dice per validation patient by {' and by '.join(five_times)}"
        f"{f'; with every slice interpolated once in place of up to five times, by {_mixing_changes(once)}' if once else ''}. "
        "The patients are the same, and the luck of other seeds is not in the intervals."
    )


def _short_recipe(recorded):
    """What the recipe that was chosen and frozen reaches over all patients."""
    patients = [recorded[name].evaluation.per_patient for name in ("leak-patient", "recipe-cv")]
    gain = recipe.gain(recipe.before_and_after(*patients))
    scores = recorded["recipe-cv"].evaluation.metrics["test"]
    return (
        f"**Another recipe**, whose scaling was chosen on {recipe.load_attempts()['patient'].nunique()} of the patients, once the "
        "failures of all had been seen, and which was frozen before the final run, has a mean Dice of "
        f"{evaluate.with_interval(scores['dice_patient_mean'])} over {len(patients[1])} patients, median "
        f"{evaluate.number(scores['dice_patient_median']['value'])}; against the network it started from, the mean changes by "
        f"{gain['difference']:+.3f} ({evaluate.interval(gain)}). {gain['failed after']} patients are below {recipe.FAILED}."
    )


def _short_tumour_slices(recorded):
    """What a validation set of slices with tumour alone would look like, beside the report's."""
    val = recorded["report64"].evaluation.per_slice.query("split == 'val'")
    whole, tumour = findings.with_and_without_empty(val).values()
    moves = "rises" if tumour["dice_coef"] > whole["dice_coef"] else "falls"
    return (
        f"**The report's validation set looks like another kind of set.** Its accuracy is {TABLES['val']['accuracy']:.4f} there, "
        f"{TABLES['test']['accuracy']:.4f} on test. Our network has {whole['accuracy']:.4f} on its validation slices, and "
        f"{tumour['accuracy']:.4f} on those of them that have tumour. A validation set of tumour slices would explain the report's "
        f"loss and accuracy there, but not its Dice, below that of test: ours {moves}, from {whole['dice_coef']:.3f} to "
        f"{tumour['dice_coef']:.3f}. Harder patients would be another explanation; without lists neither can be told."
    )


def _short_arithmetic():
    """What the sources' own numbers rule out."""
    train = TABLES["train"]
    return (
        f"**The report's numbers do not fit together.** No one definition gives its training Dice of {train['dice_coef']} with "
        f"its IoU of {train['jacard_coef']}; the project page shows validation numbers as test numbers."
    )
