"""Reads PNG and JPEG pictures."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from brainseg_jax.data.formats.grey_levels import to_grey, turn_upright
from brainseg_jax.data.formats.image_slice import ImageSlice
from brainseg_jax.errors import InputError
from brainseg_jax.utils.extras import require

_ORIENTATION = 0x0112  # EXIF tag


def read(path: Path) -> list[ImageSlice]:
    """Reads a picture: turned as its EXIF data say, transparency over black, colours as grey, at all its levels.

    Raises:
      InputError: it has several frames, or 16-bit colours and imagecodecs is not installed.
    """
    with Image.open(path) as image:
        if (frames := getattr(image, "n_frames", 1)) > 1:
            raise InputError(f"{path} has {frames} frames: save each as a file of its own.")
        if _has_deep_colours(image):
            return [ImageSlice(_read_deep_colours(path, orientation=image.getexif().get(_ORIENTATION, 1)))]
        return [ImageSlice(np.asarray(_to_grey(ImageOps.exif_transpose(image))))]


def _to_grey(image: Image.Image) -> Image.Image:
    # Images of 16 or 32 bits keep their levels; "L" would cut them to 8.
    if image.mode in ("I", "F", "L") or image.mode.startswith("I;16"):
        return image
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    return image.convert("L")


def _has_deep_colours(image: Image.Image) -> bool:
    """Whether Pillow would cut 16 bits to 8, as it does where there is more than one channel."""
    tiles = getattr(image, "tile", [])
    return bool(tiles) and "16" in str(tiles[0][3]) and len(image.getbands()) > 1


def _read_deep_colours(path: Path, *, orientation: int) -> np.ndarray:
    imagecodecs = require("imagecodecs", extra="formats", reason=f"{path} has colours of 16 bits; reading it")
    pixels = imagecodecs.png_decode(path.read_bytes())
    return turn_upright(to_grey(pixels, has_alpha=pixels.shape[-1] in (2, 4)), orientation)
