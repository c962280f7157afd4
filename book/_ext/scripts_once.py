"""Sphinx extension: each script once a page.

Jupyter Book's extensions add inline scripts while the builder is already set up, and Sphinx then
writes them twice; the second `const` stops the page's scripts with an error.
"""


def keep_first(app, pagename, templatename, context, doctree):
    """Drop scripts that stand in the page already."""
    first = {}
    for script in context.get("script_files", []):
        first.setdefault((str(script.filename or ""), str(script.attributes)), script)
    context["script_files"] = list(first.values())


def setup(app):
    """Register the extension."""
    app.connect("html-page-context", keep_first, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
