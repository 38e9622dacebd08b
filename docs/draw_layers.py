"""Draws docs/figures/architecture.png: the layers of the package, and a slice's way through them.

The boxes are those of the import-linter contract in pyproject.toml, the arrows are the imports in the code. An import
that follows from others (evaluation → inference → workdir says evaluation → workdir) has no arrow of its own.
Run `python docs/draw_layers.py` after a change of the layers.
"""

import ast
import re
import textwrap
import tomllib
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, PathPatch
from matplotlib.path import Path as Curve

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "brainseg_jax"
OUTPUT = REPOSITORY / "docs" / "figures" / "architecture.png"

INK, GREY, LINE = "#1f2933", "#5f6c7b", "#7b8794"
# A colour for each layer, from the top; both panels use it.
COLOURS = ("#e4e7eb", "#e4e7eb", "#fbd9b5", "#f9e2a8", "#cdeac0", "#bfe6e0", "#bcdcf5", "#d5d2f4", "#f3cfe0")
# Where units stand from left (0) to right (1), chosen so that few arrows cross; others are spread over their row.
PLACES = {
    "scripts": 0.38,
    "cli": 0.15,
    "studies": 0.38,
    "evaluation": 0.38,
    "training": 0.68,
    "inference": 0.38,
    "workdir": 0.38,
    "data": 0.38,
    "models": 0.65,
    "utils": 0.38,
    "plots": 0.07,
    "config": 0.257,
    "errors": 0.437,
    "metrics": 0.72,
    "published": 0.92,
}
# Where an arrow over several rows goes down, likewise from 0 to 1; others find a way by themselves.
LANES = {
    ("cli", "utils"): 0.135,
    ("workdir", "config"): 0.205,
    ("workdir", "models"): 0.64,
    ("evaluation", "metrics"): 0.54,
    ("training", "metrics"): 0.765,
}


class Step(NamedTuple):
    """A step of a slice's way: the module, the name in it that does it, and what comes out."""

    module: str
    name: str
    result: str


