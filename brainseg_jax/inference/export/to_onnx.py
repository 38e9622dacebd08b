"""Translates a JAX function into ONNX, operation by operation.

JAX traces the function for a batch of unknown size. What follows from constants alone, such as the factors of batch
norm, is computed at once; each operation on the images becomes nodes by one of the rules in onnx_rules.py.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, export

from brainseg_jax.errors import InputError
from brainseg_jax.inference.export.onnx_graph import Graph, Value
from brainseg_jax.inference.export.onnx_rules import RULES

# Operations that hold a function, by the parameter that holds it.
_FUNCTIONS = {"jit": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}


def to_onnx(function: Callable[[Array], Array], shape: Sequence[int]) -> bytes:
    """Translates a function of a batch of images.

    Args:
      function: from (B, *shape) float32 to (B, ...) float32, for any B.
      shape: of one image.

    Returns:
      The bytes of an `.onnx` file with the input `images`, the output `probabilities`, and B of any size.

    Raises:
      InputError: the function has an operation without a rule.
    """
    (batch,) = export.symbolic_shape("batch")
    graph = Graph((batch, *shape))
    traced = jax.make_jaxpr(function)(jax.ShapeDtypeStruct((batch, *shape), jnp.float32))
    (output,) = _translate(graph, traced.jaxpr, traced.consts, [graph.images])
    return graph.to_bytes(output, traced.out_avals[0].shape)


def _translate(graph: Graph, jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Value]) -> list[Value]:
    """Adds the operations of a jaxpr to the graph; returns its outputs."""
    values: dict[Any, Value] = dict(zip(jaxpr.constvars, map(np.asarray, constants), strict=True))
    values.update(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Value:
        return np.asarray(atom.val, atom.aval.dtype) if hasattr(atom, "val") else values[atom]

    for equation in jaxpr.eqns:
        primitive, operands = equation.primitive, [read(atom) for atom in equation.invars]
        sizes = [side for variable in equation.outvars for side in variable.aval.shape]
        if primitive.name in _FUNCTIONS:
            inner = equation.params[_FUNCTIONS[primitive.name]]
            results = _translate(graph, inner.jaxpr, inner.consts, operands)
        elif all(isinstance(one, np.ndarray) for one in operands) and all(isinstance(side, int) for side in sizes):
            bound = primitive.bind(*operands, **equation.params)
            results = [np.asarray(one) for one in (bound if primitive.multiple_results else [bound])]
        else:
            result = RULES[primitive.name](graph, equation, *operands) if primitive.name in RULES else None
            if result is None:
                raise InputError(
                    f"The network uses JAX's {primitive.name} in a form that the export to ONNX does not know: leave "
                    "out onnx, or add its rule to brainseg_jax/inference/export/onnx_rules.py."
                )
            results = [result]
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]
