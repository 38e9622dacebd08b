"""Stores the kernels of a network in six bits: whole numbers from -31 to 31, with a scale for each output channel.

Compressed, such weights are a sixth of their size in float32.
"""

import lzma
from collections.abc import Mapping

import numpy as np

LARGEST = 31  # of the whole numbers
SCALE = "/scales"  # follows the name of a kernel
HEAD_BYTES = 1 << 20  # more than names, shapes and checksum of any network take
MEMORY_BYTES = 1 << 26  # that decompression may take; what `compress` writes needs a quarter of it


def quantize(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rounds kernels to whole numbers; other arrays, which are small, stay.

    Args:
      arrays: float32, by name; those of two axes or more are kernels, whose last axis is that of the output channels.

    Returns:
      For each kernel an int8 array of its shape, with values in [-31, 31], and float32 scales, (channels,), under its
      name with `SCALE`; and the other arrays.
    """
    result = {}
    for name, array in arrays.items():
        if array.ndim < 2:
            result[name] = array
            continue
        largest = np.abs(array).max(axis=tuple(range(array.ndim - 1)))
        scales = np.where(largest > 0, largest / LARGEST, 1).astype(np.float32)
        result |= {name: np.rint(array / scales).astype(np.int8), name + SCALE: scales}
    return result


def dequantize(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays that `quantize` was given, except for rounding by at most half a scale.

    Raises:
      KeyError: a kernel has no scales.
    """
    return {
        name: array.astype(np.float32) * arrays[name + SCALE] if array.dtype == np.int8 else array
        for name, array in arrays.items()
        if not name.endswith(SCALE)
    }


def compress(data: bytes) -> bytes:
    """Compresses to the xz format."""
    return lzma.compress(data)


def decompress(data: bytes, *, largest: int) -> bytes:
    """Decompresses what `compress` wrote.

    Args:
      data: in the xz format.
      largest: the most bytes that may come out, since a stranger's file of a few bytes may become gigabytes.

    Raises:
      lzma.LZMAError: the data is damaged, is cut short, or becomes larger or needs more memory than allowed.
    """
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY_BYTES)
    result = decompressor.decompress(data, largest)
    if not decompressor.eof:
        raise lzma.LZMAError("it is cut short, or larger than its network")
    return result
