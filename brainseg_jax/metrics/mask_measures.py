"""Measures masks: area, largest diameter, centroid."""

import numpy as np
from scipy.spatial.distance import pdist


def largest_diameter(mask: np.ndarray, *, spacing: tuple[float, float] = (1.0, 1.0)) -> float:
    """Computes the largest distance between the centres of two pixels of a mask.

    Args:
      mask: (H, W) bool.
      spacing: distance of the centres of two pixels along rows and columns; NaN if unknown.

    Returns:
      The distance in the unit of `spacing`; 0 for one pixel, NaN for an empty mask or an unknown spacing.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        return float("nan")
    # The two ends are the first or the last pixel of their rows.
    first = mask[rows].argmax(axis=1)
    last = mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    ends = np.unique(np.concatenate([np.stack([rows, first], 1), np.stack([rows, last], 1)]), axis=0)
    return float(pdist(ends * np.array(spacing)).max()) if len(ends) > 1 else 0.0 * spacing[0]


def centroid(mask: np.ndarray) -> tuple[float, float]:
    """Computes the mean row and column of the pixels of a mask (H, W) bool; NaN for an empty mask."""
    rows, columns = np.nonzero(mask)
    return (float(rows.mean()), float(columns.mean())) if rows.size else (float("nan"), float("nan"))
