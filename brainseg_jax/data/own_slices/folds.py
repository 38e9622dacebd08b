"""Divides patients into folds."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from brainseg_jax.data.dataset_info import FOLDS


def make_folds(patient_ids: Sequence[str], *, seed: int) -> list[int]:
    """Divides slices into the five folds by patient, with about as many slices in each.

    Patients are taken by their number of slices, the largest first, patients of as many slices in a random order; each
    goes to the fold that has the fewest slices so far, of equals the first. The order of the slices changes nothing.

    Args:
      patient_ids: of N slices.
      seed: of the random order.

    Returns:
      N folds, 1..5; with fewer than five patients the last ones are empty.
    """
    slices = Counter(patient_ids)
    shuffled = np.random.default_rng(seed).permutation(sorted(slices)).tolist()
    filled, fold_of = dict.fromkeys(FOLDS, 0), {}
    for patient_id in sorted(shuffled, key=lambda patient_id: -slices[patient_id]):
        fold_of[patient_id] = fold = min(FOLDS, key=lambda fold: filled[fold])
        filled[fold] += slices[patient_id]
    return [fold_of[patient_id] for patient_id in patient_ids]
