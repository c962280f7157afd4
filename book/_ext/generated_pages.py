"""Sphinx extension: the parts of prose pages that are made from the package and the records."""

import contextlib
import io
import json
import re
import runpy
import shutil
from functools import cache
from pathlib import Path

import numpy as np
from jinja2 import Environment

from lggseg_utils import (
    arms,
    cards,
    data,
    exploration,
    plots,
    predictions,
    records,
    runs,
    self_test,
    sources,
    verdict,
)
from lggseg_utils.arms import CLAIMS
from lggseg_utils.predict import REFERENCE
from lggseg_utils.settings import PROFILES, Experiment, profile_names

# In the order in which data flow through them.
MODULES = (
    "data",
    "preprocess",
    "augment",
    "model",
    "metrics",
    "losses",
    "train",
    "evaluate",
    "stats",
    "settings",
    "runs",
    "records",
    "experiments",
    "sources",
    "arms",
    "verdict",
    "exploration",
    "self_test",
    "predictions",
    "cards",
    "volumes",
    "predict",
    "plots",
    "viewer",
    "chapters",
    "myst",
    "book",
)
VERDICT = "../notebooks/07_verdict.html"
HTML = Environment(autoescape=True)


def markdown_table(heads, rows):
    """Return a Markdown table; rows: a sequence of cells each."""
    lines = ["| " + " | ".join(map(str, cells)) + " |\n" for cells in (heads, *rows)]
    return lines[0] + "|" + "---|" * len(heads) + "\n" + "".join(lines[1:])


def answers_table():
    """Return every question about the report with its answer as a Markdown table."""
    rows = []
    for question in CLAIMS["questions"]:
        found = verdict.judge(question["id"])
        strength = found.strength or "–"
        rows.append((question["question"], f"**{found.answer}**", strength))
    return markdown_table(("question", "answer", "strength"), rows)


FOLDED = HTML.from_string("""<details class="all-questions"><summary>All {{ rows | length }} \
questions</summary>
<table class="answers"><thead><tr>{% for head in heads %}<th scope="col">{{ head }}</th>\
{% endfor %}</tr></thead><tbody>
{% for row in rows %}<tr><td><span class="chip {{ row.css }}">{{ row.answer }}</span></td>
<th scope="row"><a href="{{ page }}#{{ row.id }}">{{ row.question }}</a>\
{% if row.strength %}<br><span class="strength">{{ row.strength }}</span>{% endif %}</th>
<td>{{ row.reported }}</td><td>{{ row.number }}</td></tr>
{% endfor %}</tbody></table>
<p class="strength">Below each decided question stands how firm the answer is. <em>Not the \
report's model</em>: a network unlike the report's decides it. An answer <em>hangs on</em> what \
would change it: the definition of a score; augmentation; leaving out the trainings whose loss \
jumped at the end (spikes); the grid on which masks are compared; one training; a reading of a \
sentence or chart, and the reading error; the margin below which differences do not matter. \
<a href="criteria.html">The criteria</a> explain each.</p>
</details>
""")


def all_questions():
    """Return the opening page's table of all questions as HTML that unfolds."""
    rows = []
    for question in CLAIMS["questions"]:
        found = verdict.judge(question["id"])
        css = cards.css_class(found.answer)
        number = cards.in_words(question, found)
        shown = {"answer": found.answer, "strength": found.strength, "number": number, "css": css}
        rows.append({**question, **shown})
    heads = ("Answer", "Question", "Reported", "Found")
    return FOLDED.render(rows=rows, heads=heads, page=VERDICT)


