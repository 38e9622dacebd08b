"""U-Net (Ronneberger, Fischer, Brox 2015, arXiv:1505.04597) with padded convolutions."""

from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from brainseg_jax.errors import InputError
from brainseg_jax.models.batch_norm import BatchNorm
from brainseg_jax.models.layers import Network, UpConv2x2, he_normal, relu, to_one_channel
from brainseg_jax.models.pooling import max_pool


class DoubleConv(nn.Module):
    """Two 3×3 convolutions, each followed by optional batch norm and a ReLU, with optional dropout between them.

    Attributes:
      features: channels of the output.
      batch_norm: whether batch norm follows each convolution before its ReLU, in place of the bias.
      dropout_rate: share of the values between the convolutions that training sets to zero, in [0, 1).
      dtype: dtype of the computation.
    """

    features: int
    batch_norm: bool = False
    dropout_rate: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool) -> Array:
        """Maps (B, H, W, C) to (B, H, W, features)."""
        hidden = self._conv(1, inputs, train=train)
        hidden = nn.Dropout(self.dropout_rate, deterministic=not train)(hidden)
        return self._conv(2, hidden, train=train)

    def _conv(self, number: int, inputs: Array, *, train: bool) -> Array:
        hidden = nn.Conv(
            self.features,
            (3, 3),
            use_bias=not self.batch_norm,
            kernel_init=he_normal,
            dtype=self.dtype,
            name=f"conv_{number}",
        )(inputs)
        if not self.batch_norm:
            return relu(hidden)
        return BatchNorm(train, relu=True, dtype=self.dtype, name=f"norm_{number}")(hidden)


class UNet(Network):
    """Four levels down, four levels up, the feature maps of each level down concatenated on the way up.

    Attributes:
      start_filters: channels of the first level; each level down doubles them.
      batch_norm: whether batch norm follows each 3×3 convolution; the published network has none.
      dropout_rate: dropout between the two convolutions of a level, in [0, 1).
    """

    title: ClassVar[str] = "U-Net"
    stride: ClassVar[int] = 16
    levels: ClassVar[int] = 4

    batch_norm: bool = False
    dropout_rate: float = 0.0

    def __post_init__(self) -> None:  # noqa: D105
        if not 0 <= self.dropout_rate < 1:
            raise InputError(f"config.model.dropout_rate is {self.dropout_rate}: set it to a number in [0, 1).")
        super().__post_init__()

    @nn.compact
    def compute_logits(self, images: Array, *, train: bool) -> Array:  # noqa: D102
        hidden, skips = images, []
        for level in range(self.levels):
            hidden = self._double_conv(level, f"down_{level + 1}")(hidden, train=train)
            skips.append(hidden)
            hidden = max_pool(hidden, 2)
        hidden = self._double_conv(self.levels, "bottom")(hidden, train=train)
        for level in reversed(range(self.levels)):
            features = self.start_filters * 2**level
            hidden = UpConv2x2(features, dtype=self.dtype, name=f"up_conv_{level + 1}")(hidden)
            hidden = jnp.concatenate([skips[level], hidden], axis=-1)
            hidden = self._double_conv(level, f"up_{level + 1}")(hidden, train=train)
        return nn.Conv(
            1,
            (1, 1),
            kernel_init=he_normal,
            bias_init=nn.initializers.constant(self.prior_logit),
            conv_general_dilated=to_one_channel,
            dtype=self.dtype,
            name="logits",
        )(hidden)

    def _double_conv(self, level: int, name: str) -> DoubleConv:
        features = self.start_filters * 2**level
        return DoubleConv(features, self.batch_norm, self.dropout_rate, self.dtype, name=name)
