"""Chooses XLA's options for the compiled steps of a network: oneDNN's convolutions on a CPU, fixed order on a GPU."""

import functools
import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
from jax.extend.core import Jaxpr, JaxprEqn, jaxprs_in_params

from brainseg_jax.models.layers import Network

ONEDNN = "xla_cpu_experimental_onednn_custom_call"
DETERMINISTIC = "xla_gpu_deterministic_ops"
TESTED_RELEASE = (0, 12)  # of jaxlib; 0.10 accepts the option and does without oneDNN
USUAL_BATCH = 8
# Above this, oneDNN mostly trained slower in float32 (docs/how_to/without_gpu.md); in bfloat16 it never did.
MOST_PIXELS_IN_FLOAT32 = USUAL_BATCH * 256 * 256  # of a batch


def compiler_options(
    model: Network,
    *,
    image_size: int,
    batch_size: int = USUAL_BATCH,
    steps_per_call: int = 1,
    deterministic: bool = False,
) -> dict[str, bool]:
    """Returns the compiler options (of `jax.jit`) for training, evaluation or prediction.

    On a CPU, oneDNN computes the convolutions where it is known to be faster and right. Its programs are compiled at
    each start: XLA cannot keep them in its compilation cache. A user who sets the option in XLA_FLAGS decides himself.

    Args:
      model: the network.
      image_size: side of the images in pixels.
      batch_size: images of a training step; a program that only predicts, for which batches matter less, leaves it out.
      steps_per_call: steps in one compiled call. In a loop over several steps oneDNN is hundreds of times slower.
      deterministic: whether a GPU, too, gives the same bits twice: without atomic additions, whose order varies.
    """
    options = {DETERMINISTIC: True} if deterministic else {}
    fast = model.dtype == jnp.bfloat16 or batch_size * image_size**2 <= MOST_PIXELS_IN_FLOAT32
    if fast and steps_per_call <= 1 and ONEDNN not in os.environ.get("XLA_FLAGS", "") and has_onednn():
        options[ONEDNN] = _has_right_gradients(model, image_size)
    return options


@functools.cache
def has_onednn() -> bool:
    """Returns whether jaxlib and the CPU are of the kinds with which oneDNN was measured."""
    release = tuple(int(part) for part in re.findall(r"\d+", jaxlib.__version__)[:2])
    if sys.platform != "linux" or platform.machine() != "x86_64" or release != TESTED_RELEASE:
        return False
    # The instructions that make bfloat16 fast; without them it was not measured.
    return jax.default_backend() == "cpu" and "avx512_bf16" in Path("/proc/cpuinfo").read_text()


def _has_right_gradients(model: Network, image_size: int) -> bool:
    """Returns whether oneDNN's gradients of a network are right.

    In float32, jaxlib 0.12.0.1 computes a wrong gradient of the kernel of a 1×1 convolution to one channel. U-Net's is
    one, but has a gradient of its own (`to_one_channel`).
    """
    if model.dtype == jnp.bfloat16:
        return True
    images = jax.ShapeDtypeStruct((2, image_size, image_size, 1), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    forward = jax.make_jaxpr(lambda variables, images: model.apply(variables, images))(variables, images)
    return not any(map(_has_wrong_gradient, _convolutions(forward.jaxpr)))


def _convolutions(program: Jaxpr) -> Iterator[JaxprEqn]:
    """Yields the convolutions of a program whose gradients JAX derives."""
    for equation in program.eqns:
        if equation.primitive.name == "conv_general_dilated":
            yield equation
        elif not equation.primitive.name.startswith("custom_vjp"):
            for inner in jaxprs_in_params(equation.params):
                yield from _convolutions(inner)


def _has_wrong_gradient(convolution: JaxprEqn) -> bool:
    kernel: Any = convolution.invars[1].aval
    outputs, inputs, *sides = (kernel.shape[axis] for axis in convolution.params["dimension_numbers"].rhs_spec)
    return outputs == 1 and inputs > 1 and set(sides) == {1}
