"""Sphinx extension: two faults of theme and docutils that a screen reader stumbles over, mended in
the built pages.
"""

import re
from pathlib import Path

# The arrow that unfolds a chapter's pages has no name.
ARROW = re.compile(r'>([^<]+)</a>(<details[^>]*>)<summary><span class="toctree-toggle"')
NAMED_ARROW = r'>\1</a>\2<summary aria-label="Pages of: \1"><span class="toctree-toggle"'
# The bibliography calls itself a list, but its entries are not list items.
LIST = re.compile(r'<div role="list" class="citation-list">')
PLAIN = '<div class="citation-list">'


def mend(app, exception):
    """Rewrite the pages after a build that succeeded."""
    if exception or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        mended = LIST.sub(PLAIN, ARROW.sub(NAMED_ARROW, text))
        if mended != text:
            page.write_text(mended, encoding="utf-8")


def setup(app):
    """Register the extension."""
    app.connect("build-finished", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
