"""Intervals of means over slices, when the slices of one family are not independent of each other.

Families are drawn with replacement, each with all its slices (the cluster bootstrap), so that an interval says what
other families of patients would give; drawing slices would call 469 slices of 32 families 469 observations.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

RESAMPLES = 10_000
LEVEL = 0.95
FEWEST_FAMILIES = 5


def bootstrap_mean(
    values: np.ndarray, families: Sequence[str] | np.ndarray, *, weights: np.ndarray | None = None, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of a mean by bootstrap over families.

    Percentiles of the resampled means, taken a little further out than 2.5 and 97.5 as Hesterberg 2015
    (arXiv:1411.5279, the expanded percentile interval) proposes: with few families the plain ones are too narrow.

    Args:
      values: (N,) float, what the mean is of.
      families: N names; values of one family are drawn together.
      weights: (N,) above 0; the mean is weighted with them. None for equal ones.
      seed: of the draws.

    Returns:
      Lower and upper end; (NaN, NaN) for fewer than `FEWEST_FAMILIES`, which say too little about others. Values that
      are all the same give an interval of no width, however few the families are.
    """
    names, member_of = np.unique(np.asarray(families), return_inverse=True)
    count = len(names)
    if count < FEWEST_FAMILIES:
        return float("nan"), float("nan")
    weights = np.ones(len(values)) if weights is None else weights
    sums = np.bincount(member_of, weights * values, minlength=count)
    totals = np.bincount(member_of, weights, minlength=count)
    # How often each family is drawn in each resample.
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    means = (drawn @ sums) / (drawn @ totals)
    spread = np.sqrt(count / (count - 1)) * stats.t.ppf((1 + LEVEL) / 2, count - 1)
    tail = stats.norm.cdf(-spread)
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def patient_weights(patient_ids: Sequence[str]) -> np.ndarray:
    """Weights (N,) of slices with which their mean is the mean of the patients' means."""
    _, member_of, counts = np.unique(np.asarray(patient_ids), return_inverse=True, return_counts=True)
    return 1.0 / counts[member_of]
