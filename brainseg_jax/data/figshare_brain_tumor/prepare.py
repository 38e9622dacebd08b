"""Builds the TFDS dataset without TensorFlow."""

import json
import shutil
import sys
from pathlib import Path

import tensorflow_datasets as tfds

from brainseg_jax.data.figshare_brain_tumor import archives
from brainseg_jax.data.figshare_brain_tumor.figshare_brain_tumor_dataset_builder import Builder
from brainseg_jax.errors import InputError
from brainseg_jax.utils import xla_setup

MOST_READERS = 4  # more would wait for the one process that writes
SOURCE_FILE = "source.json"


def build_dataset(source: archives.Source, *, manual_dir: Path, data_dir: Path, config: str, overwrite: bool) -> Path:
    """Builds the dataset in the array_record format, or keeps an existing build from the same source.

    Args:
      source: the slices in `manual_dir`.
      manual_dir: the folder of the dataset's files.
      data_dir: the TFDS root.
      config: the builder config, "figshare" or "phantom".
      overwrite: whether a build from another source is replaced.

    Returns:
      The folder of the build.

    Raises:
      InputError: a slice is invalid, or a build from another source exists and `overwrite` is False.
    """
    builder = Builder(config=config, data_dir=data_dir)
    folder = Path(builder.data_path)
    record = folder / SOURCE_FILE
    for unfinished in folder.parent.glob("*incomplete*"):
        shutil.rmtree(unfinished)  # a killed build leaves its folder, and TFDS never removes it
    aside = folder.with_name(f"replaced_{folder.name}")
    if aside.exists():
        _put_back(aside, folder)
        builder = Builder(config=config, data_dir=data_dir)
    if folder.exists():
        known = json.loads(record.read_text())["fingerprint"] if record.exists() else None
        if known == source.fingerprint and builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
            return folder
        if not overwrite:
            raise InputError(
                f"data_dir {data_dir} already holds {builder.info.full_name} built from another source or in another "
                "format: add --overwrite to replace it, or name another --data_dir."
            )
        folder.rename(aside)
        builder = Builder(config=config, data_dir=data_dir)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        with archives.reading_processes(min(xla_setup.available_cores(), MOST_READERS)) as readers:
            builder.readers = readers
            builder.download_and_prepare(
                file_format="array_record", download_config=tfds.download.DownloadConfig(manual_dir=str(manual_dir))
            )
    finally:
        if aside.exists():
            _put_back(aside, folder)
    record.write_text(
        json.dumps({"fingerprint": source.fingerprint, "slices": len(source.slices), "from": str(manual_dir)}, indent=2)
    )
    return folder


def _put_back(aside: Path, folder: Path) -> None:
    """Removes the previous build if the new one is complete, otherwise restores it."""
    if folder.exists():
        shutil.rmtree(aside)
    else:
        aside.rename(folder)
