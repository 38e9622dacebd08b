"""Layers that both networks share.

Every layer computes in `dtype` and keeps its parameters in float32. Images and feature maps are NHWC. A layer that is
not written as in a textbook is the same function in a form for which XLA has much faster code; the tests compare each
with the textbook form.
"""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from brainseg_jax.errors import InputError

# Kernels are drawn as He et al. 2015 (arXiv:1502.01852) propose for layers followed by a ReLU.
he_normal = nn.initializers.he_normal()


class Network(nn.Module):
    """A module from images to logits. A subclass names `title` and `stride` and defines `compute_logits`.

    Attributes:
      title: its name for readers.
      stride: both sides of an image must be multiples of it.
      start_filters: channels of the first level, at least 1.
      prior: probability of tumour from which the logits start, between 0 and 1 (Lin et al. 2017, arXiv:1708.02002).
      dtype: dtype of the computation; parameters and batch statistics stay float32.

    Raises:
      InputError: a field is outside its range.
    """

    title: ClassVar[str]
    stride: ClassVar[int]

    start_filters: int = 16
    prior: float = 0.5
    dtype: Any = jnp.float32

    def __init_subclass__(cls, **options: Any) -> None:  # noqa: D105
        for name in ("title", "stride"):
            if not hasattr(cls, name):
                raise TypeError(f"{cls.__name__} has no {name}: every network says its title and its stride.")
        super().__init_subclass__(**options)

    def __post_init__(self) -> None:  # noqa: D105
        if self.start_filters < 1:
            raise InputError(f"config.model.start_filters is {self.start_filters}: set it to 1 or more.")
        if not 0 < self.prior < 1:
            raise InputError(f"config.model.prior is {self.prior}: set it to a number between 0 and 1.")
        super().__post_init__()

    def __call__(self, images: Array, *, train: bool = False) -> Array:
        """Computes the logits of the tumour mask.

        Args:
          images: (B, H, W, C), float, scaled to [0, 1]; H and W multiples of `stride`.
          train: whether dropout is active (then `rngs={"dropout": key}` is needed unless its rate is 0) and batch norm
            uses the statistics of the batch (then apply with `mutable=["batch_stats"]`).

        Returns:
          (B, H, W, 1) float32 logits.

        Raises:
          ValueError: the images have another shape.
        """
        if images.ndim != 4:
            raise ValueError(f"{self.title} takes images of shape (B, H, W, C), not {images.shape}.")
        height, width = images.shape[1:3]
        if height % self.stride or width % self.stride or not height or not width:
            raise ValueError(
                f"{self.title} takes images whose sides are multiples of {self.stride}, not {height}×{width}: "
                f"set config.data.image_size to a multiple of {self.stride}."
            )
        return self.compute_logits(images.astype(self.dtype), train=train).astype(jnp.float32)

    def compute_logits(self, images: Array, *, train: bool) -> Array:
        """Maps images (B, H, W, C) to logits (B, H, W, 1), both of `dtype`; a subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__} must define compute_logits.")

    @property
    def prior_logit(self) -> float:
        """The logit of `prior`: the offset at which a network's logits start."""
        return math.log(self.prior / (1 - self.prior))


# Which of the three taps of a stride-2 transposed convolution joins which of two neighbouring inputs to which of the
# two outputs between them, along one axis: (input before or at, even or odd output, tap).
_UP_TAPS = np.array([[[1, 0, 0], [0, 0, 0]], [[0, 0, 1], [0, 1, 0]]], np.float32)


