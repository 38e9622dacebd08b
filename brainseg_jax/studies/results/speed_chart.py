"""Draws how fast training is: on GPUs beside the published runs, on CPUs beside PyTorch."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from brainseg_jax import published
from brainseg_jax.models import MODELS
from brainseg_jax.plots.style import INK, save_figure, style_axes
from brainseg_jax.studies.results.save import is_published_recipe
from brainseg_jax.utils.files import read_json
from brainseg_jax.workdir.files import read_config, read_metrics, read_splits

PUBLISHED_TRAINING_SLICES = 2145
PUBLISHED_CARD = "published: NVIDIA RTX 2070"
GREY, COLORS = "#999999", ("#0072B2", "#E69F00", "#009E73", "#CC79A7")

Speeds = dict[str, list[float | None]]  # by label, a value for each group of bars; None where there is none


def draw_speeds(results: Path) -> None:
    """Draws speed.png from the runs and the benchmarks in `results` (docs/results)."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    on_gpu, on_cpu = figure.subplots(1, 2, width_ratios=(2, 3))
    networks = [MODELS[name].title for name in published.PUBLISHED_DICE]
    _draw_bars(on_gpu, networks, speeds_on_gpu(results), colors=(GREY, *COLORS), digits=0)
    on_gpu.set_title("Training at 512×512 by the published recipes", fontsize=9.5, color=INK, loc="left")
    on_gpu.set_ylabel("slices per second, validation included", fontsize=8.5, color=INK)
    tasks = [f"{network}\n{mode}" for network in networks for mode in ("train", "inference")]
    _draw_bars(on_cpu, tasks, ratios_on_cpu(results), colors=COLORS, digits=2)
    on_cpu.axhline(1, color=INK, linewidth=0.8, linestyle="--", zorder=0.5)  # behind the bars
    on_cpu.set_title(
        "CPU at 128×128, relative to PyTorch in its best setting (above 1: faster)", fontsize=9.5, color=INK, loc="left"
    )
    on_cpu.set_ylabel("our speed / PyTorch's", fontsize=8.5, color=INK)
    save_figure(figure, results / "speed.png")


def speeds_on_gpu(results: Path) -> Speeds:
    """Returns slices per second of the published runs and of ours by their recipes at their size, by network.

    The training slices of an epoch divided by the time of a whole epoch, with its validation; for ours the median of
    the epochs after the first, in which XLA compiles.
    """
    networks = list(published.PUBLISHED_DICE)
    rates = {name: published.PUBLISHED_LEARNING_RATES[name][0] for name in networks}
    theirs = [published.find_published_run(name, learning_rate=rates[name]) for name in networks]
    found: Speeds = {
        PUBLISHED_CARD: [PUBLISHED_TRAINING_SLICES / run.seconds_per_epoch if run else None for run in theirs]
    }
    for folder in sorted(path.parent for path in results.glob("*/evaluation_test.json")):
        config, trained = read_config(folder), read_json(folder / "evaluation_test.json")["trained_with"]
        at_their_size = config.data.image_size == published.PUBLISHED_SIZE and config.split.protocol == "slice"
        if at_their_size and is_published_recipe(config) and trained["device"] != "cpu":
            ends = [row["seconds_since_start"] for row in read_metrics(folder, epochs=config.train.epochs)]
            seconds = np.median([after - before for before, after in pairwise(ends) if after > before])
            speeds = found.setdefault(f"ours: {trained['device']}", [None] * len(networks))
            speeds[networks.index(config.model.name)] = len(read_splits(folder)["train"]) / float(seconds)
    return found


def ratios_on_cpu(results: Path) -> Speeds:
    """Returns our speed divided by PyTorch's by jax's version and dtype, at the batch of the recipe."""
    tasks = [(name, mode) for name in published.PUBLISHED_DICE for mode in ("train", "inference")]
    found: Speeds = {}
    for path in sorted(results.glob("benchmark_cpu*/benchmark.json"), reverse=True):
        report = read_json(path)
        rows: Sequence[Mapping[str, Any]] = [row for row in report["rows"] if row["batch"] == "recipe"]
        python = ".".join(report["python"].split(".")[:2])
        for dtype in dict.fromkeys(row["dtype"] for row in rows):
            ratios = {(row["model"], row["mode"]): row["ratio"] for row in rows if row["dtype"] == dtype}
            found[f"Python {python}, jax {report['versions']['jax']}, {dtype}"] = [ratios.get(task) for task in tasks]
    return found


def _draw_bars(axes: Axes, groups: Sequence[str], series: Speeds, *, colors: Sequence[str], digits: int) -> None:
    """Draws a group of bars for each of `groups`, with a bar for each of `series`, and their values above."""
    width = 0.8 / max(len(series), 1)
    for index, ((label, values), color) in enumerate(zip(series.items(), colors, strict=False)):
        places = np.arange(len(groups)) + (index - (len(series) - 1) / 2) * width
        heights = [0.0 if value is None else value for value in values]
        bars = axes.bar(places, heights, 0.92 * width, color=color, label=label)
        texts = ["" if value is None else f"{value:.{digits}f}" for value in values]
        background = {"facecolor": "white", "edgecolor": "none", "pad": 0.3}
        axes.bar_label(bars, texts, fontsize=7.5, color=INK, padding=2, bbox=background)
    axes.set_xticks(range(len(groups)), groups)
    style_axes(axes)
    axes.margins(y=0.12)
    axes.legend(fontsize=7.5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
