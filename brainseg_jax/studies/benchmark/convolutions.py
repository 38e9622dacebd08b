"""Times the 3×3 convolutions of U-Net one by one, in XLA and in PyTorch."""

from typing import Any

import jax
import torch
from jax import Array
from torch import Tensor

from brainseg_jax.studies.benchmark.case import Case
from brainseg_jax.studies.benchmark.ours import choose_options, jit_program
from brainseg_jax.studies.benchmark.report import PASSES
from brainseg_jax.studies.benchmark.timing import Program, measure_in_turns
from brainseg_jax.studies.benchmark.torch_programs import synchronize

Shape = tuple[int, int, int]


def list_shapes(case: Case) -> list[Shape]:
    """Returns side, input channels and output channels of U-Net's 3×3 convolutions, first down, then up."""
    levels = [(case.image_size >> level, case.start_filters << level) for level in range(5)]
    down = [
        (side, channels, width)
        for level, (side, width) in enumerate(levels)
        for channels in (width // 2 if level else 1, width)
    ]
    up = [(side, channels, width) for side, width in levels[3::-1] for channels in (2 * width, width)]
    return [*down, *up]


def profile(case: Case, *, repeats: int, seconds: float) -> list[dict[str, Any]]:
    """Measures the milliseconds of each pass of each convolution of a training step of U-Net.

    Args:
      case: network, sizes and dtype; PyTorch runs channels-last in the same dtype.
      repeats: turns.
      seconds: minimum duration of each program per turn.

    Returns:
      A row per convolution: its shape, how often the network has it, and `ours_<pass>_ms`, `torch_<pass>_ms` for one.
    """
    rows = []
    shapes = list_shapes(case)
    for shape in dict.fromkeys(shapes):
        programs = _in_xla(case, shape) | _in_torch(case, shape)
        speeds = measure_in_turns(programs, repeats=repeats, seconds=seconds)
        row = {**dict(zip(("side", "channels", "features"), shape, strict=True)), "times": shapes.count(shape)}
        rows.append(row | {f"{name}_ms": 1e3 / speed.median for name, speed in speeds.items()})
    return rows


def _in_xla(case: Case, shape: Shape) -> dict[str, Program]:
    side, channels, features = shape
    maps = (case.batch_size, side, side)
    sizes = ((*maps, channels), (3, 3, channels, features), (*maps, features))
    keys = jax.random.split(jax.random.key(0), 3)
    arrays = [jax.random.normal(key, size, case.dtype) for key, size in zip(keys, sizes, strict=True)]

    def convolve(inputs: Array, kernel: Array) -> Array:
        return jax.lax.conv_general_dilated(inputs, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    functions = (
        lambda inputs, kernel, gradient: convolve(inputs, kernel),
        lambda inputs, kernel, gradient: jax.vjp(convolve, inputs, kernel)[1](gradient)[0],
        lambda inputs, kernel, gradient: jax.vjp(convolve, inputs, kernel)[1](gradient)[1],
    )
    options = choose_options(case)
    programs = (jit_program(function, *arrays, units=1, options=options) for function in functions)
    return {f"ours_{name}": program for name, program in zip(PASSES, programs, strict=True)}


def _in_torch(case: Case, shape: Shape) -> dict[str, Program]:
    side, channels, features = shape
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def random(*sizes: int) -> Tensor:
        values = torch.randn(sizes, device=device, dtype=getattr(torch, case.dtype))
        return values.contiguous(memory_format=torch.channels_last)

    inputs, kernel = random(case.batch_size, channels, side, side), random(features, channels, 3, 3)
    gradient = random(case.batch_size, features, side, side)

    def forward() -> None:
        torch.nn.functional.conv2d(inputs, kernel, padding=1)
        synchronize()

    def backward(to_inputs: bool) -> None:
        wanted = [to_inputs, not to_inputs, False]
        torch.ops.aten.convolution_backward(
            gradient, inputs, kernel, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, wanted
        )
        synchronize()

    runs = (forward, lambda: backward(True), lambda: backward(False))
    return {f"torch_{name}": Program(run, 1) for name, run in zip(PASSES, runs, strict=True)}
