"""The prepared dataset → arrays in their most compact form: reading, scaling, resizing, packing.

Pictures are scaled to [0, 1] slice by slice, whatever their range, and resized (linear, antialiased) to the network's
square. Sides that are not equal are padded with black to a square first.
"""

import math
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import tensorflow_datasets as tfds
from jax import Array
from PIL import Image

from brainseg_jax.errors import InputError
from brainseg_jax.figshare_brain_tumor import Builder
from brainseg_jax.slice_table import SliceTable

# A picture's values wait as uint16, half of float32. The pictures are int16, so no two of a slice's grey levels fall
# together in it; uint8 would leave 256 of the thousands that a scanner gives. A mask waits as bits.
PICTURE_LEVELS = 65535


class Record(NamedTuple):
    """One slice as the dataset has it.

    Attributes:
      slice_id: its id.
      image: (H, W) int16, upright.
      mask: (H, W) uint8, 0 or 1.
      spacing_mm: side of a pixel, NaN where it is not known.
    """

    slice_id: int
    image: np.ndarray
    mask: np.ndarray
    spacing_mm: float


class Slices(NamedTuple):
    """Slices at the network's resolution, packed: 2 bytes and a bit a pixel. NumPy arrays or JAX's.

    Attributes:
      images: (..., S, S) uint16; 0..65535 stands for 0..1.
      masks: (..., S, S/8) uint8, eight pixels of a row a byte, the first in its highest bit.
    """

    images: Any
    masks: Any

    @property
    def nbytes(self) -> int:
        """Bytes that both arrays take."""
        return self.images.nbytes + self.masks.nbytes


class Dataset:
    """The prepared dataset: what is known of the slices, and their pixels on demand.

    Attributes:
      name: the builder config, "figshare" or "phantom".
      table: every slice but its pixels, by ascending id.
    """

    def __init__(self, data_dir: str, *, config: str) -> None:
        """Opens a prepared dataset.

        Args:
          data_dir: the TFDS root; "" for TFDS's own default.
          config: the builder config, "figshare" or "phantom".

        Raises:
          InputError: no such dataset, or not in the array_record form.
        """
        if config not in Builder.builder_configs:
            raise InputError(
                f"config.data.dataset is {config!r}: set it to one of {', '.join(sorted(Builder.builder_configs))}."
            )
        self.name = config
        builder = Builder(config=config, data_dir=data_dir or None)
        command = f"python scripts/prepare_data.py --data_dir={builder.data_dir_root}"
        command += " --phantom=40" if config == "phantom" else ""
        if not Path(builder.data_path).exists():
            raise InputError(f"{builder.data_dir_root} holds no {builder.info.full_name}: run `{command}` first.")
        if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
            raise InputError(
                f"{builder.data_path} is in the {builder.info.file_format.value} form, which only TensorFlow reads: "
                f"run `{command} --overwrite` for the array_record form."
            )
        self._sources = {split: builder.as_data_source(split) for split in sorted(builder.info.splits)}
        without_pixels = {"image": tfds.decode.SkipDecoding(), "mask": tfds.decode.SkipDecoding()}
        rows = [
            (int(row["slice_id"]), row["patient_id"], int(row["label"]) + 1, int(row["fold"]), split, index)
            for split in self._sources
            for index, row in enumerate(builder.as_data_source(split, decoders=without_pixels))
        ]
        rows.sort(key=lambda row: row[0])
        slice_ids, patient_ids, labels, folds, splits, indices = zip(*rows, strict=True)
        self.table = SliceTable(
            np.array(slice_ids),
            tuple(name.decode() if isinstance(name, bytes) else name for name in patient_ids),
            np.array(labels),
            np.array(folds),
        )
        self._places = dict(zip(slice_ids, zip(splits, indices, strict=True), strict=True))

    def read(self, slice_ids: Iterable[int]) -> Iterator[Record]:
        """Reads slices in the order of their ids given.

        Raises:
          InputError: the dataset has no slice of that id.
        """
        for slice_id in slice_ids:
            if int(slice_id) not in self._places:
                raise InputError(
                    f"The dataset has no slice {slice_id}: name the --data_dir that the run was trained with."
                )
            split, index = self._places[int(slice_id)]
            row = self._sources[split][index]
            yield Record(int(slice_id), row["image"], row["mask"], float(row["pixel_spacing_mm"]))


