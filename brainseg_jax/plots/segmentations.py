"""Draws figures of images and masks and writes them as PNG files.

Images are (H, W) float arrays in [0, 1], masks are (H, W) arrays of bool or of 0 and 1. Figures are laid out in
inches, to be read at a width of about 900 pixels. The same arguments give the same bytes.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from scipy import ndimage

from brainseg_jax.plots.overlays import DIFFERENCE_COLORS, MASK_COLOR, difference, overlay, to_grey, to_mask
from brainseg_jax.plots.style import LEGEND, LINE, MARGIN, from_top, rgb, save_figure, write_line

_PANEL, _GAP = 2.2, 0.05  # inches; four panels fill the width


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
    """Draws a row per image: image, true mask, and for each network the difference to the true mask with its Dice.

    For a single network its predicted mask comes before the difference. The masks are shown enlarged, all in the same
    region; a frame in the image marks it.

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
    if not images:
        raise ValueError("There is no image to draw: pass at least one.")
    for name, masks in predictions.items():
        lengths = len(images), len(masks), len(dice.get(name, ()))
        if len(set(lengths)) != 1:
            raise ValueError(f"The numbers of images, masks and Dice coefficients of {name} differ: {lengths}.")
    columns = ["Image", "True mask", *(["Predicted mask"] if len(predictions) == 1 else []), *predictions]
    head, pitch = MARGIN + 3.4 * LINE, LINE + _PANEL + _GAP
    width = 2 * MARGIN + len(columns) * (_PANEL + _GAP) - _GAP
    figure = Figure(figsize=(width, head + len(images) * pitch + MARGIN))
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
    lefts = [MARGIN + column * (_PANEL + _GAP) for column in range(len(columns))]
    for left, column in zip(lefts, columns, strict=True):
        middle = left + _PANEL / 2
        write_line(figure, middle, head - LINE / 2, column, size=10, weight="bold", horizontalalignment="center")
    for row, (image, truth, caption) in enumerate(zip(images, true_masks, captions, strict=True)):
        masks = [masks[row] for masks in predictions.values()]
        window = _window(image, [truth, *masks])
        shown = [truth, masks[0]] if len(masks) == 1 else [truth]
        panels = [to_grey(image), *(_cut(overlay(image, mask), window) for mask in shown)]
        panels += [_cut(difference(image, truth, mask), window) for mask in masks]
        top = head + row * pitch
        write_line(figure, MARGIN, top + LINE / 2, caption, size=9)
        panel_axes = [
            _add_image(figure, pixels, left, top + LINE, _PANEL) for left, pixels in zip(lefts, panels, strict=True)
        ]
        if window is not None:
            first_row, first_column, side = window
            corner = (first_column - 0.5, first_row - 0.5)
            panel_axes[0].add_patch(Rectangle(corner, side, side, fill=False, edgecolor="white", linewidth=1))
        box = {"facecolor": "black", "alpha": 0.65, "edgecolor": "none", "boxstyle": "square,pad=0.25"}
        for axes, values in zip(panel_axes[-len(masks) :], (dice[name] for name in predictions), strict=True):
            note = f"Dice {values[row]:.3f}"
            axes.text(0.03, 0.04, note, transform=axes.transAxes, fontsize=9, color="white", bbox=box)
    save_figure(figure, path)


def slice_gallery(
    images: Sequence[np.ndarray], masks: Sequence[np.ndarray], captions: Sequence[str], path: Path, *, columns: int = 4
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
    figure = Figure(figsize=(width, 2 * MARGIN + math.ceil(len(images) / columns) * pitch - _GAP))
    for index, (image, mask, caption) in enumerate(zip(images, masks, captions, strict=True)):
        row, column = divmod(index, columns)
        left, top = MARGIN + column * (panel + _GAP), MARGIN + row * pitch
        axes = _add_image(figure, to_grey(image), left, top, panel)
        area = to_mask(mask, image)
        if area.any() and not area.all():
            axes.contour(area, levels=[0.5], colors=[rgb(MASK_COLOR)], linewidths=1.6)
        write_line(figure, left + panel / 2, top + panel + LINE / 2, caption, size=9, horizontalalignment="center")
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
    (box,) = ndimage.find_objects(area.astype(np.uint8))
    shortest = min(area.shape)
    side = max(math.ceil(1.5 * max(span.stop - span.start for span in box)), round(shortest / 4))
    if side > 0.8 * shortest:
        return None
    # The masks are centred in the square unless it would leave the image.
    row, column = (
        min(max((span.start + span.stop - side) // 2, 0), length - side)
        for span, length in zip(box, area.shape, strict=True)
    )
    return row, column, side


def _cut(pixels: np.ndarray, window: tuple[int, int, int] | None) -> np.ndarray:
    if window is None:
        return pixels
    row, column, side = window
    return pixels[row : row + side, column : column + side]
