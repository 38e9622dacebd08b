"""Puts tables into Markdown pages."""

from pathlib import Path

from brainseg_jax.errors import InputError


def put_table(page: Path, table: str, *, name: str = "results") -> None:
    """Replaces the text between two markers of a Markdown page by a table.

    Args:
      page: the page.
      table: the table.
      name: of the markers.

    Raises:
      InputError: the page lacks the markers.
    """
    start, end = f"<!-- {name}: scripts/save_results.py -->", f"<!-- end of {name} -->"
    text = page.read_text()
    if start not in text or end not in text:
        raise InputError(f"{page} has no lines '{start}' and '{end}': put them where the table shall stand.")
    before, rest = text.split(start, 1)
    after = rest.split(end, 1)[1]
    page.write_text(f"{before}{start}\n\n{table}\n\n{end}{after}")
