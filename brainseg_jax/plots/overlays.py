"""Draws masks on images: arrays in, arrays out.

Images are (H, W) float arrays in [0, 1]; values outside are clipped. Masks are (H, W) arrays of bool or of 0 and 1.
"""

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

# From Okabe and Ito 2008, "Color universal design": distinct with every kind of colour blindness.
BLUE, YELLOW, VERMILLION, DARK_BLUE = (86, 180, 233), (240, 228, 66), (213, 94, 0), (0, 114, 178)

MASK_COLOR = BLUE
DIFFERENCE_COLORS: Mapping[str, tuple[int, int, int]] = {
    "true positive": BLUE,
    "false positive": YELLOW,
    "false negative": VERMILLION,
}
MASK_ALPHA, DIFFERENCE_ALPHA = 0.3, 0.85


def overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Tints the pixels of a mask and draws its outline; all other pixels stay grey.

    Args:
      image: (H, W) float in [0, 1].
      mask: (H, W) bool or 0 and 1.

    Returns:
      (H, W, 3) uint8.

    Raises:
      ValueError: the shapes are not the same (H, W).
    """
    pixels, area = to_grey(image), to_mask(mask, image)
    _tint(pixels, area, MASK_COLOR, alpha=MASK_ALPHA)
    width = max(1, round(min(area.shape) / 256))
    # Pixels beyond the edge of the image count as tumour: the outline stays open there.
    inner = ndimage.binary_erosion(area, iterations=width, border_value=1)
    _tint(pixels, area & ~inner, MASK_COLOR, alpha=1.0)
    return pixels


def difference(image: np.ndarray, true_mask: np.ndarray, predicted_mask: np.ndarray) -> np.ndarray:
    """Tints true positives, false positives and false negatives in the colours of `DIFFERENCE_COLORS`.

    Args:
      image: (H, W) float in [0, 1].
      true_mask: (H, W) bool or 0 and 1.
      predicted_mask: (H, W) bool or 0 and 1.

    Returns:
      (H, W, 3) uint8; the pixels outside both masks are grey.

    Raises:
      ValueError: the shapes are not the same (H, W).
    """
    pixels, truth, predicted = to_grey(image), to_mask(true_mask, image), to_mask(predicted_mask, image)
    areas = (truth & predicted, ~truth & predicted, truth & ~predicted)
    for color, area in zip(DIFFERENCE_COLORS.values(), areas, strict=True):
        _tint(pixels, area, color, alpha=DIFFERENCE_ALPHA)
    return pixels


def to_grey(image: np.ndarray) -> np.ndarray:
    """Converts (H, W) floats in [0, 1] to (H, W, 3) uint8 greys."""
    if image.ndim != 2:
        raise ValueError(f"An image must have the shape (H, W), not {image.shape}.")
    levels = np.rint(255 * np.clip(image.astype(np.float64), 0, 1)).astype(np.uint8)
    return np.repeat(levels[:, :, np.newaxis], 3, axis=2)


def to_mask(mask: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Converts a mask to (H, W) bool and checks that it has the shape of its image."""
    if mask.shape != image.shape:
        raise ValueError(f"The mask has the shape {mask.shape}, but its image has {image.shape}.")
    return mask.astype(bool)


def _tint(pixels: np.ndarray, area: np.ndarray, color: tuple[int, int, int], *, alpha: float) -> None:
    """Blends `color` into the pixels of `area` in place; alpha 1 replaces them by it."""
    pixels[area] = np.rint((1 - alpha) * pixels[area] + alpha * np.array(color))
