"""Scales the grey levels of a slice and resizes it to the network's square and back, in NumPy."""

import numpy as np
from PIL import Image


def scale_image(image: np.ndarray, *, percentile: float = 0.0) -> np.ndarray:
    """Scales grey levels to [0, 1].

    Args:
      image: (H, W) of any real dtype and range.
      percentile: this percentile p becomes 0 and percentile 100 - p becomes 1; levels outside are clipped. 0 takes
        minimum and maximum, so that a single bright pixel may darken the rest of the image.

    Returns:
      (H, W) float32 in [0, 1]; an image of one value becomes 0.
    """
    image = image.astype(np.float32)
    low, high = np.percentile(image, (percentile, 100 - percentile)) if percentile else (image.min(), image.max())
    if not high > low:  # nearly all pixels are equal
        low, high = image.min(), image.max()
    return ((image - low) / (high - low)).clip(0, 1) if high > low else np.zeros_like(image)


def resize_to_model(image: np.ndarray, *, size: int) -> np.ndarray:
    """Pads to a square and resizes an image or mask: (H, W) float32 or bool to (size, size) float32."""
    side = max(image.shape)
    margins = [((side - length) // 2, side - length - (side - length) // 2) for length in image.shape]
    square = np.pad(image.astype(np.float32), margins)
    return square if side == size else _resize(square, size)


def resize_to_original(values: np.ndarray, *, shape: tuple[int, int]) -> np.ndarray:
    """Undoes `resize_to_model`: (S, S) float32 at the network's resolution to (H, W) = `shape`."""
    side = max(shape)
    square = values if values.shape[0] == side else _resize(values, side)
    top, left = ((side - length) // 2 for length in shape)
    return square[top : top + shape[0], left : left + shape[1]]


def _resize(square: np.ndarray, size: int) -> np.ndarray:
    # Pillow's bilinear filter is antialiased and gives the values of jax.image.resize, which would compile a program
    # for every image size.
    return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BILINEAR))
