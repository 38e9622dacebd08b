"""Computes the overlap of two masks, for JAX and NumPy arrays.

Every metric is 1 if both masks are empty and 0 if only one is: a missed tumour has precision 0, and a false detection
in a slice without tumour has recall 0.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array


class Overlap(NamedTuple):
    """Pixel counts of B pairs of masks; (B,) float32 each.

    Attributes:
      shared: pixels that are in both masks.
      predicted: pixels of the predicted mask.
      true: pixels of the true mask.
    """

    shared: Array
    predicted: Array
    true: Array


def count_overlap(predicted_masks: Array | np.ndarray, true_masks: Array | np.ndarray) -> Overlap:
    """Counts the pixels of masks and of their intersections.

    Args:
      predicted_masks: (B, ...) bool or 0/1 of any dtype.
      true_masks: the same shape, bool or 0/1.

    Returns:
      The counts, (B,) float32: exact up to 2^24 pixels per mask.

    Raises:
      ValueError: the shapes differ.
    """
    if predicted_masks.shape != true_masks.shape:
        raise ValueError(f"The masks have shapes {predicted_masks.shape} and {true_masks.shape}; they must be equal.")
    predicted = jnp.asarray(predicted_masks, bool)
    true = jnp.asarray(true_masks, bool)
    axes = tuple(range(1, true.ndim))

    def count(mask: Array) -> Array:
        return mask.sum(axis=axes, dtype=jnp.float32)

    return Overlap(count(predicted & true), count(predicted), count(true))


def dice(overlap: Overlap) -> Array:
    """Computes 2·shared / (predicted + true), (B,) float32 in [0, 1]; 1 where both masks are empty (Dice 1945)."""
    total = overlap.predicted + overlap.true
    return jnp.where(total > 0, 2.0 * overlap.shared / jnp.maximum(total, 1.0), 1.0)


def intersection_over_union(overlap: Overlap) -> Array:
    """Computes shared / union, (B,) float32 in [0, 1]; 1 where both masks are empty (Jaccard 1912)."""
    union = overlap.predicted + overlap.true - overlap.shared
    return jnp.where(union > 0, overlap.shared / jnp.maximum(union, 1.0), 1.0)


def precision(overlap: Overlap) -> Array:
    """Computes shared / predicted, (B,) float32 in [0, 1]: the share of the prediction that is tumour."""
    return _share(overlap.shared, overlap.predicted, other=overlap.true)


def recall(overlap: Overlap) -> Array:
    """Computes shared / true, (B,) float32 in [0, 1]: the share of the tumour that was predicted."""
    return _share(overlap.shared, overlap.true, other=overlap.predicted)


def _share(shared: Array, of: Array, *, other: Array) -> Array:
    return jnp.where(of > 0, shared / jnp.maximum(of, 1.0), jnp.where(other > 0, 0.0, 1.0))
