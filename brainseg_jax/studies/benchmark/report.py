"""Writes the report of the benchmark: JSON, Markdown tables and a chart."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from brainseg_jax.models import MODELS
from brainseg_jax.plots.style import INK, save_figure
from brainseg_jax.utils import markdown
from brainseg_jax.utils.files import write_json, write_text

Rows = Sequence[Mapping[str, Any]]
PASSES = ("forward", "input_gradient", "kernel_gradient")
LIBRARIES = (("ours", "Ours", "#0072B2"), ("torch", "PyTorch", "#999999"))  # prefix of keys, name, colour


def write_report(report: Mapping[str, Any], folder: Path) -> None:
    """Writes benchmark.json, README.md and benchmark.png.

    Args:
      report: see `run.run_benchmark`.
      folder: where to; made if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "benchmark.json", report)
    write_text(folder / "README.md", describe(report))
    _draw(report, folder / "benchmark.png")


def describe(report: Mapping[str, Any]) -> str:
    """Returns the results as a Markdown page."""
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    sections = [
        f"# Benchmark on {report['device']}",
        f"Written by `python scripts/benchmark.py` at commit {report['commit']}, Python {report['python']}, "
        f"{versions}; {report['devices']} devices, {report['cores']} cores. Medians of {report['repeats']} turns, "
        "both sides in turns in one process; PyTorch in the fastest of its settings. benchmark.json has everything."
        + (f" Left out for lack of time or memory: {', '.join(report['left_out'])}." if report["left_out"] else ""),
        _speed_table([*report["rows"], *report["sweeps"]["image_size"]], absolute=report["device"] != "cpu"),
    ]
    if epochs := [*report["epochs"], *report["sweeps"]["dataset_slices"]]:
        shares = ("step_share", "step_share_augmented", "stream_share_of_device")
        rows = [
            (MODELS[row["model"]].title, str(row["slices"]), *(f"{row[name]:.1%}" for name in shares)) for row in epochs
        ]
        sections += [
            "A whole epoch as a share of the bare step's speed (from device memory; augmented too), and streaming as a "
            "share of the epoch from device memory:",
            markdown.table(("Network", "Slices", "Epoch", "Augmented epoch", "Streamed"), rows),
        ]
    if profiles := report.get("profile", []):
        sections += [
            "A training step by kind of operation: shares of the time of all threads.",
            markdown.table(
                ("Network", *(kind.capitalize() for kind in profiles[0]["kinds"])),
                [
                    (MODELS[row["model"]].title, *(f"{share:.1%}" for share in row["kinds"].values()))
                    for row in profiles
                ],
            ),
            *(_operations_table(row) for row in profiles),
        ]
    if parts := report.get("parts", []):
        sections += [
            f"U-Net's training at {parts[0]['image_size']}×{parts[0]['image_size']} with smaller batches, in slices, "
            "relative to the whole batch as we train it: what a batch in parts could gain.",
            _parts_table(parts),
        ]
    if report["convolutions"]:
        sections += [
            "The 3×3 convolutions of a U-Net training step, ours / PyTorch's (channels-last), times relative to "
            "PyTorch's:",
            _convolutions_table(report["convolutions"]),
        ]
    return "\n\n".join([*sections, "![Ours against PyTorch, and how cost grows](benchmark.png)\n"])


def _speed_table(rows: Rows, *, absolute: bool) -> str:
    header = ["Network", "Work", "Dtype", "Image", "Batch", "Ours / PyTorch", "PyTorch's setting", "Share of the peak"]
    libraries = LIBRARIES if absolute else ()
    with_onednn = any("onednn" in row for row in rows)
    lines = []
    for row in rows:
        batch = (
            f"best: {row['batch_size']} / {row['torch_batch_size']}" if row["batch"] == "best" else row["batch_size"]
        )
        lines.append(
            (
                f"{MODELS[row['model']].title} {row['start_filters']}",
                row["mode"],
                row["dtype"],
                f"{row['image_size']}×{row['image_size']}",
                str(batch),
                f"**{row['ratio']:.2f}**",
                row["torch_setting"],
                f"{row['share_of_peak']:.0%} of {row['bound_by']}",
                *([f"{row['onednn_gain']:.2f}{', used' if row['onednn'] else ''}"] if with_onednn else []),
                *(f"{row[f'{name}_slices_per_second']:.0f}" for name, _, _ in libraries),
            )
        )
    header += ["With / without oneDNN"] if with_onednn else []
    return markdown.table([*header, *(f"{label}, slices/s" for _, label, _ in libraries)], lines)


