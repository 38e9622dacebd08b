"""Draws the graph of a network: encoder on the left, decoder on the right."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flax import linen as nn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path as Polyline

from brainseg_jax.plots.network_graph import INPUT, MERGES, Block, Edge, NetworkGraph, trace_network
from brainseg_jax.plots.style import INK, save_figure

_FILLS = {"down": "#D6EAF8", "bottom": "#E8DAEF", "up": "#FDE8CF", INPUT: "#FFFFFF"}
_EDGES = {"down": "#0072B2", "bottom": "#7D3C98", "up": "#C26100", INPUT: "#777777"}

# Inches.
_WIDTH = 9.0
_CENTERS = {"down": 2.55, "bottom": 4.95, "up": 7.35}
_BOX_WIDTHS = 2.1, 3.1
_BOX = 0.46
_GAP = 0.17
_PAD = 0.14
_RADIUS = 0.11
_HEAD = 0.5


def draw_network(model: nn.Module, path: Path, *, image_size: int, title: str) -> None:
    """Draws the blocks of an encoder-decoder network with their shapes, parameters and connections.

    The encoder runs down on the left, the decoder up on the right; blocks of the same resolution share a band. Wider
    boxes have more channels. Skip connections run from left to right.

    Args:
      model: maps (1, image_size, image_size, 1) float32 to logits.
      path: PNG file to write; missing folders are made.
      image_size: side of the square image.
      title: headline; the total number of parameters is added.

    Raises:
      ValueError: see `trace_network`; or the network is not a chain of blocks with skip connections that are added or
        concatenated in the decoder.
    """
    network = trace_network(model, image_size=image_size)
    layout = _lay_out(network)
    figure = Figure(figsize=(_WIDTH, layout.height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, _WIDTH)
    axes.set_ylim(layout.height, 0)
    axes.set_axis_off()
    headline = f"{title} · {network.parameters:,} parameters"
    axes.text(0.12, _HEAD / 2, headline, fontsize=12, weight="bold", color=INK, verticalalignment="center")
    for index, (side, (top, bottom)) in enumerate(layout.bands.items()):
        color = "#F7F7F7" if index % 2 == 0 else "#FFFFFF"
        axes.add_patch(Rectangle((0, top), _WIDTH, bottom - top, facecolor=color, edgecolor="none", zorder=0))
        axes.text(0.12, (top + bottom) / 2, side, fontsize=9, color="#777777", verticalalignment="center")
    for block in network.blocks:
        _draw_block(axes, block, layout)
    for before, after in itertools.pairwise(network.blocks):
        _draw_chain(axes, before, after, network, layout)
    for edge in network.skips:
        _draw_skip(axes, edge, network, layout)
    save_figure(figure, path)


@dataclass(frozen=True)
class _Layout:
    """Positions in inches from the upper left corner.

    Attributes:
      columns: column of each block: "down", "bottom" or "up".
      middles: vertical middle of each block and of each merge (named by `_merge_into`).
      widths: width of each block's box.
      bands: upper and lower edge of the band of each resolution.
      height: height of the figure.
    """

    columns: dict[str, str]
    middles: dict[str, float]
    widths: dict[str, float]
    bands: dict[str, tuple[float, float]]
    height: float


def _merge_into(target: str) -> str:
    return f"merge into {target}"


def _lay_out(network: NetworkGraph) -> _Layout:
    """Places the encoder on the left, the blocks of lowest resolution in the middle, the decoder on the right."""
    blocks = {block.name: block for block in network.blocks}
    lowest = min(block.shape[0] for block in network.blocks)
    columns: dict[str, str] = {}
    for name, block in blocks.items():
        after = "up" if "bottom" in columns.values() else "down"
        columns[name] = "bottom" if block.shape[0] == lowest else after
    for skip in network.skips:
        if not (columns[skip.source] == "down" and columns[skip.target] == "up" and skip.merge):
            raise ValueError(f"{skip.source} → {skip.target} is not a skip connection from the encoder to the decoder.")

    channels = [block.shape[2] for block in network.blocks]
    narrowest, widest = _BOX_WIDTHS
    scale = (widest - narrowest) / max(math.log2(max(channels) / min(channels)), 1)
    widths = {name: narrowest + scale * math.log2(block.shape[2] / min(channels)) for name, block in blocks.items()}

    merges = {skip.target: skip for skip in network.skips}
    middles: dict[str, float] = {}
    bands: dict[str, tuple[float, float]] = {}
    top = _HEAD
    for shape in sorted({block.shape[:2] for block in network.blocks}, reverse=True):
        left = [name for name, block in blocks.items() if block.shape[:2] == shape and columns[name] != "up"]
        right = []
        for name, block in reversed(blocks.items()):
            if block.shape[:2] == shape and columns[name] == "up":
                right.append(name)
            if name in merges and blocks[merges[name].source].shape[:2] == shape:
                right.append(_merge_into(name))
        left_middles, right_middles = _stack(left), _stack(right)
        # Aligns the skip connection: its source and its merge get the same height.
        shifts = [
            right_middles[_merge_into(skip.target)] - left_middles[skip.source]
            for skip in merges.values()
            if skip.source in left_middles
        ]
        shift = shifts[0] if shifts else 0.0
        starts = [(left_middles, max(shift, 0.0)), (right_middles, max(-shift, 0.0))]
        first = top + _PAD
        for offsets, start in starts:
            middles |= {name: first + start + offset for name, offset in offsets.items()}
        bottom = max(middles[name] + _half(name) for name in (*left, *right)) + _PAD
        bands[f"{shape[0]}×{shape[1]}"] = top, bottom
        top = bottom
    return _Layout(columns, middles, widths, bands, height=top)


def _half(name: str) -> float:
    """Returns half the height of a block's box or of a merge."""
    return _RADIUS if name.startswith("merge into ") else _BOX / 2


