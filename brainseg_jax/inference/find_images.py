"""Finds the image files that a user names."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from brainseg_jax.data.image_files import SUFFIXES, format_of, stem_of
from brainseg_jax.errors import InputError
from brainseg_jax.inference.prediction_table import PredictionTable

# Files that lie beside images but are not images.
NO_IMAGES = ("cvind.mat", "DICOMDIR")


def find_images(inputs: Sequence[str], *, output: Path) -> list[Path]:
    """Finds the files that paths, folders and glob patterns name.

    Args:
      inputs: each a file, a folder, whose images are taken, or a pattern; "~" is the home folder.
      output: the folder for the masks; files that earlier calls wrote there are skipped.

    Returns:
      The files, each once, in the order of `inputs` and sorted within one.

    Raises:
      InputError: one of `inputs` does not exist or names no image, a file's format is unknown, or two masks would have
        the same name.
    """
    found: dict[Path, None] = {}
    folder, written = os.path.realpath(output), PredictionTable(output).owners
    for name in inputs:
        path = Path(name).expanduser()
        if path.is_file():
            names = [path]
        elif path.is_dir():
            names = sorted(one for one in path.iterdir() if one.name not in NO_IMAGES and format_of(one))
        else:
            names = sorted(map(Path, glob.glob(str(path), recursive=True)))
        names = [one for one in names if one.is_file() and one.name not in NO_IMAGES]
        # Files that earlier calls wrote are skipped, but other files in the output folder may be images.
        names = [one for one in names if os.path.realpath(one.parent) != folder or one.name not in written]
        if not names:
            is_there = os.path.lexists(path) or any(sign in name for sign in "*?[")
            raise InputError(
                f"--input={name} {'names no image' if is_there else 'does not exist'}: give a file, a folder of "
                "images, or a quoted pattern such as 'slices/*.png'."
            )
        found.update(dict.fromkeys(names))
    seen: dict[str, Path] = {}
    for path in found:
        stem = stem_of(path)
        if format_of(path) is None:
            raise InputError(
                f"{path} has the suffix {path.suffix!r} and is no DICOM file: --input takes {', '.join(SUFFIXES)} "
                "and DICOM files."
            )
        if stem in seen:
            raise InputError(f"{seen[stem]} and {path} would both give {stem}_mask.png: rename one of them.")
        seen[stem] = path
    return [*found]
