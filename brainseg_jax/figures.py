"""Arrays in, pictures out: every figure that people look at, as a PNG file.

Pictures are (H, W) float arrays in [0, 1], masks are (H, W) arrays of bool or of 0 and 1. Figures are laid out in
inches and are meant to be read at a width of about 900 pixels. The same arguments give the same bytes.
"""

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D, Transform
from PIL import Image

from brainseg_jax.overlays import (
    DARK_BLUE,
    DIFFERENCE_COLORS,
    MASK_COLOR,
    VERMILLION,
    difference,
    overlay,
    to_grey,
    to_mask,
)

INK = "#222222"

_PANEL = 2.2  # inches; four of them fill the width
_GAP = 0.05
_MARGIN = 0.08
_LINE = 0.24  # inches that a line of text takes
_MAX_BYTES = 480_000  # of a file
_MAX_PIXELS = 1_800_000
_MAX_DPI = 160.0


@dataclass(frozen=True)
class Example:
    """A picture with the true and the predicted mask of its tumour.

    Attributes:
      image: (H, W) float in [0, 1].
      true_mask: (H, W) bool or 0 and 1.
      predicted_mask: (H, W) bool or 0 and 1.
      caption: a line that stands above the pictures.
      dice: the Dice coefficient of the two masks, in [0, 1].
    """

    image: np.ndarray
    true_mask: np.ndarray
    predicted_mask: np.ndarray
    caption: str
    dice: float


def segmentation_examples(examples: Sequence[Example], path: Path, *, title: str) -> None:
    """Draws a row per example: picture, true mask, predicted mask, difference with its Dice.

    The masks are enlarged; a frame in the picture shows which part.

    Args:
      examples: one or more.
      path: PNG file to write; missing folders are made.
      title: headline of the figure.

    Raises:
      ValueError: no examples, or arrays of one example that differ in shape.
    """
    columns = ["Picture", "True mask", "Predicted mask", "Difference"]
    rows = []
    for example in examples:
        image, truth, predicted = example.image, example.true_mask, example.predicted_mask
        window = _window(image, [truth, predicted])
        rows.append(
            [
                _Panel(to_grey(image), frame=window),
                _Panel(_cut(overlay(image, truth), window)),
                _Panel(_cut(overlay(image, predicted), window)),
                _Panel(_cut(difference(image, truth, predicted), window), f"Dice {example.dice:.3f}"),
            ]
        )
    _draw_rows(rows, [example.caption for example in examples], columns, path, title=title)


def prediction_comparison(
    images: Sequence[np.ndarray],
    true_masks: Sequence[np.ndarray],
    predictions: Mapping[str, Sequence[np.ndarray]],
    dice: Mapping[str, Sequence[float]],
    path: Path,
    *,
    captions: Sequence[str],
    title: str,
) -> None:
    """Draws a row per picture: picture, true mask, and the difference of every network with its Dice.

    The masks are enlarged, by the same amount for all networks; a frame in the picture shows which part.

    Args:
      images: N pictures, each (H, W) float in [0, 1].
      true_masks: N masks, each (H, W) bool or 0 and 1.
      predictions: for each network's name its N predicted masks, each (H, W) bool or 0 and 1.
      dice: for each network's name the N Dice coefficients of its masks, in [0, 1].
      path: PNG file to write; missing folders are made.
      captions: N lines that stand above the rows.
      title: headline of the figure.

    Raises:
      ValueError: no pictures, or sequences that differ in length, or arrays of one row that differ in shape.
    """
    if predictions.keys() != dice.keys():
        raise ValueError(f"Predictions are of {sorted(predictions)}, Dice of {sorted(dice)}.")
    for name in predictions:
        lengths = len(images), len(predictions[name]), len(dice[name])
        if len(set(lengths)) != 1:
            raise ValueError(f"Numbers of pictures, masks and Dice of {name} differ: {lengths}.")
    rows = []
    for index, (image, truth, _) in enumerate(zip(images, true_masks, captions, strict=True)):
        window = _window(image, [truth, *(masks[index] for masks in predictions.values())])
        row = [_Panel(to_grey(image), frame=window), _Panel(_cut(overlay(image, truth), window))]
        for name, masks in predictions.items():
            pixels = difference(image, truth, masks[index])
            row.append(_Panel(_cut(pixels, window), f"Dice {dice[name][index]:.3f}"))
        rows.append(row)
    _draw_rows(rows, captions, ["Picture", "True mask", *predictions], path, title=title)


