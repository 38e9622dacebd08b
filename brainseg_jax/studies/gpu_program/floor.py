"""Counts what a program must do at least: the convolutions and matrix products that it was written with."""

import math
from typing import Any, NamedTuple

import jax
from jax.extend import core


class Floor(NamedTuple):
    """The least that a program does.

    Attributes:
      flops: of its convolutions and matrix products, two for each multiplication.
      nbytes: bytes that these read and write: every map that goes into one or comes out of one, once each time.
    """

    flops: int
    nbytes: int


def count_floor(function: Any, *arguments: Any) -> Floor:
    """Counts the convolutions and matrix products of a function, those of its gradients among them.

    All else (activations, pooling, norms, the loss) would cost no bytes if it were fused into these.
    """
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr: Any) -> Floor:
    flops = nbytes = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("conv_general_dilated", "dot_general"):
            arrays = [variable.aval for variable in (*equation.invars, *equation.outvars)]
            nbytes += sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays)
            flops += 2 * math.prod(arrays[-1].shape) * _products(equation, arrays[0].shape, arrays[1].shape)
        runs = equation.params["length"] if equation.primitive.name == "scan" else 1
        for inner in core.jaxprs_in_params(equation.params):
            part = _count(inner)
            flops, nbytes = flops + runs * part.flops, nbytes + runs * part.nbytes
    return Floor(flops, nbytes)


def _products(equation: Any, left: tuple[int, ...], right: tuple[int, ...]) -> int:
    """Returns how many products are summed up in each element of the result."""
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return math.prod(left[axis] for axis in contracted)
    kernel = equation.params["dimension_numbers"].rhs_spec  # (out, in, rows, columns)
    return math.prod(right[axis] for axis in kernel[1:])
