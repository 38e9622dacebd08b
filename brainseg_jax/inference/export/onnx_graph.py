"""Collects the nodes and constants of an ONNX graph."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from brainseg_jax.errors import InputError

OPSET, IR_VERSION = 17, 8  # of 2022, so that old runtimes read the file too
INPUT, OUTPUT = "images", "probabilities"


class Tensor(NamedTuple):
    """A value that depends on the input.

    Attributes:
      name: in the graph.
      shape: its sides, integers or JAX's symbols; a side may be 1 where JAX's value repeats it up to a larger size.
    """

    name: str
    shape: tuple[Any, ...]


Value = Tensor | np.ndarray  # an array is a constant, whose sides may also be 1 in place of a larger size


class Graph:
    """A graph with the input `images` and the output `probabilities`, float32 both.

    Attributes:
      images: the input.
    """

    def __init__(self, shape: tuple[Any, ...]) -> None:
        """Starts a graph whose input has this shape; the first side is the symbolic size of the batch."""
        self.images = Tensor(INPUT, shape)
        self._nodes: list[Any] = []
        self._constants: dict[tuple[Any, ...], Any] = {}
        self._numbers = itertools.count()

    def add(self, operation: str, operands: Sequence[Value], shape: Sequence[Any], **attributes: Any) -> Tensor:
        """Adds a node with one output of this shape, and returns the output."""
        name = f"{operation}_{next(self._numbers)}"
        self._nodes.append(helper.make_node(operation, [self._name(one) for one in operands], [name], **attributes))
        return Tensor(name, tuple(shape))

    def repeat(self, value: Value, shape: Sequence[Any]) -> Value:
        """Repeats a value along its sides of 1, up to a shape.

        Raises:
          InputError: a side of the shape is neither a number nor the size of the batch.
        """
        if tuple(value.shape) == tuple(shape):
            return value
        sides: list[Value] = []
        for side in shape:
            if isinstance(side, int):
                sides.append(np.array([side], np.int64))
            elif side == self.images.shape[0]:
                sides.append(self.add("Shape", [self.images], (1,), start=0, end=1))
            else:
                raise InputError(
                    f"The network repeats a value {side} times, which the export to ONNX cannot: leave out onnx."
                )
        return self.add("Expand", [value, self.add("Concat", sides, (len(shape),), axis=0)], shape)

    def to_bytes(self, output: Value, shape: Sequence[Any]) -> bytes:
        """Returns the graph as the bytes of an `.onnx` file, checked, with an output of this shape."""
        self._nodes.append(helper.make_node("Identity", [self._name(self.repeat(output, shape))], [OUTPUT]))
        inputs, outputs = (
            [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", *sides[1:]])]
            for name, sides in ((INPUT, self.images.shape), (OUTPUT, shape))
        )
        graph = helper.make_graph(self._nodes, "network", inputs, outputs, list(self._constants.values()))
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="brainseg_jax")
        onnx.checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString()
        return content

    def _name(self, value: Value) -> str:
        if isinstance(value, Tensor):
            return value.name
        # Equal constants are stored once: an image and its mirror image use the same parameters.
        key = (value.shape, value.dtype.str, value.tobytes())
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            self._constants[key] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return str(self._constants[key].name)
