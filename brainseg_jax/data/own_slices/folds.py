"""Divides patients into folds."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from brainseg_jax.data.dataset_info import FOLDS


def make_folds(patient_ids: Sequence[str], *, seed: int) -> list[int]:
    """Divides slices into the five folds by patient, with about as many slices in each.

    Takes the patients by their number of slices, the largest number first, equal ones in random order. Each patient
    goes to the fold with the fewest slices so far, the first of equal folds. The order of the slices does not matter.

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
