"""Packs slices at the network's resolution: 16 bits per pixel of an image, 1 bit per pixel of a mask."""

import math
import os
import tempfile
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from brainseg_jax.data.dataset import Dataset
from brainseg_jax.data.preprocessing import resize_to_model, scale_image
from brainseg_jax.errors import InputError

# uint16 takes half the memory of float32 and keeps all grey levels of an int16 image distinct; uint8 would keep 256 of
# the thousands that a scanner gives.
IMAGE_LEVELS = 65535


class PackedSlices(NamedTuple):
    """Packed slices, as NumPy or JAX arrays.

    Attributes:
      images: (..., S, S) uint16; 0..65535 represents 0..1.
      masks: (..., S, S/8) uint8; a byte holds eight pixels of a row, the first in the highest bit.
    """

    images: Any
    masks: Any

    @property
    def nbytes(self) -> int:
        """Returns the size of both arrays in bytes."""
        return self.images.nbytes + self.masks.nbytes


def load_slices(dataset: Dataset, slice_ids: np.ndarray, *, image_size: int, percentile: float = 0.0) -> PackedSlices:
    """Reads slices, resizes them to the network's resolution and packs them.

    Args:
      dataset: the prepared dataset.
      slice_ids: (N,) ids of the slices.
      image_size: side S of the network's input, a multiple of 8.
      percentile: see `scale_image`.

    Returns:
      The N slices in the order of `slice_ids`, as NumPy arrays. A pixel of a resized mask is tumour if at least half
      of its area is. The arrays are memory-mapped to unnamed files in TMPDIR, so they may be larger than the memory.

    Raises:
      InputError: TMPDIR is full.
    """
    shape = (len(slice_ids), image_size, image_size)
    slices = PackedSlices(_array_in_file(shape, np.uint16), _array_in_file((*shape[:2], image_size // 8), np.uint8))
    for row, sample in enumerate(dataset.read(slice_ids)):
        image = resize_to_model(scale_image(sample.image, percentile=percentile), size=image_size)
        mask = resize_to_model(sample.mask, size=image_size) >= 0.5
        slices.images[row], slices.masks[row] = pack(image, mask)
    return slices


def pack(image: np.ndarray, mask: np.ndarray) -> PackedSlices:
    """Packs images (..., S, S) float32 in [0, 1] and masks of the same shape, bool."""
    return PackedSlices(np.rint(image.clip(0, 1) * IMAGE_LEVELS).astype(np.uint16), np.packbits(mask, axis=-1))


def unpack(slices: PackedSlices) -> tuple[Array, Array]:
    """Unpacks (B, S, S) slices on the device: images in [0, 1] and masks 0 or 1, both (B, S, S, 1) float32."""
    images = slices.images.astype(jnp.float32) / IMAGE_LEVELS
    masks = jnp.unpackbits(slices.masks, axis=-1).astype(jnp.float32)
    return images[..., None], masks[..., None]


def _array_in_file(shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    """Creates an array in an unnamed temporary file, which exists as long as the array."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    with tempfile.TemporaryFile() as file:
        try:
            # Reserves the space (Linux only): on a full disk, writing to the array would kill the process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise InputError(
                f"{tempfile.gettempdir()} has no room for the slices ({error.strerror}): set TMPDIR to a folder with "
                f"{size / 1e9:.1f} GB free, or lower config.data.image_size."
            ) from error
        return np.memmap(file, dtype, "w+", shape=shape)
