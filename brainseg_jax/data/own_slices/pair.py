"""Reads an image and its mask from files and refuses those that cannot be trained on."""

from pathlib import Path

import numpy as np

from brainseg_jax.data.image_files import read_image
from brainseg_jax.errors import InputError

SHOWN = 6  # values of a bad mask that its message names


def read_levels(path: Path) -> np.ndarray:
    """Reads the grey levels of an image, (H, W) float32, which holds every integer up to 16,777,216 exactly.

    Raises:
      InputError: the file is missing or cannot be read, has a value that is not finite, or all its pixels are equal.
    """
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        levels = read_image(path).astype(np.float32)
    if not np.isfinite(levels).all():
        raise InputError(f"{path} has values that are not finite (NaN, or beyond float32)")
    if levels.min() == levels.max():
        raise InputError(f"{path} is constant: all its pixels are {levels.flat[0]:g}")
    return levels


def read_mask(path: Path) -> np.ndarray:
    """Reads a mask, (H, W) uint8, 1 where the file is not 0; a file of zeros only is a slice without tumour.

    Raises:
      InputError: the file is missing or cannot be read, or its values are not 0 and at most one other.
    """
    values = read_image(path)
    found = np.unique(values)
    if found.size > 2 or 0 not in found:
        named = ", ".join(f"{value:g}" for value in found[:SHOWN]) + (", …" if found.size > SHOWN else "")
        raise InputError(f"{path} is not a mask: its values are {named}, not 0 and one other")
    return (values != 0).astype(np.uint8)
