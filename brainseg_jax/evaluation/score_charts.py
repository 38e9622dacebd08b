"""Draws charts of scores, without any image of a patient."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from brainseg_jax.evaluation.scores import SliceScore
from brainseg_jax.plots.style import INK, save_figure, style_axes

# Of the classes, in turn. From Okabe and Ito 2008, as in plots/overlays.py: distinct with any kind of colour blindness.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "^", "s", "D", "v")
SIDE_BY_SIDE = 4  # classes whose names fit beside each other


def score_overview(
    scores: Sequence[SliceScore],
    calibration: Mapping[str, Any],
    path: Path,
    *,
    title: str,
    classes: Sequence[str],
) -> None:
    """Draws the distribution of Dice by class, Dice against tumour size, and the calibration of the probabilities.

    Args:
      scores: one or more; slices without a tumour have no Dice and are not drawn.
      calibration: see `Calibration.describe` of metrics/calibration.py.
      path: PNG file to write; missing folders are made.
      title: headline of the figure.
      classes: the names of all classes, in their order.

    Raises:
      ValueError: no scores.
    """
    if not scores:
        raise ValueError("There is no score to draw.")
    with_tumour = [score for score in scores if score.tumour_pixels]
    figure = Figure(figsize=(10.5, 3.9))
    figure.text(0.008, 0.945, title, fontsize=12, fontweight="bold", color=INK)
    by_class, by_size, reliability = (figure.add_axes((left, 0.14, 0.265, 0.655)) for left in (0.05, 0.385, 0.725))
    _draw_classes(by_class, with_tumour, classes)
    _draw_sizes(by_size, with_tumour, classes)
    _draw_calibration(reliability, calibration)
    for axes, name in (
        (by_class, "Dice of the slices by class"),
        (by_size, "Dice against tumour size"),
        (reliability, "Calibration of the pixels"),
    ):
        axes.set_title(name, loc="left", pad=15, fontsize=10.5, fontweight="bold", color=INK)
        axes.set_ylim(-0.03, 1.03)
        style_axes(axes)
    save_figure(figure, path)


def _draw_classes(axes: Axes, scores: Sequence[SliceScore], classes: Sequence[str]) -> None:
    jitter, ticks = np.random.default_rng(0), []
    for place, label in enumerate(classes):
        dice = np.array([score.dice for score in scores if score.label == label])
        ticks.append(f"{label}\n{dice.size} slices")
        if not dice.size:
            continue
        color = COLORS[place % len(COLORS)]
        axes.scatter(place + jitter.uniform(-0.28, 0.28, dice.size), dice, s=5, color=color, alpha=0.35, linewidths=0)
        low, middle, high = np.percentile(dice, [25, 50, 75])
        axes.plot([place, place], [low, high], color=INK, linewidth=5, alpha=0.35, solid_capstyle="butt")
        axes.plot([place - 0.3, place + 0.3], [middle] * 2, color=INK, linewidth=1.6)
        axes.plot([place], [dice.mean()], marker="D", markersize=6, color="white", markeredgecolor=INK)
        axes.annotate(f"{dice.mean():.3f}", (place + 0.1, dice.mean()), fontsize=8.5, color=INK, va="center")
    axes.set_xticks(range(len(classes)), ticks)
    if len(classes) > SIDE_BY_SIDE:
        axes.tick_params(axis="x", rotation=30)
    axes.set_xlim(-0.5, len(classes) - 0.5)
    _note(axes, "diamond: mean, line: median, bar: middle half")


def _draw_sizes(axes: Axes, scores: Sequence[SliceScore], classes: Sequence[str]) -> None:
    for place, label in enumerate(classes):
        members = [score for score in scores if score.label == label]
        axes.scatter(
            [100 * score.tumour_pixels / score.image_pixels for score in members],
            [score.dice for score in members],
            s=9,
            color=COLORS[place % len(COLORS)],
            marker=MARKERS[place % len(MARKERS)],
            alpha=0.45,
            linewidths=0,
            label=label,
        )
    axes.set_xscale("log")
    if not scores:
        axes.set_xlim(0.1, 10)  # matplotlib finds no range of its own where nothing is drawn
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("tumour's share of the image", fontsize=9, color=INK, labelpad=2)
    # Above the axes: inside, it would cover the missed slices, which lie at the bottom.
    where: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.03, 0.985), "ncols": len(classes)}
    if len(classes) > SIDE_BY_SIDE:
        where = {"loc": "best"}
    where |= {"fontsize": 8, "frameon": False, "handletextpad": 0.1, "columnspacing": 0.9, "borderaxespad": 0}
    legend = axes.legend(**where)
    for handle in legend.legend_handles:
        handle.set_alpha(1.0)  # type: ignore[union-attr]


def _draw_calibration(axes: Axes, calibration: Mapping[str, Any]) -> None:
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle=(0, (3, 3)))
    bins = zip(calibration["mean_probability"], calibration["tumour_share"], strict=True)
    filled = np.array([(mean, share) for mean, share in bins if share is not None]).reshape(-1, 2)
    axes.plot(*filled.T, color=COLORS[0], linewidth=1.4, marker="o", markersize=4)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("predicted probability", fontsize=9, color=INK, labelpad=2)
    axes.set_ylabel("share that is tumour", fontsize=9, color=INK, labelpad=2)
    error = calibration["expected_error_uncertain"]
    if error is not None:
        _note(axes, f"mean gap of uncertain pixels {error:.3f}")


def _note(axes: Axes, text: str) -> None:
    axes.text(0.0, 1.01, text, fontsize=7.5, color=INK, transform=axes.transAxes)
