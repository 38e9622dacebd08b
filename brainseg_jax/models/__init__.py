"""The networks. To add one: its file, a line in `MODELS`, a config in configs/, a test."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from brainseg_jax.config import is_like
from brainseg_jax.errors import InputError
from brainseg_jax.models.layers import Network
from brainseg_jax.models.linknet import LinkNet
from brainseg_jax.models.unet import UNet

__all__ = ["MODELS", "LinkNet", "Network", "UNet", "create_model"]

MODELS: dict[str, type[Network]] = {"unet": UNet, "linknet": LinkNet}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def create_model(settings: Mapping[str, Any]) -> Network:
    """Makes the network that `config.model` describes.

    Args:
      settings: `name`, one of `MODELS`, and fields of its class; `dtype` as "float32" or "bfloat16".

    Returns:
      A linen module: `apply(variables, images (B, H, W, 1), train=...)` gives (B, H, W, 1) float32 logits.

    Raises:
      InputError: there is no such network, it has no such field, or a value is outside its range.
    """
    fields = dict(settings)
    name = fields.pop("name", None)
    if not isinstance(name, str) or name not in MODELS:
        raise InputError(f"config.model.name is {name!r}: set it to one of {', '.join(MODELS)}.")
    network = MODELS[name]
    known = [field.name for field in dataclasses.fields(network) if field.name not in ("parent", "name")]
    if unknown := sorted(fields.keys() - set(known)):
        raise InputError(
            f"config.model.{unknown[0]} is no field of {network.title}: leave it out; the fields of {name} are "
            f"{', '.join(known)}."
        )
    if str(fields.get("dtype", "float32")) not in DTYPES:
        raise InputError(f"config.model.dtype is {fields['dtype']!r}: set it to one of {', '.join(DTYPES)}.")
    for field in dataclasses.fields(network):
        value = fields.get(field.name, field.default)
        if field.name in fields and field.name != "dtype" and not is_like(value, field.default):
            raise InputError(
                f"config.model.{field.name} is {value!r}: set it to a value like its default, {field.default!r}."
            )
    return network(**{**fields, "dtype": DTYPES[str(fields.get("dtype", "float32"))]})
