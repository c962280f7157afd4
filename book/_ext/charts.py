"""Sphinx extension: charts of Altair on pages without a network.

A notebook's chart loads Vega from the internet. Here its specification is kept instead, and drawn
by a copy of Vega (BSD) that vl-convert, which Altair's authors keep, writes beside the pages.
"""

import json
from html import escape
from pathlib import Path

import vl_convert

from lggseg_utils.plots import VEGA_LITE

DRAW = Path(__file__).parent / "charts.js"


def keep_specifications(app):
    """Replace the HTML of each chart by its specification, and write what draws it."""
    for path in Path(app.srcdir, "notebooks").glob("*.ipynb"):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            for output in cell.get("outputs", []):
                if VEGA_LITE in output.get("data", {}):
                    output["data"] = {"text/html": placeholder(output["data"][VEGA_LITE])}
        path.write_text(json.dumps(notebook), encoding="utf-8")
    # In a function of its own, since other scripts of the page use the same short names.
    script = f"(() => {{{vl_convert.javascript_bundle()}}})();" + DRAW.read_text(encoding="utf-8")
    Path(app.srcdir, "book", "_static", "charts.js").write_text(script, encoding="utf-8")


def placeholder(specification):
    """Return the HTML that holds a Vega-Lite specification until the script draws it."""
    content = json.dumps(specification).replace("</", "<\\/")
    label = escape(specification.get("description", ""), quote=True)
    return (
        f'<div class="vega-chart" role="group" aria-label="{label}">'
        f'<script type="application/json">{content}</script>'
        "<noscript>This chart needs JavaScript.</noscript></div>"
    )


def add_script(app, pagename, templatename, context, doctree):
    """Load the script on pages with a chart alone: it weighs a megabyte."""
    if 'class="vega-chart"' in context.get("body", ""):
        app.add_js_file("charts.js", loading_method="defer")


def setup(app):
    """Register the extension."""
    app.connect("builder-inited", keep_specifications)
    app.connect("html-page-context", add_script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
