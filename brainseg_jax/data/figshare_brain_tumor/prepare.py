"""Builds the TFDS dataset without TensorFlow."""

import concurrent.futures
import json
import multiprocessing
import shutil
import sys
from pathlib import Path

import tensorflow_datasets as tfds

from brainseg_jax.data.figshare_brain_tumor import archives
from brainseg_jax.data.figshare_brain_tumor.figshare_brain_tumor_dataset_builder import Builder
from brainseg_jax.errors import InputError
from brainseg_jax.utils import xla_setup

MAX_READERS = 4  # more would wait for the one process that writes
SOURCE_FILE = "source.json"


def build_dataset(source: archives.Source, *, manual_dir: Path, data_dir: Path, config: str, overwrite: bool) -> Path:
    """Builds the dataset in the array_record format, or keeps an existing build from the same source.

    Spawned processes read the slices, so the calling program needs an `if __name__ == "__main__":` guard.

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
    existing = Builder(config=config, data_dir=data_dir)
    folder = Path(existing.data_path)
    if folder.exists():
        record = folder / SOURCE_FILE
        fingerprint = json.loads(record.read_text())["fingerprint"] if record.exists() else None
        if fingerprint == source.fingerprint and existing.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
            return folder
        if not overwrite:
            raise InputError(
                f"data_dir {data_dir} already holds {existing.info.full_name} built from another source or in another "
                "format: add --overwrite to replace it, or name another --data_dir."
            )
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    # The new build replaces an existing one only when it is complete.
    unfinished = data_dir / f"unfinished_{config}"
    shutil.rmtree(unfinished, ignore_errors=True)  # from a killed process
    builder = Builder(config=config, data_dir=unfinished)
    # Spawned, not forked: JAX has threads.
    readers = concurrent.futures.ProcessPoolExecutor(
        min(xla_setup.available_cores(), MAX_READERS), multiprocessing.get_context("spawn")
    )
    try:
        with readers:
            builder.readers = readers
            builder.download_and_prepare(
                file_format="array_record", download_config=tfds.download.DownloadConfig(manual_dir=str(manual_dir))
            )
        finished = Path(builder.data_path)
        facts = {"fingerprint": source.fingerprint, "slices": len(source.slices), "from": str(manual_dir)}
        (finished / SOURCE_FILE).write_text(json.dumps(facts, indent=2))
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        finished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder
