"""Draws the charts of a report as SVG elements, whose colours follow the page's light or dark style."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator

from brainseg_jax.evaluation.scores import SliceScore

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 352, 10, 184  # of the axes
SPLIT_COLORS = {"train": "blue", "validation": "orange"}  # classes of assets/style.css
# Columns of metrics.jsonl that are drawn.
CURVES = ("train_loss", "validation_loss", "train_dice", "validation_dice", "learning_rate")
# Of the classes, in turn.
CLASS_COLORS = ("blue", "orange", "green", "ink")
CLASS_SHAPES = ("circle", "triangle", "square")
_SIGNS = {"circle": "●", "triangle": "▲", "square": "■"}
Points = Iterable[tuple[float, float]]


class Chart:
    """Axes of a chart and what is drawn on them."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], *, log_x: bool = False) -> None:
        """Sets the ranges of both axes: the values at their ends."""
        self._x, self._y, self._log_x, self._elements = x, y, log_x, list[str]()

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Returns where a point lies in the drawing."""
        (low, high), value = self._x, x
        if self._log_x:
            low, high, value = math.log(low), math.log(high), math.log(x)
        across, up = (value - low) / (high - low), (y - self._y[0]) / (self._y[1] - self._y[0])
        return round(LEFT + across * (RIGHT - LEFT), 1), round(BOTTOM - up * (BOTTOM - TOP), 1)

    def line(self, points: Points, style: str) -> None:
        """Draws a line with the CSS classes of `style`; a value that is not finite leaves a gap."""
        path, command = "", "M"
        for x, y in points:
            if not math.isfinite(y):
                command = "M"
                continue
            across, down = self.place(x, y)
            path += f"{command}{across:g} {down:g}"
            command = "L"
        if path:
            self._elements.append(f'<path class="line {style}" d="{path}"/>')

    def dots(self, points: Points, style: str, *, shape: str = "circle", size: float = 2.4) -> None:
        """Draws points as one of the shapes "circle", "triangle" and "square"."""
        s = size
        outline = {
            "circle": f"m{-s:g} 0a{s:g} {s:g} 0 1 0 {2 * s:g} 0a{s:g} {s:g} 0 1 0 {-2 * s:g} 0",
            "triangle": f"m0 {-1.2 * s:g}l{1.2 * s:g} {2.2 * s:g}h{-2.4 * s:g}z",
            "square": f"m{-0.9 * s:g} {-0.9 * s:g}h{1.8 * s:g}v{1.8 * s:g}h{-1.8 * s:g}z",
        }[shape]
        # A path for each point, so that overlapping points look darker.
        places = (self.place(*point) for point in points)
        paths = "".join(f'<path d="M{across:g} {down:g}{outline}"/>' for across, down in places)
        self._elements.append(f'<g class="dots {style}">{paths}</g>')

    def mark(self, x: float) -> None:
        """Draws a dashed line from top to bottom."""
        across, _ = self.place(x, self._y[0])
        self._elements.append(f'<line class="mark" x1="{across}" x2="{across}" y1="{TOP}" y2="{BOTTOM}"/>')

    def mean(self, x: float, value: float, ends: Sequence[float] | None) -> None:
        """Draws a mean as a diamond with its number, and its interval as a bar."""
        across, down = self.place(x, value)
        if ends:
            (_, low), (_, high) = self.place(x, ends[0]), self.place(x, ends[1])
            self._elements.append(
                f'<path class="mean" d="M{across} {low}V{high}M{across - 5} {low}h10m-10 {high - low:g}h10"/>'
            )
        self._elements.append(f'<path class="mean" d="M{across} {down - 5:g}l5 5l-5 5l-5 -5z"/>')
        self._elements.append(f'<text class="value" x="{across + 9:g}" y="{down + 4:g}">{value:.3f}</text>')

    def to_svg(
        self,
        *,
        description: str,
        x_label: str,
        x_ticks: Mapping[float, str],
        y_ticks: Mapping[float, str],
    ) -> str:
        """Returns the SVG element.

        Args:
          description: says in words what the chart shows, for readers who cannot see it.
          x_label: below the axis.
          x_ticks: the text at each place.
          y_ticks: likewise.
        """
        axes = []
        for value, text in y_ticks.items():
            _, down = self.place(self._x[0], value)
            axes.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{down}" y2="{down}"/>')
            axes.append(f'<text x="{LEFT - 5}" y="{down + 4:g}" text-anchor="end">{escape(text)}</text>')
        for value, text in x_ticks.items():
            across, _ = self.place(value, self._y[0])
            axes.append(f'<text x="{across}" y="{BOTTOM + 15}" text-anchor="middle">{escape(text)}</text>')
        axes.append(f'<text x="{(LEFT + RIGHT) / 2:g}" y="{BOTTOM + 31}" text-anchor="middle">{escape(x_label)}</text>')
        content = "\n".join([*axes, *self._elements])
        return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(description)}">\n{content}\n</svg>'


def figure(title: str, svg: str, key: Iterable[tuple[str, str, str]] = ()) -> str:
    """Returns a chart with its title, and its key below: (CSS classes, sign, text) each."""
    items = "".join(f'<li class="{style}">{sign} <span>{escape(text)}</span></li>' for style, sign, text in key)
    below = f'<ul class="key">{items}</ul>' if items else ""
    return f"<figure><figcaption>{escape(title)}</figcaption>\n{svg}\n{below}</figure>"


def learning_curve(runs: Sequence[Sequence[Mapping[str, float]]], quantity: str) -> str:
    """Draws "loss" or "dice" of training and validation against the epoch, or the "learning_rate".

    Args:
      runs: the rows of metrics.jsonl of each run, one or more.
      quantity: what is drawn.
    """
    title = quantity.replace("_", " ").capitalize()
    curves = {"learning_rate": "ink"}
    if quantity != "learning_rate":
        curves = {f"{split}_{quantity}": color for split, color in SPLIT_COLORS.items()}
    values = [row[name] for rows in runs for row in rows for name in curves]
    top = max([value for value in values if math.isfinite(value)], default=1.0) or 1.0
    ticks = nice_ticks(0, 1 if quantity == "dice" else top)
    last = max(row["epoch"] for rows in runs for row in rows)
    chart = Chart((min(1, last - 1), last), (0, 1 if quantity == "dice" else max(ticks)))
    best = [min(rows, key=lambda row: _finite(row["validation_loss"])) for rows in runs]
    if len(runs) == 1:
        chart.mark(best[0]["epoch"])
    for rows in runs:
        for name, color in curves.items():
            chart.line(((row["epoch"], row[name]) for row in rows), f"{color}{' dashed' * name.startswith('train')}")
    description = f"{title} by epoch, 1 to {last:g}."
    key = []
    if quantity != "learning_rate":
        at_best = ", ".join(f"{row[f'validation_{quantity}']:.3f} in epoch {row['epoch']:g}" for row in best)
        description += f" On validation, where its loss is lowest: {at_best}."
        signs = {"train": "╌╌", "validation": "━━"}
        key = [(color, signs[split], {"train": "training"}.get(split, split)) for split, color in SPLIT_COLORS.items()]
        key += [("ink", "┊", f"epoch {best[0]['epoch']:g}: lowest validation loss")] * (len(runs) == 1)
    x_ticks = {value: f"{value:g}" for value in nice_ticks(chart._x[0], last, whole=True)}
    svg = chart.to_svg(
        description=description, x_label="epoch", x_ticks=x_ticks, y_ticks={value: f"{value:g}" for value in ticks}
    )
    return figure(title, svg, key)


def dice_by_class(scores: Sequence[SliceScore], summary: Mapping[str, Any]) -> str:
    """Draws the Dice of each slice by class, with mean and interval; `summary` is what `summarize` returns."""
    present = [label for label, of_class in summary["by_class"].items() if of_class["dice"] is not None]
    signs = _signs(summary["by_class"])
    places = max(len(present), 1)  # one empty place where no slice has a tumour
    chart, jitter = Chart((-0.5, places - 0.5), (0, 1)), np.random.default_rng(0)
    for place, label in enumerate(present):
        dice = [score.dice for score in scores if score.label == label and score.tumour_pixels]
        # Left of the mean; the mean's number is on its right.
        across = place - 0.08 - 0.28 * jitter.random(len(dice))
        chart.dots(zip(across.tolist(), dice, strict=True), signs[label][0], shape=signs[label][1], size=1.8)
        chart.mean(place, summary["by_class"][label]["dice"], summary["intervals"]["by_class"][label]["dice"])
    means = ", ".join(f"{label} {summary['by_class'][label]['dice']:.3f}" for label in present)
    svg = chart.to_svg(
        description=f"Dice of the slices by class; means: {means}.",
        x_label="diamond: mean; bar: its 95 % interval",
        x_ticks=dict(enumerate(present)),
        y_ticks=_SHARES,
    )
    return figure("Dice by class", svg)


def dice_by_size(scores: Sequence[SliceScore], summary: Mapping[str, Any]) -> str:
    """Draws Dice against the tumour's share of the image; slices without tumour are left out."""
    signs = _signs(summary["by_class"])
    known = [score for score in scores if score.tumour_pixels]
    shares = [100 * score.tumour_pixels / score.image_pixels for score in known] or [1.0]
    ends = 0.8 * min(shares), 1.25 * max(shares)
    chart = Chart(ends, (0, 1), log_x=True)
    present = [label for label in signs if any(score.label == label for score in known)]
    for label in present:
        of_class = [(share, score.dice) for share, score in zip(shares, known, strict=False) if score.label == label]
        chart.dots(of_class, signs[label][0], shape=signs[label][1])
    ticks = [value for value in LogLocator(subs=(1.0, 2.0, 5.0)).tick_values(*ends) if ends[0] <= value <= ends[1]]
    svg = chart.to_svg(
        description=f"Dice against the tumour's share of the image, of {len(known)} slices; the table has the means.",
        x_label="tumour’s share of the image (logarithmic)",
        x_ticks={value: f"{value:g} %" for value in ticks},
        y_ticks=_SHARES,
    )
    return figure("Dice by tumour size", svg, [(signs[it][0], _SIGNS[signs[it][1]], it) for it in present])


