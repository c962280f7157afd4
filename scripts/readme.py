"""Write the answers of the verdict into README.md: python scripts/readme.py"""

import sys

from lggseg_utils.runs import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "book" / "_ext"))
from generated_pages import answers_table


def with_answers(text):
    """Return the text of README.md with its table of answers made anew."""
    start, end = text.index("| question | answer |"), text.index("\n## Rerun it")
    return text[:start] + answers_table() + text[end:]


if __name__ == "__main__":
    readme = REPOSITORY / "README.md"
    readme.write_text(with_answers(readme.read_text(encoding="utf-8")), encoding="utf-8")
