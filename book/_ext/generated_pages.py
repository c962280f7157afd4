"""Sphinx extension: the parts of prose pages that are made from the package: answers, settings, profiles."""

import json
from pathlib import Path

from lggseg_utils import verdict
from lggseg_utils.settings import PROFILES, Experiment, profile_names


def answers_table():
    """Return every question about the report with its answer as a Markdown table."""
    rows = [(question["question"], verdict.judge(question).answer) for question in verdict.QUESTIONS.values()]
    return (
        "\n".join(["| question | answer |", "|---|---|", *(f"| {text} | **{answer}** |" for text, answer in rows)])
        + "\n"
    )


def settings_table():
    """Return every setting as a Markdown table: name, default, allowed values, meaning."""
    lines = ["| setting | default | allowed | meaning |", "|---|---|---|---|"]
    for name, entry in Experiment.model_json_schema()["properties"].items():
        if name not in ("profile", "seed"):
            allowed = ", ".join(f"`{value}`" for value in entry.get("enum", [])) or entry["type"]
            lines.append(f"| `{name}` | `{json.dumps(entry['default'])}` | {allowed} | {entry['description']} |")
    return "\n".join(lines) + "\n"


def profiles_text():
    """Return every profile as it stands in its file."""
    texts = {name: (PROFILES / f"{name}.yml").read_text(encoding="utf-8") for name in profile_names()}
    return "\n".join(f"### `{name}`\n\n```yaml\n{text}```\n" for name, text in texts.items())


def write(app):
    """Write the parts beside the pages that include them."""
    folder = Path(app.srcdir, "book", "generated")
    folder.mkdir(exist_ok=True)
    for name, text in {"answers": answers_table(), "settings": settings_table(), "profiles": profiles_text()}.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")


def setup(app):
    """Register the extension."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