def _stack(names: Sequence[str]) -> dict[str, float]:
    """Stacks boxes and merges from 0 downwards and returns their middles."""
    middles = {}
    edge = 0.0
    for name in names:
        middles[name] = edge + _half(name)
        edge = middles[name] + _half(name) + _GAP
    return middles


def _draw_block(axes: Axes, block: Block, layout: _Layout) -> None:
    column, width = layout.columns[block.name], layout.widths[block.name]
    left, middle = _CENTERS[column] - width / 2, layout.middles[block.name]
    color = INPUT if block.name == INPUT else column
    box = FancyBboxPatch(
        (left, middle - _BOX / 2),
        width,
        _BOX,
        boxstyle="round,pad=0,rounding_size=0.06",
        facecolor=_FILLS[color],
        edgecolor=_EDGES[color],
        linewidth=1.1,
    )
    axes.add_patch(box)
    height, wide, features = block.shape
    texts: list[tuple[float, float, str, dict[str, Any]]] = [
        (left + 0.09, middle - 0.1, block.name, {"fontsize": 9, "weight": "bold"}),
        (left + width - 0.09, middle - 0.1, block.kind, {"fontsize": 8, "horizontalalignment": "right"}),
        (left + 0.09, middle + 0.11, f"{features:,} @ {height}×{wide}", {"fontsize": 8}),
    ]
    if block.parameters:
        count = f"{block.parameters:,} parameters"
        texts.append((left + width - 0.09, middle + 0.11, count, {"fontsize": 8, "horizontalalignment": "right"}))
    for x, y, text, settings in texts:
        axes.text(x, y, text, color=INK, verticalalignment="center_baseline", **settings)


def _draw_chain(axes: Axes, before: Block, after: Block, network: NetworkGraph, layout: _Layout) -> None:
    """Draws the arrow from a block to the next one, with the sign of a merge."""
    edge = next((edge for edge in network.edges if (edge.source, edge.target) == (before.name, after.name)), None)
    if edge is None:
        raise ValueError(f"Block {after.name} has no input from {before.name}, the block before it.")
    columns = layout.columns[before.name], layout.columns[after.name]
    start, end = layout.middles[before.name], layout.middles[after.name]
    x = _CENTERS[columns[1]]
    if columns == ("down", "bottom"):
        x = _CENTERS["down"]
        points = [(x, start + _BOX / 2), (x, end), (_CENTERS["bottom"] - layout.widths[after.name] / 2, end)]
    elif columns == ("bottom", "up"):
        points = [(_CENTERS["bottom"] + layout.widths[before.name] / 2, start), (x, start), (x, end + _BOX / 2)]
    elif columns[1] == "up":
        points = [(x, start - _BOX / 2), (x, end + _BOX / 2)]
    else:
        points = [(x, start + _BOX / 2), (x, end - _BOX / 2)]
    if edge.merge:
        middle = layout.middles[_merge_into(after.name)]
        _arrow(axes, [*points[:-1], (x, middle + _RADIUS)])
        _arrow(axes, [(x, middle - _RADIUS), points[-1]])
        axes.add_patch(Circle((x, middle), _RADIUS, facecolor="white", edgecolor=INK, linewidth=1.1))
        axes.text(x, middle, MERGES[edge.merge], fontsize=10, color=INK, ha="center", va="center")
    else:
        _arrow(axes, points)
    label = ", ".join(operation for operation in edge.operations if operation not in MERGES)
    axes.text(x + 0.08, (points[0][1] + points[1][1]) / 2, label, fontsize=8, color=INK, va="center")


def _draw_skip(axes: Axes, skip: Edge, network: NetworkGraph, layout: _Layout) -> None:
    """Draws the arrow from a block of the encoder to the merge before a block of the decoder."""
    height, width, features = next(block.shape for block in network.blocks if block.name == skip.source)
    start, end = layout.middles[skip.source], layout.middles[_merge_into(skip.target)]
    left = _CENTERS["down"] + layout.widths[skip.source] / 2
    right = _CENTERS["up"] - _RADIUS
    bend = _CENTERS["bottom"] - 0.6
    bends = [(bend, start), (bend, end)] if abs(start - end) > 0.01 else []
    _arrow(axes, [(left, start), *bends, (right, end)], color=_EDGES["down"])
    label = f"{', '.join(skip.operations)} · {features:,} @ {height}×{width}"
    middle = (left + right) / 2
    axes.text(middle, end - 0.04, label, fontsize=8, color=_EDGES["down"], ha="center", va="bottom")


def _arrow(axes: Axes, points: Sequence[tuple[float, float]], *, color: str = INK) -> None:
    """Draws a line through all points, with an arrowhead at the last."""
    axes.add_patch(
        FancyArrowPatch(
            path=Polyline(points),
            arrowstyle="-|>,head_width=0.18,head_length=0.36",
            mutation_scale=10,
            color=color,
            linewidth=1.1,
            joinstyle="miter",
            capstyle="butt",
        )
    )
