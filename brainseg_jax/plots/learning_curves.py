"""Learning curves of a run."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from brainseg_jax.plots.overlays import DARK_BLUE, VERMILLION
from brainseg_jax.plots.style import INK, from_top, rgb, save_figure, write_line


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
    write_line(figure, 0.1, 0.22, title, size=12, weight="bold")
    marker = "o" if len(rows) <= 20 else ""
    for index, (quantity, name) in enumerate([("loss", "Loss"), ("dice", "Dice")]):
        axes = figure.add_axes((0.062 + 0.5 * index, 0.125, 0.425, 0.62))
        for epoch in reductions:
            line = axes.axvline(epoch, color="#BBBBBB", linewidth=1, linestyle=(0, (2, 2)), zorder=0)
            line.set_label("learning rate reduced" if epoch == reductions[0] else "")
        for part, color in [("train", DARK_BLUE), ("validation", VERMILLION)]:
            values = [row[f"{part}_{quantity}"] for row in rows]
            axes.plot(epochs, values, color=rgb(color), linewidth=1.6, marker=marker, markersize=4, label=part)
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
        bbox_transform=from_top(figure),
        ncols=len(handles),
        fontsize=8.5,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        columnspacing=1.4,
        handlelength=1.6,
    )
    save_figure(figure, path)
