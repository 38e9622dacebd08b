"""The prepared dataset → arrays: scaling, resizing, and the order of the slices in an epoch.

Pictures are min-max scaled to [0, 1] slice by slice, whatever their range, and resized (linear, antialiased) to the
network's square. Sides that are not equal are padded with black to a square first.
"""

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow_datasets as tfds
from jax import Array

from brainseg_jax.errors import InputError
from brainseg_jax.figshare_brain_tumor import Builder
from brainseg_jax.slice_table import SliceTable

PICTURE_LEVELS = 65535  # pictures wait in device memory as uint16: half of float32, and an int16 range loses nothing


class Record(NamedTuple):
    """One slice as the dataset has it.

    Attributes:
      slice_id: its id.
      image: (H, W) int16, upright.
      mask: (H, W) uint8, 0 or 1.
    """

    slice_id: int
    image: np.ndarray
    mask: np.ndarray


class Slices(NamedTuple):
    """N slices at the network's resolution, on the device.

    Attributes:
      images: (N, S, S) uint16; 0..65535 stands for 0..1.
      masks: (N, S, S) bool.
    """

    images: Array
    masks: Array


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
            yield Record(int(slice_id), row["image"], row["mask"])


def scale_image(image: np.ndarray) -> np.ndarray:
    """Min-max scaling: (H, W) of any real dtype to float32 in [0, 1]; a picture of one value becomes 0."""
    image = image.astype(np.float32)
    low, high = image.min(), image.max()
    return (image - low) / (high - low) if high > low else np.zeros_like(image)


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


def load_slices(dataset: Dataset, slice_ids: np.ndarray, *, image_size: int) -> Slices:
    """Reads slices into device memory at the network's resolution.

    Args:
      dataset: the prepared dataset.
      slice_ids: (N,) which, in this order.
      image_size: side S of the network's input.

    Returns:
      The N slices. A mask's pixel is tumour where at least half of what it covers is.
    """
    images = np.empty((len(slice_ids), image_size, image_size), np.uint16)
    masks = np.empty(images.shape, bool)
    for row, record in enumerate(dataset.read(slice_ids)):
        picture = to_network_size(scale_image(record.image), size=image_size)
        images[row] = np.rint(picture.clip(0, 1) * PICTURE_LEVELS)
        masks[row] = to_network_size(record.mask, size=image_size) >= 0.5
    return Slices(jax.device_put(images), jax.device_put(masks))


def take_batch(slices: Slices, rows: Array) -> tuple[Array, Array]:
    """Gathers a batch on the device.

    Args:
      slices: N slices.
      rows: (B,) integers, which.

    Returns:
      Pictures (B, S, S, 1) float32 in [0, 1] and masks (B, S, S, 1) float32, 0 or 1.
    """
    images = slices.images[rows].astype(jnp.float32) / PICTURE_LEVELS
    return images[..., None], slices.masks[rows].astype(jnp.float32)[..., None]


def epoch_batches(*, seed: int, epoch: int, slices: int, batch_size: int) -> np.ndarray:
    """The batches of an epoch, from the seed and the epoch alone.

    Args:
      seed: the run's seed.
      epoch: 1 for the first.
      slices: how many there are.
      batch_size: slices a batch.

    Returns:
      (slices // batch_size, batch_size) int32 rows, each at most once: the rest of the permutation sits this epoch
      out, so that every batch has one shape and batch norm sees no filling.
    """
    order = np.random.default_rng((seed, epoch)).permutation(slices).astype(np.int32)
    return order[: slices // batch_size * batch_size].reshape(-1, batch_size)


def padded_batches(slices: int, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All slices in order, in batches of one shape.

    Yields:
      rows (batch_size,) int32 and weights (batch_size,) float32, 0 where the last batch is filled up.
    """
    for first in range(0, slices, batch_size):
        rows = np.arange(first, first + batch_size, dtype=np.int32)
        yield np.minimum(rows, slices - 1), (rows < slices).astype(np.float32)


def _resize(square: np.ndarray, size: int) -> np.ndarray:
    # On the CPU whatever the device: pictures come one by one, each with a side of its own.
    return np.asarray(_resize_on_device(jax.device_put(square, jax.local_devices(backend="cpu")[0]), size))


@functools.partial(jax.jit, static_argnums=1)
def _resize_on_device(square: Array, size: int) -> Array:
    return jax.image.resize(square, (size, size), "linear", antialias=True)
