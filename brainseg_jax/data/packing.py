"""Slices at the network's resolution in their most compact form: 16 bits a pixel, and one a mask's pixel."""

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

# An image's values wait as uint16, half of float32. The images are int16, so no two of a slice's grey levels fall
# together in it; uint8 would leave 256 of the thousands that a scanner gives. A mask waits as bits.
IMAGE_LEVELS = 65535


class PackedSlices(NamedTuple):
    """Slices at the network's resolution, packed: 2 bytes and a bit a pixel. NumPy arrays or JAX's.

    Attributes:
      images: (..., S, S) uint16; 0..65535 stands for 0..1.
      masks: (..., S, S/8) uint8, eight pixels of a row a byte, the first in its highest bit.
    """

    images: Any
    masks: Any

    @property
    def nbytes(self) -> int:
        """Bytes that both arrays take."""
        return self.images.nbytes + self.masks.nbytes


def load_slices(dataset: Dataset, slice_ids: np.ndarray, *, image_size: int, percentile: float = 0.0) -> PackedSlices:
    """Reads slices at the network's resolution.

    Args:
      dataset: the prepared dataset.
      slice_ids: (N,) which, in this order.
      image_size: side S of the network's input, a multiple of 8.
      percentile: of the grey levels, see `scale_image`.

    Returns:
      The N slices, NumPy arrays. A mask's pixel is tumour where at least half of what it covers is. The arrays lie in
      files without a name in TMPDIR, so that slices larger than the memory wait on the disk.

    Raises:
      InputError: TMPDIR is full.
    """
    shape = (len(slice_ids), image_size, image_size)
    slices = PackedSlices(_array_in_file(shape, np.uint16), _array_in_file((*shape[:2], image_size // 8), np.uint8))
    for row, record in enumerate(dataset.read(slice_ids)):
        image = resize_to_model(scale_image(record.image, percentile=percentile), size=image_size)
        mask = resize_to_model(record.mask, size=image_size) >= 0.5
        slices.images[row], slices.masks[row] = pack(image, mask)
    return slices


def pack(image: np.ndarray, mask: np.ndarray) -> PackedSlices:
    """Images (..., S, S) float32 in [0, 1] and masks of the same shape, bool, in the form of `PackedSlices`."""
    return PackedSlices(np.rint(image.clip(0, 1) * IMAGE_LEVELS).astype(np.uint16), np.packbits(mask, axis=-1))


def unpack(slices: PackedSlices) -> tuple[Array, Array]:
    """Undoes `pack` on the device: (B, S, S) slices to images in [0, 1] and masks 0 or 1, (B, S, S, 1) float32."""
    images = slices.images.astype(jnp.float32) / IMAGE_LEVELS
    masks = jnp.unpackbits(slices.masks, axis=-1).astype(jnp.float32)
    return images[..., None], masks[..., None]


def _array_in_file(shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    with tempfile.TemporaryFile() as file:  # the mapping keeps the file, which has no name, until nobody needs it
        try:
            # Now, with an error; a disk that is full when a page is written kills the process without a word.
            os.posix_fallocate(file.fileno(), 0, math.prod(shape) * np.dtype(dtype).itemsize)
        except OSError as error:
            raise InputError(
                f"{tempfile.gettempdir()} has no room for the slices ({error.strerror}): set TMPDIR to a folder with "
                f"{math.prod(shape) * np.dtype(dtype).itemsize / 1e9:.1f} GB free, or lower config.data.image_size."
            ) from error
        return np.memmap(file, dtype, "w+", shape=shape)