def _signs(classes: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Returns color and shape of each class."""
    return dict(zip(classes, zip(itertools.cycle(CLASS_COLORS), itertools.cycle(CLASS_SHAPES)), strict=False))


def calibration_chart(calibration: Mapping[str, Any]) -> str:
    """Draws the share of tumour pixels against the predicted probability; see `Calibration.describe`."""
    chart = Chart((0, 1), (0, 1))
    bins = zip(calibration["mean_probability"], calibration["tumour_share"], strict=True)
    filled = [(mean, share) for mean, share in bins if share is not None]
    chart.line([(0, 0), (1, 1)], "ink dashed")
    chart.line(filled, "blue")
    chart.dots(filled, "blue", size=3)
    error = calibration["expected_error_uncertain"]
    svg = chart.to_svg(
        description="Share of the pixels that is tumour, by predicted probability"
        + ("." if error is None else f"; the mean gap of uncertain pixels is {error:.3f}."),
        x_label="predicted probability",
        x_ticks=_SHARES,
        y_ticks=_SHARES,
    )
    key = [("blue", "━━", "share of the pixels that is tumour"), ("ink", "╌╌", "as it should be")]
    return figure("Calibration of the pixels", svg, key)


def nice_ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Returns round numbers from `low` to the next after `high`; with `whole`, whole ones up to `high`."""
    ticks = MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=whole).tick_values(low, high)
    return [float(value) for value in ticks if value >= low and (value <= high or not whole)]


_SHARES = {value: f"{value:g}" for value in (0, 0.2, 0.4, 0.6, 0.8, 1.0)}


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.inf
