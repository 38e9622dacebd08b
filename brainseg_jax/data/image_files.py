"""Reads images from files of any format that the package knows."""

import math
import os
from pathlib import Path

import numpy as np

from brainseg_jax.data.dataset_info import PIXEL_SPACING_MM
from brainseg_jax.data.figshare_brain_tumor import mat_file
from brainseg_jax.data.formats import dicom, nifti, picture, tiff
from brainseg_jax.data.formats.image_slice import ImageSlice
from brainseg_jax.errors import InputError, shorten

# Suffixes of each format; DICOM files often have none.
FORMATS = {
    "MATLAB": (".mat",),
    "PNG or JPEG": (".png", ".jpg", ".jpeg"),
    "TIFF": (".tif", ".tiff"),
    "NIfTI": (".nii", ".nii.gz"),
    "DICOM": (".dcm", ".dicom", ".ima"),
}
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)


def stem_of(path: Path) -> str:
    """Returns the name of a file without the suffix of its format."""
    suffix = next((suffix for suffix in (".nii.gz", *SUFFIXES) if path.name.lower().endswith(suffix)), "")
    return path.name[: len(path.name) - len(suffix)]


def format_of(path: Path) -> str | None:
    """Returns a file's format, one of `FORMATS`, by its suffix or else by its first bytes; None if it is unknown."""
    name = path.name.lower()
    for format_, suffixes in FORMATS.items():
        if name.endswith(suffixes):
            return format_
    return "DICOM" if os.path.isfile(path) and dicom.is_dicom(path) else None


def read_slices(path: Path, *, axis: int = 2) -> list[ImageSlice]:
    """Reads every slice of a file: its pages, its frames, or the slices of its volume.

    Args:
      path: the file, in one of `FORMATS`.
      axis: of NIfTI volumes: 0 for sagittal, 1 for coronal, 2 for axial slices.

    Raises:
      InputError: the file is in none of the formats, damaged or too large, has values that are not finite, or the
        library that reads its format is not installed.
    """
    if not os.path.isfile(path):  # reading a pipe would wait; Path.is_file raises where a name is too long
        problem = "is no file but a folder, a pipe, a socket or a device" if os.path.exists(path) else "is missing"
        raise InputError(f"{path} {problem}: name an image file.")
    format_ = format_of(path)
    try:
        match format_:
            case "MATLAB":
                image = mat_file.read_image(path.read_bytes(), name=str(path))
                side = PIXEL_SPACING_MM.get(image.shape)
                slices = [ImageSlice(image, spacing_mm=(side, side) if side else None)]
            case "PNG or JPEG":
                slices = picture.read(path)
            case "TIFF":
                slices = tiff.read(path)
            case "NIfTI":
                slices = nifti.read(path, axis=axis)
            case "DICOM":
                slices = dicom.read(path)
            case _:
                raise InputError(f"{path} is in no known format: give files with {', '.join(SUFFIXES)}, or DICOM.")
    except InputError:
        raise
    except Exception as error:  # each library has errors of many classes for files that are damaged
        problem = shorten(error, characters=300)
        raise InputError(
            f"{path} is not a readable {format_} image ({problem}): remove it from the input, or save it again."
        ) from error
    for slice_ in slices:
        if not slice_.image.size or not np.isfinite(slice_.image).all():
            raise InputError(f"{path} has values that are not finite, or none: replace them, or leave it out.")
    # A spacing of 0 or less means that it is not known.
    return [one if _has_sides(one.spacing_mm) else one._replace(spacing_mm=None) for one in slices]


def _has_sides(spacing_mm: tuple[float, float] | None) -> bool:
    return spacing_mm is None or all(0 < side < math.inf for side in spacing_mm)


def read_image(path: Path) -> np.ndarray:
    """Reads the image of a file that has just one.

    Returns:
      (H, W), upright, with the file's grey levels.

    Raises:
      InputError: the file has several images; or see `read_slices`.
    """
    slices = read_slices(path)
    if len(slices) > 1:
        raise InputError(f"{path} has {len(slices)} slices: save each as a file of its own.")
    return slices[0].image
