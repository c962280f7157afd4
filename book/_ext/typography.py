"""Sphinx extension: a true minus before numbers, and a multiplication sign between them.

Texts and tables are written with the signs of a keyboard: -0.017, 64x64.
"""

import re

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

MINUS = re.compile(r"(?<![\w.)\]-])-(?=\d)")
TIMES = re.compile(r"(?<=\d)x(?=\d)")
VERBATIM = (nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.raw)
TAG_AND_TEXT = re.compile(r"(<(/?\w+)\b[^>]*>)([^<]+)")
VERBATIM_TAGS = ("code", "pre", "script", "style")


def typeset(text):
    """Return a text with a minus sign for a hyphen before a number, and × for an x between two."""
    return TIMES.sub("×", MINUS.sub("−", text))


def typeset_html(text):
    """Return HTML with its texts typeset, but for code and styles.

    In the cell of a table, a name such as tumour_area may break after its underscore.
    """

    def typeset_after(found):
        tag, name, shown = found.groups()
        if name in VERBATIM_TAGS:
            return found[0]
        shown = typeset(shown)
        return tag + (shown.replace("_", "_<wbr>") if name in ("td", "th") else shown)

    return TAG_AND_TEXT.sub(typeset_after, text)


class Typography(SphinxPostTransform):
    """Typeset all text but code and mathematics, and the cells of tables that are HTML."""

    default_priority = 700

    def run(self, **_):
        for text in list(self.document.findall(nodes.Text)):
            # Some extensions put code into the page as text without a parent.
            if text.parent is not None and not isinstance(text.parent, VERBATIM):
                text.parent.replace(text, nodes.Text(typeset(text)))
        for raw in self.document.findall(nodes.raw):
            if raw.get("format") == "html" and "<script" not in raw.astext():
                shown = typeset_html(raw.astext())
                raw.clear()
                raw.append(nodes.Text(shown))


def setup(app):
    """Register the extension."""
    app.add_post_transform(Typography)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
