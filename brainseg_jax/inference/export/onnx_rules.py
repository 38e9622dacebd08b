"""The rules by which JAX's operations become nodes of an ONNX graph.

A rule takes the graph, JAX's equation and its operands, and returns the result, or None where it does not know the form
of the operation. In ONNX, convolutions and poolings have the channels first, so each of them is put between two
transposes; runtimes remove most of these again.
"""

import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from brainseg_jax.inference.export.onnx_graph import Graph, Tensor, Value

Rule = Callable[..., Value | None]


def _elementwise(operation: str) -> Rule:
    return lambda graph, equation, *operands: _each(graph, operation, *operands)


def _each(graph: Graph, operation: str, *operands: Value) -> Tensor:
    shapes = [operand.shape for operand in operands if operand.shape]
    shape = [next((side for side in sides if side != 1), 1) for sides in zip(*shapes, strict=True)]
    return graph.add(operation, operands, shape)


def _max(graph: Graph, equation: Any, one: Value, other: Value) -> Tensor:
    if isinstance(other, np.ndarray) and not other.any():  # runtimes join a Relu to the convolution before it
        return graph.add("Relu", [one], one.shape)
    return _each(graph, "Max", one, other)


def _subtract(graph: Graph, equation: Any, one: Value, other: Value) -> Tensor:
    if isinstance(other, np.ndarray):  # runtimes likewise join an Add
        return _each(graph, "Add", one, -other)
    return _each(graph, "Sub", one, other)


def _broadcast(graph: Graph, equation: Any, operand: Value) -> Value:
    # Sets only the rank: elementwise operations repeat by themselves, and for all others `_whole` repeats.
    shape: list[Any] = [1] * len(equation.params["shape"])
    for axis, side in zip(equation.params["broadcast_dimensions"], operand.shape, strict=True):
        shape[axis] = side
    return _to_shape(graph, operand, shape)


def _reshape(graph: Graph, equation: Any, operand: Value) -> Value:
    return _to_shape(graph, _whole(graph, equation, operand), equation.outvars[0].aval.shape)


def _to_shape(graph: Graph, value: Value, shape: Sequence[Any]) -> Value:
    sides = [side if isinstance(side, int) else -1 for side in shape]
    if isinstance(value, np.ndarray):
        return value.reshape(sides)
    return graph.add("Reshape", [value, np.array(sides, np.int64)], shape)


def _transpose(graph: Graph, equation: Any, operand: Value) -> Tensor:
    return _permute(graph, _whole(graph, equation, operand), equation.params["permutation"])


def _permute(graph: Graph, value: Value, order: Sequence[int]) -> Tensor:
    order = [int(axis) for axis in order]
    return graph.add("Transpose", [value], [value.shape[axis] for axis in order], perm=order)


def _concatenate(graph: Graph, equation: Any, *operands: Value) -> Tensor:
    whole = [_whole(graph, equation, operand, number) for number, operand in enumerate(operands)]
    return graph.add("Concat", whole, equation.outvars[0].aval.shape, axis=int(equation.params["dimension"]))


def _pad(graph: Graph, equation: Any, operand: Value, value: Value) -> Tensor | None:
    low, high, between = zip(*equation.params["padding_config"], strict=True)
    if any(between):
        return None
    widths = np.array([*low, *high], np.int64)
    return graph.add("Pad", [_whole(graph, equation, operand), widths, value], equation.outvars[0].aval.shape)


def _slice(graph: Graph, equation: Any, operand: Value) -> Tensor | None:
    settings, whole = equation.params, _whole(graph, equation, operand)
    strides = settings["strides"] or (1,) * len(whole.shape)
    places = zip(settings["start_indices"], settings["limit_indices"], range(len(strides)), strides, strict=True)
    cuts = [
        place for place, side in zip(places, whole.shape, strict=True) if (place[0], place[1], place[3]) != (0, side, 1)
    ]
    if not all(isinstance(number, int) for cut in cuts for number in cut):
        return None
    return graph.add("Slice", [whole, *np.array(cuts, np.int64).reshape(-1, 4).T], equation.outvars[0].aval.shape)


def _reverse(graph: Graph, equation: Any, operand: Value) -> Tensor:
    axes = np.array(equation.params["dimensions"], np.int64)
    before = np.full_like(axes, np.iinfo(np.int64).min)  # the end of a slice that runs down to the first value
    whole = _whole(graph, equation, operand)
    return graph.add("Slice", [whole, np.full_like(axes, -1), before, axes, np.full_like(axes, -1)], whole.shape)


def _gather(graph: Graph, equation: Any, operand: Value, indices: Value) -> Value | None:
    """Translates only fixed places that are the same in all images, which JAX makes of slices of a batch."""
    settings, whole = equation.params, _whole(graph, equation, operand)
    numbers, sizes, shape = settings["dimension_numbers"], settings["slice_sizes"], equation.outvars[0].aval.shape
    batch, *sides = whole.shape
    if not isinstance(indices, np.ndarray) or not all(isinstance(side, int) for side in sides):
        return None
    if sizes[0] != batch or 0 in numbers.start_index_map or numbers.offset_dims[0] != 0:
        return None
    # Running the operation on the indices of an image's values shows which values it takes.
    places = np.arange(np.prod(sides), dtype=np.int32).reshape(1, *sides)
    taken = np.asarray(equation.primitive.bind(places, indices, **{**settings, "slice_sizes": (1, *sizes[1:])}))
    if (taken < 0).any():  # JAX fills in what lies outside
        return None
    if len(numbers.start_index_map) == 1:  # whole rows, or columns, are faster than single values
        (axis,) = numbers.start_index_map
        rows = indices.ravel().clip(0, sides[axis - 1] - 1).astype(np.int64)
        if np.array_equal(places.take(rows, axis), taken):
            return graph.add("Gather", [whole, rows], shape, axis=axis)
    flat = _to_shape(graph, whole, (batch, places.size))
    picked = graph.add("Gather", [flat, taken.ravel().astype(np.int64)], (batch, taken.size), axis=1)
    return _to_shape(graph, picked, shape)


