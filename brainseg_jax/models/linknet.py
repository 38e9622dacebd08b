"""LinkNet (Chaurasia, Culurciello 2017, arXiv:1707.03718) in the shape of the published results.

Like the network of those results it differs from the paper: every encoder stage, even the first, halves both sides, so
that the network's stride is 64; and batch norm follows every convolution, even the logits' own, except the shortcuts.
"""

from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from brainseg_jax.models.batch_norm import BatchNorm
from brainseg_jax.models.layers import (
    Network,
    UpConv2x2,
    UpConv3x3,
    convolution,
    he_normal,
    relu,
)
from brainseg_jax.models.pooling import max_pool


class ConvNorm(nn.Module):
    """A convolution, batch norm and an optional ReLU.

    Attributes:
      features: channels of the output.
      kernel_size: side of the square kernel.
      strides: stride in both directions.
      relu: whether a ReLU follows.
      dtype: dtype of the computation; the batch statistics are float32.
    """

    features: int
    kernel_size: int = 3
    strides: int = 1
    relu: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool) -> Array:
        """Maps (B, H, W, C) to (B, H', W', features); batch norm uses the batch's statistics if `train`."""
        # No bias: the batch norm that follows would subtract it with the mean.
        hidden = nn.Conv(
            self.features,
            (self.kernel_size, self.kernel_size),
            (self.strides, self.strides),
            use_bias=False,
            kernel_init=he_normal,
            conv_general_dilated=convolution,
            dtype=self.dtype,
            name="conv",
        )(inputs)
        return BatchNorm(train, relu=self.relu, dtype=self.dtype, name="norm")(hidden)


class UpConvNorm(nn.Module):
    """A 3×3 transposed convolution that doubles both sides, batch norm and a ReLU.

    Attributes:
      features: channels of the output.
      dtype: dtype of the computation; the batch statistics are float32.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool) -> Array:
        """Maps (B, H, W, C) to (B, 2H, 2W, features); batch norm uses the batch's statistics if `train`."""
        hidden = UpConv3x3(self.features, dtype=self.dtype, name="conv")(inputs)
        return BatchNorm(train, relu=True, dtype=self.dtype, name="norm")(hidden)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al. 2016, arXiv:1512.03385), ReLU after the addition.

    Attributes:
      features: channels of the output.
      strides: 2 halves both sides; the shortcut is then a 1×1 convolution without norm.
      dtype: dtype of the computation.
    """

    features: int
    strides: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool) -> Array:
        """Maps (B, H, W, C) to (B, H/strides, W/strides, features)."""
        hidden = ConvNorm(self.features, strides=self.strides, dtype=self.dtype, name="conv_1")(inputs, train=train)
        hidden = ConvNorm(self.features, relu=False, dtype=self.dtype, name="conv_2")(hidden, train=train)
        shortcut = inputs
        if self.strides != 1:
            strides = (self.strides, self.strides)
            shortcut = nn.Conv(
                self.features, (1, 1), strides, kernel_init=he_normal, dtype=self.dtype, name="shortcut"
            )(inputs)
        return relu(hidden + shortcut)


class DecoderBlock(nn.Module):
    """1×1 to a quarter of the channels, 3×3 transposed (doubles both sides), 1×1 to `features` channels.

    Attributes:
      features: channels of the output.
      dtype: dtype of the computation.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool) -> Array:
        """Maps (B, H, W, C) to (B, 2H, 2W, features)."""
        narrow = max(inputs.shape[-1] // 4, 1)
        hidden = ConvNorm(narrow, 1, dtype=self.dtype, name="conv_1")(inputs, train=train)
        hidden = UpConvNorm(narrow, self.dtype, name="up_conv")(hidden, train=train)
        return ConvNorm(self.features, 1, dtype=self.dtype, name="conv_2")(hidden, train=train)


class LinkNet(Network):
    """A residual encoder of four stages; each decoder's output is added to the encoder stage of its size.

    The logits have mean 0 and variance 1 before the last scale and offset: with a `prior` of one half they start far
    from the rarity of tumours.

    Attributes:
      start_filters: channels of the stem and of the first encoder stage; each further stage doubles them.
    """

    title: ClassVar[str] = "LinkNet"
    stride: ClassVar[int] = 64
    stages: ClassVar[int] = 4

    start_filters: int = 64

    @nn.compact
    def compute_logits(self, images: Array, *, train: bool) -> Array:  # noqa: D102
        filters = self.start_filters
        hidden = ConvNorm(filters, 7, 2, dtype=self.dtype, name="stem")(images, train=train)
        hidden = max_pool(hidden, 3)
        skips = []
        for stage in range(self.stages):
            features = filters * 2**stage
            hidden = ResidualBlock(features, 2, self.dtype, name=f"encoder_{stage + 1}_1")(hidden, train=train)
            hidden = ResidualBlock(features, 1, self.dtype, name=f"encoder_{stage + 1}_2")(hidden, train=train)
            skips.append(hidden)
        for stage in reversed(range(self.stages)):
            features = filters * 2 ** max(stage - 1, 0)
            hidden = DecoderBlock(features, self.dtype, name=f"decoder_{stage + 1}")(hidden, train=train)
            if stage > 0:
                hidden = hidden + skips[stage - 1]
        narrow = max(filters // 2, 1)
        hidden = UpConvNorm(narrow, self.dtype, name="end_1")(hidden, train=train)
        hidden = ConvNorm(narrow, 3, dtype=self.dtype, name="end_2")(hidden, train=train)
        logits = UpConv2x2(1, use_bias=False, dtype=self.dtype, name="logits")(hidden)
        return BatchNorm(train, offset=self.prior_logit, dtype=self.dtype, name="norm")(logits)