def slice_gallery(
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    captions: Sequence[str],
    path: Path,
    *,
    columns: int = 4,
) -> None:
    """Draws pictures side by side, each with the outline of its tumour and its caption below.

    Args:
      images: N pictures, each (H, W) float in [0, 1].
      masks: N masks, each (H, W) bool or 0 and 1.
      captions: N short lines.
      path: PNG file to write; missing folders are made.
      columns: pictures in a row, at least 1.

    Raises:
      ValueError: no pictures, or sequences that differ in length, or a mask that differs from its picture in shape.
    """
    if not images:
        raise ValueError("There is no picture to draw.")
    columns = min(columns, len(images))
    panel = min(4 * _PANEL / columns, 2 * _PANEL)
    pitch = panel + _LINE + _GAP
    width = 2 * _MARGIN + columns * (panel + _GAP) - _GAP
    height = 2 * _MARGIN + math.ceil(len(images) / columns) * pitch - _GAP
    figure = Figure(figsize=(width, height))
    for index, (image, mask, caption) in enumerate(zip(images, masks, captions, strict=True)):
        row, column = divmod(index, columns)
        left, top = _MARGIN + column * (panel + _GAP), _MARGIN + row * pitch
        axes = _add_image(figure, to_grey(image), left, top, panel)
        area = to_mask(mask, image)
        if area.any() and not area.all():
            axes.contour(area, levels=[0.5], colors=[_rgb(MASK_COLOR)], linewidths=1.6)
        _text(figure, left + panel / 2, top + panel + _LINE / 2, caption, size=9, horizontalalignment="center")
    save_figure(figure, path)


def learning_curves(rows: Sequence[Mapping[str, float]], path: Path, *, title: str) -> None:
    """Draws loss and Dice of training and validation against the epoch.

    The epoch of the lowest validation loss is ringed. A faint vertical line stands where the learning rate fell by
    more than a tenth since the row before, unless it changes at most rows.

    Args:
      rows: one or more, in order, with the keys epoch, train_loss, train_dice, validation_loss, validation_dice and
        learning_rate; more keys are ignored, and what is not finite leaves a gap.
      path: PNG file to write; missing folders are made.
      title: headline of the figure.

    Raises:
      ValueError: no rows.
    """
    if not rows:
        raise ValueError("There is no epoch to draw.")
    best = min(rows, key=lambda row: row["validation_loss"] if math.isfinite(row["validation_loss"]) else math.inf)
    epochs = [row["epoch"] for row in rows]
    # A schedule that changes the rate at every epoch has no steps to mark.
    falls_in_steps = len({row["learning_rate"] for row in rows}) <= (len(rows) + 1) // 2
    reductions = [
        after["epoch"]
        for before, after in itertools.pairwise(rows)
        if falls_in_steps and after["learning_rate"] < 0.9 * before["learning_rate"]
    ]
    width, height = 9.0, 3.55
    figure = Figure(figsize=(width, height))
    _text(figure, 0.1, 0.22, title, size=12, weight="bold")
    marker = "o" if len(rows) <= 20 else ""
    for index, (quantity, name) in enumerate([("loss", "Loss"), ("dice", "Dice")]):
        axes = figure.add_axes((0.062 + 0.5 * index, 0.125, 0.425, 0.62))
        for epoch in reductions:
            line = axes.axvline(epoch, color="#BBBBBB", linewidth=1, linestyle=(0, (2, 2)), zorder=0)
            line.set_label("learning rate reduced" if epoch == reductions[0] else "")
        for part, color in [("train", DARK_BLUE), ("validation", VERMILLION)]:
            values = [row[f"{part}_{quantity}"] for row in rows]
            axes.plot(epochs, values, color=_rgb(color), linewidth=1.6, marker=marker, markersize=4, label=part)
        best_value = best[f"validation_{quantity}"]
        ring: dict[str, Any] = {"marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgewidth": 1.4}
        label = "best epoch (lowest validation loss)"
        axes.plot([best["epoch"]], [best_value], linestyle="", color=INK, label=label, **ring)
        axes.set_title(name, loc="left", fontsize=10.5, weight="bold", color=INK)
        axes.set_title(f"epoch {best['epoch']:g}: validation {best_value:.4f}", loc="right", fontsize=9, color=INK)
        axes.set_xlabel("epoch", fontsize=9, color=INK, labelpad=2)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        if quantity == "dice":
            axes.set_ylim(0, 1)
        if len(rows) == 1:
            axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
        axes.tick_params(labelsize=8.5, colors=INK, length=3)
        axes.grid(axis="y", color="#E6E6E6", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="center left",
        bbox_to_anchor=(0.1, 0.5),
        bbox_transform=_from_top(figure),
        ncols=len(handles),
        fontsize=8.5,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        columnspacing=1.4,
        handlelength=1.6,
    )
    save_figure(figure, path)


@dataclass(frozen=True)
class _Panel:
    """A picture in a row, (H, W, 3) uint8, with a note in its corner and the frame (row, column, side) of a part."""

    pixels: np.ndarray
    note: str = ""
    frame: tuple[int, int, int] | None = None


