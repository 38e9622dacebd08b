"""Draws the graph of a network: encoder on the left, decoder on the right."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
_WIDTH, _HEAD = 9.0, 0.5  # of the figure and of its headline
_CENTERS = {"down": 2.55, "bottom": 4.95, "up": 7.35}
_BOX_WIDTHS = 2.1, 3.1
_BOX = 0.46  # height of a block
_RADIUS = 0.11  # of the circle of a merge
_MERGE = "merge into "  # followed by the name of the next block: a merge's name in a layout
_GAP, _PAD = 0.17, 0.14  # between boxes, and around those of a band


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
    axes.set(xlim=(0, _WIDTH), ylim=(layout.height, 0))
    axes.set_axis_off()
    headline = f"{title} · {network.parameters:,} parameters"
    axes.text(0.12, _HEAD / 2, headline, fontsize=12, weight="bold", color=INK, va="center")
    for index, (side, (top, bottom)) in enumerate(layout.bands.items()):
        color = "#F7F7F7" if index % 2 == 0 else "#FFFFFF"
        axes.add_patch(Rectangle((0, top), _WIDTH, bottom - top, facecolor=color, edgecolor="none", zorder=0))
        axes.text(0.12, (top + bottom) / 2, side, fontsize=9, color="#777777", va="center")
    for block in network.blocks:
        _draw_block(axes, block, layout)
    for before, after in itertools.pairwise(network.blocks):
        _draw_chain(axes, before.name, after.name, network, layout)
    for skip in network.skips:
        _draw_skip(axes, skip, network, layout)
    save_figure(figure, path)


class _Layout(NamedTuple):
    """Positions in inches from the upper left corner."""

    columns: dict[str, str]  # of each block: "down", "bottom" or "up"
    middles: dict[str, float]  # vertical middle of each block and of each merge (its name starts with `_MERGE`)
    widths: dict[str, float]  # of each block's box
    bands: dict[str, tuple[float, float]]  # upper and lower edge of each resolution's band
    height: float  # of the figure


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

    depths = {name: math.log2(block.shape[2]) for name, block in blocks.items()}
    shallowest, (narrowest, widest) = min(depths.values()), _BOX_WIDTHS
    scale = (widest - narrowest) / max(max(depths.values()) - shallowest, 1)
    widths = {name: narrowest + scale * (depth - shallowest) for name, depth in depths.items()}

    sources = {skip.target: skip.source for skip in network.skips}
    middles: dict[str, float] = {}
    bands: dict[str, tuple[float, float]] = {}
    top = _HEAD
    for shape in sorted({block.shape[:2] for block in network.blocks}, reverse=True):
        here = [name for name, block in blocks.items() if block.shape[:2] == shape]
        left = _stack([name for name in here if columns[name] != "up"])
        right_names = []
        for name in reversed(blocks):
            right_names += [name] if name in here and columns[name] == "up" else []
            right_names += [_MERGE + name] if sources.get(name) in here else []
        right = _stack(right_names)
        # A skip connection is horizontal: its source and its merge get the same height.
        shift = next((right[_MERGE + target] - left[name] for target, name in sources.items() if name in left), 0.0)
        for stack, start in ((left, max(shift, 0.0)), (right, max(-shift, 0.0))):
            middles |= {name: top + _PAD + start + offset for name, offset in stack.items()}
        bottom = max(middles[name] + _half(name) for name in (*left, *right)) + _PAD
        bands[f"{shape[0]}×{shape[1]}"] = top, bottom
        top = bottom
    return _Layout(columns, middles, widths, bands, height=top)


def _half(name: str) -> float:
    """Returns half the height of a block's box or of a merge."""
    return _RADIUS if name.startswith(_MERGE) else _BOX / 2


def _stack(names: Sequence[str]) -> dict[str, float]:
    """Stacks boxes and merges from 0 downwards and returns their middles."""
    middles, edge = {}, 0.0
    for name in names:
        middles[name] = edge + _half(name)
        edge = middles[name] + _half(name) + _GAP
    return middles


def _draw_block(axes: Axes, block: Block, layout: _Layout) -> None:
    column, width = layout.columns[block.name], layout.widths[block.name]
    left, middle = _CENTERS[column] - width / 2, layout.middles[block.name]
    key = INPUT if block.name == INPUT else column
    style: dict[str, Any] = {"facecolor": _FILLS[key], "edgecolor": _EDGES[key], "linewidth": 1.1}
    corner = (left, middle - _BOX / 2)
    axes.add_patch(FancyBboxPatch(corner, width, _BOX, boxstyle="round,pad=0,rounding_size=0.06", **style))
    height, wide, features = block.shape
    count = f"{block.parameters:,} parameters" if block.parameters else ""
    for x, y, text, settings in (
        (left + 0.09, middle - 0.1, block.name, {"fontsize": 9, "weight": "bold"}),
        (left + width - 0.09, middle - 0.1, block.kind, {"fontsize": 8, "ha": "right"}),
        (left + 0.09, middle + 0.11, f"{features:,} @ {height}×{wide}", {"fontsize": 8}),
        (left + width - 0.09, middle + 0.11, count, {"fontsize": 8, "ha": "right"}),
    ):
        axes.text(x, y, text, color=INK, va="center_baseline", **settings)


def _draw_chain(axes: Axes, before: str, after: str, network: NetworkGraph, layout: _Layout) -> None:
    """Draws the arrow from a block to the next one, with the sign of a merge."""
    edge = next((edge for edge in network.edges if (edge.source, edge.target) == (before, after)), None)
    if edge is None:
        raise ValueError(f"Block {after} has no input from {before}, the block before it.")
    columns = layout.columns[before], layout.columns[after]
    start, end = layout.middles[before], layout.middles[after]
    x, half = _CENTERS[columns[1]], -_BOX / 2 if columns[1] == "up" else _BOX / 2
    points = [(x, start + half), (x, end - half)]
    if columns == ("down", "bottom"):
        x = _CENTERS["down"]
        points = [(x, start + half), (x, end), (_CENTERS["bottom"] - layout.widths[after] / 2, end)]
    elif columns == ("bottom", "up"):
        points = [(_CENTERS["bottom"] + layout.widths[before] / 2, start), (x, start), (x, end - half)]
    if edge.merge:
        middle = layout.middles[_MERGE + after]
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
    start, end = layout.middles[skip.source], layout.middles[_MERGE + skip.target]
    left, right = _CENTERS["down"] + layout.widths[skip.source] / 2, _CENTERS["up"] - _RADIUS
    bend = _CENTERS["bottom"] - 0.6
    bends = [(bend, start), (bend, end)] if abs(start - end) > 0.01 else []
    _arrow(axes, [(left, start), *bends, (right, end)], color=_EDGES["down"])
    label = f"{', '.join(skip.operations)} · {features:,} @ {height}×{width}"
    axes.text((left + right) / 2, end - 0.04, label, fontsize=8, color=_EDGES["down"], ha="center", va="bottom")


def _arrow(axes: Axes, points: Sequence[tuple[float, float]], *, color: str = INK) -> None:
    """Draws a line through all points, with an arrowhead at the last."""
    shape: dict[str, Any] = {"arrowstyle": "-|>,head_width=0.18,head_length=0.36", "mutation_scale": 10}
    line: dict[str, Any] = {"linewidth": 1.1, "joinstyle": "miter", "capstyle": "butt"}
    axes.add_patch(FancyArrowPatch(path=Polyline(points), color=color, **shape, **line))
