"""The metadata of the slices: ids, classes and folds."""

from dataclasses import dataclass

import numpy as np

from brainseg_jax.data.dataset_info import FOLDS, LABELS, PUBLISHED_IDS, PUBLISHED_SLICES, family_of


@dataclass(frozen=True)
class SliceMetadata:
    """Metadata of N slices, by ascending slice id.

    Attributes:
      slice_ids: (N,) int64.
      patient_ids: N patient ids.
      labels: (N,) int64, 1 meningioma, 2 glioma, 3 pituitary tumour.
      folds: (N,) int64, official fold 1..5.
    """

    slice_ids: np.ndarray
    patient_ids: tuple[str, ...]
    labels: np.ndarray
    folds: np.ndarray

    @property
    def families(self) -> tuple[str, ...]:
        """Returns the family of each slice's patient."""
        return tuple(family_of(patient_id) for patient_id in self.patient_ids)


def describe_metadata(metadata: SliceMetadata) -> str:
    """Counts slices, classes, patient ids and families of each fold, in a table of text with a line per fold."""
    patient_ids = np.array(metadata.patient_ids)
    lines = [f"{'fold':>6}" + "".join(f"{name:>12}" for name in ("slices", *LABELS, "ids", "families"))]
    for name, rows in (*((str(fold), metadata.folds == fold) for fold in FOLDS), ("all", metadata.folds > 0)):
        labels = [np.count_nonzero(metadata.labels[rows] == label) for label in (1, 2, 3)]
        ids = set(patient_ids[rows].tolist())
        counts = (sum(labels), *labels, len(ids), len(set(map(family_of, ids))))
        lines.append(f"{name:>6}" + "".join(f"{count:>12d}" for count in counts))
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
