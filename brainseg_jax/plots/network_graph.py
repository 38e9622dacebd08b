"""Derives the graph of a network's blocks, its top-level modules, from a trace of its code."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

INPUT = "input"

# The JAX primitives that may combine values of two blocks, with their signs in the diagram.
MERGES = {"add": "+", "concatenate": "c"}
_POOL, _POOLS = "max pool", {"max", "reduce_window_max"}


class Block(NamedTuple):
    """A top-level module of the network, or its input."""

    name: str  # in the parameter tree
    kind: str  # name of its class; empty for the input
    shape: tuple[int, int, int]  # (H, W, C) of its output
    parameters: int  # their number


class Edge(NamedTuple):
    """A connection from the output of one block to the input of another."""

    source: str  # name of the one block
    target: str  # name of the other
    operations: tuple[str, ...]  # between them, in order: "max pool", "add", "concatenate"

    @property
    def merge(self) -> str:
        """The operation that merges it with another connection, or ""."""
        return next((operation for operation in self.operations if operation in MERGES), "")


class NetworkGraph(NamedTuple):
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
        merged = {source: path for variable in inputs for source, path in origins[id(variable)].items()}
        primitive = equation.primitive.name
        direction, _, name = (equation.params["name"] if primitive == "name" else "").partition(" ")
        if direction == "from":
            merged = {name: ()}
        elif direction == "into":
            edges += [Edge(source, name, path) for source, path in merged.items()]
            merged = {}
        elif len({frozenset(origins[id(variable)]) for variable in inputs}) > 1:
            if primitive not in MERGES or len({variable.aval.shape[1:3] for variable in inputs}) != 1:
                shapes = [variable.aval.shape for variable in inputs]
                raise ValueError(f"The outputs of {sorted(merged)} meet in {primitive} of shapes {shapes}.")
            merged = {source: (*path, primitive) for source, path in merged.items()}
        elif _pools(equation):  # several maxima in a row are one pooling
            merged = {source: path if path[-1:] == (_POOL,) else (*path, _POOL) for source, path in merged.items()}
        for variable in equation.outvars:
            origins[id(variable)] = merged
    return tuple(edges)


def _pools(equation: Any) -> bool:
    """Returns whether an equation takes maxima; our own pooling is a function whose gradient is given beside it."""
    inner = equation.params["call_jaxpr"].eqns if equation.primitive.name == "custom_vjp_call" else []
    return equation.primitive.name in _POOLS or any(map(_pools, inner))
