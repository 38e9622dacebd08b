"""Builds the dataset without TensorFlow, and never keeps another source's build in silence."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from brainseg_jax.errors import InputError
from brainseg_jax.figshare_brain_tumor import archives
from brainseg_jax.figshare_brain_tumor.figshare_brain_tumor_dataset_builder import FOLDS, Builder
from brainseg_jax.figshare_brain_tumor.mat_file import LABELS
from brainseg_jax.splits import SliceTable, family_of

SOURCE_FILE = "source.json"
PUBLISHED_SLICES = {"meningioma": 708, "glioma": 1426, "pituitary": 930}
PUBLISHED_IDS = 233


def build_dataset(source: archives.Source, *, manual_dir: Path, data_dir: Path, config: str, overwrite: bool) -> Path:
    """Builds the array_record form of the dataset, or keeps the build that the same source made before.

    Args:
      source: what `manual_dir` holds.
      manual_dir: the folder of the dataset's files.
      data_dir: the TFDS root.
      config: the builder config, "figshare" or "phantom".
      overwrite: whether a build from another source is replaced.

    Returns:
      The folder of the build.

    Raises:
      InputError: a slice is not valid, or a build from another source is there and `overwrite` is False.
    """
    builder = Builder(config=config, data_dir=data_dir)
    folder = Path(builder.data_path)
    record = folder / SOURCE_FILE
    for unfinished in folder.parent.glob("*incomplete*"):
        shutil.rmtree(unfinished)  # a killed build leaves its folder, and TFDS never removes it
    if folder.exists():
        known = json.loads(record.read_text())["fingerprint"] if record.exists() else None
        if known == source.fingerprint and builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
            return folder
        if not overwrite:
            raise InputError(
                f"data_dir {data_dir} already holds {builder.info.full_name} built from another source or in another "
                "format: add --overwrite to replace it, or name another --data_dir."
            )
        shutil.rmtree(folder)
        builder = Builder(config=config, data_dir=data_dir)
    builder.download_and_prepare(
        file_format="array_record", download_config=tfds.download.DownloadConfig(manual_dir=str(manual_dir))
    )
    record.write_text(
        json.dumps({"fingerprint": source.fingerprint, "slices": len(source.slices), "from": str(manual_dir)}, indent=2)
    )
    return folder


def describe_dataset(table: SliceTable) -> str:
    """Slices, classes, ids and families by fold, and in the last line how they differ from what figshare publishes."""

    def row(name: str, rows: Sequence[int]) -> str:
        labels = [int(table.labels[index]) for index in rows]
        ids = {table.patient_ids[index] for index in rows}
        counts = [len(rows), *(labels.count(label) for label in (1, 2, 3)), len(ids), len(set(map(family_of, ids)))]
        return f"{name:>6}" + "".join(f"{count:>12d}" for count in counts)

    header = f"{'fold':>6}" + "".join(f"{name:>12}" for name in ("slices", *LABELS, "ids", "families"))
    lines = [header]
    for fold in FOLDS:
        lines.append(row(str(fold), [index for index, of_slice in enumerate(table.folds) if of_slice == fold]))
    lines.append(row("all", range(len(table.labels))))
    return "\n".join([*lines, _compare_with_published(table)])


def _compare_with_published(table: SliceTable) -> str:
    counts = {name: int((table.labels == label).sum()) for label, name in enumerate(LABELS, start=1)}
    total, published = sum(counts.values()), sum(PUBLISHED_SLICES.values())
    ids = len(set(table.patient_ids))
    if counts == PUBLISHED_SLICES and ids == PUBLISHED_IDS:
        return f"This is the whole dataset as published: {published} slices of {PUBLISHED_IDS} ids."
    differences = ", ".join(f"{name} {counts[name] - PUBLISHED_SLICES[name]:+d}" for name in LABELS)
    return (
        f"This is a part of the dataset: {total} of {published} slices ({differences}) and {ids} of "
        f"{PUBLISHED_IDS} ids."
    )
