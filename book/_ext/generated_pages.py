"""Sphinx extension: the parts of prose pages that are made from the package and the records."""

import contextlib
import io
import json
import re
import runpy
import shutil
from functools import cache
from html import escape
from pathlib import Path

from lggseg_utils import metrics, plots, records, runs, verdict
from lggseg_utils.predict import REFERENCE
from lggseg_utils.settings import PROFILES, Experiment, profile_names

# In the order in which data flow through them.
MODULES = (
    "data",
    "preprocess",
    "augment",
    "model",
    "metrics",
    "train",
    "evaluate",
    "stats",
    "settings",
    "runs",
)
MODULES += ("experiments", "verdict", "predict", "plots", "viewer", "book")
NEW_PATIENTS = ("new-patients", "new-patients-1", "new-patients-2")
INTERVAL = r" \([^)]* to [^)]*\)"  # chapter 7 shows them
REST = " on the definition"  # the lead says it
# Drawing thousands of random sets takes seconds, and several parts show the same answers.
judge_once = cache(lambda name: verdict.judge(verdict.QUESTIONS[name]))


def answers_table():
    """Return every question about the report with its answer as a Markdown table."""
    rows = [
        (question["question"], judge_once(name).answer)
        for name, question in verdict.QUESTIONS.items()
    ]
    return (
        "\n".join(
            [
                "| question | answer |",
                "|---|---|",
                *(f"| {text} | **{answer}** |" for text, answer in rows),
            ]
        )
        + "\n"
    )


