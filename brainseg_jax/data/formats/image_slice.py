"""A slice of an image file of any format."""

from typing import NamedTuple

import numpy as np

MAX_VALUES = 2**29  # in one file, 2 GiB as float32; looked at before anything is decoded


class ImageSlice(NamedTuple):
    """One slice of a file.

    Attributes:
      image: (H, W), upright, real dtype, finite.
      number: from 1, of the several that the file has; None if it is the only one.
      spacing_mm: distance of the centres of two pixels along rows and columns (down, right); None if unknown.
    """

    image: np.ndarray
    number: int | None = None
    spacing_mm: tuple[float, float] | None = None
