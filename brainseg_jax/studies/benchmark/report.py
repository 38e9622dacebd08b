"""What the benchmark leaves for people: a table and a chart."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from brainseg_jax.models import MODELS
from brainseg_jax.plots.style import INK, save_figure

PASSES = ("forward", "input_gradient", "kernel_gradient")
OURS, THEIRS = "#0072B2", "#999999"


def write_report(found: Mapping[str, Any], folder: Path) -> None:
    """Writes benchmark.json, README.md and benchmark.png.

    Args:
      found: see `run.run_benchmark`.
      folder: where to; made if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmark.json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    (folder / "README.md").write_text(describe(found))
    _draw(found, folder / "benchmark.png")


def describe(found: Mapping[str, Any]) -> str:
    """The results as a Markdown page."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    absolute = found["device"] != "cpu"
    lines = [
        f"# Benchmark on {found['device']}",
        "",
        f"Written by `python scripts/benchmark.py` at commit {found['commit']}, Python {found['python']}, {versions}; "
        f"{found['devices']} devices, {found['cores']} cores. Medians of {found['repeats']} turns, both sides in turns "
        "in one process; PyTorch in the fastest of its settings. The whole of it is in benchmark.json."
        + (f" Left out, for want of time: {', '.join(found['left_out'])}." if found.get("left_out") else ""),
        "",
        "| Network | Work | Image | Batch | Ours / PyTorch | PyTorch's setting | Share of the ceiling |"
        + (" Ours, slices/s | PyTorch, slices/s |" if absolute else ""),
        "| --- | --- | --- | --- | --- | --- | --- |" + (" --- | --- |" if absolute else ""),
    ]
    for row in found["rows"]:
        batch = f"{row['batch_size']}"
        if row["batch"] == "best":
            batch = f"best: {row['batch_size']} / {row['torch_batch_size']}"
        share = f"{row['share_of_ceiling']:.0%} of {row['binding_ceiling']}" if "share_of_ceiling" in row else "–"
        cells = [
            f"{MODELS[row['model']].title} {row['start_filters']}",
            row["mode"],
            f"{row['image_size']}×{row['image_size']}",
            batch,
            f"**{row['ratio']:.2f}**",
            row["torch_setting"],
            share,
        ]
        if absolute:
            cells += [f"{row['ours_slices_per_second']:.0f}", f"{row['torch_slices_per_second']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    if epochs := [*found["epochs"], *found["ladders"]["dataset_slices"]]:
        lines += [
            "",
            "A whole epoch as a share of the bare step's speed (from device memory; augmented too), and streaming as a "
            "share of the epoch from device memory:",
            "",
            "| Network | Slices | Epoch | Augmented epoch | Streamed |",
            "| --- | --- | --- | --- | --- |",
        ]
        lines += [
            f"| {MODELS[epoch['model']].title} | {epoch['slices']} | {epoch['step_share']:.1%} | "
            f"{epoch['step_share_augmented']:.1%} | {epoch['stream_share_of_device']:.1%} |"
            for epoch in epochs
        ]
    if found["convolutions"]:
        lines += [
            "",
            "The 3×3 convolutions of a U-Net training step, ours / PyTorch's (channels-last), times relative to "
            "PyTorch's:",
            "",
            "| Maps | Channels | In the network | Forward | Gradient of the input | Gradient of the kernel |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for row in found["convolutions"]:
            slowness = [f"{row[f'ours_{name}_ms'] / row[f'torch_{name}_ms']:.1f}" for name in PASSES]
            shape = (f"{row['side']}×{row['side']}", f"{row['channels']} → {row['features']}", str(row["times"]))
            lines.append("| " + " | ".join([*shape, *slowness]) + " |")
        sums = [
            sum(row["times"] * row[f"ours_{name}_ms"] for row in found["convolutions"])
            / sum(row["times"] * row[f"torch_{name}_ms"] for row in found["convolutions"])
            for name in PASSES
        ]
        lines.append("| all | | | " + " | ".join(f"**{value:.1f}**" for value in sums) + " |")
    lines += ["", "![Ours against PyTorch, and how cost grows](benchmark.png)", ""]
    return "\n".join(lines)


def _draw(found: Mapping[str, Any], path: Path) -> None:
    rungs = [row for row in found["ladders"]["batch_size"] if row["mode"] == "train"]  # none where they were left out
    figure = Figure(figsize=(9, 6.6 if rungs else 3.6), layout="constrained")
    figure.suptitle(f"Slices a second on {found['device']}: ours and PyTorch's best setting", color=INK)
    bars, *below = figure.subplots(2 if rungs else 1, 1, squeeze=False)[:, 0]
    _draw_ratios(bars, [row for row in found["rows"] if row["batch"] == "recipe"])
    for axes in below:
        _draw_batch_sizes(axes, rungs)
    for axes in (bars, *below):
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def _draw_ratios(bars: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    for place, row in enumerate(rows):
        base = row["torch_slices_per_second"]
        for offset, name, color in ((-0.2, "ours", OURS), (0.2, "torch", THEIRS)):
            low, high = (value / base for value in row[f"{name}_slices_per_second_range"])
            middle = row[f"{name}_slices_per_second"] / base
            bars.bar(place + offset, middle, 0.38, color=color)
            bars.errorbar(place + offset, middle, [[middle - low], [high - middle]], color=INK, capsize=3)
    labels = [f"{MODELS[row['model']].title} {row['mode']}\nbatch {row['batch_size']}" for row in rows]
    bars.set_xticks(range(len(rows)), labels)
    bars.set_ylabel("speed relative to PyTorch")
    bars.legend(
        handles=[
            bars.bar(0, 0, color=OURS, label="ours"),
            bars.bar(0, 0, color=THEIRS, label="PyTorch, best setting"),
        ],
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=2,
        frameon=False,
    )


def _draw_batch_sizes(axes: Axes, rungs: Sequence[Mapping[str, Any]]) -> None:
    for model, style in (("unet", "-"), ("linknet", "--")):
        of_model = [row for row in rungs if row["model"] == model]
        for name, color in (("ours", OURS), ("torch", THEIRS)) if of_model else ():
            axes.plot(
                [row["batch_size"] for row in of_model],
                [row[f"{name}_slices_per_second"] / of_model[0]["torch_slices_per_second"] for row in of_model],
                style,
                marker="o",
                color=color,
                label=f"{MODELS[model].title}, {'ours' if name == 'ours' else 'PyTorch'}",
            )
    axes.set_xscale("log", base=2)
    axes.set_xlabel("slices a batch")
    axes.set_ylabel("training speed,\nPyTorch's smallest batch = 1")
    axes.set_ylim(bottom=0)
    sizes = sorted({row["batch_size"] for row in rungs})
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False)
