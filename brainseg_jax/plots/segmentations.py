"""Draws figures of images and masks and writes them as PNG files.

Images are (H, W) float arrays in [0, 1], masks are (H, W) arrays of bool or of 0 and 1. Figures are laid out in
inches and are meant to be read at a width of about 900 pixels. The same arguments give the same bytes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from scipy import ndimage

from brainseg_jax.plots.overlays import (
    DIFFERENCE_COLORS,
    MASK_COLOR,
    difference,
    overlay,
    to_grey,
    to_mask,
)
from brainseg_jax.plots.style import LEGEND, LINE, MARGIN, from_top, rgb, save_figure, write_line

_PANEL = 2.2  # inches; four of them fill the width
_GAP = 0.05


@dataclass(frozen=True)
class Example:
    """An image with the true and the predicted mask of its tumour.

    Attributes:
      image: (H, W) float in [0, 1].
      true_mask: (H, W) bool or 0 and 1.
      predicted_mask: (H, W) bool or 0 and 1.
      caption: the line above the images.
      dice: the Dice coefficient of the two masks, in [0, 1].
    """

    image: np.ndarray
    true_mask: np.ndarray
    predicted_mask: np.ndarray
    caption: str
    dice: float


def segmentation_examples(examples: Sequence[Example], path: Path, *, title: str) -> None:
    """Draws a row per example: image, true mask, predicted mask, difference with its Dice.

    The masks are shown enlarged; a frame in the image marks the region.

    Args:
      examples: one or more.
      path: PNG file to write; missing folders are made.
      title: headline of the figure.

    Raises:
      ValueError: there is no example, or the arrays of one example differ in shape.
    """
    columns = ["Image", "True mask", "Predicted mask", "Difference"]
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
    """Draws a row per image: image, true mask, and the difference of every network with its Dice.

    The masks are shown enlarged, all in the same region; a frame in the image marks it.

    Args:
      images: N images, each (H, W) float in [0, 1].
      true_masks: N masks, each (H, W) bool or 0 and 1.
      predictions: N predicted masks by the name of the network, each (H, W) bool or 0 and 1.
      dice: N Dice coefficients by the name of the network, in [0, 1].
      path: PNG file to write; missing folders are made.
      captions: N lines above the rows.
      title: headline of the figure.

    Raises:
      ValueError: there is no image, the sequences differ in length, or the arrays of one row differ in shape.
    """
    if predictions.keys() != dice.keys():
        raise ValueError(f"predictions has the networks {sorted(predictions)}, but dice has {sorted(dice)}.")
    for name in predictions:
        lengths = len(images), len(predictions[name]), len(dice[name])
        if len(set(lengths)) != 1:
            raise ValueError(f"The numbers of images, masks and Dice coefficients of {name} differ: {lengths}.")
    rows = []
    for index, (image, truth, _) in enumerate(zip(images, true_masks, captions, strict=True)):
        window = _window(image, [truth, *(masks[index] for masks in predictions.values())])
        row = [_Panel(to_grey(image), frame=window), _Panel(_cut(overlay(image, truth), window))]
        for name, masks in predictions.items():
            pixels = difference(image, truth, masks[index])
            row.append(_Panel(_cut(pixels, window), f"Dice {dice[name][index]:.3f}"))
        rows.append(row)
    _draw_rows(rows, captions, ["Image", "True mask", *predictions], path, title=title)


def slice_gallery(
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    captions: Sequence[str],
    path: Path,
    *,
    columns: int = 4,
) -> None:
    """Draws images side by side, each with the outline of its tumour and its caption below.

    Args:
      images: N images, each (H, W) float in [0, 1].
      masks: N masks, each (H, W) bool or 0 and 1.
      captions: N short lines.
      path: PNG file to write; missing folders are made.
      columns: images in a row, at least 1.

    Raises:
      ValueError: there is no image, the sequences differ in length, or a mask and its image differ in shape.
    """
    if not images:
        raise ValueError("There is no image to draw: pass at least one.")
    columns = min(columns, len(images))
    panel = min(4 * _PANEL / columns, 2 * _PANEL)
    pitch = panel + LINE + _GAP
    width = 2 * MARGIN + columns * (panel + _GAP) - _GAP
    height = 2 * MARGIN + math.ceil(len(images) / columns) * pitch - _GAP
    figure = Figure(figsize=(width, height))
    for index, (image, mask, caption) in enumerate(zip(images, masks, captions, strict=True)):
        row, column = divmod(index, columns)
        left, top = MARGIN + column * (panel + _GAP), MARGIN + row * pitch
        axes = _add_image(figure, to_grey(image), left, top, panel)
        area = to_mask(mask, image)
        if area.any() and not area.all():
            axes.contour(area, levels=[0.5], colors=[rgb(MASK_COLOR)], linewidths=1.6)
        write_line(figure, left + panel / 2, top + panel + LINE / 2, caption, size=9, horizontalalignment="center")
    save_figure(figure, path)


@dataclass(frozen=True)
class _Panel:
    """An image in a row, (H, W, 3) uint8, with a note in its corner and a square frame (row, column, side)."""

    pixels: np.ndarray
    note: str = ""
    frame: tuple[int, int, int] | None = None


def _draw_rows(
    rows: Sequence[Sequence[_Panel]], captions: Sequence[str], columns: Sequence[str], path: Path, *, title: str
) -> None:
    """Draws rows of panels below a headline, a legend of the colours and the column titles."""
    if not rows:
        raise ValueError("There is no image to draw: pass at least one.")
    head = MARGIN + 3.4 * LINE
    pitch = LINE + _PANEL + _GAP
    width = 2 * MARGIN + len(columns) * (_PANEL + _GAP) - _GAP
    figure = Figure(figsize=(width, head + len(rows) * pitch + MARGIN))
    write_line(figure, MARGIN, MARGIN + 0.6 * LINE, title, size=12, weight="bold")
    figure.legend(
        handles=[Patch(color=rgb(color), label=kind) for kind, color in DIFFERENCE_COLORS.items()],
        bbox_to_anchor=(MARGIN, 1.7 * LINE + MARGIN),
        bbox_transform=from_top(figure),
        ncols=len(DIFFERENCE_COLORS),
        fontsize=9,
        handlelength=1,
        handleheight=1,
        handletextpad=0.5,
        columnspacing=1.5,
        **LEGEND,
    )
    for column, name in enumerate(columns):
        middle = MARGIN + column * (_PANEL + _GAP) + _PANEL / 2
        write_line(figure, middle, head - LINE / 2, name, size=10, weight="bold", horizontalalignment="center")
    for row, (panels, caption) in enumerate(zip(rows, captions, strict=True)):
        top = head + row * pitch
        write_line(figure, MARGIN, top + LINE / 2, caption, size=9)
        for column, panel in enumerate(panels):
            left = MARGIN + column * (_PANEL + _GAP)
            axes = _add_image(figure, panel.pixels, left, top + LINE, _PANEL)
            if panel.frame is not None:
                first_row, first_column, side = panel.frame
                corner = (first_column - 0.5, first_row - 0.5)
                axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor="white", linewidth=1))
            if panel.note:
                box = {"facecolor": "black", "alpha": 0.65, "edgecolor": "none", "boxstyle": "square,pad=0.25"}
                axes.text(0.03, 0.04, panel.note, transform=axes.transAxes, fontsize=9, color="white", bbox=box)
    save_figure(figure, path)


def _add_image(figure: Figure, pixels: np.ndarray, left: float, top: float, side: float) -> Axes:
    """Shows (H, W, 3) uint8 pixels in a square; `left`, `top` and `side` are in inches."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((left / width, 1 - (top + side) / height, side / width, side / height))
    axes.imshow(pixels, interpolation="hanning")
    axes.set_axis_off()
    return axes


def _window(image: np.ndarray, masks: Sequence[np.ndarray]) -> tuple[int, int, int] | None:
    """Returns first row, first column and side of a square around all masks, or None for the whole image."""
    area = np.logical_or.reduce([to_mask(mask, image) for mask in masks])
    if not area.any():
        return None
    shortest = min(area.shape)
    (box,) = ndimage.find_objects(area.astype(np.uint8))
    extent = max(span.stop - span.start for span in box)
    side = max(math.ceil(1.5 * extent), round(shortest / 4))
    if side > 0.8 * shortest:
        return None
    # The masks are centred in the square unless it would leave the image.
    starts = [
        min(max((span.start + span.stop - side) // 2, 0), length - side)
        for span, length in zip(box, area.shape, strict=True)
    ]
    return starts[0], starts[1], side


def _cut(pixels: np.ndarray, window: tuple[int, int, int] | None) -> np.ndarray:
    if window is None:
        return pixels
    row, column, side = window
    return pixels[row : row + side, column : column + side]
