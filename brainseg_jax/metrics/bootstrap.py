"""Computes confidence intervals of means over slices, where slices of one family are not independent.

Families are drawn with replacement, each with all its slices (cluster bootstrap), so that the interval describes the
variation between families. Drawing single slices would treat dependent slices as independent observations.
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
    """Computes a 95 % interval of a mean by bootstrap over families.

    Uses the expanded percentile interval (Hesterberg 2015, arXiv:1411.5279), since plain percentiles are too narrow for
    few families.

    Args:
      values: (N,) float.
      families: N family names.
      weights: (N,) positive weights of the mean; None for equal ones.
      seed: seed of the resampling.

    Returns:
      Lower and upper end; (NaN, NaN) for fewer than `FEWEST_FAMILIES` families.
    """
    names, family_index = np.unique(np.asarray(families), return_inverse=True)
    count = len(names)
    if count < FEWEST_FAMILIES:
        return float("nan"), float("nan")
    weights = np.ones(len(values)) if weights is None else weights
    sums = np.bincount(family_index, weights * values, minlength=count)
    totals = np.bincount(family_index, weights, minlength=count)
    # The number of draws of each family in each resample.
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    means = (drawn @ sums) / (drawn @ totals)
    spread = np.sqrt(count / (count - 1)) * stats.t.ppf((1 + LEVEL) / 2, count - 1)
    tail = stats.norm.cdf(-spread)
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def patient_weights(patient_ids: Sequence[str]) -> np.ndarray:
    """Computes weights (N,) of slices for which the weighted mean is the mean of the patients' means."""
    _, family_index, counts = np.unique(np.asarray(patient_ids), return_inverse=True, return_counts=True)
    return 1.0 / counts[family_index]