GROUPS = """\
- **{numbers}: the test scores come out; the training scores do so under certain conditions, the
  validation scores only just.**
  - *Test:* our [plain networks](networks.md) have a Dice of {test:.3f} ± {half:.3f} (reported:
    {reported:.3f}; ±: where one more training would lie, 39 times in 40). They are smaller than
    its own, trained without the augmentation that it describes, and tested on new slices of
    patients they know. But {accepted} of {others} trainings of ours with other settings pass the
    same test, so this does not show how its network was trained. Three networks
    with its size and augmentation have {described}.
  - *Training:* plain networks give its scores, within {margin}, if their predictions are enlarged
    to its 128x128; on their own 64x64 grid they score higher. With flips and quarter turns, and
    nothing else changed, their Dice is {augmented_train:.3f} (without: {train:.3f}; reported:
    {train_reported:.3f}).
  - *Validation:* one of {ways} [ways of counting](criteria.md), itself found by searching, gives
    its scores, but only just: a Dice of {val:.3f} ± {val_half:.3f} (reported: {val_reported:.3f}),
    from probabilities slice by slice and on slices with tumour alone, beside an IoU from masks
    batch by batch. On this 128x128 grid none of our plain networks reaches that Dice (the best:
    {val_best:.3f}); on their own 64x64 grid, {val_own} of {val_scored} do. Leaving out one training
    can undo the answer ([chapter 8](../notebooks/08_seeds.ipynb)).
  - *Run 6*, at 64x64 with dropout 0.2: its curves end where small networks of ours do, which
    scatter widely (Dice {run_6:.3f} ± {run_6_half:.3f}; read off the curve: {run_6_reported}). With
    any one of them left out, nothing is decided.
  - Most of this we found by searching. Trainings made since repeat the earlier ones: of the
    losses, accuracies and IoUs of those that did not end in a spike, {agreeing} of {since} lie
    where those say. But what we had predicted of the report's own numbers came true only in part
    ([chapter 7](../notebooks/07_verdict.ipynb)).
- **{advice}: without augmentation or dropout, long training overfits; mixing all augmentations
  hurts short training.**
  The validation loss of the plain networks ends at {rise:.2f} times its lowest. With the report's
  flips and quarter turns, and nothing else changed, it ends at {augmented}, which decides nothing.
  Mixing eleven augmentations costs the [small network](networks.md) of 15 epochs {mixing:.3f} of
  Dice (the report says it of accuracy, in another assignment). Two of four claims on dropout
  hold: it narrows the gap between the losses, and makes the curve of the Dice noisier. The rest
  (batch size, resolution, dropout's effect on the scores and on the curve of the loss) stays
  undecided with so few seeds.
- **{patients}: a network does worse on them than on patients it knows.** The small network loses
  {lost:.3f} of Dice (95% interval {low:.3f} to {high:.3f}); a plain network, nearer to the
  report's, loses {plain_lost:.3f} (one seed). The report does not say whether the patients of its
  test set appear in training as well.
- **{consistency}: its Dice and IoU were counted in two ways, or one is misprinted.** On training,
  an IoU of {iou:.3f} allows a Dice of {implied:.3f} at most; the report prints {dice:.3f}. And if
  a chart is read in one of two ways, its validation set holds more tumour than a random tenth
  would.
"""


