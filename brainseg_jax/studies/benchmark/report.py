"""Writes the report of the benchmark: JSON, Markdown tables and a chart."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from brainseg_jax.models import MODELS
from brainseg_jax.plots.style import INK, save_figure
from brainseg_jax.utils import markdown
from brainseg_jax.utils.files import write_json

PASSES = ("forward", "input_gradient", "kernel_gradient")
OURS, TORCH = "#0072B2", "#999999"


def write_report(report: Mapping[str, Any], folder: Path) -> None:
    """Writes benchmark.json, README.md and benchmark.png.

    Args:
      report: see `run.run_benchmark`.
      folder: where to; made if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "benchmark.json", report)
    (folder / "README.md").write_text(describe(report))
    _draw(report, folder / "benchmark.png")


def describe(report: Mapping[str, Any]) -> str:
    """Returns the results as a Markdown page."""
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    parts = [
        f"# Benchmark on {report['device']}",
        f"Written by `python scripts/benchmark.py` at commit {report['commit']}, Python {report['python']}, "
        f"{versions}; {report['devices']} devices, {report['cores']} cores. Medians of {report['repeats']} turns, "
        "both sides in turns in one process; PyTorch in the fastest of its settings. benchmark.json has everything."
        + (f" Left out for lack of time: {', '.join(report['left_out'])}." if report.get("left_out") else ""),
        _speed_table(report["rows"], absolute=report["device"] != "cpu"),
    ]
    if epochs := [*report["epochs"], *report["sweeps"]["dataset_slices"]]:
        shares = ("step_share", "step_share_augmented", "stream_share_of_device")
        rows = [
            (MODELS[epoch["model"]].title, str(epoch["slices"]), *(f"{epoch[share]:.1%}" for share in shares))
            for epoch in epochs
        ]
        parts += [
            "A whole epoch as a share of the bare step's speed (from device memory; augmented too), and streaming as a "
            "share of the epoch from device memory:",
            markdown.table(("Network", "Slices", "Epoch", "Augmented epoch", "Streamed"), rows),
        ]
    if report["convolutions"]:
        parts += [
            "The 3×3 convolutions of a U-Net training step, ours / PyTorch's (channels-last), times relative to "
            "PyTorch's:",
            _convolutions_table(report["convolutions"]),
        ]
    return "\n\n".join([*parts, "![Ours against PyTorch, and how cost grows](benchmark.png)\n"])


def _speed_table(rows: Sequence[Mapping[str, Any]], *, absolute: bool) -> str:
    header = ["Network", "Work", "Image", "Batch", "Ours / PyTorch", "PyTorch's setting", "Share of the peak"]
    if absolute:
        header += ["Ours, slices/s", "PyTorch, slices/s"]
    lines = []
    for row in rows:
        is_best = row["batch"] == "best"
        cells = [
            f"{MODELS[row['model']].title} {row['start_filters']}",
            row["mode"],
            f"{row['image_size']}×{row['image_size']}",
            f"best: {row['batch_size']} / {row['torch_batch_size']}" if is_best else f"{row['batch_size']}",
            f"**{row['ratio']:.2f}**",
            row["torch_setting"],
            f"{row['share_of_peak']:.0%} of {row['bound_by']}" if "share_of_peak" in row else "–",
        ]
        if absolute:
            cells += [f"{row['ours_slices_per_second']:.0f}", f"{row['torch_slices_per_second']:.0f}"]
        lines.append(cells)
    return markdown.table(header, lines)


def _convolutions_table(convolutions: Sequence[Mapping[str, Any]]) -> str:
    header = ("Maps", "Channels", "In the network", "Forward", "Gradient of the input", "Gradient of the kernel")
    rows = []
    for row in convolutions:
        ratios = (f"{row[f'ours_{name}_ms'] / row[f'torch_{name}_ms']:.1f}" for name in PASSES)
        size = f"{row['side']}×{row['side']}"
        rows.append((size, f"{row['channels']} → {row['features']}", str(row["times"]), *ratios))
    sums = {
        f"{side}_{name}": sum(row["times"] * row[f"{side}_{name}_ms"] for row in convolutions)
        for side in ("ours", "torch")
        for name in PASSES
    }
    totals = (f"**{sums[f'ours_{name}'] / sums[f'torch_{name}']:.1f}**" for name in PASSES)
    return markdown.table(header, [*rows, ("all", "", "", *totals)])


def _draw(report: Mapping[str, Any], path: Path) -> None:
    points = [row for row in report["sweeps"]["batch_size"] if row["mode"] == "train"]  # none if left out
    figure = Figure(figsize=(9, 6.6 if points else 3.6), layout="constrained")
    figure.suptitle(f"Slices a second on {report['device']}: ours and PyTorch's best setting", color=INK)
    bars, *below = figure.subplots(2 if points else 1, 1, squeeze=False)[:, 0]
    _draw_ratios(bars, [row for row in report["rows"] if row["batch"] == "recipe"])
    for axes in below:
        _draw_batch_sizes(axes, points)
    for axes in (bars, *below):
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def _draw_ratios(bars: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    for place, row in enumerate(rows):
        base = row["torch_slices_per_second"]
        for offset, name, color in ((-0.2, "ours", OURS), (0.2, "torch", TORCH)):
            low, high = (value / base for value in row[f"{name}_slices_per_second_range"])
            middle = row[f"{name}_slices_per_second"] / base
            bars.bar(place + offset, middle, 0.38, color=color)
            bars.errorbar(place + offset, middle, [[middle - low], [high - middle]], color=INK, capsize=3)
    labels = [f"{MODELS[row['model']].title} {row['mode']}\nbatch {row['batch_size']}" for row in rows]
    bars.set_xticks(range(len(rows)), labels)
    bars.set_ylabel("speed relative to PyTorch")
    labelled = ((OURS, "ours"), (TORCH, "PyTorch, best setting"))
    handles = [bars.bar(0, 0, color=color, label=label) for color, label in labelled]
    bars.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)


def _draw_batch_sizes(axes: Axes, points: Sequence[Mapping[str, Any]]) -> None:
    for model, style in (("unet", "-"), ("linknet", "--")):
        rows = [row for row in points if row["model"] == model]
        for name, color in (("ours", OURS), ("torch", TORCH)) if rows else ():
            axes.plot(
                [row["batch_size"] for row in rows],
                [row[f"{name}_slices_per_second"] / rows[0]["torch_slices_per_second"] for row in rows],
                style,
                marker="o",
                color=color,
                label=f"{MODELS[model].title}, {'ours' if name == 'ours' else 'PyTorch'}",
            )
    axes.set_xscale("log", base=2)
    axes.set_xlabel("slices a batch")
    axes.set_ylabel("training speed,\nPyTorch's smallest batch = 1")
    axes.set_ylim(bottom=0)
    sizes = sorted({row["batch_size"] for row in points})
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False)
