"""Draws docs/figures/architecture.png: the layers of the package, and a slice's way through them.

The boxes are those of the import-linter contract in pyproject.toml, the arrows are the imports in the code, without
those that follow from others. Run `python docs/draw_layers.py` after a change of the layers.
"""

import ast
import importlib
import re
import textwrap
import tomllib
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.patheffects import withStroke

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE, OUTPUT = REPOSITORY / "brainseg_jax", REPOSITORY / "docs" / "figures" / "architecture.png"
INK, GREY, LINE = "#1f2933", "#5f6c7b", "#7b8794"
# A colour for each layer, from the top; both panels use it.
COLOURS = ("#e4e7eb", "#e4e7eb", "#fbd9b5", "#f9e2a8", "#cdeac0", "#bfe6e0", "#bcdcf5", "#d5d2f4", "#f3cfe0")
# Middles of the boxes in inches from the left, so that few arrows cross; others stand in the main column.
MAIN = 4.7
PLACES = {"cli": 2.1, "training": 8.1, "models": 7.85}
PLACES |= {"plots": 1.2, "config": 3.3, "errors": 5.3, "metrics": 7.35, "published": 10.7}  # the lowest row
# Where an arrow over several rows goes down, in inches; others go to the middle of their target.
LANES = {("cli", "utils"): 1.9, ("workdir", "config"): 2.7, ("workdir", "models"): 7.6}
LANES |= {("evaluation", "metrics"): 6.55, ("training", "metrics"): 9.12}
Box = tuple[float, float, float, float]  # left, top, right, bottom, in inches from the upper left corner
# The steps of a slice's way: the module, the function or class in it that does the step, and what comes out.
JOURNEY = {
    "From the archive to an image and its mask": (
        ("data.figshare_brain_tumor.archives", "find_source", "zips or .mat files"),
        ("data.figshare_brain_tumor.mat_file", "read_slice", "image, mask, class and patient id, checked"),
        ("data.figshare_brain_tumor.prepare", "build_dataset", "a TFDS dataset in five folds"),
        ("data.splits", "make_splits", "slice ids of train, validation and test"),
        ("data.dataset", "Dataset", "a sample: image (H, W), mask (H, W)"),
        ("data.preprocessing", "resize_to_model", "image (S, S) in [0, 1]"),
    ),
    "Train: from images and masks to the gradient": (
        ("data.packing", "pack", "16 bits for a pixel, one for its mask"),
        ("data.loaders", "make_loaders", "batches on the device"),
        ("data.augmentation", "augment", "warped, other grey levels"),
        ("models", "create_model", "logits (B, S, S, 1)"),
        ("training.losses", "create_loss", "loss: one number"),
        ("training.step", "make_train_step", "gradient, new weights, EMA"),
    ),
    "Score: from a checkpoint to the Dice": (
        ("workdir.checkpoints", "Checkpoints", "best weights, or their EMA"),
        ("inference.predictor", "Predictor", "probabilities (H, W), at the slice's own size"),
        ("inference.postprocessing", "Postprocessing", "mask (H, W)"),
        ("metrics.slice_metrics", "METRICS", "Dice and distances of a slice"),
        ("evaluation.scores", "score_slice", "a row of per_slice_test.csv"),
        ("evaluation.summary", "summarize", "mean Dice with its interval"),
    ),
}


def read_layers() -> list[list[str]]:
    """Returns the layers of the contract from the top, each as the names of its units; scripts come first."""
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = (contract for contract in contracts if contract["type"] == "layers")
    return [["scripts"], *([unit.strip() for unit in layer.split(":")] for layer in contract["layers"])]


