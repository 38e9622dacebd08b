"""What all figures share: colours, text, and how a figure becomes a PNG file."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Affine2D, Transform
from PIL import Image

INK = "#222222"


MARGIN = 0.08


LINE = 0.24  # inches that a line of text takes


_MAX_BYTES = 480_000  # of a file


_MAX_PIXELS = 1_800_000


_MAX_DPI = 160.0


def write_line(figure: Figure, left: float, top: float, text: str, *, size: float, **settings: Any) -> None:
    """Writes a line whose vertical middle lies `top` inches below the upper edge."""
    settings = {"verticalalignment": "center_baseline", "color": INK, "fontsize": size, **settings}
    figure.text(left, top, text, transform=from_top(figure), **settings)


def from_top(figure: Figure) -> Transform:
    """The transform of inches from the upper left corner, downwards."""
    return Affine2D().scale(1, -1).translate(0, figure.get_figheight()) + figure.dpi_scale_trans


def rgb(color: tuple[int, int, int]) -> tuple[float, float, float]:
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
