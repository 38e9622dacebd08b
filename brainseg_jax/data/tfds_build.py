"""Builds a TFDS dataset without TensorFlow, whole or not at all."""

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from brainseg_jax.errors import InputError
from brainseg_jax.utils.files import refusal_of_disk

SOURCE_FILE = "source.json"


def without_bucket(info: tfds.core.DatasetInfo) -> tfds.core.DatasetInfo:
    """Keeps TFDS from looking in Google's storage for facts about a dataset that is not built yet.

    TFDS no longer asks there, but each time it leaves behind an empty folder in TMPDIR, made for the answer.
    """
    vars(info)["initialize_from_bucket"] = lambda: None
    return info


def build(
    create: Callable[[Path], tfds.core.DatasetBuilder],
    *,
    data_dir: Path,
    facts: Mapping[str, Any],
    overwrite: bool,
    manual_dir: Path | None = None,
) -> Path:
    """Builds a dataset in the array_record format, or keeps an existing build from the same source.

    Args:
      create: makes the builder for a TFDS root.
      data_dir: the TFDS root.
      facts: about the source, for source.json; its `fingerprint` identifies the source.
      overwrite: whether a build from another source is replaced.
      manual_dir: the folder that the builder reads, if it reads one.

    Returns:
      The folder of the build.

    Raises:
      InputError: a slice is invalid, a build from another source exists and `overwrite` is False, or the disk is full.
    """
    existing = create(data_dir)
    folder = Path(existing.data_path)
    # The new build replaces an existing one only when it is complete.
    unfinished = data_dir / f"unfinished_{existing.builder_config.name}"
    shutil.rmtree(unfinished, ignore_errors=True)  # from a killed process
    if folder.exists():
        record = folder / SOURCE_FILE
        fingerprint = json.loads(record.read_text())["fingerprint"] if record.exists() else None
        if fingerprint == facts["fingerprint"] and existing.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
            return folder
        if not overwrite:
            raise InputError(
                f"data_dir {data_dir} already holds {existing.info.full_name} built from another source or in another "
                "format: add --overwrite to replace it, or name another --data_dir."
            )
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        builder = create(unfinished)
        downloads = tfds.download.DownloadConfig(manual_dir=str(manual_dir) if manual_dir else None)
        builder.download_and_prepare(file_format="array_record", download_config=downloads)
        finished = Path(builder.data_path)
        (finished / SOURCE_FILE).write_text(json.dumps(facts, indent=2))
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            folder.rename(unfinished / "replaced")  # atomic, unlike a deletion
        finished.rename(folder)
    except Exception as error:
        # An error that names a file may be about a file that is read, not about the disk that is written to.
        if not getattr(error, "filename", None) and (reason := refusal_of_disk(error)):
            raise InputError(
                f"The dataset could not be written to {data_dir} ({reason}): make room or rights there, or name "
                "another --data_dir."
            ) from error
        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder
