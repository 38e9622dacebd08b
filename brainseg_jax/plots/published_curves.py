"""Draws the learning curves of a run and those of the published one."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from brainseg_jax.plots.style import INK, LEGEND, LINE, from_top, save_figure, write_line

Curves = Mapping[str, Sequence[float]]

SPLITS = {"train": "training", "validation": "validation"}
QUANTITIES = {"loss": "Loss, log scale", "dice": "Dice"}
CURVES = tuple(f"{part}_{quantity}" for part in SPLITS for quantity in QUANTITIES)
# Our curves have the colours of learning_curves.py; the published ones have greyer shades of them.
_COLORS = {
    ("ours", "train"): "#0072B2",
    ("ours", "validation"): "#D55E00",
    ("published", "train"): "#86A5B8",
    ("published", "validation"): "#C9A084",
}
_LINES: Mapping[str, Mapping[str, Any]] = {
    "ours": {"linewidth": 1.9, "linestyle": "-"},
    "published": {"linewidth": 1.7, "linestyle": (0, (3.5, 1.5))},
}
_RING: Mapping[str, Any] = {"marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgewidth": 1.5}
_RING_COLORS = {"ours": INK, "published": "#8A8A8A"}


def published_curves(ours: Curves, published: Curves, path: Path, *, title: str, notes: Sequence[str] = ()) -> None:
    """Draws loss (on a log scale) and Dice per epoch of two runs: ours solid, the published one dashed and greyer.

    A ring marks the epoch of the lowest validation loss of each run; the legend names it.

    Args:
      ours: values per epoch by the names of `CURVES`; those of training may be missing, other names are ignored. Values
        that are not finite, and a loss of 0, leave a gap.
      published: likewise; the number of epochs may differ.
      path: PNG file to write; missing folders are made.
      title: headline of the figure.
      notes: lines below the curves, for instance about differences between the runs.

    Raises:
      ValueError: a run has no epochs.
    """
    runs = {"published": published, "ours": ours}  # ours last, on top
    if not all(curves["validation_loss"] for curves in runs.values()):
        raise ValueError("There is no epoch to draw: both runs need at least one.")
    best = {whose: _best_epoch(curves) for whose, curves in runs.items()}
    foot = 0.52 + 0.8 * LINE * len(notes)
    width, height = 9.0, foot + 3.42
    figure = Figure(figsize=(width, height))
    write_line(figure, 0.1, 0.22, title, size=12, weight="bold")
    for index, (quantity, name) in enumerate(QUANTITIES.items()):
        axes = figure.add_axes((0.062 + 0.5 * index, foot / height, 0.425, 2.35 / height))
        for whose, curves in runs.items():
            _draw_run(axes, whose, curves, quantity, best[whose])
        named = [
            f"{whose} {runs[whose][f'validation_{quantity}'][best[whose] - 1]:.3f}" for whose in ("ours", "published")
        ]
        axes.set_title(name, loc="left", fontsize=10.5, weight="bold", color=INK)
        axes.set_title(f"at the rings: {', '.join(named)}", loc="right", fontsize=8.5, color=INK)
        axes.set_xlim(0, 1 + max(len(curves["validation_loss"]) for curves in runs.values()))
        _style(axes, quantity)
    handles = [
        handle for part in SPLITS for handle in (_key(whose, part, runs[whose]) for whose in ("ours", "published"))
    ]
    handles += [
        Line2D([], [], linestyle="", color=_RING_COLORS[whose], label=f"{whose}: best epoch, {best[whose]}", **_RING)
        for whose in ("ours", "published")
    ]
    figure.legend(
        handles=handles,
        bbox_to_anchor=(0.1, 0.62),
        bbox_transform=from_top(figure),
        ncols=3,  # filled from above: training, validation, rings; ours over theirs
        fontsize=8.5,
        columnspacing=2.4,
        handlelength=2.8,
        labelspacing=0.35,
        **LEGEND,
    )
    for line, note in enumerate(notes):
        write_line(figure, 0.1, height - 0.8 * LINE * (len(notes) - line) + 0.06, note, size=8.5, color="#555555")
    save_figure(figure, path)


def _best_epoch(curves: Curves) -> int:
    losses = [loss if math.isfinite(loss) else math.inf for loss in curves["validation_loss"]]
    return 1 + losses.index(min(losses))


def _draw_run(axes: Axes, whose: str, curves: Curves, quantity: str, best: int) -> None:
    for part in SPLITS:
        if values := curves.get(f"{part}_{quantity}"):
            marker = "o" if len(values) <= 5 else ""
            epochs = range(1, len(values) + 1)
            axes.plot(epochs, values, color=_COLORS[whose, part], marker=marker, markersize=3.5, **_LINES[whose])
    value = curves[f"validation_{quantity}"][best - 1]
    axes.plot([best], [value], linestyle="", color=_RING_COLORS[whose], **_RING)


def _key(whose: str, part: str, curves: Curves) -> Line2D:
    """Makes the legend's entry of a curve, also of one that is not known."""
    if curves.get(f"{part}_loss"):
        return Line2D([], [], color=_COLORS[whose, part], label=f"{whose}: {SPLITS[part]}", **_LINES[whose])
    return Line2D([], [], linestyle="", label=f"{whose}: {SPLITS[part]} not known")


def _style(axes: Axes, quantity: str) -> None:
    if quantity == "dice":
        axes.set_ylim(0, 1)
    else:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("epoch", fontsize=9, color=INK, labelpad=2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.tick_params(labelsize=8.5, colors=INK, length=3)
    axes.tick_params(which="minor", length=0)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
