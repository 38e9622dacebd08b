"""The metadata of the slices: ids, classes and folds."""

import itertools
from dataclasses import dataclass

import numpy as np

from brainseg_jax.data.dataset_info import FOLDS, LABELS, PUBLISHED_IDS, PUBLISHED_SLICES


@dataclass(frozen=True)
class SliceMetadata:
    """Metadata of N slices, by ascending slice id.

    Attributes:
      slice_ids: (N,) int64.
      patient_ids: N patient ids.
      families: the family of each patient, see `families_of` of data/dataset_info.py.
      labels: (N,) int64, the class: 1 for the first of `label_names`.
      folds: (N,) int64, official fold 1..5.
      label_names: the names of all classes of the dataset.
    """

    slice_ids: np.ndarray
    patient_ids: tuple[str, ...]
    families: tuple[str, ...]
    labels: np.ndarray
    folds: np.ndarray
    label_names: tuple[str, ...]


def describe_metadata(metadata: SliceMetadata) -> str:
    """Counts slices, classes, patient ids and families of each fold, in a table of text with a line per fold."""
    titles = ("slices", *metadata.label_names, "ids", "families")
    widths = [max(12, len(title) + 2) for title in titles]
    lines = [f"{'fold':>6}" + "".join(f"{title:>{width}}" for title, width in zip(titles, widths, strict=True))]
    for name, rows in (*((str(fold), metadata.folds == fold) for fold in FOLDS), ("all", metadata.folds > 0)):
        labels = [np.count_nonzero(metadata.labels[rows] == label + 1) for label in range(len(metadata.label_names))]
        people = (len(set(itertools.compress(names, rows))) for names in (metadata.patient_ids, metadata.families))
        counts = (sum(labels), *labels, *people)
        lines.append(f"{name:>6}" + "".join(f"{count:>{width}d}" for count, width in zip(counts, widths, strict=True)))
    return "\n".join(lines)


def compare_with_published(metadata: SliceMetadata) -> str:
    """Describes in one line how the slices differ from those that figshare publishes."""
    counts = {name: int((metadata.labels == label).sum()) for label, name in enumerate(LABELS, start=1)}
    total, published = sum(counts.values()), sum(PUBLISHED_SLICES.values())
    ids = len(set(metadata.patient_ids))
    if counts == PUBLISHED_SLICES and ids == PUBLISHED_IDS:
        return f"This is the whole dataset as published: {published} slices of {PUBLISHED_IDS} ids."
    differences = ", ".join(f"{name} {counts[name] - PUBLISHED_SLICES[name]:+d}" for name in LABELS)
    return (
        f"This is a part of the dataset: {total} of {published} slices ({differences}) and {ids} of "
        f"{PUBLISHED_IDS} ids."
    )
