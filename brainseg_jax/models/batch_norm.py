"""Batch norm (Ioffe, Szegedy 2015, arXiv:1502.03167) whose gradient reads the feature map twice.

It computes what flax's `nn.BatchNorm` does, with an optional ReLU after it, and has the same variables. Differentiated
line by line, as flax's is, the backward pass has several sums over the feature map, between which XLA writes maps to
memory. Written out as below it has two sums in one pass, and a second pass that gives the gradient.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

EPSILON = 1e-5  # added to the variance
MOMENTUM = 0.9  # of the running statistics


class BatchNorm(nn.Module):
    """Subtracts each channel's mean and divides by its standard deviation; a learned scale and offset follow.

    Attributes:
      train: whether to use the batch's mean and variance, which also update the running ones, or the running ones.
      relu: whether a ReLU follows.
      offset: initial value of the learned offset.
      dtype: dtype of the output; all in between is float32, and so are parameters and statistics.
    """

    train: bool
    relu: bool = False
    offset: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """Maps (B, H, W, C) to the same shape."""
        features = (inputs.shape[-1],)
        mean = self.variable("batch_stats", "mean", jnp.zeros, features, jnp.float32)
        variance = self.variable("batch_stats", "var", jnp.ones, features, jnp.float32)
        scale = self.param("scale", nn.initializers.ones_init(), features, jnp.float32)
        bias = self.param("bias", nn.initializers.constant(self.offset), features, jnp.float32)
        if self.train:
            outputs, *of_batch = normalize_batch(self.dtype, self.relu, inputs, scale, bias)
            if not self.is_initializing():
                for running, value in zip((mean, variance), of_batch, strict=True):
                    running.value = MOMENTUM * running.value + (1 - MOMENTUM) * value
            return outputs
        outputs = _normalize(inputs, mean.value, variance.value, scale, bias)
        return (nn.relu(outputs) if self.relu else outputs).astype(self.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def normalize_batch(dtype: Any, relu: bool, inputs: Array, scale: Array, bias: Array) -> tuple[Array, Array, Array]:
    """Normalizes each channel by its own mean and variance.

    Args:
      dtype: of the outputs.
      relu: whether a ReLU follows.
      inputs: (..., C).
      scale: (C,) float32.
      bias: (C,) float32.

    Returns:
      The outputs, and mean and variance, (C,) float32 each, through which no gradient flows.
    """
    axes = tuple(range(inputs.ndim - 1))
    values = inputs.astype(jnp.float32)
    mean, mean_of_squares = values.mean(axes), jnp.square(values).mean(axes)  # in one pass
    variance = jnp.maximum(0.0, mean_of_squares - jnp.square(mean))
    outputs = _normalize(inputs, mean, variance, scale, bias)
    return (nn.relu(outputs) if relu else outputs).astype(dtype), mean, variance


def _normalize(inputs: Array, mean: Array, variance: Array, scale: Array, bias: Array) -> Array:
    """Normalizes in float32."""
    return (inputs.astype(jnp.float32) - mean) * (jax.lax.rsqrt(variance + EPSILON) * scale) + bias


def _forward(dtype: Any, relu: bool, inputs: Array, scale: Array, bias: Array) -> Any:
    outputs, mean, variance = normalize_batch(dtype, relu, inputs, scale, bias)
    return (outputs, mean, variance), (inputs, mean, variance, scale, bias)


def _backward(
    dtype: Any, relu: bool, saved: tuple[Array, ...], cotangents: tuple[Array, ...]
) -> tuple[Array, Array, Array]:
    inputs, mean, variance, scale, bias = saved
    gradient, axes, inverse = cotangents[0], tuple(range(inputs.ndim - 1)), jax.lax.rsqrt(variance + EPSILON)

    def read(inputs: Array, gradient: Array) -> tuple[Array, Array]:
        """Returns the inputs minus their mean, and the gradient before the ReLU."""
        gradient = gradient.astype(jnp.float32)
        if relu:
            gradient = jnp.where(_normalize(inputs, mean, variance, scale, bias) > 0, gradient, 0)
        return inputs.astype(jnp.float32) - mean, gradient

    centred, before_relu = read(inputs, gradient)
    sum_1, sum_2 = before_relu.sum(axes), (before_relu * centred).sum(axes)
    # The barrier makes XLA compute both again in the second pass instead of writing them to memory in the first.
    sum_1, sum_2, inputs, gradient = jax.lax.optimization_barrier((sum_1, sum_2, inputs, gradient))
    centred, before_relu = read(inputs, gradient)
    count = inputs.size // inputs.shape[-1]
    of_inputs = scale * inverse * (before_relu - sum_1 / count - centred * (jnp.square(inverse) * sum_2 / count))
    return of_inputs.astype(inputs.dtype), sum_2 * inverse, sum_1


normalize_batch.defvjp(_forward, _backward)