def groups():
    """Return the answer of the opening page as Markdown: a line for each group of questions."""
    judged = {question["id"]: verdict.judge(question["id"]) for question in CLAIMS["questions"]}
    test = judged["test-scores"].table.iloc[0]
    validation, run_6 = (
        judged[name].table.set_index("answer").loc[verdict.Verdict.REPLICATED]
        for name in ("validation-scores", "run-6")
    )
    loss = judged["new-patients"].table.iloc[0]
    pair = judged["one-quantity"].table.set_index("set").loc["train"]
    since = predictions.new_trainings("plain64")["met"]
    others = numbers_tried().query("kind == 'other settings'").set_index("set")
    on_test = others.loc["test", "answer"]
    augmented = [arms.training_score(name, "rise") for name in arms.trainings("augmented64")]
    described = _dice(arms.trainings("augmented128"), "test", "masks, by batch")
    plain_validation, own_grid = (
        _dice(arms.trainings("plain64"), "val", verdict.JOINED, grid) for grid in ("128", "own")
    )
    augmented_training = verdict.judge_arm(
        verdict.QUESTIONS["training-scores"], "augmented64"
    ).iloc[0]
    first = {group["id"]: _link(group) for group in CLAIMS["groups"]}
    return GROUPS.format(
        **first,
        test=test["dice_mean"],
        half=test["dice_half"],
        reported=sources.TABLES["test"]["dice_coef"],
        rise=judged["overfitting"].table["ratio"].iloc[0],
        augmented=f"{min(augmented):.2f} to {max(augmented):.2f} times",
        mixing=judged["mixing"].table["difference"].iloc[0],
        lost=loss["difference"],
        plain_lost=verdict.compare_nearer(verdict.QUESTIONS["new-patients"])["difference"],
        low=loss["low"],
        high=loss["high"],
        iou=pair["iou"],
        implied=pair["implied"],
        dice=pair["dice"],
        accepted=(on_test == verdict.Verdict.REPLICATED).sum(),
        others=len(on_test),
        described=", ".join(f"{dice:.3f}" for dice in described),
        train=judged["training-scores"].table.iloc[0]["dice_mean"],
        augmented_train=augmented_training["dice_mean"],
        train_reported=sources.TABLES["train"]["dice_coef"],
        val_best=plain_validation.max(),
        val_own=(own_grid >= sources.TABLES["val"]["dice_coef"]).sum(),
        val_scored=np.isfinite(own_grid).sum(),
        margin=CLAIMS["margin"],
        ways=len(judged["validation-scores"].table),
        val=validation["dice_mean"],
        val_half=validation["dice_half"],
        val_reported=sources.TABLES["val"]["dice_coef"],
        run_6=run_6["dice_mean"],
        run_6_half=run_6["dice_half"],
        run_6_reported=verdict.QUESTIONS["run-6"]["claims"][0]["dice"],
        agreeing=since.sum(),
        since=len(since),
    )


def _dice(names, part, way, grid="128"):
    """Return the Dice of trainings, float (n,), under a way of counting, NaN where not scored.

    part: the set; of validation, slices with tumour count.
    """
    definition = verdict.WAYS[way]["dice"]
    return arms.scores_of(names, part, exploration.SCORED_ON[part], ("dice", *definition), grid)


def _link(group):
    """Return a group's title as a link to the first of its cards."""
    name = next(each["id"] for each in CLAIMS["questions"] if each["group"] == group["id"])
    return f'<a href="{VERDICT}#{name}">{group["title"]}</a>'


def rules_text():
    """Return the rules in force as Markdown."""
    rules = []
    for name, text in CLAIMS["in_force"].items():
        first, *others = map(_one_line, text.strip().splitlines())
        rules += [f"- **{name.capitalize()}.** {first}", *(f"\n  {other}" for other in others)]
    return "\n".join(rules) + "\n"


def amendments_text():
    """Return how the rules were amended, as Markdown."""
    return "".join(_amendment(each) + "\n" for each in CLAIMS["amendments"])


def _amendment(change):
    """Return a change of a rule as a Markdown list item: what, when, and what was known."""
    known = ", ".join(f"`{name}`" for name in change.get("known", []))
    when = f"{change['when'].replace('T', ' at ')} UTC"
    so_far = f"known then: {known}" if known else "before any training for it was scored"
    return f"- **{change['rule'].capitalize()}.** {_one_line(change['what'])} ({when}, {so_far}.)"


def _one_line(text):
    """Return a text of the criteria as it stands on a page."""
    text = " ".join(text.split())
    for plain, set_in_type in {"+-": "±", "^2": "²", "sqrt": "√"}.items():
        text = text.replace(plain, set_in_type)
    return text


