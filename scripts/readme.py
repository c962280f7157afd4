"""Write the answers of the verdict into README.md: python scripts/readme.py"""

import sys

from lggseg_utils.runs import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "book" / "_ext"))
from generated_pages import answers_table

readme = REPOSITORY / "README.md"
text = readme.read_text(encoding="utf-8")
start, end = text.index("| question | answer |"), text.index("\n## Rerun it")
readme.write_text(text[:start] + answers_table() + text[end:], encoding="utf-8")
