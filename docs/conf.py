"""Sphinx: `python -m sphinx -W --keep-going docs build/docs`, after `pip install -e '.[docs]'`."""

import inspect
import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

import generate  # noqa: E402

import brainseg_jax  # noqa: E402

project = "brainseg_jax"
author = "The brainseg_jax authors"
version = release = brainseg_jax.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["reference/generated"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
default_role = "code"  # `x` in a docstring
myst_heading_anchors = 3
smartquotes = False  # code says "" and means it

autodoc_default_options = {"members": True, "member-order": "bysource", "ignore-module-all": True}
autodoc_mock_imports = ["torch", "onnx"]  # of the benchmark and of the export alone
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes of dataclasses and NamedTuples are listed once, with their class
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"brainseg_jax {version}"
html_theme_options = {"source_directory": "docs/"}
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["custom.css"]


def setup(app: Any) -> None:
    """Has the generated pages written before Sphinx looks for pages."""
    generate.write_pages()
    app.connect("source-read", _link_runs)
    app.connect("autodoc-process-docstring", _keep_layout, priority=400)  # before napoleon, which has 500
    app.connect("autodoc-skip-member", _skip)


def _link_runs(app: Any, page: str, source: list[str]) -> None:
    if not page.startswith("runs/"):
        source[0] = generate.link_runs(source[0], page)
    if page == "results/README":  # which GitHub shows too, and so has no toctree of its own
        source[0] += "\n\n```{toctree}\n:hidden:\n:glob:\n\n*/README\n../runs/*\n```\n"


def _keep_layout(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Shows docstrings as they stand in the file: characters that reStructuredText would read, and indented tables."""
    if what != "module":
        lines[:] = [_escape(line) for line in lines]
        return
    paragraphs = "\n".join(lines).split("\n\n")
    shown = []
    for paragraph in paragraphs:
        body = paragraph.split("\n")
        first = next((row for row, line in enumerate(body) if line.startswith(" ")), None)
        if first is None:
            shown.append(_escape(paragraph))
            continue
        head, block = "\n".join(body[:first]), body[first:]
        rest = next((row for row, line in enumerate(block) if not line.startswith(" ")), len(block))
        text = inspect.cleandoc("\n" + "\n".join(block[:rest])).split("\n")
        shown += [_escape(head), "::", "\n".join(f"   {line}" for line in text), _escape("\n".join(block[rest:]))]
    lines[:] = "\n\n".join(part for part in shown if part).split("\n")


def _escape(text: str) -> str:
    """Escapes *, | and a trailing _ outside of backticks."""
    parts = re.split(r"(`+[^`]*`+)", text)
    return "".join(
        part if number % 2 else re.sub(r"([*|]|(?<=\w)_(?!\w))", r"\\\1", part) for number, part in enumerate(parts)
    )


def _skip(app: Any, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leaves out what NamedTuple writes itself: "Alias for field number 0"."""
    document = getattr(thing, "__doc__", None) or ""
    return True if document.startswith("Alias for field number") else None
