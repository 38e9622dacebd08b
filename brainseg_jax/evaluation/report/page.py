"""Writes a report: headings, tables and charts, and a gallery of slices, in one self-contained HTML file."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from brainseg_jax import __version__
from brainseg_jax.errors import InputError
from brainseg_jax.utils.files import write_text

GENERATOR = '<meta name="generator" content="brainseg_jax'


class Section(NamedTuple):
    """A part of the page.

    Attributes:
      name: its anchor, a word.
      title: its heading, plain text.
      html: its content, in which text from the data is escaped.
    """

    name: str
    title: str
    html: str


def report_path(output: Path) -> Path:
    """Returns the file for `write_report`: `output` if it ends in .html, otherwise report.html in that folder.

    Raises:
      InputError: the file exists and is not a report.
    """
    path = output if output.suffix == ".html" and not output.is_dir() else output / "report.html"
    if path.exists() and GENERATOR not in path.read_text("utf-8", errors="replace")[:1000]:
        raise InputError(f"{path} is there already and is no report of this program: name another --output.")
    return path


def write_report(
    path: Path, *, title: str, sections: Sequence[Section], slices: Sequence[Mapping[str, Any]], note: str
) -> None:
    """Writes the page atomically; missing folders are made.

    Args:
      path: the HTML file; see `report_path`.
      title: headline, plain text.
      sections: parts of the page above the gallery, in this order.
      slices: encoded slices of the gallery, in this order; see `encode_slice`. They may lack true masks.
      note: plain text above the gallery: which slices it shows, or why none.
    """
    script = _asset("gallery.js")
    gallery = f"<p>{escape(note)}</p>\n{_asset('gallery.html') if slices else ''}"
    parts = [*sections, Section("slices", "Slices", gallery)]
    # "<" is escaped so that no text in the data can close the element; JSON has no NaN.
    data = json.dumps(list(slices), ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = Template(_asset("page.html")).substitute(
        generator=f'{GENERATOR} {escape(__version__)}">',
        # Makes the browser refuse all network access, and every script but this one.
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        title=escape(title),
        style=_asset("style.css"),
        links="\n".join(f'<li><a href="#{part.name}">{escape(part.title)}</a></li>' for part in parts),
        sections="\n".join(map(_to_html, parts)),
        scripts=f'<script type="application/json" id="data">{data}</script>\n<script>{script}</script>' * bool(slices),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def _to_html(section: Section) -> str:
    heading = f"{section.name}-heading"
    title = f'<h2 id="{heading}">{escape(section.title)}</h2>'
    return f'<section id="{section.name}" aria-labelledby="{heading}">\n{title}\n{section.html}\n</section>'


def _asset(name: str) -> str:
    return (resources.files(__package__) / "assets" / name).read_text("utf-8")