def limits_text():
    """Return the numbers that the rules use, as Markdown."""
    limits = {
        "margin": "differences in Dice or IoU smaller than this do not matter",
        "wide": "an interval that reaches further to either side is too wide to say anything",
        "seeds": "fewer splits, or pairs of seeds, than this decide nothing",
        "spike": "a training whose last loss is more than this times the median of its last 20 "
        "epochs ended in a spike, and does not judge the report's tables",
        "reading_error": "numbers read off a chart are good to this",
    }
    return "\n".join(f"- **{CLAIMS[name]}**: {text}." for name, text in limits.items()) + "\n"


def groups_of_trainings_table():
    """Return the groups of trainings that judge the report's numbers, as a Markdown table."""
    rows = []
    for name, entry in CLAIMS["arms"].items():
        shared = entry["what"].removesuffix(" (to come)")
        rows.append((f"`{name}`", len(arms.trainings(name)), shared))
    return markdown_table(("name", "trainings", "what they share"), rows)


MOST_COMPARED = 6  # trainings: 10 pairs of groups of three; of 12 there would be 9,240
ANSWERS_TO_NUMBERS = ("replicated", "not decided", "not replicated")


@cache
def numbers_tried_by_way():
    """Return how the rule for numbers judges our own trainings, as `try_rule_for_numbers`."""
    return self_test.try_rule_for_numbers(arms.with_other_settings())


def numbers_tried():
    """Return how the rule for numbers judges our own trainings, as `self_test.by_table`."""
    return self_test.by_table(numbers_tried_by_way())


def test_of_numbers_table():
    """Return how the rule for numbers judges our own trainings, as a Markdown table."""
    heads = ("in the report's place", "table", "trainings", *ANSWERS_TO_NUMBERS)
    rows = []
    for (kind, part), answers in numbers_tried().groupby(["kind", "set"], sort=False):
        counts = [(answers["answer"] == answer).sum() for answer in ANSWERS_TO_NUMBERS]
        rows.append((kind, plots.SET_NAMES[part], len(answers), *counts))
    return markdown_table(heads, rows)


def other_settings_text():
    """Return which trainings with other settings took the report's place, and which fail."""
    tried = numbers_tried().query("kind == 'other settings'")
    fail = tried[(tried["set"] == "test") & (tried["answer"] == verdict.Verdict.NOT_REPLICATED)]
    names, failing = (
        ", ".join(f"`{name}`" for name in table["training"].unique()) for table in (tried, fail)
    )
    return f"Other settings: {names}. Those that fail on test: {failing}.\n"


def searched_way_text():
    """Return how the way found by searching judges our own trainings on validation."""
    tried = numbers_tried_by_way().query("set == 'val'")
    tried = tried[tried["way"] == verdict.JOINED]

    def counts(some):
        replicated = (some["answer"] == verdict.Verdict.REPLICATED).groupby(some["kind"])
        return [
            f"{replicated.sum()[kind]} of {replicated.size()[kind]}"
            for kind in ("same settings", "other settings")
        ]

    same, other = counts(tried)
    same_of_four, other_of_four = counts(tried[tried["splits"] == 4])
    return (
        "The answer on the report's validation scores rests on one way alone, the one found by "
        f"searching. On validation, that way calls {same} trainings with the same settings "
        f"replicated, and {other} with other settings. Most of the rest it leaves undecided, since "
        "only three splits are left to judge them. Where four judge, it calls "
        f"{same_of_four} and {other_of_four} replicated: too few to tell the settings apart.\n"
    )


def ways_table():
    """Return what each way of counting says of the report's tables, as a Markdown table."""
    table = exploration.answers_by_way()
    sets = [f"{plots.SET_NAMES[part]}, {subset}" for part, subset in table.columns]
    return markdown_table(("Dice and IoU counted by", *sets), table.itertuples(name=None))


