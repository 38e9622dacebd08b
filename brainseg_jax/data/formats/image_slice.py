"""A slice of an image file of any format."""

from typing import NamedTuple

import numpy as np

MAX_VALUES = 2**29  # in one file, 2 GiB as float32; checked before anything is decoded


class ImageSlice(NamedTuple):
    """One slice of a file.

    Attributes:
      image: (H, W), upright, real dtype, finite.
      number: the slice's number within the file, from 1; None if it is the only one.
      spacing_mm: distance of the centres of two pixels along rows and columns (down, right); None if unknown.
    """

    image: np.ndarray
    number: int | None = None
    spacing_mm: tuple[float, float] | None = None
