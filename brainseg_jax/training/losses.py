"""Losses: pure functions of logits and masks."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import Array

from brainseg_jax.errors import InputError

LossFunction = Callable[[Array, Array], Array]


def binary_cross_entropy(logits: Array, masks: Array) -> Array:
    """Computes the mean over the pixels of the binary cross-entropy, slice by slice.

    Args:
      logits: (B, H, W, 1), any float dtype; reduced in float32.
      masks: (B, H, W, 1) 0 or 1.

    Returns:
      (B,) float32, at least 0.
    """
    pixels = optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), masks.astype(jnp.float32))
    return pixels.mean(axis=(1, 2, 3))


def soft_dice_loss(logits: Array, masks: Array) -> Array:
    """Computes one minus the Dice of probabilities and mask, slice by slice (Milletari et al. 2016, arXiv:1606.04797).

    Adds one pixel to numerator and denominator, so that an empty mask has a value and a gradient.

    Args:
      logits: (B, H, W, 1), any float dtype; reduced in float32.
      masks: (B, H, W, 1) 0 or 1.

    Returns:
      (B,) float32 in [0, 1).
    """
    probabilities = jax.nn.sigmoid(logits.astype(jnp.float32))
    masks = masks.astype(jnp.float32)
    shared = (probabilities * masks).sum(axis=(1, 2, 3))
    total = probabilities.sum(axis=(1, 2, 3)) + masks.sum(axis=(1, 2, 3))
    return 1.0 - (2.0 * shared + 1.0) / (total + 1.0)


def cross_entropy_and_dice(logits: Array, masks: Array) -> Array:
    """Computes the sum of both losses above, (B,) float32."""
    return binary_cross_entropy(logits, masks) + soft_dice_loss(logits, masks)


LOSSES: dict[str, LossFunction] = {
    "bce": binary_cross_entropy,
    "dice": soft_dice_loss,
    "bce_dice": cross_entropy_and_dice,
}


def create_loss(name: str) -> LossFunction:
    """Returns the loss that `config.train.loss` names: (logits, masks) (B, H, W, 1) to (B,).

    Raises:
      InputError: there is no loss of that name.
    """
    if name not in LOSSES:
        raise InputError(f"config.train.loss is {name!r}: set it to one of {', '.join(LOSSES)}.")
    return LOSSES[name]
