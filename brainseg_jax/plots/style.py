"""Colours, text and axes that all figures share, and the writing of a figure as a PNG file."""

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Affine2D, Transform
from PIL import Image

INK = "#222222"
MARGIN, LINE = 0.08, 0.24  # inches: the margin of a figure and the height of a line of text
# Settings of a legend without frame and padding, placed by the middle of its left edge.
LEGEND: Mapping[str, Any] = {"loc": "center left", "frameon": False, "borderpad": 0, "borderaxespad": 0}
_MAX_BYTES, _MAX_PIXELS, _MAX_DPI = 480_000, 1_800_000, 160.0  # of a PNG file


def write_line(figure: Figure, left: float, top: float, text: str, *, size: float, **settings: Any) -> None:
    """Writes a line of text; its vertical middle lies `top` inches below the upper edge of the figure."""
    settings = {"verticalalignment": "center_baseline", "color": INK, "fontsize": size, **settings}
    figure.text(left, top, text, transform=from_top(figure), **settings)


def from_top(figure: Figure) -> Transform:
    """Returns the transform of inches, measured right and down from the upper left corner of the figure."""
    return Affine2D().scale(1, -1).translate(0, figure.get_figheight()) + figure.dpi_scale_trans


def style_axes(axes: Axes) -> None:
    """Draws small tick labels, a grid of horizontal lines behind the data, and no upper and right edge."""
    axes.tick_params(labelsize=8.5, colors=INK, length=3)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def rgb(color: tuple[int, int, int]) -> tuple[float, float, float]:
    """Converts uint8 values to matplotlib's range [0, 1]."""
    return color[0] / 255, color[1] / 255, color[2] / 255


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a PNG file without metadata, at the highest resolution that the limits on its size allow."""
    width, height = figure.get_size_inches()
    dpi = min(_MAX_DPI, math.sqrt(_MAX_PIXELS / (width * height)))
    content = _render(figure, dpi)
    while len(content) > _MAX_BYTES:
        dpi *= 0.95 * math.sqrt(_MAX_BYTES / len(content))
        content = _render(figure, dpi)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        error.filename = str(path)  # Python names a file that cannot be opened, but not one that cannot be written
        raise


def _render(figure: Figure, dpi: float) -> bytes:
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[:, :, :3]
    # 64 levels look the same as 256 and halve the size of the file.
    pixels = np.rint(np.rint(pixels / 255 * 63) / 63 * 255).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    return content.getvalue()
