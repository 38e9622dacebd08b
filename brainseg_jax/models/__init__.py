"""The networks. `create_model` makes either from its name."""

from typing import Any

import jax.numpy as jnp

from brainseg_jax.errors import InputError
from brainseg_jax.models.linknet import LinkNet
from brainseg_jax.models.unet import UNet

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def create_model(
    *, name: str, start_filters: int, dropout_rate: float, dtype: str, batch_norm: bool = False, prior: float = 0.5
) -> UNet | LinkNet:
    """Makes the network that `config.model` describes.

    Args:
      name: "unet" or "linknet".
      start_filters: channels of the first level, at least 1.
      dropout_rate: U-Net's dropout, in [0, 1); LinkNet has none, so it must be 0 there.
      dtype: dtype of the computation, "float32" or "bfloat16"; parameters are float32.
      batch_norm: batch norm in U-Net; LinkNet has it anyway, so it must be False there.
      prior: probability of tumour of the first logits' offset, in (0, 1).

    Returns:
      A linen module: `apply(variables, images (B, H, W, 1), train=...)` gives (B, H, W, 1) float32 logits.

    Raises:
      InputError: a value is none of the above.
    """
    if dtype not in DTYPES:
        raise InputError(f"config.model.dtype is {dtype!r}: set it to one of {', '.join(DTYPES)}.")
    if start_filters < 1:
        raise InputError(f"config.model.start_filters is {start_filters}: set it to 1 or more.")
    if not 0 <= dropout_rate < 1:
        raise InputError(f"config.model.dropout_rate is {dropout_rate}: set it to a number in [0, 1).")
    if not 0 < prior < 1:
        raise InputError(f"config.model.prior is {prior}: set it to a number between 0 and 1.")
    compute_dtype: Any = DTYPES[dtype]
    if name == "unet":
        return UNet(
            start_filters=start_filters,
            batch_norm=batch_norm,
            dropout_rate=dropout_rate,
            prior=prior,
            dtype=compute_dtype,
        )
    if name == "linknet":
        if batch_norm:
            raise InputError("config.model.batch_norm is True, but LinkNet has batch norm by itself: set it to False.")
        if dropout_rate:
            raise InputError(f"config.model.dropout_rate is {dropout_rate}, but LinkNet has no dropout: set it to 0.")
        return LinkNet(start_filters=start_filters, prior=prior, dtype=compute_dtype)
    raise InputError(f"config.model.name is {name!r}: set it to unet or linknet.")
