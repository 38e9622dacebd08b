"""Reads metadata and samples from the prepared TFDS dataset."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import ml_collections
import numpy as np
import tensorflow_datasets as tfds

from brainseg_jax.data.dataset_info import families_of
from brainseg_jax.data.figshare_brain_tumor import Builder
from brainseg_jax.data.metadata import SliceMetadata
from brainseg_jax.data.own_slices.builder import OwnSlices
from brainseg_jax.data.tfds_build import SOURCE_FILE
from brainseg_jax.errors import InputError, shorten
from brainseg_jax.utils.files import read_json

# The builder of each dataset, and the flags with which scripts/prepare_data.py prepares it.
BUILDERS: Mapping[str, tuple[type[tfds.core.DatasetBuilder], str]] = {
    "figshare": (Builder, ""),
    "phantom": (Builder, " --phantom=40"),
    "folder": (OwnSlices, " --images=DIR --masks=DIR --table=CSV"),
}


def find_datasets(data_dir: str) -> list[str]:
    """Returns which of `BUILDERS` are prepared in a folder; "" is TFDS's default."""
    builders = {name: create(config=name, data_dir=data_dir or None) for name, (create, _) in BUILDERS.items()}
    return [name for name, builder in builders.items() if Path(builder.data_path).exists()]


class Sample(NamedTuple):
    """One slice of the dataset, unprocessed.

    Attributes:
      slice_id: 1..3064, or the row in the table of a user's own slices.
      image: (H, W) int16, upright; float32 in a user's own slices.
      mask: (H, W) uint8, 0 or 1.
      spacing_mm: side of a pixel in millimetres, NaN if unknown.
    """

    slice_id: int
    image: np.ndarray
    mask: np.ndarray
    spacing_mm: float


class Dataset:
    """The prepared dataset; holds the metadata in memory and reads pixels on demand.

    Attributes:
      name: one of `BUILDERS`: "figshare", "phantom", or "folder" for a user's own slices.
      metadata: metadata of all slices, by ascending id.
      fingerprint: identifies the files it was built from; "" where scripts/prepare_data.py did not build it.
    """

    def __init__(self, data_dir: str, *, config: str) -> None:
        """Opens a prepared dataset.

        Args:
          data_dir: the TFDS root; "" for TFDS's default.
          config: one of `BUILDERS`.

        Raises:
          InputError: the dataset does not exist, is not in the array_record format, or cannot be read.
        """
        if config not in BUILDERS:
            raise InputError(f"config.data.dataset is {config!r}: set it to one of {', '.join(BUILDERS)}.")
        self.name = config
        create, options = BUILDERS[config]
        builder = create(config=config, data_dir=data_dir or None)
        command = f"python scripts/prepare_data.py --data_dir={builder.data_dir_root}{options}"
        if not Path(builder.data_path).exists():
            others = find_datasets(data_dir)
            remedy = f", but it holds {others[0]}: set config.data.dataset to {others[0]}, or" if others else ":"
            raise InputError(
                f"{builder.data_dir_root} holds no {builder.info.full_name}{remedy} run `{command}` first."
            )
        if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
            raise InputError(
                f"{builder.data_path} is in the {builder.info.file_format.value} format, which only TensorFlow reads: "
                f"run `{command} --overwrite` for the array_record format."
            )
        record = Path(builder.data_path) / SOURCE_FILE
        self.fingerprint: str = read_json(record)["fingerprint"] if record.exists() else ""
        self._remedy = f"run `{command} --overwrite`, or name the --data_dir where it is now"
        self._sources = builder.as_data_source()
        without_pixels = {"image": tfds.decode.SkipDecoding(), "mask": tfds.decode.SkipDecoding()}
        with self._explained():
            rows = {
                int(row["slice_id"]): (split, i, row["patient_id"].decode(), int(row["label"]) + 1, int(row["fold"]))
                for split, source in builder.as_data_source(decoders=without_pixels).items()
                for i, row in enumerate(source)
            }
        self._rows = dict(sorted(rows.items()))
        _, _, patient_ids, labels, folds = zip(*self._rows.values(), strict=True)
        self.metadata = SliceMetadata(
            slice_ids=np.array([*self._rows]),
            patient_ids=patient_ids,
            families=families_of(patient_ids, dataset=config),
            labels=np.array(labels),
            folds=np.array(folds),
            label_names=tuple(builder.info.features["label"].names),
        )

    @classmethod
    def from_config(cls, settings: ml_collections.ConfigDict) -> "Dataset":
        """Opens the dataset that `config.data` names; see `__init__`."""
        return cls(settings.data_dir, config=settings.dataset)

    def read(self, slice_ids: Iterable[int]) -> Iterator[Sample]:
        """Reads slices in the order of `slice_ids`.

        Raises:
          InputError: the dataset has no slice with one of the ids, or its files are gone or damaged.
        """
        for slice_id in slice_ids:
            if int(slice_id) not in self._rows:
                raise InputError(
                    f"The dataset has no slice {slice_id}: name the --data_dir that the run was trained with."
                )
            split, index, *_ = self._rows[int(slice_id)]
            with self._explained():
                row = self._sources[split][index]
            yield Sample(int(slice_id), row["image"], row["mask"], float(row["pixel_spacing_mm"]))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns the errors of many classes that array_record and TFDS raise for unreadable files into one sentence."""
        try:
            yield
        except Exception as error:
            problem = shorten(error, characters=300)
            raise InputError(
                f"The dataset {self.name} was moved, deleted or damaged ({problem}): {self._remedy}."
            ) from error
