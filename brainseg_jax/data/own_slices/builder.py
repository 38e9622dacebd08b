"""Defines the TFDS builder of a user's own slices."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from brainseg_jax.data import tfds_build
from brainseg_jax.data.dataset_info import FOLDS
from brainseg_jax.data.own_slices.table import OwnSlice, Source


class OwnSlices(tfds.core.GeneratorBasedBuilder):
    """A user's own slices in five folds, in the layout of `figshare_brain_tumor`, except that images are float32.

    The names of the classes are stored with the dataset, so that opening it restores them. A fold without slices has no
    split, because TFDS cannot write an empty one.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}  # noqa: RUF012 (TFDS declares it as a plain attribute)
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name="folder", description="Slices from a folder of images and a folder of masks.")
    ]

    slices: tuple[OwnSlice, ...] = ()  # what is built; not needed to open a finished dataset

    def _info(self) -> tfds.core.DatasetInfo:
        info = tfds.core.DatasetInfo(
            builder=self,
            description="Slices with masks.",
            features=tfds.features.FeaturesDict(
                {
                    "slice_id": np.int32,
                    "patient_id": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(),
                    "fold": np.int32,
                    # All levels of 16 bits are exact in float32, in which the networks see an image anyway.
                    "image": tfds.features.Tensor(shape=(None, None), dtype=np.float32, encoding="zlib"),
                    "mask": tfds.features.Tensor(shape=(None, None), dtype=np.uint8, encoding="zlib"),
                    "pixel_spacing_mm": np.float32,
                }
            ),
            disable_shuffling=True,
        )
        return tfds_build.without_bucket(info)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Any]]]:
        self.info.features["label"].names = sorted({one.label for one in self.slices})
        of_folds = {fold: [one for one in self.slices if one.fold == fold] for fold in FOLDS}
        return {f"fold_{fold}": self._generate_examples(members) for fold, members in of_folds.items() if members}

    def _generate_examples(self, slices: list[OwnSlice]) -> Iterator[tuple[int, Any]]:
        for one in slices:
            image, mask = one.read()
            yield (
                one.slice_id,
                {
                    "slice_id": one.slice_id,
                    "patient_id": one.patient_id,
                    "label": one.label,
                    "fold": one.fold,
                    "image": image,
                    "mask": mask,
                    "pixel_spacing_mm": one.spacing_mm,
                },
            )


def build_dataset(source: Source, *, data_dir: Path, table: Path, overwrite: bool) -> Path:
    """Builds the dataset in the array_record format, or keeps an existing build from the same source.

    Args:
      source: the slices.
      data_dir: the TFDS root.
      table: the file that lists them.
      overwrite: whether a build from another source is replaced.

    Returns:
      The folder of the build.

    Raises:
      InputError: a build from another source exists and `overwrite` is False, or a file was changed since it was
        checked.
    """

    def create(root: Path) -> OwnSlices:
        builder = OwnSlices(config="folder", data_dir=root)
        builder.slices = source.slices
        return builder

    facts = {"fingerprint": source.fingerprint, "slices": len(source.slices), "from": str(table)}
    return tfds_build.build(create, data_dir=data_dir, facts=facts, overwrite=overwrite)
