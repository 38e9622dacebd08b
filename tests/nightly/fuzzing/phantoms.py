"""The phantom slices from which all seeds are made."""

import functools

import numpy as np

from brainseg_jax.data.dataset_info import LABELS, families_of
from brainseg_jax.data.figshare_brain_tumor.mat_file import RawSlice
from brainseg_jax.data.metadata import SliceMetadata
from brainseg_jax.data.phantom import generate


@functools.cache
def phantoms() -> tuple[list[RawSlice], np.ndarray]:
    """Returns the slices of ten phantom patients, 64×64, and their folds."""
    pairs = list(generate.phantom_slices(patients=10, seed=0, size=64))
    return [slice_ for slice_, _ in pairs], np.array([fold for _, fold in pairs])


def grey() -> np.ndarray:
    """Returns an image, (48, 64) uint16, whose sides differ."""
    return phantoms()[0][0].image[:48].astype(np.uint16)


def metadata() -> SliceMetadata:
    """Returns the metadata of the phantoms."""
    slices, folds = phantoms()
    patient_ids = tuple(slice_.patient_id for slice_ in slices)
    return SliceMetadata(
        slice_ids=np.array([slice_.slice_id for slice_ in slices]),
        patient_ids=patient_ids,
        families=families_of(patient_ids, dataset="phantom"),
        labels=np.array([slice_.label for slice_ in slices]),
        folds=folds,
        label_names=tuple(LABELS),
    )
