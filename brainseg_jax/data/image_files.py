"""Reads images from files."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from brainseg_jax.data.figshare_brain_tumor import mat_file
from brainseg_jax.errors import InputError

SUFFIXES = (".mat", ".png", ".jpg", ".jpeg")


def read_image(path: Path) -> np.ndarray:
    """Reads an image as a person sees it: turned as its EXIF data say, transparency over black, colours as grey.

    Args:
      path: a `.mat`, PNG or JPEG file.

    Returns:
      (H, W), upright, with the file's grey levels.

    Raises:
      InputError: the file is of another kind, damaged, too large for Pillow, has several frames, or values that are not
        finite.
    """
    if path.suffix.lower() == ".mat":
        return mat_file.read_image(path.read_bytes(), name=str(path))
    try:
        with Image.open(path) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise InputError(f"{path} has {image.n_frames} frames: save each as a file of its own.")  # type: ignore[attr-defined]
            levels = np.asarray(_to_grey(ImageOps.exif_transpose(image)))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise InputError(
            f"{path} is not a readable PNG or JPEG image ({error}): remove it from --input, or save it again."
        ) from error
    if not np.isfinite(levels).all():
        raise InputError(f"{path} has values that are not finite: replace them, or remove it from --input.")
    return levels


def _to_grey(image: Image.Image) -> Image.Image:
    # Images of 16 or 32 bits keep their levels; "L" would cut them to 8.
    if image.mode in ("I", "F", "L") or image.mode.startswith("I;16"):
        return image
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    return image.convert("L")
