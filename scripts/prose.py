"""Check spelling and style of everything a reader reads: python scripts/prose.py (part of make
lint)

codespell finds misspellings, proselint (BSD) weak phrases, words.txt translated ones. Of a
notebook, the text cells are read.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from lggseg_utils.runs import REPOSITORY

NOT_ENGLISH = "jacard,buda,alll"


DRAWN = re.compile(r"```\{raw\}.*?```", re.DOTALL)  # no prose


def texts():
    """Return what is read: name -> text."""
    pages = [REPOSITORY / "README.md", *sorted((REPOSITORY / "book").glob("*.md"))]
    found = {path.name: DRAWN.sub("", path.read_text(encoding="utf-8")) for path in pages}
    for path in sorted((REPOSITORY / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        prose = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
        found[f"{path.stem}.md"] = "\n\n".join(prose)
    return found


def translated(text):
    """Return 'found -> better' for each phrase of words.txt in a text."""
    lines = (REPOSITORY / "scripts" / "words.txt").read_text(encoding="utf-8").splitlines()
    rules = [line.split(" -> ") for line in lines if not line.startswith("#")]
    hits = (
        (match[0], better)
        for rule, better in rules
        for match in re.finditer(rule, text, re.IGNORECASE)
    )
    return [f"{found} -> {better}" for found, better in hits]


def main():
    """Print what was found; exit with 1 if anything was."""
    read, failed = texts(), False
    for name, text in read.items():
        for hit in translated(text):
            print(f"{name}: {hit}")
            failed = True
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder, name)) for name in read]
        for path, text in zip(paths, read.values(), strict=True):
            Path(path).write_text(text, encoding="utf-8")
        style = ["proselint", "--config", str(REPOSITORY / ".proselintrc.json"), "check", *paths]
        spelling = ["codespell_lib", "--ignore-words-list", NOT_ENGLISH, *paths]
        for command in (style, spelling):
            checked = subprocess.run(
                [sys.executable, "-m", *command], capture_output=True, text=True, check=False
            )
            print(checked.stdout.replace(f"{folder}/", ""), end="")
            failed = failed or checked.returncode != 0
    sys.exit(failed)


if __name__ == "__main__":
    main()