JOURNEY = {
    "From the archive to an image and its mask": (
        Step("data.figshare_brain_tumor.archives", "find_source", "zips or .mat files"),
        Step("data.figshare_brain_tumor.mat_file", "read_slice", "image, mask, class and patient id, checked"),
        Step("data.figshare_brain_tumor.prepare", "build_dataset", "a TFDS dataset in five folds"),
        Step("data.splits", "make_splits", "slice ids of train, validation and test"),
        Step("data.dataset", "Dataset", "a sample: image (H, W), mask (H, W)"),
        Step("data.preprocessing", "resize_to_model", "image (S, S) in [0, 1]"),
    ),
    "Train: from images and masks to the gradient": (
        Step("data.packing", "pack", "16 bits for a pixel, one for its mask"),
        Step("data.loaders", "make_loaders", "batches on the device"),
        Step("data.augmentation", "augment", "warped, other grey levels"),
        Step("models", "create_model", "logits (B, S, S, 1)"),
        Step("training.losses", "create_loss", "loss: one number"),
        Step("training.step", "make_train_step", "gradient, new weights, EMA"),
    ),
    "Score: from a checkpoint to the Dice": (
        Step("workdir.checkpoints", "Checkpoints", "best weights, or their EMA"),
        Step("inference.predictor", "Predictor", "probabilities (H, W), at the slice's own size"),
        Step("inference.postprocessing", "Postprocessing", "mask (H, W)"),
        Step("metrics.slice_metrics", "METRICS", "Dice and distances of a slice"),
        Step("evaluation.scores", "score_slice", "a row of per_slice_test.csv"),
        Step("evaluation.summary", "summarize", "mean Dice with its interval"),
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
        found = imports.setdefault(unit, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == PACKAGE.name:
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE.name}."):
                found.add(str(node.module).split(".")[1])
            elif isinstance(node, ast.Import):
                found.update(alias.name.split(".")[1] for alias in node.names if f"{PACKAGE.name}." in alias.name)
        found.discard(unit)
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


def modules_of(unit: str) -> list[str]:
    """Returns the names of a unit's modules and folders, of scripts its files."""
    folder = REPOSITORY / "scripts" if unit == "scripts" else PACKAGE / unit
    names = [path.stem for path in folder.glob("*.py") if path.stem != "__init__"]
    return sorted([*names, *(f"{path.parent.name}/" for path in folder.glob("*/__init__.py"))])


def describe(unit: str) -> str:
    """Returns the modules of a folder, or the first sentence of a top-level module."""
    if unit == "scripts" or (PACKAGE / unit).is_dir():
        return "  ".join(modules_of(unit))
    sentence = (ast.get_docstring(ast.parse((PACKAGE / f"{unit}.py").read_text())) or "").split("\n")[0]
    return re.split(r"[.:] ", sentence)[0].rstrip(".")


def defines(step: Step) -> bool:
    """Whether the module of a step exists and defines its name."""
    path = PACKAGE.joinpath(*step.module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not path.exists():
        return False
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(target.id for target in targets if isinstance(target, ast.Name))
    return step.name in names


def draw(path: Path) -> None:
    """Writes the figure.

    Args:
      path: PNG file to write.

    Raises:
      ValueError: a step of `JOURNEY` names what the code does not have, or an import points upwards.
    """
    if wrong := [step for steps in JOURNEY.values() for step in steps if not defines(step)]:
        raise ValueError(
            f"brainseg_jax.{wrong[0].module} has no {wrong[0].name}: mend JOURNEY in {Path(__file__).name}."
        )
    layers = read_layers()
    figure = Figure(figsize=(12, 12))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.axis("off")
    axes.text(0.4, 0.4, "The layers", fontsize=19, weight="bold", color=INK, va="center")
    axes.text(
        0.4,
        0.76,
        "An arrow is an import. All of them point downwards; those that follow from others are left out.",
        fontsize=11.5,
        color=GREY,
        va="center",
    )
    bottom = _draw_layers(axes, layers, top=1.05)
    top = bottom + 0.5
    axes.text(0.4, top, "The way of a slice", fontsize=19, weight="bold", color=INK, va="center")
    axes.text(
        0.4,
        top + 0.36,
        "In bold the function or class that does a step, below it what comes out. Colours are those of the layers.",
        fontsize=11.5,
        color=GREY,
        va="center",
    )
    bottom = _draw_journey(axes, layers, top=top + 0.75)
    figure.set_size_inches(12, bottom)
    axes.set(xlim=(0, 12), ylim=(bottom, 0))  # inches, downwards
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, facecolor="white")


def _draw_layers(axes: Axes, layers: list[list[str]], *, top: float) -> float:
    """Draws boxes and arrows; returns where they end."""
    boxes: dict[str, tuple[float, float, float, float]] = {}  # left, top, right, bottom
    left, width = 0.4, 11.2
    for row, units in enumerate(layers):
        wide = 1.9 if len(units) > 2 else 2.25 if len(units) == 2 else 1.9 if units == ["cli"] else 3.0
        texts = {unit: textwrap.wrap(describe(unit), int(wide * 13), break_long_words=False) for unit in units}
        height = 0.42 + 0.2 * max(len(text) for text in texts.values())
        for number, unit in enumerate(units):
            middle = left + width * PLACES.get(unit, (number + 0.5) / len(units))
            box = (middle - wide / 2, top, middle + wide / 2, top + height)
            boxes[unit] = box
            _box(axes, box, COLOURS[row % len(COLOURS)])
            folder = unit == "scripts" or (PACKAGE / unit).is_dir()
            name = f"{unit}/" if folder else f"{unit}.py"
            axes.text(middle, top + 0.22, name, fontsize=13, weight="bold", color=INK, ha="center", va="center")
            for line, text in enumerate(texts[unit]):
                axes.text(middle, top + 0.46 + 0.2 * line, text, fontsize=8.6, color=GREY, ha="center", va="center")
        top += height + 0.36
    row_of = {unit: row for row, units in enumerate(layers) for unit in units}
    for source, target in without_implied(read_imports()):
        if row_of[source] >= row_of[target]:
            raise ValueError(f"{source} imports {target}, which is no lower layer.")
        lane = LANES.get((source, target))
        if lane is None:
            _arrow(axes, boxes[source], boxes[target], far=row_of[target] - row_of[source] > 1)
        else:
            _lane(axes, boxes[source], boxes[target], left + width * lane)
    return top - 0.36


def _arrow(axes: Axes, source: tuple[float, ...], target: tuple[float, ...], *, far: bool) -> None:
    (left, top, right, bottom), (to_left, to_top, to_right, to_bottom) = source, target
    middle, to_middle = (left + right) / 2, (to_left + to_right) / 2
    if not far:
        points = [(middle + 0.3 * (to_middle - middle), bottom)]
        points += [(to_middle + 0.25 * (middle - to_middle), to_top)]
        points = [(min(max(points[0][0], left + 0.2), right - 0.2), bottom), points[1]]
        points[1] = (min(max(points[1][0], to_left + 0.2), to_right - 0.2), to_top)
    elif to_left - 0.1 < middle < to_right + 0.1:  # straight down
        points = [(middle, bottom), (middle, to_top)]
    elif left < to_middle < right:
        points = [(to_middle, bottom), (to_middle, to_top)]
    elif (to_middle < left and to_right < left) or (to_middle > right and to_left > right):  # to the side, then down
        side = left if to_middle < left else right
        height = (top + bottom) / 2
        points = [(side, height), (to_middle, height), (to_middle, to_top)]
    else:  # down, then to the side
        side = to_left if middle < to_middle else to_right
        height = (to_top + to_bottom) / 2
        points = [(middle, bottom), (middle, height), (side, height)]
    _line(axes, points)


def _lane(axes: Axes, source: tuple[float, ...], target: tuple[float, ...], lane: float) -> None:
    """Draws an arrow that goes down at `lane`, which it reaches and leaves sideways where the boxes are not there."""
    (left, top, right, bottom), (to_left, to_top, to_right, to_bottom) = source, target
    start = [(left if lane < left else right, (top + bottom) / 2), (lane, (top + bottom) / 2)]
    end = [(lane, (to_top + to_bottom) / 2), (to_left if lane < to_left else to_right, (to_top + to_bottom) / 2)]
    start = [(lane, bottom)] if left < lane < right else start
    end = [(lane, to_top)] if to_left < lane < to_right else end
    _line(axes, [*start, *end])


def _line(axes: Axes, points: list[tuple[float, float]]) -> None:
    """A line with round corners, a white rim that keeps crossings apart, and a head."""
    vertices, codes = [points[0]], [Curve.MOVETO]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        vertices += [_near(corner, before), corner, _near(corner, after)]
        codes += [Curve.LINETO, Curve.CURVE3, Curve.CURVE3]
    vertices.append(points[-1])
    codes.append(Curve.LINETO)
    curve = Curve(vertices, codes)
    axes.add_patch(PathPatch(curve, fill=False, edgecolor="white", linewidth=5, zorder=1, capstyle="butt"))
    axes.add_patch(
        FancyArrowPatch(
            path=curve, arrowstyle="-|>,head_length=6,head_width=3.2", color=LINE, linewidth=1.5, zorder=2, fill=False
        )
    )


def _near(corner: tuple[float, float], end: tuple[float, float], radius: float = 0.18) -> tuple[float, float]:
    length = max(((end[0] - corner[0]) ** 2 + (end[1] - corner[1]) ** 2) ** 0.5, 1e-9)
    share = min(radius / length, 0.5)
    return corner[0] + share * (end[0] - corner[0]), corner[1] + share * (end[1] - corner[1])


def _draw_journey(axes: Axes, layers: list[list[str]], *, top: float) -> float:
    """Draws a row of boxes for each stretch of the way; returns where they end."""
    colours = {unit: COLOURS[row % len(COLOURS)] for row, units in enumerate(layers) for unit in units}
    for title, steps in JOURNEY.items():
        axes.text(0.4, top, title, fontsize=12.5, weight="bold", color=INK, va="center")
        gap = 0.26
        wide = (11.2 - gap * (len(steps) - 1)) / len(steps)
        for number, step in enumerate(steps):
            left = 0.4 + number * (wide + gap)
            box = (left, top + 0.22, left + wide, top + 1.3)
            _box(axes, box, colours[step.module.split(".")[0]])
            middle = left + wide / 2
            module = step.module.replace(".", "/").replace("figshare_brain_tumor/", "…/")
            axes.text(middle, top + 0.4, module, fontsize=8.2, color=GREY, ha="center", va="center")
            axes.text(middle, top + 0.63, step.name, fontsize=10, weight="bold", color=INK, ha="center", va="center")
            for line, text in enumerate(textwrap.wrap(step.result, 23)):
                axes.text(middle, top + 0.87 + 0.18 * line, text, fontsize=8.8, color=INK, ha="center", va="center")
            if number:
                _line(axes, [(left - gap, top + 0.76), (left, top + 0.76)])
        top += 1.68
    return top - 0.1


def _box(axes: Axes, box: tuple[float, float, float, float], colour: str) -> None:
    left, top, right, bottom = box
    style = "round,pad=0,rounding_size=0.09"
    axes.add_patch(
        FancyBboxPatch(
            (left, top), right - left, bottom - top, boxstyle=style, facecolor=colour, edgecolor="white", zorder=3
        )
    )


if __name__ == "__main__":
    draw(OUTPUT)
    print(f"written to {OUTPUT}")
