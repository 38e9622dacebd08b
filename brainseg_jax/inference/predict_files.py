"""Masks of image files."""

import glob
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from brainseg_jax.data.image_files import read_image
from brainseg_jax.data.preprocessing import scale_image
from brainseg_jax.errors import InputError
from brainseg_jax.inference.predictor import BATCH_SIZE, Segmenter
from brainseg_jax.plots.overlays import overlay

SUFFIXES = (".mat", ".png", ".jpg", ".jpeg")


def predict_files(segmenter: Segmenter, paths: Sequence[Path], output: Path) -> Iterator[Path]:
    """Writes `<name>_mask.png` (0 and 255) and `<name>_overlay.png` for each image, batch by batch.

    Args:
      segmenter: the network.
      paths: `.mat`, PNG and JPEG files.
      output: folder for the images; made if missing.

    Yields:
      The path of each mask when both files are written.

    Raises:
      InputError: see `read_image`.
    """
    output.mkdir(parents=True, exist_ok=True)
    remaining = iter(paths)
    while batch := list(itertools.islice(remaining, BATCH_SIZE)):
        images = [read_image(path) for path in batch]
        for path, image, probabilities in zip(batch, images, segmenter.probabilities(images), strict=True):
            mask = segmenter.postprocessing.mask(probabilities)
            Image.fromarray(overlay(scale_image(image), mask)).save(output / f"{path.stem}_overlay.png")
            Image.fromarray(mask.astype(np.uint8) * 255).save(output / f"{path.stem}_mask.png")
            yield output / f"{path.stem}_mask.png"


def find_images(pattern: str) -> list[Path]:
    """Finds the files that a glob pattern names, sorted.

    Raises:
      InputError: there are none, one has an unknown suffix, or two would give masks of one name.
    """
    paths = [Path(name) for name in sorted(glob.glob(pattern, recursive=True)) if Path(name).is_file()]
    if not paths:
        raise InputError(f"--input={pattern} names no file: give a path or a quoted pattern such as 'slices/*.png'.")
    seen: dict[str, Path] = {}
    for path in paths:
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(f"{path} has the suffix {path.suffix!r}: --input takes {', '.join(SUFFIXES)} files.")
        if path.stem in seen:
            raise InputError(f"{seen[path.stem]} and {path} would both give {path.stem}_mask.png: rename one of them.")
        seen[path.stem] = path
    return paths