@jax.custom_vjp
def depth_to_space(inputs: Array) -> Array:
    """Turns groups of 4 channels (row, column, features) into 2×2 pixels: (B, H, W, 4C) to (B, 2H, 2W, C)."""
    batch, height, width, channels = inputs.shape
    blocks = inputs.reshape(batch, height, width, 2, 2, channels // 4).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(batch, 2 * height, 2 * width, channels // 4)


def _space_to_depth(outputs: Array) -> Array:
    """Undoes `depth_to_space`: (B, 2H, 2W, C) to (B, H, W, 4C)."""
    batch, height, width, channels = outputs.shape
    rows = outputs.reshape(batch, height // 2, 2, width // 2, 2 * channels)
    return jnp.concatenate([rows[:, :, 0], rows[:, :, 1]], axis=-1)


# The barrier makes XLA rearrange the gradient once, not again for each of the two matrix products that take it.
depth_to_space.defvjp(
    lambda inputs: (depth_to_space(inputs), None),
    lambda _, gradient: (jax.lax.optimization_barrier(_space_to_depth(gradient)),),
)


@jax.custom_jvp
def relu(inputs: Array) -> Array:
    """ReLU whose gradient is read off its output, which the next layer keeps anyway.

    `jax.nn.relu` reads it off the input, which a GPU must then also write to memory, and cuDNN cannot compute
    convolution, bias and ReLU in one pass. After batch norm `jax.nn.relu` reads less, since its input is recomputed.
    """
    return jnp.maximum(inputs, 0)


@relu.defjvp
def _differentiate_relu(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    outputs = relu(primals[0])
    return outputs, jnp.where(outputs == 0, 0, tangents[0])  # XLA turns "outputs > 0" into "inputs > 0"


def convolution(inputs: Array, kernel: Array, window_strides: tuple[int, int], padding: Any, **settings: Any) -> Array:
    """`jax.lax.conv_general_dilated`, but a matrix product where the output maps are tiny.

    XLA's CPU convolution to 2×2 maps (the bottom of LinkNet at 128×128), or its gradient, takes 13 to 30 times as long
    as gathering the neighbourhoods and multiplying.
    """
    height, width = kernel.shape[:2]
    rows, columns = (-(-side // stride) for side, stride in zip(inputs.shape[1:3], window_strides, strict=True))
    if rows * columns > 4 or padding != "SAME" or height == 1:
        return jax.lax.conv_general_dilated(inputs, kernel, window_strides, padding, **settings)
    margins = jax.lax.padtype_to_pads(inputs.shape[1:3], (height, width), window_strides, padding)
    padded = jnp.pad(inputs, [(0, 0), *margins, (0, 0)])
    down, right = window_strides
    patches = [
        padded[:, i : i + (rows - 1) * down + 1 : down, j : j + (columns - 1) * right + 1 : right]
        for i in range(height)
        for j in range(width)
    ]
    return jnp.concatenate(patches, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def to_one_channel(inputs: Array, kernel: Array, *_: Any, **__: Any) -> Array:
    """`jax.lax.conv_general_dilated` for a 1×1 kernel (1, 1, C, 1), with gradients that are not convolutions.

    On a GPU they are fused into the neighbouring kernels; cuDNN would write the inputs' gradient, the largest map of
    all, to memory, and the next kernel would read it again.
    """
    return _to_one_channel(inputs, kernel)


@jax.custom_vjp
def _to_one_channel(inputs: Array, kernel: Array) -> Array:
    return jax.lax.conv_general_dilated(inputs, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _one_channel_backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    inputs, kernel = saved
    of_kernel = (inputs.astype(jnp.float32) * gradient.astype(jnp.float32)).sum((0, 1, 2))
    return gradient * kernel[0, 0, :, 0], of_kernel.astype(kernel.dtype).reshape(kernel.shape)


_to_one_channel.defvjp(
    lambda inputs, kernel: (_to_one_channel(inputs, kernel), (inputs, kernel)), _one_channel_backward
)


class UpConv3x3(nn.Module):
    """A 3×3 transposed convolution with stride 2, which doubles both sides; no bias.

    Written as a 2×2 convolution to 4·features channels, one group for each place in a 2×2 block of output, and a
    rearrangement: XLA is slow at convolutions over inputs dilated with zeros, above all at their gradients.

    Attributes:
      features: channels of the output.
      dtype: dtype of the computation.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """Maps (B, H, W, C) to (B, 2H, 2W, features)."""
        channels = inputs.shape[-1]
        kernel = self.param("kernel", he_normal, (3, 3, channels, self.features), jnp.float32)
        kernel = jnp.einsum("dat,ebu,tuio->deiabo", _UP_TAPS, _UP_TAPS, kernel)
        kernel = kernel.reshape(2, 2, channels, 4 * self.features).astype(self.dtype)
        blocks = jax.lax.conv_general_dilated(
            inputs.astype(self.dtype), kernel, (1, 1), ((1, 0), (1, 0)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return depth_to_space(blocks)


class UpConv2x2(nn.Module):
    """A 2×2 transposed convolution with stride 2, which doubles both sides.

    The windows of such a convolution do not overlap: each input pixel alone makes its 2×2 block of output. It is
    therefore written as one dense layer to 4·features channels followed by a rearrangement.

    Attributes:
      features: channels of the output.
      use_bias: whether a bias is added.
      dtype: dtype of the computation.
    """

    features: int
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """Maps (B, H, W, C) to (B, 2H, 2W, features)."""
        channels = inputs.shape[-1]
        # Each output value sums `channels` products only, whatever the window: that is its fan-in.
        he_normal_up = nn.initializers.he_normal(in_axis=0, out_axis=(1, 2, 3))
        kernel = self.param("kernel", he_normal_up, (channels, 2, 2, self.features), jnp.float32)
        kernel = kernel.reshape(channels, 4 * self.features).astype(self.dtype)
        outputs = depth_to_space(inputs.astype(self.dtype) @ kernel)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
            outputs = outputs + bias.astype(self.dtype)
        return outputs
