"""Defines the TFDS builder of the figshare brain tumour dataset."""

import concurrent.futures
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from brainseg_jax.data.dataset_info import FOLDS, LABELS, PIXEL_SPACING_MM
from brainseg_jax.data.figshare_brain_tumor import archives
from brainseg_jax.data.tfds_build import without_bucket
from brainseg_jax.errors import InputError


class Builder(tfds.core.GeneratorBasedBuilder):
    """Slices of the figshare brain tumour dataset in their five official folds.

    A fold without slices has no split, because TFDS cannot write an empty one.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}  # noqa: RUF012 (TFDS declares it as a plain attribute)
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name="figshare", description="The slices that figshare publishes, or a part of them."),
        tfds.core.BuilderConfig(name="phantom", description="Phantom slices in the same layout."),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Run `python scripts/prepare_data.py`, which downloads the files, or put the four brainTumorDataPublic_*.zip "
        f"and cvind.mat of {archives.ARTICLE} into manual_dir."
    )

    readers: concurrent.futures.Executor | None = None  # processes that read the source; None: this process

    def _info(self) -> tfds.core.DatasetInfo:
        info = self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "slice_id": np.int32,
                    "patient_id": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=LABELS),
                    "fold": np.int32,
                    "image": tfds.features.Tensor(shape=(None, None), dtype=np.int16, encoding="bytes"),
                    "mask": tfds.features.Tensor(shape=(None, None), dtype=np.uint8, encoding="zlib"),
                    "pixel_spacing_mm": np.float32,
                }
            ),
            homepage=archives.ARTICLE,
            disable_shuffling=True,
        )
        return without_bucket(info)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Any]]]:
        source = archives.find_source(Path(dl_manager.manual_dir))
        splits = {}
        for fold in FOLDS:
            files = tuple(file for file in source.slices if source.fold_of(file.slice_id) == fold)
            if files:
                splits[f"fold_{fold}"] = self._generate_examples(files, fold)
        return splits

    def _generate_examples(self, files: tuple[archives.RawSliceFile, ...], fold: int) -> Iterator[tuple[int, Any]]:
        for slice_ in archives.read_slices(files, readers=self.readers):
            kind, config = ("a phantom", "phantom") if slice_.is_phantom else ("not a phantom", "figshare")
            if config != self.builder_config.name:
                raise InputError(
                    f"Slice {slice_.slice_id} is {kind} slice, which the builder config {self.builder_config.name} "
                    f"does not take: build it as figshare_brain_tumor/{config}."
                )
            yield (
                slice_.slice_id,
                {
                    "slice_id": slice_.slice_id,
                    "patient_id": slice_.patient_id,
                    "label": LABELS[slice_.label - 1],
                    "fold": fold,
                    "image": slice_.image,
                    "mask": slice_.mask,
                    "pixel_spacing_mm": PIXEL_SPACING_MM.get(slice_.image.shape, np.nan),
                },
            )
