"""Derives the graph of a network's blocks from a trace of its code, without computing anything.

The trace gives the output shape of each block (top-level module) and the operations between blocks: pooling, additions,
concatenations. The code is the only source, so that the graph always matches the network.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

INPUT = "input"

# The JAX primitives that may combine values of two blocks, with their signs in the diagram.
MERGES = {"add": "+", "concatenate": "c"}
_POOLS = {"max", "reduce_window_max"}
_POOL = "max pool"


@dataclass(frozen=True)
class Block:
    """A top-level module of the network, or its input.

    Attributes:
      name: its name in the parameter tree.
      kind: name of its class; empty for the input.
      shape: (H, W, C) of its output.
      parameters: number of its parameters.
    """

    name: str
    kind: str
    shape: tuple[int, int, int]
    parameters: int


@dataclass(frozen=True)
class Edge:
    """A connection from one block to another.

    Attributes:
      source: name of the block whose output it carries.
      target: name of the block that it enters.
      operations: operations on the way, in order: "max pool", "add", "concatenate".
    """

    source: str
    target: str
    operations: tuple[str, ...]

    @property
    def merge(self) -> str:
        """The operation that merges it with another connection, or ""."""
        return next((operation for operation in self.operations if operation in MERGES), "")


@dataclass(frozen=True)
class NetworkGraph:
    """Blocks in the order of their calls, the input first, and the edges between them."""

    blocks: tuple[Block, ...]
    edges: tuple[Edge, ...]

    @property
    def parameters(self) -> int:
        """Number of parameters of all blocks."""
        return sum(block.parameters for block in self.blocks)

    @property
    def skips(self) -> tuple[Edge, ...]:
        """The edges that skip at least one block."""
        order = {block.name: index for index, block in enumerate(self.blocks)}
        return tuple(edge for edge in self.edges if order[edge.target] > order[edge.source] + 1)


def trace_network(model: nn.Module, *, image_size: int) -> NetworkGraph:
    """Derives blocks, shapes, parameters and connections of a network by tracing it on one image.

    Args:
      model: maps (1, image_size, image_size, 1) float32 to logits.
      image_size: side of the square image.

    Returns:
      The graph; the trace computes no values.

    Raises:
      ValueError: a block is called twice, a block's output is not (1, H, W, C), parameters belong to no block, or
        values are merged by another operation than addition or concatenation, or differ in height or width.
    """
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 1), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    parameters = variables.get("params", {})
    blocks = [Block(INPUT, "", (image_size, image_size, 1), 0)]

    def mark(next_call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        """Names the inputs and outputs of a block, so that the trace shows them."""
        module = context.module
        if len(module.path) != 1 or context.method_name != "__call__":
            return next_call(*args, **kwargs)
        name = str(module.name)
        outputs = next_call(*checkpoint_name(args, f"into {name}"), **kwargs)
        if outputs.ndim != 4 or name in [block.name for block in blocks]:
            raise ValueError(f"Block {name} is called twice or its output is not (1, H, W, C) but {outputs.shape}.")
        count = sum(leaf.size for leaf in jax.tree.leaves(parameters.get(name, {})))
        blocks.append(Block(name, type(module).__name__, outputs.shape[1:], count))
        return checkpoint_name(outputs, f"from {name}")

    def evaluate(variables: Any, images: jax.Array) -> Any:
        with nn.intercept_methods(mark):
            return model.apply(variables, checkpoint_name(images, f"from {INPUT}"))

    trace = jax.make_jaxpr(evaluate)(variables, images).jaxpr
    network = NetworkGraph(tuple(blocks), _edges(trace))
    total = sum(leaf.size for leaf in jax.tree.leaves(parameters))
    if network.parameters != total:
        raise ValueError(f"The blocks have {network.parameters} of the network's {total} parameters.")
    return network


def _edges(trace: Any) -> tuple[Edge, ...]:
    """Follows the values in a jaxpr from block to block."""
    edges = []
    # For each value between blocks: the blocks that it depends on, and the operations applied since.
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
            if primitive not in MERGES or len({variable.aval.shape[1:3] for variable in inputs}) != 1:
                shapes = [variable.aval.shape for variable in inputs]
                raise ValueError(f"The outputs of {sorted(merged)} meet in {primitive} of shapes {shapes}.")
            merged = {source: (*operations, primitive) for source, operations in merged.items()}
        elif primitive in _POOLS:
            # One pooling may consist of several maxima.
            merged = {
                source: operations if operations[-1:] == (_POOL,) else (*operations, _POOL)
                for source, operations in merged.items()
            }
        for variable in equation.outvars:
            origins[id(variable)] = merged
    return tuple(edges)
