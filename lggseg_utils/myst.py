"""Turn a chapter's plain Markdown into what the book shows.

In git a chapter is Markdown that any viewer renders. On its page, exercises become boxes, sources
become citations, captions become those of numbered figures, the first use of a term leads to the
glossary, and code that only draws is folded away.
"""

import re

from pybtex.database import parse_string

CAPTION = "**Figure.** "
EXERCISE = re.compile(r"> \*\*(Exercise \d+)\.\*\* (.*)", re.DOTALL)
# Tags of cells that are folded away on the page: the tag that Jupyter Book knows, and its label.
FOLDED = {
    "parameters": ("hide-input", "the parameters"),
    "imports": ("hide-input", "the imports"),
    "plotting": ("hide-input", "the plotting code"),
    "details": ("hide-input", "the code"),
    "solution": ("hide-cell", "the solution"),
}
INJECTED = "injected-parameters"
# A work is cited by authors and year.
LINK = re.compile(r"\[[^\]]*\b(?:19|20)\d\d\)?\]\((https?://[^)]+)\)")
CITED = re.compile(rf"\({LINK.pattern}\)|{LINK.pattern}")
# Where no term is marked: code, mathematics, links, roles, headings, and words in bold.
PROTECTED = re.compile(
    r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|!?\[[^\]]*\]\([^)]*\)|\{[a-z:]+\}`[^`]*`"
    r"|^#.*?$|\*\*.*?\*\*|<[^>]*>",
    re.DOTALL | re.MULTILINE,
)

# Words of the glossary that mostly mean something else: these lead there from no text.
EVERYDAY = {"grid", "margin", "precision", "record"}


def to_myst(notebook, name, terms, sources):
    """Change an executed chapter, a notebook of nbformat, into what the book shows.

    name: of the chapter, which its figures are named after; terms: words of the glossary; sources:
    keys of the bibliography by address.
    """
    # What papermill wrote into a run's copy: `run.json` holds it as well.
    notebook.cells = [cell for cell in notebook.cells if INJECTED not in _tags(cell)]
    _move_captions(notebook, name)
    unused = [term for term in terms if term not in EVERYDAY]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            _fold(cell)
            continue
        text = mark_terms(cite(cell.source, sources), unused)
        cell.source = EXERCISE.sub(_as_box, text)


def read_terms(glossary):
    """Return the words that a glossary page in MyST Markdown explains, longest first."""
    listed = re.search(r"```\{glossary\}(.*?)```", glossary, re.DOTALL).group(1)
    words = [line for line in listed.splitlines() if line[:1].strip() and line[0] != ":"]
    return sorted(words, key=len, reverse=True)


def read_sources(bibliography):
    """Return the key of each entry of a BibTeX file by its address: its url, or that of its DOI."""
    found = {}
    for key, entry in parse_string(bibliography, "bibtex").entries.items():
        if "url" in entry.fields:
            found[entry.fields["url"]] = key
        if "doi" in entry.fields:
            found[f"https://doi.org/{entry.fields['doi']}"] = key
    return found


def cite(text, sources):
    """Replace links to works of the bibliography by citations.

    A link in parentheses of its own becomes a citation in parentheses.
    """

    def as_role(link):
        in_parentheses, in_text = link.groups()
        key = sources.get(in_parentheses or in_text)
        if key is None:
            return link.group()
        return f"{{cite:{'p' if in_parentheses else 't'}}}`{key}`"

    return CITED.sub(as_role, text)


def mark_terms(text, unused):
    """Link to the glossary where a text first uses a word of the list `unused`, and remove it.

    A plural counts as its word.
    """
    for term in list(unused):
        word = re.compile(rf"(?<![\w-]){re.escape(term)}(?:e?s)?(?![\w-])", re.IGNORECASE)
        for start, end in _free_parts(text):
            if use := word.search(text, start, end):
                text = f"{text[: use.start()]}{{term}}`{use.group()} <{term}>`{text[use.end() :]}"
                unused.remove(term)
                break
    return text


def _free_parts(text):
    """Return start and end of each part of a text that is prose."""
    borders = [0]
    for part in PROTECTED.finditer(text):
        borders += part.span()
    borders.append(len(text))
    return list(zip(borders[::2], borders[1::2], strict=True))


def _as_box(exercise):
    """Return an exercise, in git a quotation, as a box."""
    title, text = exercise.groups()
    text = re.sub(r"^> ?", "", text, flags=re.MULTILINE)
    return f":::{{admonition}} {title}\n:class: tip\n{text}\n:::"


def _tags(cell):
    """Return the tags of a cell."""
    return cell.metadata.get("tags", [])


def _fold(cell):
    """Fold a code cell away whose tags say so."""
    for tag in _tags(cell):
        if tag in FOLDED:
            known, label = FOLDED[tag]
            cell.metadata["tags"] = [known]
            page = cell.metadata.setdefault("mystnb", {})
            page["code_prompt_show"] = f"Show {label}"
            page["code_prompt_hide"] = f"Hide {label}"


def _move_captions(notebook, name):
    """Make each text that begins with **Figure.** the caption of the cell above it."""
    kept = []
    for cell in notebook.cells:
        text = _caption(cell)
        if text is None:
            kept.append(cell)
            continue
        page = kept[-1].metadata.setdefault("mystnb", {})
        page["figure"] = {"caption": text, "name": f"{name}-figure-{len(kept)}"}
    notebook.cells = kept


def _caption(cell):
    """Return the caption that a cell holds, as text or as Markdown that its code made, or None."""
    text = cell.source
    if cell.cell_type == "code":
        made = [output.get("data", {}).get("text/markdown", "") for output in cell.outputs]
        text = "".join(made)
    return text.removeprefix(CAPTION) if text.startswith(CAPTION) else None