def answers_grid():
    """Return the picture of the opening page as HTML: a row per question with its answer, the reported and our number."""
    lines = []
    for name, question in verdict.QUESTIONS.items():
        found, reported = judge_once(name), question["reported"]
        # Without a reported number, the question takes that column too.
        width, number = (
            (' colspan="2"', "") if reported == "–" else ("", f"<td>{unbroken(reported)}</td>")
        )
        cells = (
            f'<td><span class="chip {found.answer.split()[0]}">{found.answer.removesuffix(REST)}</span></td>',
            f'<th scope="row"{width}>{unbroken(question["topic"])}</th>',
            number,
            f"<td>{unbroken(re.sub(INTERVAL, '', found.number))}</td>",
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(
        f'<th scope="col">{name}</th>' for name in ("Answer", "Question", "Reported", "Found")
    )
    return f'<table class="answers"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>\n'


def unbroken(text):
    """Return a text as HTML in which neither a score nor an interval is broken between two lines."""
    pieces = re.findall(r"(?:Dice|IoU|seed) [\d.–]+,?|\([^)]*\),?|\S+", text)
    return " ".join(f'<span class="unbroken">{escape(piece)}</span>' for piece in pieces)


def lead():
    """Return the answer of the opening page as Markdown."""
    seeds = runs.read_csv(records.RECORDS / "seeds128.csv.gz").query("size == 128").groupby("seed")
    scored = [
        records.load_record("report128").per_slice.query("split == 'test'"),
        *(table for _, table in seeds),
    ]
    dice = [
        metrics.dice_and_iou(table, each)[0]
        for table in scored
        for each in verdict.SCORINGS.values()
    ]
    answers = [judge_once(name).answer for name in verdict.QUESTIONS]
    return (
        "A course report {cite:p}`solouki` trained a {term}`U-Net` to outline brain tumours in MRI {term}`slices <slice>`. "
        f"**Its claims hold in {answers.count(verdict.HOLDS)} of {len(answers)} questions; in one, two further seeds disagree.** "
        f"Its best model, trained three times, has a test {{term}}`Dice` of {min(dice):.2f}–{max(dice):.2f} on patients it has seen, "
        "depending on {term}`seed` and definition.\n"
    )


def three_numbers():
    """Return the three numbers of the opening page as HTML."""
    lost = judge_once("new-patients").table.iloc[0]
    tables = [records.load_record(name).per_patient["dice"] for name in NEW_PATIENTS]
    failed = [(dice < 0.5).sum() for dice in tables]
    ours = records.load_record("ensemble-cv").per_patient["dice"].mean()
    numbers = {
        f"{lost['difference']:.2f}": "Dice lost on new patients",
        f"{min(failed)}–{max(failed)} of {len(tables[0])}": "new patients below Dice 0.5",
        f"{ours:.2f}": "mean Dice with our recipe",
    }
    items = "".join(
        f"<div><dt>{number}</dt><dd>{text}</dd></div>" for number, text in numbers.items()
    )
    return f'<dl class="numbers">{items}</dl>\n'


def reference_text():
    """Return what the records say of the reference network as Markdown: its settings, its training and its scores."""
    record, experiment = runs.read_record(REFERENCE), runs.recorded_experiment(REFERENCE)
    scores = json.loads((REFERENCE / "metrics.json").read_text(encoding="utf-8"))
    split = runs.read_csv(REFERENCE / "split.csv")
    counts = split["split"].value_counts()
    dice = {name: plots.score(table["dice_patient_mean"]) for name, table in scores.items()}
    chosen = runs.read_csv(records.RECORDS / "search.csv.gz")["patient"].unique()
    seen = split.loc[split["split"] == "test", "patient"].isin(chosen).sum()
    repeated = plots.score(records.load_record("mirrored-cv").metrics["test"]["dice_patient_mean"])
    return (
        f"Trained on {counts['train']} patients outside the {{doc}}`sample <data_card>`, with {counts['val']} others for validation: "
        f"{experiment.size}x{experiment.size} pixels, {experiment.filters} filters at the first level, {experiment.epochs} epochs, "
        f"{record['training']['seconds'] / 60:.0f} minutes, commit `{record['git_commit']}`.\n\n"
        "| scored on | mean Dice per patient (95% interval) |\n|---|---|\n"
        f"| the {counts['test']} patients of the sample, new to it; settings were chosen on {seen} of them | {dice['test']} |\n"
        f"| its {counts['train']} training patients | {dice['train']} |\n"
        f"| all 110 patients, by networks of the same recipe that had not seen them (record `mirrored-cv`) | {repeated} |\n"
    )


def speed_text():
    """Return how fast networks are trained and a volume is predicted, as measured in benchmarks/, as Markdown."""
    folder = runs.REPOSITORY / "benchmarks"
    lines = [
        "| network | precision | slices a second | against plain Keras (float32) | against PyTorch | of the peak |",
        "|---|---|---|---|---|---|",
    ]
    for path in sorted(folder.glob("training-*.json")):
        measured = json.loads(path.read_text(encoding="utf-8"))
        precision = measured["precision"].removeprefix("mixed_")
        for name, case in measured.items():
            if isinstance(case, dict) and "rounds" in case:
                share = case["gflops"] / measured["peak_gflops"][precision]
                ratios = (
                    f"{case['package_over_plain_keras']:.2f} | {case['package_over_pytorch']:.2f}"
                )
                speed = case["slices_a_second"]["package"]
                lines.append(f"| {name} | {precision} | {speed:.0f} | {ratios} | {share:.0%} |")
    seconds = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    return "\n".join(lines) + (
        f"\n\n`lggseg predict` takes {seconds['predict_seconds']:.1f} seconds for a volume of {seconds['volume']} slices, "
        f"{seconds['start_seconds']:.1f} of them for the start of Python and TensorFlow.\n"
    )


def settings_table():
    """Return every setting as a Markdown table: name, default, allowed values, meaning."""
    lines = ["| setting | default | allowed | meaning |", "|---|---|---|---|"]
    for name, entry in Experiment.model_json_schema()["properties"].items():
        if name not in ("profile", "seed"):
            allowed = ", ".join(f"`{value}`" for value in entry.get("enum", [])) or entry["type"]
            lines.append(
                f"| `{name}` | `{json.dumps(entry['default'])}` | {allowed} | {entry['description']} |"
            )
    return "\n".join(lines) + "\n"


def profiles_text():
    """Return every profile as it stands in its file."""
    texts = {
        name: (PROFILES / f"{name}.yml").read_text(encoding="utf-8") for name in profile_names()
    }
    return "\n".join(f"### `{name}`\n\n```yaml\n{text}```\n" for name, text in texts.items())


def modules_text():
    """Return a section per module that describes its public functions and classes, for autodoc."""
    sections = (f".. automodule:: lggseg_utils.{name}\n   :members:\n" for name in MODULES)
    return "\n".join(
        f"## `{name}`\n\n```{{eval-rst}}\n{text}```\n"
        for name, text in zip(MODULES, sections, strict=True)
    )


def downloads_table():
    """Return a Markdown table of the files of every record, each a link."""
    lines = ["| record | files |", "|---|---|"]
    for name in records.record_names():
        files = sorted(path.name for path in (records.RECORDS / name).iterdir())
        lines.append(
            f"| `{name}` | {', '.join(f'{{download}}`{file} <records/{name}/{file}>`' for file in files)} |"
        )
    return "\n".join(lines) + "\n"


def walk_output():
    """Run book/walk.py and return what it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        runpy.run_path(str(runs.REPOSITORY / "book" / "walk.py"))
    return printed.getvalue()


GENERATED = {
    "walk": walk_output,
    "lead": lead,
    "answers": answers_grid,
    "numbers": three_numbers,
    "reference": reference_text,
    "speed": speed_text,
    "settings": settings_table,
    "profiles": profiles_text,
    "modules": modules_text,
    "downloads": downloads_table,
}


def write(app):
    """Write the parts, and what can be downloaded, beside the pages that include them."""
    pages = Path(app.srcdir, "book")
    (pages / "generated").mkdir(exist_ok=True)
    for name, make in GENERATED.items():
        (pages / "generated" / f"{name}.txt").write_text(make(), encoding="utf-8")
    for folder in (records.RECORDS, REFERENCE):
        shutil.copytree(
            folder, pages / folder.name, ignore=shutil.ignore_patterns("*.md"), dirs_exist_ok=True
        )


def setup(app):
    """Register the extension."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
