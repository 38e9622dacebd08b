"""Reads the slices of NIfTI volumes and writes masks as volumes of the same shape and position."""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainseg_jax.data.formats.image_slice import MAX_VALUES, ImageSlice
from brainseg_jax.errors import InputError
from brainseg_jax.utils.extras import require
from brainseg_jax.utils.files import write_bytes

# The view along each axis of a volume whose axes run to the patient's right, front and top.
AXES = ("sagittal", "coronal", "axial")
_MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}  # without a unit all programs take mm


def read(path: Path, *, axis: int = 2) -> list[ImageSlice]:
    """Reads every slice along an axis, as it is usually shown.

    Axial slices have the patient's front at the top, the others the head. The left of the image is the patient's right,
    or in sagittal slices the patient's front.

    Args:
      path: a .nii or .nii.gz file.
      axis: 0 for sagittal, 1 for coronal, 2 for axial slices, however the volume is stored.

    Raises:
      InputError: nibabel is not installed, or the file holds no volume of numbers or one that is too large.
    """
    nibabel = require("nibabel", extra="formats", reason=f"{path}: reading NIfTI files")
    volume = nibabel.as_closest_canonical(_open(path))
    header = volume.header
    values = np.asarray(volume.dataobj, np.float32).reshape(volume.shape[:3])
    sides = [side for one, side in enumerate(header.get_zooms()[:3]) if one != axis]
    millimetres = _MILLIMETRES[header.get_xyzt_units()[0]]
    spacing = (float(sides[1]) * millimetres, float(sides[0]) * millimetres)
    images = [_upright(slice_) for slice_ in np.moveaxis(values, axis, 0)]
    return [
        ImageSlice(image, number if len(images) > 1 else None, spacing) for number, image in enumerate(images, start=1)
    ]


def write_volume(path: Path, source: Path, slices: Sequence[np.ndarray], *, axis: int = 2) -> None:
    """Writes slices as a volume with the affine and the shape of their source.

    Args:
      path: the .nii.gz file to write.
      source: the file from which `read` returned the slices.
      slices: an array for each of these slices, (H, W), all of one dtype: bool is written as uint8.
      axis: see `read`.
    """
    nibabel = require("nibabel", extra="formats", reason="Writing NIfTI files")
    volume = _open(source)
    canonical = np.moveaxis(np.stack([_upright(slice_) for slice_ in slices]), 0, axis)
    values = canonical.astype(np.uint8) if canonical.dtype == bool else canonical
    orientations = nibabel.orientations
    stored = orientations.io_orientation(volume.affine)
    back = orientations.ornt_transform(orientations.axcodes2ornt("RAS"), stored)
    values = orientations.apply_orientation(values, back).reshape(volume.shape)
    header = volume.header.copy()
    header.set_data_dtype(values.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0  # they would say how bright to show the source
    content = type(volume)(values, volume.affine, header).to_bytes()
    write_bytes(path, gzip.compress(content, mtime=0))


def _upright(slice_: np.ndarray) -> np.ndarray:
    """Turns a slice (a, b) of a volume that runs to right, front and top into an image; a second call undoes it."""
    return slice_[::-1, ::-1].T


def _open(path: Path) -> Any:
    nibabel = require("nibabel", extra="formats", reason=f"{path}: reading NIfTI files")
    volume = nibabel.load(path)
    shape = volume.shape
    if len(shape) < 3 or max(shape[3:], default=1) > 1:
        raise InputError(f"{path} has shape {shape}: save one volume of three dimensions in a file.")
    if volume.get_data_dtype().kind not in "iuf":
        raise InputError(f"{path} holds values of type {volume.get_data_dtype()}: save it with integers or floats.")
    if np.prod(shape, dtype=np.int64) > MAX_VALUES:
        raise InputError(f"{path} has more than {MAX_VALUES} values: save it in parts.")
    return volume
