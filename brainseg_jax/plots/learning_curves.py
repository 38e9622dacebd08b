"""Draws the learning curves of a run, alone or over those of a published run."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from brainseg_jax.plots.overlays import DARK_BLUE, VERMILLION
from brainseg_jax.plots.style import INK, LEGEND, LINE, from_top, rgb, save_figure, style_axes, write_line

_COLORS = {"train": rgb(DARK_BLUE), "validation": rgb(VERMILLION)}
_TITLES = {"train": "training", "validation": "validation"}
CURVES = tuple(f"{split}_{quantity}" for split in _COLORS for quantity in ("loss", "dice"))
_RING: Mapping[str, Any] = {"linestyle": "", "marker": "o", "markersize": 9, "markerfacecolor": "none"}
# How `published_curves` tells two runs apart: the published one has dashed lines in greyer shades.
_RUNS: Mapping[str, Mapping[str, Any]] = {
    "ours": {"train": _COLORS["train"], "validation": _COLORS["validation"], "ring": INK}
    | {"line": {"linewidth": 1.9, "linestyle": "-", "zorder": 2.5}},
    "published": {"train": "#86A5B8", "validation": "#C9A084", "ring": "#8A8A8A"}
    | {"line": {"linewidth": 1.7, "linestyle": (0, (3.5, 1.5)), "zorder": 2}},
}


def learning_curves(rows: Sequence[Mapping[str, float]], path: Path, *, title: str) -> None:
    """Draws loss and Dice of training and validation, and the learning rate, against the epoch.

    A ring marks the epoch of the lowest validation loss. A faint vertical line marks a drop of the learning rate by
    more than a tenth between two rows, unless the learning rate changes in most rows.

    Args:
      rows: one or more, in order, with the keys epoch, train_loss, train_dice, validation_loss, validation_dice and
        learning_rate; other keys are ignored, and values that are not finite leave a gap.
      path: PNG file to write; missing folders are made.
      title: headline of the figure.

    Raises:
      ValueError: there is no row.
    """
    if not rows:
        raise ValueError("There is no epoch to draw: pass at least one row.")
    best = rows[_best_index([row["validation_loss"] for row in rows])]
    drops = _rate_drops(rows)
    epochs, marker = [row["epoch"] for row in rows], "o" if len(rows) <= 20 else ""
    figure = Figure(figsize=(9.0, 3.55))
    write_line(figure, 0.1, 0.22, title, size=12, weight="bold")
    loss, dice, rate = (
        figure.add_axes((left, 0.125, width, 0.62)) for left, width in ((0.055, 0.335), (0.435, 0.335), (0.845, 0.145))
    )
    for axes, quantity in ((loss, "loss"), (dice, "dice")):
        for epoch in drops:
            line = axes.axvline(epoch, color="#BBBBBB", linewidth=1, linestyle=(0, (2, 2)), zorder=0)
            line.set_label("learning rate reduced" if epoch == drops[0] else "")
        for split, color in _COLORS.items():
            values = [row[f"{split}_{quantity}"] for row in rows]
            axes.plot(epochs, values, color=color, linewidth=1.6, marker=marker, markersize=4, label=split)
        value = best[f"validation_{quantity}"]
        label = "best epoch (lowest validation loss)"
        axes.plot([best["epoch"]], [value], color=INK, label=label, markeredgewidth=1.4, **_RING)
        axes.set_title(f"epoch {best['epoch']:g}: validation {value:.4f}", loc="right", fontsize=9, color=INK)
        _style(axes, quantity.capitalize())
    dice.set_ylim(0, 1)
    rates = [row["learning_rate"] for row in rows]
    rate.plot(epochs, rates, color=INK, linewidth=1.1, marker=marker, markersize=2.5)
    if drops and min(rates) > 0:
        rate.set_yscale("log")
        rate.yaxis.set_minor_formatter(NullFormatter())
    else:
        rate.set_ylim(0, 1.08 * max(rates) or 1)
        rate.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    rate.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
    _style(rate, "Learning rate")
    rate.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, steps=[1, 2, 5, 10]))
    if len(rows) == 1:
        for axes in (loss, dice, rate):
            axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
    _legend(figure, *loss.get_legend_handles_labels(), top=0.5, ncols=4, columnspacing=1.4, handlelength=1.6)
    save_figure(figure, path)


def published_curves(
    ours: Mapping[str, Sequence[float]],
    published: Mapping[str, Sequence[float]],
    path: Path,
    *,
    title: str,
    notes: Sequence[str] = (),
) -> None:
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
    runs = {"ours": ours, "published": published}
    if not all(curves["validation_loss"] for curves in runs.values()):
        raise ValueError("There is no epoch to draw: both runs need at least one.")
    best = {name: _best_index(curves["validation_loss"]) for name, curves in runs.items()}
    foot = 0.52 + 0.8 * LINE * len(notes)
    height = foot + 3.42
    figure = Figure(figsize=(9.0, height))
    write_line(figure, 0.1, 0.22, title, size=12, weight="bold")
    loss, dice = (figure.add_axes((left, foot / height, 0.425, 2.35 / height)) for left in (0.062, 0.562))
    for axes, quantity in ((loss, "loss"), (dice, "dice")):
        for split, (name, curves) in itertools.product(_COLORS, runs.items()):
            values = curves.get(f"{split}_{quantity}", ())
            style: dict[str, Any] = _RUNS[name]["line"] if values else {"linestyle": ""}
            label = f"{name}: {_TITLES[split]}" + ("" if values else " not known")
            epochs, marker = range(1, len(values) + 1), "o" if len(values) <= 5 else ""
            axes.plot(epochs, values, color=_RUNS[name][split], marker=marker, markersize=3.5, label=label, **style)
        at_rings = {name: curves[f"validation_{quantity}"][best[name]] for name, curves in runs.items()}
        for name, value in at_rings.items():
            ring: dict[str, Any] = {**_RING, "color": _RUNS[name]["ring"], "zorder": _RUNS[name]["line"]["zorder"]}
            label = f"{name}: best epoch, {best[name] + 1}"
            axes.plot([best[name] + 1], [value], label=label, markeredgewidth=1.5, **ring)
        text = ", ".join(f"{name} {value:.3f}" for name, value in at_rings.items())
        axes.set_title(f"at the rings: {text}", loc="right", fontsize=8.5, color=INK)
        axes.set_xlim(0, 1 + max(len(curves["validation_loss"]) for curves in runs.values()))
        _style(axes, {"loss": "Loss, log scale", "dice": "Dice"}[quantity])
    dice.set_ylim(0, 1)
    loss.set_yscale("log")
    loss.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    loss.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    loss.yaxis.set_minor_formatter(NullFormatter())
    # Three columns, filled from above: training, validation, rings; ours over the published ones.
    spacing = {"columnspacing": 2.4, "handlelength": 2.8, "labelspacing": 0.35}
    _legend(figure, *loss.get_legend_handles_labels(), top=0.62, ncols=3, **spacing)
    for line, note in enumerate(notes):
        write_line(figure, 0.1, height - 0.8 * LINE * (len(notes) - line) + 0.06, note, size=8.5, color="#555555")
    save_figure(figure, path)


def _best_index(losses: Sequence[float]) -> int:
    """Returns the index of the lowest finite loss."""
    return min(range(len(losses)), key=lambda index: losses[index] if math.isfinite(losses[index]) else math.inf)


def _rate_drops(rows: Sequence[Mapping[str, float]]) -> list[float]:
    """Lists the epochs at which the learning rate drops; none for a schedule that changes it in most epochs."""
    if len({row["learning_rate"] for row in rows}) > (len(rows) + 1) // 2:
        return []
    pairs = itertools.pairwise(rows)
    return [after["epoch"] for before, after in pairs if after["learning_rate"] < 0.9 * before["learning_rate"]]


def _legend(figure: Figure, handles: Any, labels: Any, *, top: float, **settings: Any) -> None:
    place: dict[str, Any] = {"bbox_to_anchor": (0.1, top), "bbox_transform": from_top(figure), **LEGEND}
    figure.legend(handles=handles, labels=labels, fontsize=8.5, **place, **settings)


def _style(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10.5, weight="bold", color=INK)
    axes.set_xlabel("epoch", fontsize=9, color=INK, labelpad=2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    style_axes(axes)
    axes.tick_params(which="minor", length=0)