def test_of_comparisons_table():
    """Return how the rules for differences and ratios judge our own trainings, as Markdown."""
    plain, dropout = (arms.ended_calmly(arms.trainings(name)) for name in ("plain64", "dropout64"))
    tests = {
        "differences (Dice on training slices)": self_test.try_rule_for_differences,
        "ratios (gap between the losses)": self_test.try_rule_for_ratios,
    }
    heads = ("rule", "groups of three trainings with", "comparisons", "difference found")
    rows = []
    for rule, compare in tests.items():
        for kind, group in compare(plain[:MOST_COMPARED], dropout).groupby("kind", sort=False):
            rows.append((rule, kind, len(group), f"{group['found'].mean():.0%}"))
    return markdown_table(heads, rows)


def first_edition_table():
    """Return the answers of the first edition beside the new ones, as a Markdown table."""
    heads = ("question", "first edition", "second edition", "why it was asked again")
    rows = []
    for name, old in CLAIMS["first_edition"].items():
        question, answer = verdict.QUESTIONS[name]["question"], verdict.judge(name).answer
        rows.append((question, old["answer"], answer, old["why"]))
    return markdown_table(heads, rows)


def commands_table():
    """Return the records with commit, minutes and command, as a Markdown table.

    Records that differ in their seed alone share a row.
    """
    cohort = len(data.patient_table(runs.read_csv(records.RECORDS / "cohort.csv")))
    together = {}
    for name in records.record_names():
        found = runs.read_record(records.RECORDS / name)
        ended = found.get("ended", {}).get("git_commit", found["git_commit"])
        commits = ", ".join(f"`{commit}`" for commit in dict.fromkeys((found["git_commit"], ended)))
        seed = str(found["experiment"]["seed"])
        command = re.sub(r"--seed \d+", "--seed SEED", found["command"])
        backend = "KERAS_BACKEND=jax " if "jax" in found["versions"] else ""
        patients = found["data"]["patients"]
        note = "" if patients == cohort else f" (on {patients} patients, see records/README.md)"
        seconds = found.get("training", {}).get("seconds")
        minutes = "–" if seconds is None else f"{seconds / 60:.0f}"
        key = (backend + command, commits, note)
        together.setdefault(key, []).append((name, seed, minutes))
    rows = []
    for (command, commits, note), members in together.items():
        names, seeds, minutes = (", ".join(each) for each in zip(*members, strict=True))
        shown = command.replace("SEED", seeds)
        rows.append((names, commits, minutes, f"`{shown}`{note}"))
    return markdown_table(("record", "commit", "minutes", "command"), rows)


def reference_text():
    """Return what the records say of the reference network as Markdown: its settings, its training
    and its scores.
    """
    record, experiment = runs.read_record(REFERENCE), runs.recorded_experiment(REFERENCE)
    scores = json.loads((REFERENCE / "metrics.json").read_text(encoding="utf-8"))
    split = runs.read_csv(REFERENCE / "split.csv")
    counts = split["split"].value_counts()
    dice = {name: plots.score(table["dice_patient_mean"]) for name, table in scores.items()}
    chosen = runs.read_csv(records.RECORDS / "search.csv.gz")["patient"].unique()
    seen = split.loc[split["split"] == "test", "patient"].isin(chosen).sum()
    repeated = plots.score(records.load_record("mirrored-cv").metrics["test"]["dice_patient_mean"])
    rows = (
        (
            f"the {counts['test']} patients of the sample, new to it; settings were chosen on "
            f"{seen} of them",
            dice["test"],
        ),
        (f"its {counts['train']} training patients", dice["train"]),
        (
            "all 110 patients, by networks of the same recipe that had not seen them (record "
            "`mirrored-cv`)",
            repeated,
        ),
    )
    return (
        f"Trained on {counts['train']} patients outside the {{doc}}`sample <data_card>`, with "
        f"{counts['val']} others for validation: {experiment.size}x{experiment.size} pixels, "
        f"{experiment.filters} filters at the first level, {experiment.epochs} epochs, "
        f"{record['training']['seconds'] / 60:.0f} minutes, commit `{record['git_commit']}`.\n\n"
        + markdown_table(("scored on", "mean Dice per patient (95% interval)"), rows)
    )