def _operations_table(row: Mapping[str, Any]) -> str:
    lines = [
        (f"`{largest['operation']}`", largest["from"].split("compute_logits/")[-1], f"{largest['share']:.1%}")
        for largest in row["largest"]
    ]
    return markdown.table((f"Largest operations of {MODELS[row['model']].title}", "From", "Share"), lines)


def _parts_table(parts: Rows) -> str:
    speeds = {(row["onednn"], row["batch_size"]): f"{row['speed']:.2f}" for row in parts}
    sizes = sorted({size for _, size in speeds}, reverse=True)
    rows = [
        ("oneDNN's" if onednn else "XLA's", *(speeds[onednn, size] for size in sizes))
        for onednn in sorted({onednn for onednn, _ in speeds})
    ]
    return markdown.table(("Convolutions", *(f"Batch {size}" for size in sizes)), rows)


def _convolutions_table(convolutions: Rows) -> str:
    header = ("Maps", "Channels", "In the network", "Forward", "Gradient of the input", "Gradient of the kernel")
    ours, torch = (
        np.array([[row[f"{name}_{step}_ms"] for step in PASSES] for row in convolutions]) for name, _, _ in LIBRARIES
    )
    times = np.array([row["times"] for row in convolutions])
    rows = []
    for row, ratios in zip(convolutions, ours / torch, strict=True):
        size, channels = f"{row['side']}×{row['side']}", f"{row['channels']} → {row['features']}"
        rows.append((size, channels, str(row["times"]), *(f"{ratio:.1f}" for ratio in ratios)))
    totals = (f"**{ratio:.1f}**" for ratio in times @ ours / (times @ torch))
    return markdown.table(header, [*rows, ("all", "", "", *totals)])


def _draw(report: Mapping[str, Any], path: Path) -> None:
    """Draws speeds relative to PyTorch's on the same machine, on a CPU as on a GPU."""
    points = [row for row in report["sweeps"]["batch_size"] if row["mode"] == "train"]  # none if left out
    figure = Figure(figsize=(9, 6.6 if points else 3.6), layout="constrained")
    figure.suptitle(f"Speed relative to PyTorch in its best setting, {report['device']}", color=INK)
    bars, *below = figure.subplots(2 if points else 1, 1, squeeze=False)[:, 0]
    _draw_ratios(bars, [row for row in report["rows"] if row["batch"] == "recipe"])
    for axes in below:
        _draw_batch_sizes(axes, points)
    for axes in (bars, *below):
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False)
    save_figure(figure, path)


def _draw_ratios(axes: Axes, rows: Rows) -> None:
    places, base = np.arange(len(rows)), np.array([row["torch_slices_per_second"] for row in rows])
    for offset, (name, label, color) in zip((-0.2, 0.2), LIBRARIES, strict=True):
        middle = np.array([row[f"{name}_slices_per_second"] for row in rows]) / base
        low, high = np.array([row[f"{name}_slices_per_second_range"] for row in rows]).T / base
        axes.bar(places + offset, middle, 0.38, color=color, label=label)
        axes.errorbar(places + offset, middle, [middle - low, high - middle], fmt="none", color=INK, capsize=3)
    labels = [f"{MODELS[row['model']].title}\n{row['mode']}\n{row['dtype']}" for row in rows]
    axes.set_xticks(places, labels)
    axes.set_ylabel("relative speed\n(PyTorch = 1)")


def _draw_batch_sizes(axes: Axes, points: Rows) -> None:
    for model, style in zip(dict.fromkeys(row["model"] for row in points), ("-", "--"), strict=False):
        rows = [row for row in points if row["model"] == model]
        sizes = [row["batch_size"] for row in rows]
        for name, label, color in LIBRARIES:
            speeds = np.array([row[f"{name}_slices_per_second"] for row in rows]) / rows[0]["torch_slices_per_second"]
            axes.plot(sizes, speeds, style, marker="o", color=color, label=f"{MODELS[model].title}: {label}")
    axes.set_xscale("log", base=2)
    axes.set_xlabel("slices a batch")
    axes.set_ylabel("relative training speed\n(PyTorch, smallest batch = 1)")
    ticks = sorted({row["batch_size"] for row in points})
    axes.set_xticks(ticks, [str(size) for size in ticks])
    axes.minorticks_off()
