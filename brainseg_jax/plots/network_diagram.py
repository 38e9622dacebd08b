"""Drawings of the networks, made from the code that runs.

A network is traced once without computing anything. The trace gives the output shape of each of its blocks (the modules
that it calls itself) and what happens on the way from block to block: pooling, additions, concatenations. Nothing about
a network is written down here, so that a changed network changes its drawing.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path as Polyline

from brainseg_jax.plots.style import INK, save_figure

INPUT = "input"

# The primitives of jax that may bring two values together, and their signs in a drawing.
_MERGES = {"add": "+", "concatenate": "c"}
_POOLS = {"max", "reduce_window_max"}
_POOL = "max pool"
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


@dataclass(frozen=True)
class Block:
    """A module that the network calls itself, or its input.

    Attributes:
      name: as in the tree of parameters.
      kind: its class; empty for the input.
      shape: (H, W, C) of its output.
      parameters: number of its trained values.
    """

    name: str
    kind: str
    shape: tuple[int, int, int]
    parameters: int


@dataclass(frozen=True)
class Edge:
    """A way that values take from one block into another.

    Attributes:
      source: name of the block that they leave.
      target: name of the block that they enter.
      operations: what happens to them on the way, in order: "max pool", "add", "concatenate".
    """

    source: str
    target: str
    operations: tuple[str, ...]

    @property
    def merge(self) -> str:
        """The operation that brings other values in, or nothing."""
        return next((operation for operation in self.operations if operation in _MERGES), "")


@dataclass(frozen=True)
class Network:
    """Blocks in the order of their calls, the input first, and the edges between them."""

    blocks: tuple[Block, ...]
    edges: tuple[Edge, ...]

    @property
    def parameters(self) -> int:
        """Number of the trained values of all blocks."""
        return sum(block.parameters for block in self.blocks)

    @property
    def skips(self) -> tuple[Edge, ...]:
        """The edges that leave out at least one block."""
        order = {block.name: index for index, block in enumerate(self.blocks)}
        return tuple(edge for edge in self.edges if order[edge.target] > order[edge.source] + 1)


def trace_network(model: nn.Module, *, image_size: int, channels: int = 1) -> Network:
    """Reads blocks, shapes, parameters and connections off a network by tracing its evaluation of one image.

    Args:
      model: maps (1, image_size, image_size, channels) float32 to logits.
      image_size: side of the square image.
      channels: channels of the image.

    Returns:
      The network; nothing is computed.

    Raises:
      ValueError: a block is called twice, a block's output is not (1, H, W, C), parameters belong to no block, what is
        brought together differs in height or width, or comes together by anything but an addition or a concatenation.
    """
    images = jax.ShapeDtypeStruct((1, image_size, image_size, channels), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    parameters = variables.get("params", {})
    blocks = [Block(INPUT, "", (image_size, image_size, channels), 0)]

    def mark(next_call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        """Puts a name on what enters and on what leaves a block, so that both are found in the trace."""
        module = context.module
        if len(module.path) != 1 or context.method_name != "__call__":
            return next_call(*args, **kwargs)
        name = str(module.name)
        outputs = next_call(*checkpoint_name(args, f"into {name}"), **kwargs)
        if outputs.ndim != 4 or name in [block.name for block in blocks]:
            raise ValueError(f"Block {name} gives the shape {outputs.shape} or is called twice.")
        count = sum(leaf.size for leaf in jax.tree.leaves(parameters.get(name, {})))
        blocks.append(Block(name, type(module).__name__, outputs.shape[1:], count))
        return checkpoint_name(outputs, f"from {name}")

    def evaluate(variables: Any, images: jax.Array) -> Any:
        with nn.intercept_methods(mark):
            return model.apply(variables, checkpoint_name(images, f"from {INPUT}"))

    trace = jax.make_jaxpr(evaluate)(variables, images).jaxpr
    network = Network(tuple(blocks), _edges(trace))
    total = sum(leaf.size for leaf in jax.tree.leaves(parameters))
    if network.parameters != total:
        raise ValueError(f"The blocks have {network.parameters} of the network's {total} parameters.")
    return network


def _edges(trace: Any) -> tuple[Edge, ...]:
    """Follows the values of a jaxpr from block to block."""
    edges = []
    # For each value outside of the blocks: the blocks that it comes from, and the operations since.
    origins: dict[int, dict[str, tuple[str, ...]]] = {}
    for equation in trace.eqns:
        inputs = [variable for variable in equation.invars if origins.get(id(variable))]
        merged: dict[str, tuple[str, ...]] = {}
        for variable in inputs:
            merged |= origins[id(variable)]
        primitive = equation.primitive.name
        direction, _, name = equation.params["name"].partition(" ") if primitive == "name" else ("", "", "")
        if direction == "from":
            merged = {name: ()}
        elif direction == "into":
            edges += [Edge(source, name, operations) for source, operations in merged.items()]
            merged = {}
        elif len({frozenset(origins[id(variable)]) for variable in inputs}) > 1:
            if primitive not in _MERGES or len({variable.aval.shape[1:3] for variable in inputs}) != 1:
                shapes = [variable.aval.shape for variable in inputs]
                raise ValueError(f"The outputs of {sorted(merged)} meet in {primitive} of shapes {shapes}.")
            merged = {source: (*operations, primitive) for source, operations in merged.items()}
        elif primitive in _POOLS:
            # Pooling may be written as several maxima.
            merged = {
                source: operations if operations[-1:] == (_POOL,) else (*operations, _POOL)
                for source, operations in merged.items()
            }
        for variable in equation.outvars:
            origins[id(variable)] = merged
    return tuple(edges)


def draw_network(model: nn.Module, path: Path, *, image_size: int, title: str, channels: int = 1) -> None:
    """Draws the blocks of an encoder-decoder network from its trace, with their shapes, parameters and connections.

    The encoder goes down on the left, the decoder up on the right; blocks of the same resolution share a band. Wider
    boxes have more channels. Skip connections go from left to right.

    Args:
      model: maps (1, image_size, image_size, channels) float32 to logits.
      path: PNG file to write; missing folders are made.
      image_size: side of the square image.
      title: headline; the total number of parameters is added.
      channels: channels of the image.

    Raises:
      ValueError: as `trace_network`, or the network is no chain of blocks with skip connections from the encoder that
        are added or concatenated in the decoder.
    """
    network = trace_network(model, image_size=image_size, channels=channels)
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
    """Where everything stands, in inches from the upper left corner.

    Attributes:
      columns: for each block "down", "bottom" or "up".
      middles: vertical middle of each block and of each merge, the latter under the name that `_merge_into` gives.
      widths: width of each block's box.
      bands: upper and lower edge of the band of each resolution.
      height: of the whole drawing.
    """

    columns: dict[str, str]
    middles: dict[str, float]
    widths: dict[str, float]
    bands: dict[str, tuple[float, float]]
    height: float


def _merge_into(target: str) -> str:
    return f"merge into {target}"


def _lay_out(network: Network) -> _Layout:
    """Puts the encoder into the left column, what has the lowest resolution into the middle, the rest to the right."""
    blocks = {block.name: block for block in network.blocks}
    lowest = min(block.shape[0] for block in network.blocks)
    columns: dict[str, str] = {}
    for name, block in blocks.items():
        after = "up" if "bottom" in columns.values() else "down"
        columns[name] = "bottom" if block.shape[0] == lowest else after
    for skip in network.skips:
        if not (columns[skip.source] == "down" and columns[skip.target] == "up" and skip.merge):
            raise ValueError(f"{skip.source} → {skip.target} is no skip connection from the encoder to the decoder.")

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
        # Skip connections are level where the band allows it.
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
    """Half the height of a block's box or of a merge."""
    return _RADIUS if name.startswith("merge into ") else _BOX / 2


def _stack(names: Sequence[str]) -> dict[str, float]:
    """Middles of boxes and merges that stand below each other, the first edge at 0."""
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


def _draw_chain(axes: Axes, before: Block, after: Block, network: Network, layout: _Layout) -> None:
    """Draws the way from a block to the next one, with the sign of what is merged on it."""
    edge = next((edge for edge in network.edges if (edge.source, edge.target) == (before.name, after.name)), None)
    if edge is None:
        raise ValueError(f"{after.name} takes nothing from {before.name}, the block before it.")
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
        axes.text(x, middle, _MERGES[edge.merge], fontsize=10, color=INK, ha="center", va="center")
    else:
        _arrow(axes, points)
    label = ", ".join(operation for operation in edge.operations if operation not in _MERGES)
    axes.text(x + 0.08, (points[0][1] + points[1][1]) / 2, label, fontsize=8, color=INK, va="center")


def _draw_skip(axes: Axes, skip: Edge, network: Network, layout: _Layout) -> None:
    """Draws the way from a block of the encoder to the merge before a block of the decoder."""
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
    """Draws a line through all points, with a head at the last."""
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
