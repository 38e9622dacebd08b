"""Draws the learning curves of a run."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from brainseg_jax.plots.overlays import DARK_BLUE, VERMILLION
from brainseg_jax.plots.style import INK, LEGEND, from_top, rgb, save_figure, write_line

_RING: Mapping[str, Any] = {"marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgewidth": 1.4}
_WIDTH, _HEIGHT = 9.0, 3.55  # inches
# Left edge and width of each panel, in shares of the figure's width.
_PANELS = {"loss": (0.055, 0.335), "dice": (0.435, 0.335), "rate": (0.845, 0.145)}


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
    best = min(rows, key=lambda row: row["validation_loss"] if math.isfinite(row["validation_loss"]) else math.inf)
    drops = _rate_drops(rows)
    epochs = [row["epoch"] for row in rows]
    marker = "o" if len(rows) <= 20 else ""
    figure = Figure(figsize=(_WIDTH, _HEIGHT))
    write_line(figure, 0.1, 0.22, title, size=12, weight="bold")
    panels = {name: figure.add_axes((left, 0.125, width, 0.62)) for name, (left, width) in _PANELS.items()}
    for axes in (panels["loss"], panels["dice"]):
        for epoch in drops:
            line = axes.axvline(epoch, color="#BBBBBB", linewidth=1, linestyle=(0, (2, 2)), zorder=0)
            line.set_label("learning rate reduced" if epoch == drops[0] else "")
    for quantity, name in (("loss", "Loss"), ("dice", "Dice")):
        axes = panels[quantity]
        for split, color in (("train", DARK_BLUE), ("validation", VERMILLION)):
            values = [row[f"{split}_{quantity}"] for row in rows]
            axes.plot(epochs, values, color=rgb(color), linewidth=1.6, marker=marker, markersize=4, label=split)
        best_value = best[f"validation_{quantity}"]
        label = "best epoch (lowest validation loss)"
        axes.plot([best["epoch"]], [best_value], linestyle="", color=INK, label=label, **_RING)
        axes.set_title(f"epoch {best['epoch']:g}: validation {best_value:.4f}", loc="right", fontsize=9, color=INK)
        _style(axes, name, epochs)
    panels["dice"].set_ylim(0, 1)
    rates = [row["learning_rate"] for row in rows]
    panels["rate"].plot(epochs, rates, color=INK, linewidth=1.1, marker=marker, markersize=2.5)
    if drops and min(rates) > 0:
        panels["rate"].set_yscale("log")
        panels["rate"].yaxis.set_minor_formatter(NullFormatter())
    else:
        panels["rate"].set_ylim(0, 1.08 * max(rates) or 1)
        panels["rate"].yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    panels["rate"].yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:.2g}"))
    _style(panels["rate"], "Learning rate", epochs)
    panels["rate"].xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, steps=[1, 2, 5, 10]))
    handles, labels = panels["loss"].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        bbox_to_anchor=(0.1, 0.5),
        bbox_transform=from_top(figure),
        ncols=len(handles),
        fontsize=8.5,
        columnspacing=1.4,
        handlelength=1.6,
        **LEGEND,
    )
    save_figure(figure, path)


def _rate_drops(rows: Sequence[Mapping[str, float]]) -> list[float]:
    """Lists the epochs at which the learning rate drops; none for a schedule that changes it in most epochs."""
    if len({row["learning_rate"] for row in rows}) > (len(rows) + 1) // 2:
        return []
    pairs = itertools.pairwise(rows)
    return [after["epoch"] for before, after in pairs if after["learning_rate"] < 0.9 * before["learning_rate"]]


def _style(axes: Axes, title: str, epochs: Sequence[float]) -> None:
    axes.set_title(title, loc="left", fontsize=10.5, weight="bold", color=INK)
    axes.set_xlabel("epoch", fontsize=9, color=INK, labelpad=2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    if len(epochs) == 1:
        axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
    axes.tick_params(labelsize=8.5, colors=INK, length=3)
    axes.tick_params(which="minor", length=0)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
