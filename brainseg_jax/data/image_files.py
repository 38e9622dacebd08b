"""Reads images from files."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from brainseg_jax.data.figshare_brain_tumor import mat_file
from brainseg_jax.errors import InputError


def read_image(path: Path) -> np.ndarray:
    """Reads an image as (H, W), upright, with the file's grey levels; converts colours to grey.

    Raises:
      InputError: the file is not a `.mat`, PNG or JPEG file, or it is damaged.
    """
    if path.suffix.lower() == ".mat":
        return mat_file.read_image(path.read_bytes(), name=str(path))
    try:
        with Image.open(path) as image:
            # Images of 16 or 32 bits keep their levels; "L" would cut them to 8.
            grey = image if image.mode in ("I", "F", "L") or image.mode.startswith("I;16") else image.convert("L")
            return np.asarray(grey)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise InputError(
            f"{path} is not a readable PNG or JPEG image: remove it from --input, or save it again."
        ) from error
