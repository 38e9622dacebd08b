"""Times the 3×3 convolutions of U-Net one by one, in XLA and in PyTorch."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import torch
from jax import Array
from torch import Tensor

from brainseg_jax.studies.benchmark.case import Case
from brainseg_jax.studies.benchmark.ours import wait_for
from brainseg_jax.studies.benchmark.report import PASSES
from brainseg_jax.studies.benchmark.timing import measure_in_turns


def shapes(case: Case) -> list[tuple[int, int, int]]:
    """Returns side, input channels and output channels of the 3×3 convolutions of U-Net, from top to bottom and up."""
    widths = [case.start_filters * 2**level for level in range(5)]
    sides = [case.image_size // 2**level for level in range(5)]
    down = [
        shape
        for side, before, width in zip(sides, [1, *widths], widths, strict=False)
        for shape in ((side, before, width), (side, width, width))
    ]
    up = [
        shape
        for side, width in zip(sides[3::-1], widths[3::-1], strict=True)
        for shape in ((side, 2 * width, width), (side, width, width))
    ]
    return [*down, *up]


def profile(case: Case, *, repeats: int, seconds: float) -> list[dict[str, Any]]:
    """Measures the milliseconds of each pass of each convolution of a training step of U-Net.

    Args:
      case: network, sizes and dtype; PyTorch runs channels-last in the same dtype.
      repeats: turns.
      seconds: minimum of each program a turn.

    Returns:
      A row a convolution: its shape, how often the network has it, and `ours_<pass>_ms`, `torch_<pass>_ms` once.
    """
    rows = []
    all_shapes = shapes(case)
    for shape in dict.fromkeys(all_shapes):
        programs = {"ours": _in_xla(case, shape), "torch": _in_torch(case, shape)}
        runs = {f"{side}_{name}": (programs[side][name], 1) for side in programs for name in PASSES}
        speeds = measure_in_turns(runs, repeats=repeats, seconds=seconds)
        side, channels, features = shape
        row = {"side": side, "channels": channels, "features": features, "times": all_shapes.count(shape)}
        rows.append(row | {f"{name}_ms": 1e3 / speed.median for name, speed in speeds.items()})
    return rows


def _in_xla(case: Case, shape: tuple[int, int, int]) -> dict[str, Any]:
    side, channels, features = shape
    keys = jax.random.split(jax.random.key(0), 3)
    inputs = jax.random.normal(keys[0], (case.batch_size, side, side, channels), case.dtype)
    kernel = jax.random.normal(keys[1], (3, 3, channels, features), case.dtype)
    gradient = jax.random.normal(keys[2], (case.batch_size, side, side, features), case.dtype)

    def convolve(inputs: Array, kernel: Array) -> Array:
        return jax.lax.conv_general_dilated(inputs, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    # The arrays are arguments: XLA would compute a program of constants while it compiles.
    programs = {
        "forward": jax.jit(lambda inputs, kernel, gradient: convolve(inputs, kernel)),
        "input_gradient": jax.jit(lambda inputs, kernel, gradient: jax.vjp(convolve, inputs, kernel)[1](gradient)[0]),
        "kernel_gradient": jax.jit(lambda inputs, kernel, gradient: jax.vjp(convolve, inputs, kernel)[1](gradient)[1]),
    }
    return {name: functools.partial(wait_for, program, inputs, kernel, gradient) for name, program in programs.items()}


def _in_torch(case: Case, shape: tuple[int, int, int]) -> dict[str, Any]:
    side, channels, features = shape
    on_gpu = torch.cuda.is_available()
    settings: dict[str, Any] = {
        "device": "cuda" if on_gpu else "cpu",
        "dtype": torch.bfloat16 if jnp.dtype(case.dtype) == jnp.bfloat16 else torch.float32,
    }

    def random(*sizes: int) -> Tensor:
        return torch.randn(sizes, **settings).contiguous(memory_format=torch.channels_last)

    inputs, kernel = random(case.batch_size, channels, side, side), random(features, channels, 3, 3)
    gradient = random(case.batch_size, features, side, side)

    def backward(*, to_inputs: bool, to_kernel: bool) -> None:
        torch.ops.aten.convolution_backward(
            gradient, inputs, kernel, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [to_inputs, to_kernel, False]
        )
        if on_gpu:
            torch.cuda.synchronize()

    def forward() -> None:
        torch.nn.functional.conv2d(inputs, kernel, padding=1)
        if on_gpu:
            torch.cuda.synchronize()

    return {
        "forward": forward,
        "input_gradient": functools.partial(backward, to_inputs=True, to_kernel=False),
        "kernel_gradient": functools.partial(backward, to_inputs=False, to_kernel=True),
    }
