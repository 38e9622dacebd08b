"""Reads DICOM files, of one frame or several, and writes masks as DICOM segmentations (SEG)."""

import io
import logging
import warnings
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from brainseg_jax.data.formats.dicom_frames import choose_decoder
from brainseg_jax.data.formats.grey_levels import to_grey
from brainseg_jax.data.formats.image_slice import MAX_VALUES, ImageSlice
from brainseg_jax.errors import InputError
from brainseg_jax.utils.extras import require
from brainseg_jax.utils.files import write_bytes

_PREAMBLE, _MAGIC = 128, b"DICM"


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do; their names often have no suffix."""
    with path.open("rb") as file:
        return file.read(_PREAMBLE + len(_MAGIC))[_PREAMBLE:] == _MAGIC


def read(path: Path) -> list[ImageSlice]:
    """Reads every frame: rescaled to its true values, MONOCHROME1 inverted, colours as grey, with its spacing.

    Raises:
      InputError: pydicom is not installed, or the file has no image, is a segmentation or is too large.
    """
    dataset = _open(path)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * frames > MAX_VALUES:
        raise InputError(f"{path} has more than {MAX_VALUES} values: save its frames in several files.")
    choose_decoder(dataset)
    with warnings.catch_warnings(action="ignore"):  # about odd values, which pydicom reads nevertheless
        pixels = dataset.pixel_array
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        pixels = require("pydicom.pixels", extra="formats", reason=str(path)).apply_color_lut(pixels, dataset)
    has_colours = dataset.SamplesPerPixel > 1 or dataset.PhotometricInterpretation == "PALETTE COLOR"
    pixels = pixels if pixels.ndim == (4 if has_colours else 3) else pixels[None]
    slices = []
    for number, frame in enumerate(pixels, start=1):
        grey = to_grey(frame)
        transformation = _of_frame(dataset, number - 1, "PixelValueTransformationSequence")
        slope, intercept = (transformation.get(name) for name in ("RescaleSlope", "RescaleIntercept"))
        if slope is not None and intercept is not None:
            grey = grey.astype(np.float32) * np.float32(slope) + np.float32(intercept)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            grey = np.max(grey) - grey
        spacing = _of_frame(dataset, number - 1, "PixelMeasuresSequence").get("PixelSpacing")
        distances = None if not spacing else (float(spacing[0]), float(spacing[1]))
        slices.append(ImageSlice(grey, number if len(pixels) > 1 else None, distances))
    return slices


def write_segmentation(path: Path, source: Path, masks: Sequence[np.ndarray]) -> None:
    """Writes masks as a binary DICOM segmentation that refers to its source.

    Args:
      path: the file to write.
      source: the DICOM file of the slices.
      masks: one for each of its frames, (H, W) bool.

    Raises:
      InputError: highdicom is not installed, or the source lacks what a segmentation must repeat.
    """
    highdicom = require("highdicom", extra="formats", reason="Writing DICOM segmentations")
    codes = require("pydicom.sr.codedict", extra="formats", reason=str(path)).codes
    version = metadata.version("brainseg_jax")
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="brainseg_jax", version=version, family=codes.cid7162.ArtificialIntelligence
    )
    segment = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label="Brain tumour",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
    )
    dataset = _open(source)
    if len(masks) > 1 and "SharedFunctionalGroupsSequence" not in dataset:
        raise InputError(
            f"{source} has its PNG masks, but no DICOM segmentation: it has several frames and does not say where they "
            "lie, as enhanced DICOM files do."
        )
    try:
        with warnings.catch_warnings(action="ignore"):  # for instance about empty masks
            segmentation = highdicom.seg.Segmentation(
                source_images=[dataset],
                pixel_array=np.stack(masks).astype(np.uint8),
                segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[segment],
                series_instance_uid=highdicom.UID(),
                series_number=1000,
                sop_instance_uid=highdicom.UID(),
                instance_number=1,
                manufacturer="brainseg_jax",
                manufacturer_model_name="brainseg_jax",
                software_versions=version,
                device_serial_number="none",
            )
            content = io.BytesIO()
            segmentation.save_as(content)
    except Exception as error:  # pydicom and highdicom have no error class of their own for an incomplete source
        problem = " ".join(str(error).split())
        raise InputError(f"{source} has its PNG masks, but no DICOM segmentation could be made ({problem}).") from error
    write_bytes(path, content.getvalue())


def _open(path: Path) -> Any:
    pydicom = require("pydicom", extra="formats", reason=f"{path}: reading DICOM files")
    logging.getLogger("pydicom").setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore"):
        dataset = pydicom.dcmread(path, force=not is_dicom(path))  # old files lack the header
    if dataset.get("Modality") == "SEG":
        raise InputError(f"{path} is a DICOM segmentation and no image: leave it out.")
    pixels = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
    if "Rows" not in dataset or not any(name in dataset for name in pixels):
        raise InputError(f"{path} holds no DICOM image: leave it out.")
    return dataset


def _of_frame(dataset: Any, index: int, name: str) -> Any:
    """Returns a sequence's item for a frame: from the frame's own groups, from the shared ones, or the file itself."""
    for groups in (dataset.get("PerFrameFunctionalGroupsSequence"), dataset.get("SharedFunctionalGroupsSequence")):
        if groups:
            sequence = groups[index if len(groups) > 1 else 0].get(name)
            if sequence:
                return sequence[0]
    return dataset
