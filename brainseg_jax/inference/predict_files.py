"""Predicts the masks of image files."""

import errno
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from brainseg_jax.data.formats import dicom, nifti
from brainseg_jax.data.formats.image_slice import ImageSlice
from brainseg_jax.data.image_files import format_of, read_slices, stem_of
from brainseg_jax.data.preprocessing import scale_image
from brainseg_jax.errors import InputError
from brainseg_jax.inference.prediction_table import PredictionTable, measure, slice_name
from brainseg_jax.inference.predictor import BATCH_SIZE, Segmenter
from brainseg_jax.plots.overlays import overlay
from brainseg_jax.utils.files import write_png

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # the next file could not be written either


class _Prediction(NamedTuple):
    path: Path
    slice_: ImageSlice
    probabilities: np.ndarray


class _Failure(NamedTuple):
    path: Path
    reason: str


def predict_files(
    segmenter: Segmenter,
    paths: Sequence[Path],
    output: Path,
    *,
    weights: str = "",
    axis: int = 2,
    probabilities: bool = False,
    on_slice: Callable[[Path, ImageSlice, np.ndarray], None] | None = None,
) -> Iterator[tuple[Path, str]]:
    """Writes the mask and the overlay of each slice of each file, and a row of predictions.csv.

    `<name>_mask.png` has 0 and 255, `<name>_overlay.png` the mask over the image; `<name>` is the file's, followed by
    the slice's number if the file has several slices. A NIfTI file also gets `<name>_mask.nii.gz`, a DICOM file
    `<name>_mask.dcm`. See `prediction_table.measure` for the rows; those of earlier calls stay.

    Args:
      segmenter: the network.
      paths: image files; see `find_images`.
      output: folder for the files; made if missing.
      weights: how the rows of the table name the network.
      axis: of NIfTI volumes: 0 for sagittal, 1 for coronal, 2 for axial slices.
      probabilities: whether to write the probabilities too: `<name>_probabilities.png` of 16 bits, 65535 for 1, and
        for NIfTI files `<name>_probabilities.nii.gz` of float32.
      on_slice: called with the file, the slice and the probabilities, (H, W) float32, of each slice that was written.

    Yields:
      For each file its path and why it could not be read or written; "" when all is done.

    Raises:
      InputError: the folder cannot be made, is full or read-only, or holds a file of one of those names that no earlier
        call wrote.
    """
    table, postprocessing = PredictionTable(output), segmenter.postprocessing
    settings = {name: f"{value:g}" for name, value in vars(postprocessing).items()} | {"weights": weights}
    table.check(paths)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output} cannot be made ({error.strerror}): name another --output.") from error
    predictions = _predict(segmenter, _read(paths, axis=axis))
    for path, of_file in itertools.groupby(predictions, key=lambda prediction: prediction.path):
        outcome, *more = of_file
        if isinstance(outcome, _Failure):
            yield path, outcome.reason
            continue
        done = [one for one in (outcome, *more) if isinstance(one, _Prediction)]
        try:
            masks = [postprocessing.mask(one.probabilities) for one in done]
            _write(done, masks, table, settings, axis=axis, probabilities=probabilities)
        except InputError as error:
            yield path, str(error)
        except OSError as error:
            reason = f"{error.filename or output} cannot be written ({error.strerror})"
            reason += ": free space, or name another --output."
            if error.errno in _NO_ROOM:
                raise InputError(reason) from error
            yield path, reason
        else:
            if on_slice:
                for one in done:
                    on_slice(*one)
            yield path, ""
    if paths and table.path.exists():
        table.finish()


def _read(paths: Sequence[Path], *, axis: int) -> Iterator[tuple[Path, ImageSlice | str]]:
    """Yields the slices of each file, or the reason why it cannot be read."""
    for path in paths:
        try:
            slices: Sequence[ImageSlice | str] = read_slices(path, axis=axis)
        except (InputError, OSError) as error:
            slices = [str(error)]
        yield from ((path, slice_) for slice_ in slices)


def _predict(segmenter: Segmenter, slices: Iterator[tuple[Path, ImageSlice | str]]) -> Iterator[_Prediction | _Failure]:
    """Predicts slices in batches, which may span several files, and keeps their order."""
    while batch := list(itertools.islice(slices, BATCH_SIZE)):
        images = [slice_.image for _, slice_ in batch if isinstance(slice_, ImageSlice)]
        predicted = iter(segmenter.probabilities(images) if images else ())
        for path, slice_ in batch:
            if isinstance(slice_, ImageSlice):
                yield _Prediction(path, slice_, next(predicted))
            else:
                yield _Failure(path, slice_)


def _write(
    predictions: Sequence[_Prediction],
    masks: Sequence[np.ndarray],
    table: PredictionTable,
    settings: Mapping[str, str],
    *,
    axis: int,
    probabilities: bool,
) -> None:
    """Writes all files of one image file."""
    path, output = predictions[0].path, table.path.parent
    rows = [
        {**measure(path, one.slice_, mask, one.probabilities), **settings}
        for one, mask in zip(predictions, masks, strict=True)
    ]
    pictures: dict[str, np.ndarray] = {}
    for one, mask in zip(predictions, masks, strict=True):
        name = slice_name(path, one.slice_.number)
        pictures[f"{name}_mask.png"] = mask.astype(np.uint8) * 255
        pictures[f"{name}_overlay.png"] = overlay(scale_image(one.slice_.image), mask)
        if probabilities:
            pictures[f"{name}_probabilities.png"] = np.rint(one.probabilities * 65535).astype(np.uint16)
    volumes = {}
    if (format_ := format_of(path)) == "NIfTI":
        volumes["mask.nii.gz"] = masks
        if probabilities:
            volumes["probabilities.nii.gz"] = [one.probabilities for one in predictions]
    for name in (*pictures, *(f"{stem_of(path)}_{ending}" for ending in volumes)):
        table.check_name(name, path)
    table.append(rows)  # first: after an interruption the table tells which files are ours
    for name, picture in pictures.items():
        write_png(output / name, picture)
    for ending, volume in volumes.items():
        nifti.write_volume(output / f"{stem_of(path)}_{ending}", path, volume, axis=axis)
    if format_ == "DICOM":
        dicom.write_segmentation(output / f"{stem_of(path)}_mask.dcm", path, masks)