def _draw_rows(
    rows: Sequence[Sequence[_Panel]], captions: Sequence[str], columns: Sequence[str], path: Path, *, title: str
) -> None:
    """Draws rows of panels under a headline, a legend of the colours and the columns' names."""
    if not rows:
        raise ValueError("There is no picture to draw.")
    head = _MARGIN + 3.4 * _LINE
    pitch = _LINE + _PANEL + _GAP
    width = 2 * _MARGIN + len(columns) * (_PANEL + _GAP) - _GAP
    figure = Figure(figsize=(width, head + len(rows) * pitch + _MARGIN))
    _text(figure, _MARGIN, _MARGIN + 0.6 * _LINE, title, size=12, weight="bold")
    figure.legend(
        handles=[Patch(color=_rgb(color), label=kind) for kind, color in DIFFERENCE_COLORS.items()],
        loc="center left",
        bbox_to_anchor=(_MARGIN, 1.7 * _LINE + _MARGIN),
        bbox_transform=_from_top(figure),
        ncols=len(DIFFERENCE_COLORS),
        fontsize=9,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        handlelength=1,
        handleheight=1,
        handletextpad=0.5,
        columnspacing=1.5,
    )
    for column, name in enumerate(columns):
        middle = _MARGIN + column * (_PANEL + _GAP) + _PANEL / 2
        _text(figure, middle, head - _LINE / 2, name, size=10, weight="bold", horizontalalignment="center")
    for row, (panels, caption) in enumerate(zip(rows, captions, strict=True)):
        top = head + row * pitch
        _text(figure, _MARGIN, top + _LINE / 2, caption, size=9)
        for column, panel in enumerate(panels):
            left = _MARGIN + column * (_PANEL + _GAP)
            axes = _add_image(figure, panel.pixels, left, top + _LINE, _PANEL)
            if panel.frame is not None:
                first_row, first_column, side = panel.frame
                corner = (first_column - 0.5, first_row - 0.5)
                axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor="white", linewidth=1))
            if panel.note:
                box = {"facecolor": "black", "alpha": 0.65, "edgecolor": "none", "boxstyle": "square,pad=0.25"}
                axes.text(0.03, 0.04, panel.note, transform=axes.transAxes, fontsize=9, color="white", bbox=box)
    save_figure(figure, path)


def _add_image(figure: Figure, pixels: np.ndarray, left: float, top: float, side: float) -> Axes:
    """Puts (H, W, 3) uint8 pixels into the square whose upper left corner and side are given in inches."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((left / width, 1 - (top + side) / height, side / width, side / height))
    axes.imshow(pixels, interpolation="hanning")
    axes.set_axis_off()
    return axes


def _text(figure: Figure, left: float, top: float, text: str, *, size: float, **settings: Any) -> None:
    """Writes a line whose vertical middle lies `top` inches below the upper edge."""
    settings = {"verticalalignment": "center_baseline", "color": INK, "fontsize": size, **settings}
    figure.text(left, top, text, transform=_from_top(figure), **settings)


def _from_top(figure: Figure) -> Transform:
    """The transform of inches from the upper left corner, downwards."""
    return Affine2D().scale(1, -1).translate(0, figure.get_figheight()) + figure.dpi_scale_trans


def _window(image: np.ndarray, masks: Sequence[np.ndarray]) -> tuple[int, int, int] | None:
    """First row, first column and side of a square around all masks, or None where the whole picture is needed."""
    area = np.logical_or.reduce([to_mask(mask, image) for mask in masks])
    if not area.any():
        return None
    shortest = min(area.shape)
    spans = [np.flatnonzero(area.any(axis=axis)) for axis in (1, 0)]
    extent = max(span[-1] - span[0] + 1 for span in spans)
    side = max(math.ceil(1.5 * extent), round(shortest / 4))
    if side > 0.8 * shortest:
        return None
    # The middle of the masks in the middle of the square, as far as the edges of the picture allow.
    starts = [
        min(max(int(span[0] + span[-1] + 1 - side) // 2, 0), length - side)
        for span, length in zip(spans, area.shape, strict=True)
    ]
    return starts[0], starts[1], side


def _cut(pixels: np.ndarray, window: tuple[int, int, int] | None) -> np.ndarray:
    if window is None:
        return pixels
    row, column, side = window
    return pixels[row : row + side, column : column + side]


def _rgb(color: tuple[int, int, int]) -> tuple[float, float, float]:
    """uint8 values as matplotlib wants them, in [0, 1]."""
    return color[0] / 255, color[1] / 255, color[2] / 255


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a PNG file, without date and software, with as many dots per inch as the limits allow."""
    width, height = figure.get_size_inches()
    dpi = min(_MAX_DPI, math.sqrt(_MAX_PIXELS / (width * height)))
    content = _render(figure, dpi)
    while len(content) > _MAX_BYTES:
        dpi *= 0.95 * math.sqrt(_MAX_BYTES / len(content))
        content = _render(figure, dpi)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _render(figure: Figure, dpi: float) -> bytes:
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[:, :, :3]
    # Every fourth of the 256 levels is as good to the eye and halves the file; greys stay grey.
    pixels = np.rint(np.rint(pixels / 255 * 63) / 63 * 255).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    return content.getvalue()