def _convolution(graph: Graph, equation: Any, operand: Value, kernel: Value) -> Tensor | None:
    settings, shape = equation.params, equation.outvars[0].aval.shape
    numbers, dilation = settings["dimension_numbers"], settings["lhs_dilation"]
    low, high = np.transpose(settings["padding"])
    channels_first = _permute(graph, _whole(graph, equation, operand), numbers.lhs_spec)
    if not isinstance(kernel, np.ndarray) or settings["batch_group_count"] != 1 or min(*low, *high) < 0:
        return None
    kernel = kernel.transpose(numbers.rhs_spec)
    common = {"dilations": settings["rhs_dilation"], "group": settings["feature_group_count"]}
    sides = [shape[axis] for axis in numbers.out_spec]
    if max(dilation) == 1:
        widths, strides = [*low, *high], settings["window_strides"]
        output = graph.add(
            "Conv", [channels_first, kernel], sides, pads=[int(w) for w in widths], strides=strides, **common
        )
    elif max(settings["window_strides"]) == 1 == settings["feature_group_count"]:  # a transposed convolution
        reach = (np.array(kernel.shape[2:]) - 1) * settings["rhs_dilation"]
        widths = [int(width) for width in (*(reach - low), *(reach - high))]
        if min(widths) < 0:
            return None
        mirrored = np.flip(kernel, tuple(range(2, kernel.ndim))).swapaxes(0, 1)
        output = graph.add("ConvTranspose", [channels_first, mirrored], sides, pads=widths, strides=dilation, **common)
    else:
        return None
    return _permute(graph, output, np.argsort(numbers.out_spec).tolist())


def _max_pool(graph: Graph, equation: Any, operand: Value) -> Tensor | None:
    settings, shape = equation.params, equation.outvars[0].aval.shape
    names = ("window_dimensions", "window_strides", "window_dilation")
    windows, strides, dilations = (settings[name] for name in names)
    ends = (0, len(shape) - 1)
    dilated = max(settings["base_dilation"]) > 1
    if dilated or any((windows[axis], strides[axis], settings["padding"][axis]) != (1, 1, (0, 0)) for axis in ends):
        return None
    inner = slice(1, -1)
    widths = [int(width) for width in np.transpose(settings["padding"][inner]).ravel()]
    first = _permute(graph, _whole(graph, equation, operand), [0, ends[1], *range(1, ends[1])])
    pooled = graph.add(
        "MaxPool",
        [first],
        [shape[0], shape[-1], *shape[inner]],
        kernel_shape=windows[inner],
        strides=strides[inner],
        dilations=dilations[inner],
        pads=widths,
    )
    return _permute(graph, pooled, [0, *range(2, len(shape)), 1])


def _product(graph: Graph, equation: Any, left: Value, right: Value) -> Tensor:
    (left_sums, right_sums), (left_pairs, right_pairs) = equation.params["dimension_numbers"]
    shape = equation.outvars[0].aval.shape
    operands = [_whole(graph, equation, left), _whole(graph, equation, right, 1)]
    if tuple(left_sums) == (len(left.shape) - 1,) and tuple(right_sums) == (0,) and len(right.shape) == 2:
        return graph.add("MatMul", operands, shape)
    letters = iter(string.ascii_letters)
    of_left = [next(letters) for _ in left.shape]
    of_right = [next(letters) for _ in right.shape]
    for of_one, of_other in zip((*left_sums, *left_pairs), (*right_sums, *right_pairs), strict=True):
        of_right[of_other] = of_left[of_one]
    pairs = [of_left[axis] for axis in left_pairs]
    free = [letter for letter in of_left + of_right if (letter in of_left) != (letter in of_right)]
    equation_text = f"{''.join(of_left)},{''.join(of_right)}->{''.join(pairs + free)}"
    return graph.add("Einsum", operands, shape, equation=equation_text)


def _whole(graph: Graph, equation: Any, operand: Value, number: int = 0) -> Value:
    """Returns an operand at the size that it has in JAX."""
    return graph.repeat(operand, equation.invars[number].aval.shape)


RULES: dict[str, Rule] = {
    **{name: _elementwise(name.capitalize()) for name in ("add", "mul", "div", "min", "exp", "log", "tanh", "sqrt")},
    **{name: _elementwise(operation) for name, operation in (("logistic", "Sigmoid"), ("neg", "Neg"), ("abs", "Abs"))},
    "sub": _subtract,
    "max": _max,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _reshape,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "pad": _pad,
    "slice": _slice,
    "rev": _reverse,
    "gather": _gather,
    "conv_general_dilated": _convolution,
    "reduce_window_max": _max_pool,
    "dot_general": _product,
}
