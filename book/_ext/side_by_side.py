"""Sphinx extension: read and write pages in several processes, as many as the machine has cores.

Jupyter Book does not hand Sphinx's option -j on. Three extensions do not say whether pages may be
read side by side with them. They may: one numbers the contents when all pages are read, one makes
LaTeX alone, and one copies a file.
"""

import os

UNDECLARED = ("sphinx_multitoc_numbering", "sphinx_jupyterbook_latex", "sphinx-mathjax-offline")


def declare(app, config):
    """Say of the extensions that do not say it that their pages may be read side by side."""
    for name in UNDECLARED:
        if name in app.extensions:
            app.extensions[name].parallel_read_safe = True


def setup(app):
    """Register the extension."""
    app.parallel = os.cpu_count()
    app.connect("config-inited", declare)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
