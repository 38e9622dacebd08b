"""A user's own slices, as image and mask files and a table, as a TFDS dataset."""

from brainseg_jax.data.own_slices.builder import OwnSlices

__all__ = ["OwnSlices"]