def speed_text():
    """Return how fast networks are trained and a volume is predicted, as measured in benchmarks/,
    as Markdown.
    """
    folder = runs.REPOSITORY / "benchmarks"
    heads = (
        "network",
        "precision",
        "slices a second",
        "against plain Keras (float32)",
        "against PyTorch",
        "of the peak",
    )
    rows = []
    for path in sorted(folder.glob("training-*.json")):
        measured = json.loads(path.read_text(encoding="utf-8"))
        precision = measured["precision"].removeprefix("mixed_")
        for name, case in measured.items():
            if isinstance(case, dict) and "rounds" in case:
                speed = case["slices_a_second"]["package"]
                ratios = (case["package_over_plain_keras"], case["package_over_pytorch"])
                share = case["gflops"] / measured["peak_gflops"][precision]
                texts = (f"{speed:.0f}", *(f"{ratio:.2f}" for ratio in ratios), f"{share:.0%}")
                rows.append((name, precision, *texts))
    seconds = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    return markdown_table(heads, rows) + (
        f"\n`lggseg predict` takes {seconds['predict_seconds']:.1f} seconds for a volume of "
        f"{seconds['volume']} slices, {seconds['start_seconds']:.1f} of them for the start of "
        "Python and TensorFlow.\n"
    )


def settings_table():
    """Return every setting as a Markdown table: name, default, meaning with allowed values."""
    rows = []
    for name, entry in Experiment.model_json_schema()["properties"].items():
        if name not in ("profile", "seed"):
            allowed = ", ".join(f"`{value}`" for value in entry.get("enum", [])) or entry["type"]
            default = json.dumps(entry["default"])
            rows.append((f"`{name}`", f"`{default}`", f"{entry['description']} ({allowed})"))
    return markdown_table(("setting", "default", "meaning"), rows)


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


SCORE_KEYS = {"value": "dice", "low": "low", "high": "high"}


def own_records_table():
    """Return a reader's own records beside the nearest of the book, as a Markdown table."""
    names = records.readers_names()
    if not names:
        return "There is none in this copy of the book.\n"
    heads = ("yours", "test Dice", "data", "nearest of the book", "test Dice", "what differs")
    rows = []
    for row in records.compare_with_book(names).to_dict("records"):
        own, theirs = (
            plots.score({name: row[key + end] for name, key in SCORE_KEYS.items()})
            for end in ("", "_of_book")
        )
        yours, nearest = f"`{row['record']}`", f"`{row['of_book']}`"
        rows.append((yours, own, row["data"], nearest, theirs, row["differ"] or "nothing"))
    return markdown_table(heads, rows)


def downloads_table():
    """Return a Markdown table of the files of every record, each a link."""
    rows = []
    for name in records.record_names():
        files = sorted(path.name for path in (records.RECORDS / name).iterdir())
        links = [f"{{download}}`{file} <records/{name}/{file}>`" for file in files]
        rows.append((f"`{name}`", ", ".join(links)))
    return markdown_table(("record", "files"), rows)


def walk_output():
    """Run book/walk.py and return what it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        runpy.run_path(str(runs.REPOSITORY / "book" / "walk.py"))
    return printed.getvalue()


GENERATED = {
    "walk": walk_output,
    "groups": groups,
    "questions": all_questions,
    "rules": rules_text,
    "amendments": amendments_text,
    "limits": limits_text,
    "groups_of_trainings": groups_of_trainings_table,
    "test_of_numbers": test_of_numbers_table,
    "other_settings": other_settings_text,
    "searched_way": searched_way_text,
    "ways": ways_table,
    "test_of_comparisons": test_of_comparisons_table,
    "first_edition": first_edition_table,
    "commands": commands_table,
    "reference": reference_text,
    "speed": speed_text,
    "settings": settings_table,
    "profiles": profiles_text,
    "modules": modules_text,
    "own_records": own_records_table,
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
