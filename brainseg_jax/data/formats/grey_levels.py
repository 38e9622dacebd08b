"""Turns pixels of any colour into grey levels as a person sees them."""

import numpy as np

LUMINANCE = np.array((0.299, 0.587, 0.114), np.float32)  # of red, green and blue, ITU-R 601, as Pillow has it


def to_grey(pixels: np.ndarray, *, has_alpha: bool = False) -> np.ndarray:
    """Computes the luminance of colours; transparent pixels lie over black.

    Args:
      pixels: (H, W) or (H, W, C): grey or red, green and blue, and the opacity (not multiplied in yet) if `has_alpha`.
      has_alpha: whether the last channel is the opacity.

    Returns:
      (H, W); in the dtype of `pixels` if they have one channel and no opacity, otherwise float32 in the same range.
    """
    if pixels.ndim == 2:
        return pixels
    colours = pixels[..., : pixels.shape[-1] - has_alpha]
    if colours.shape[-1] == 1 and not has_alpha:
        return colours[..., 0]
    opaque = np.iinfo(pixels.dtype).max if pixels.dtype.kind in "iu" else 1
    opacity = pixels[..., -1].astype(np.float32) / opaque if has_alpha else np.float32(1)
    grey = colours[..., 0] if colours.shape[-1] < 3 else colours[..., :3] @ LUMINANCE
    return (grey * opacity).astype(np.float32)


def turn_upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turns an image (H, W) as the EXIF or TIFF tag Orientation, 1 to 8, says; other values leave it as it is."""
    if orientation in (5, 6, 7, 8):
        image = image.T
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image