def scale_image(image: np.ndarray, *, percentile: float = 0.0) -> np.ndarray:
    """Scales grey levels to [0, 1].

    Args:
      image: (H, W) of any real dtype and range.
      percentile: what becomes 0, and 100 minus it what becomes 1; grey levels beyond are cut. With 0 these are the
        smallest and the largest, so that one bright pixel can leave the rest of a picture dark.

    Returns:
      (H, W) float32 in [0, 1]; a picture of one value becomes 0.
    """
    image = image.astype(np.float32)
    low, high = np.percentile(image, (percentile, 100 - percentile)) if percentile else (image.min(), image.max())
    if not high > low:  # nearly all of it has one value
        low, high = image.min(), image.max()
    return ((image - low) / (high - low)).clip(0, 1) if high > low else np.zeros_like(image)


def to_network_size(image: np.ndarray, *, size: int) -> np.ndarray:
    """Pads to a square and resizes a picture or mask: (H, W) float32 or bool to (size, size) float32."""
    side = max(image.shape)
    margins = [((side - length) // 2, side - length - (side - length) // 2) for length in image.shape]
    square = np.pad(image.astype(np.float32), margins)
    return square if side == size else _resize(square, size)


def from_network_size(values: np.ndarray, *, shape: tuple[int, int]) -> np.ndarray:
    """Undoes `to_network_size`: (S, S) float32 at the network's resolution to (H, W) = `shape`."""
    side = max(shape)
    square = values if values.shape[0] == side else _resize(values, side)
    top, left = ((side - length) // 2 for length in shape)
    return square[top : top + shape[0], left : left + shape[1]]


def load_slices(dataset: Dataset, slice_ids: np.ndarray, *, image_size: int, percentile: float = 0.0) -> Slices:
    """Reads slices at the network's resolution.

    Args:
      dataset: the prepared dataset.
      slice_ids: (N,) which, in this order.
      image_size: side S of the network's input, a multiple of 8.
      percentile: of the grey levels, see `scale_image`.

    Returns:
      The N slices, NumPy arrays. A mask's pixel is tumour where at least half of what it covers is. The arrays lie in
      files without a name in TMPDIR, so that slices larger than the memory wait on the disk.

    Raises:
      InputError: TMPDIR is full.
    """
    shape = (len(slice_ids), image_size, image_size)
    slices = Slices(_array_in_file(shape, np.uint16), _array_in_file((*shape[:2], image_size // 8), np.uint8))
    for row, record in enumerate(dataset.read(slice_ids)):
        picture = to_network_size(scale_image(record.image, percentile=percentile), size=image_size)
        mask = to_network_size(record.mask, size=image_size) >= 0.5
        slices.images[row], slices.masks[row] = pack(picture, mask)
    return slices


def pack(picture: np.ndarray, mask: np.ndarray) -> Slices:
    """Pictures (..., S, S) float32 in [0, 1] and masks of the same shape, bool, in the form of `Slices`."""
    return Slices(np.rint(picture.clip(0, 1) * PICTURE_LEVELS).astype(np.uint16), np.packbits(mask, axis=-1))


def unpack(slices: Slices) -> tuple[Array, Array]:
    """Undoes `pack` on the device: (B, S, S) slices to pictures in [0, 1] and masks 0 or 1, (B, S, S, 1) float32."""
    images = slices.images.astype(jnp.float32) / PICTURE_LEVELS
    masks = jnp.unpackbits(slices.masks, axis=-1).astype(jnp.float32)
    return images[..., None], masks[..., None]


def _array_in_file(shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    with tempfile.TemporaryFile() as file:  # the mapping keeps the file, which has no name, until nobody needs it
        try:
            # Now, with an error; a disk that is full when a page is written kills the process without a word.
            os.posix_fallocate(file.fileno(), 0, math.prod(shape) * np.dtype(dtype).itemsize)
        except OSError as error:
            raise InputError(
                f"{tempfile.gettempdir()} has no room for the slices ({error.strerror}): set TMPDIR to a folder with "
                f"{math.prod(shape) * np.dtype(dtype).itemsize / 1e9:.1f} GB free, or lower config.data.image_size."
            ) from error
        return np.memmap(file, dtype, "w+", shape=shape)


def _resize(square: np.ndarray, size: int) -> np.ndarray:
    # Pillow's bilinear filter widens with the shrinkage, which is what "antialiased" means; its values are those of
    # jax.image.resize, which would compile a program for every size of picture.
    return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BILINEAR))