def read_imports() -> dict[str, set[str]]:
    """Returns, for each folder and top-level module (and scripts), which others its code imports."""
    imports: dict[str, set[str]] = {}
    for path in sorted([*PACKAGE.rglob("*.py"), *(REPOSITORY / "scripts").glob("*.py")]):
        inside = path.is_relative_to(PACKAGE)
        unit = path.relative_to(PACKAGE).parts[0].removesuffix(".py") if inside else "scripts"
        if unit == "__init__":
            continue  # the public API, which imports nothing before it is used
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE.name:
                names = str(node.module).split(".")[1:2] or [alias.name for alias in node.names]
                imports.setdefault(unit, set()).update({*names} - {unit})
    return imports


def without_implied(imports: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Returns the imports that do not follow from others: the transitive reduction of a graph without circles."""

    def reach(unit: str) -> set[str]:
        direct = imports.get(unit, set())
        return direct.union(*(reach(other) for other in direct))

    return [
        (unit, other)
        for unit, direct in imports.items()
        for other in sorted(direct)
        if not any(other in reach(between) for between in direct - {other})
    ]


def describe(unit: str) -> str:
    """Returns the modules of a folder, or the first sentence of a top-level module."""
    folder = REPOSITORY / "scripts" if unit == "scripts" else PACKAGE / unit
    if folder.is_dir():
        names = [path.stem for path in folder.glob("*.py") if path.stem != "__init__"]
        return "  ".join(sorted([*names, *(f"{path.parent.name}/" for path in folder.glob("*/__init__.py"))]))
    sentence = (ast.get_docstring(ast.parse(folder.with_suffix(".py").read_text())) or "").split("\n")[0]
    return re.split(r"[.:] ", sentence)[0].rstrip(".")


def defines(module: str, name: str) -> bool:
    """Whether a module of the package exists and has a name."""
    try:
        return hasattr(importlib.import_module(f"{PACKAGE.name}.{module}"), name)
    except ModuleNotFoundError:
        return False


def draw(path: Path) -> None:
    """Writes the figure to a PNG file.

    Raises:
      ValueError: a step of `JOURNEY` is not in the code, or an import points upwards.
    """
    for module, name, _ in (step for steps in JOURNEY.values() for step in steps):
        if not defines(module, name):
            raise ValueError(f"{PACKAGE.name}.{module} has no {name}: correct JOURNEY in {__file__}.")
    layers = read_layers()
    rows = {unit: row for row, units in enumerate(layers) for unit in units}
    figure = Figure(figsize=(12, 12))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    note = "An arrow is an import. All of them point downwards; those that follow from others are left out."
    _text(axes, 0.4, 0.4, "The layers", 19, weight="bold")
    _text(axes, 0.4, 0.76, note, 11.5, color=GREY)
    top = 1.05
    boxes: dict[str, Box] = {}
    for row, units in enumerate(layers):
        width = 1.9 if len(units) > 2 or units == ["cli"] else 2.25 if len(units) == 2 else 3.0
        texts = [textwrap.wrap(describe(unit), int(width * 13), break_long_words=False) for unit in units]
        height = 0.42 + 0.2 * max(len(text) for text in texts)
        for unit, text in zip(units, texts, strict=True):
            middle = PLACES.get(unit, MAIN)
            boxes[unit] = (middle - width / 2, top, middle + width / 2, top + height)
            name = f"{unit}/" if unit == "scripts" or (PACKAGE / unit).is_dir() else f"{unit}.py"
            _box(axes, boxes[unit], COLOURS[row % len(COLOURS)])
            _text(axes, middle, top + 0.22, name, 13, weight="bold", ha="center")
            _text(axes, middle, top + 0.36, "\n".join(text), 8.6, color=GREY, ha="center", va="top", linespacing=1.45)
        top += height + 0.36
    for source, target in without_implied(read_imports()):
        if rows[source] >= rows[target]:
            raise ValueError(f"{source} imports {target}, which is no lower layer.")
        near = rows[target] - rows[source] == 1
        _arrow(axes, boxes[source], boxes[target], near=near, lane=LANES.get((source, target)))
    note = "In bold the function or class that does a step, below it what comes out. Colours are those of the layers."
    _text(axes, 0.4, top + 0.14, "The way of a slice", 19, weight="bold")
    _text(axes, 0.4, top + 0.5, note, 11.5, color=GREY)
    top += 0.89
    for title, steps in JOURNEY.items():
        _text(axes, 0.4, top, title, 12.5, weight="bold")
        pitch = 11.46 / len(steps)
        for number, (module, name, result) in enumerate(steps):
            left, middle = 0.4 + number * pitch, 0.27 + (number + 0.5) * pitch
            _box(axes, (left, top + 0.22, left + pitch - 0.26, top + 1.3), COLOURS[rows[module.split(".")[0]]])
            shown = module.replace(".", "/").replace("figshare_brain_tumor/", "…/")
            _text(axes, middle, top + 0.4, shown, 8.2, color=GREY, ha="center")
            _text(axes, middle, top + 0.63, name, 10, weight="bold", ha="center")
            filled = textwrap.fill(result, 23)
            _text(axes, middle, top + 0.78, filled, 8.8, ha="center", va="top", linespacing=1.3)
            if number:
                _line(axes, (left - 0.26, top + 0.76), (left, top + 0.76), "arc3")
        top += 1.68
    figure.set_size_inches(12, top - 0.1)
    axes.set(xlim=(0, 12), ylim=(top - 0.1, 0))  # inches, downwards
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, facecolor="white")


def _arrow(axes: Axes, source: Box, target: Box, *, near: bool, lane: float | None) -> None:
    """Draws an arrow: straight to the next row, else down its lane, which it reaches or leaves sideways."""
    x, to_x = ((box[0] + box[2]) / 2 for box in (source, target))
    if near:
        left = min(max(x + 0.3 * (to_x - x), source[0] + 0.2), source[2] - 0.2)
        to_left = min(max(to_x + 0.25 * (x - to_x), target[0] + 0.2), target[2] - 0.2)
        return _line(axes, (left, source[3]), (to_left, target[1]), "arc3")
    lane = to_x if lane is None else lane
    start, end, style = (lane, source[3]), (lane, target[1]), "arc3"
    if not source[0] < lane < source[2]:
        start = (source[0] if lane < x else source[2], (source[1] + source[3]) / 2)
        style = "angle,angleA=0,angleB=90,rad=10"
    elif not target[0] < lane < target[2]:
        end = (target[0] if lane < to_x else target[2], (target[1] + target[3]) / 2)
        style = "angle,angleA=90,angleB=0,rad=10"
    return _line(axes, start, end, style)


def _line(axes: Axes, start: tuple[float, float], end: tuple[float, float], style: str) -> None:
    """Draws an arrow in one of matplotlib's connection styles, with a white rim that keeps crossings apart."""
    rim = withStroke(linewidth=5, foreground="white")
    look: dict[str, Any] = {
        "arrowstyle": "-|>,head_length=6,head_width=3.2",
        "color": LINE,
        "linewidth": 1.5,
        "zorder": 2,
    }
    axes.add_patch(FancyArrowPatch(start, end, connectionstyle=style, shrinkA=0, shrinkB=0, path_effects=[rim], **look))


def _text(axes: Axes, x: float, y: float, text: str, size: float, **settings: Any) -> None:
    axes.text(x, y, text, fontsize=size, **{"color": INK, "va": "center", **settings})


def _box(axes: Axes, box: Box, colour: str) -> None:
    left, top, right, bottom = box
    look: dict[str, Any] = {"facecolor": colour, "edgecolor": "white", "zorder": 3}
    rounded = "round,pad=0,rounding_size=0.09"
    axes.add_patch(FancyBboxPatch((left, top), right - left, bottom - top, boxstyle=rounded, **look))


if __name__ == "__main__":
    draw(OUTPUT)
    print(f"written to {OUTPUT}")
