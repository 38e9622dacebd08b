"""docs/explanation/architecture.md and its picture follow the code."""

import runpy

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "brainseg_jax"
DRAW_LAYERS = runpy.run_path(str(REPOSITORY / "docs" / "draw_layers.py"))


def units():
    """The folders and top-level modules of the package."""
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    return folders | {path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"}


def test_the_page_names_every_folder_and_module():
    text = (REPOSITORY / "docs" / "explanation" / "architecture.md").read_text()
    missing = [name for name in units() if f"`{name}/`" not in text and f"`{name}.py`" not in text]
    assert not missing


def test_the_contract_has_every_folder_and_module():
    layers = DRAW_LAYERS["read_layers"]()
    assert {unit for layer in layers for unit in layer} == units() | {"scripts"}


def test_the_page_lists_the_layers_in_the_order_of_the_contract():
    text = (REPOSITORY / "docs" / "explanation" / "architecture.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "`" in line.split("|")[1]]
    named = [[name.strip("`/ ").removesuffix(".py") for name in row.split("|")[1].split(",")] for row in rows]
    assert [sorted(layer) for layer in named] == [sorted(layer) for layer in DRAW_LAYERS["read_layers"]()]


def test_every_step_of_the_picture_is_in_the_code():
    steps = [step for steps in DRAW_LAYERS["JOURNEY"].values() for step in steps]
    assert [step for step in steps if not DRAW_LAYERS["defines"](*step[:2])] == []


def test_an_import_that_follows_from_others_has_no_arrow():
    imports = {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}}
    assert DRAW_LAYERS["without_implied"](imports) == [("a", "b"), ("b", "c"), ("c", "d")]


def test_an_upward_import_is_not_drawn(monkeypatch, tmp_path):
    draw = DRAW_LAYERS["draw"]
    monkeypatch.setitem(draw.__globals__, "read_imports", lambda: {"errors": {"studies"}})
    with pytest.raises(ValueError, match="errors imports studies"):
        draw(tmp_path / "architecture.png")
