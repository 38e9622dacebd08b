"""How far the outlines of two masks are apart.

The outline of a mask are its pixels with a neighbour (of 4) outside it; beyond the image's edge everything is
outside. Distances are Euclidean, between pixel centres, in millimetres. With P the distances of all predicted outline
pixels to the nearest true one and T those of all true outline pixels to the nearest predicted one:

  HD95  the larger of the 95th percentiles of P and of T (a robust Hausdorff distance)
  ASSD  the mean of P and T together (average symmetric surface distance)
  NSD   the share of P and T together that is at most the tolerance (normalised surface Dice; Nikolov et al. 2021,
        arXiv:1809.04430, with outline pixels counted instead of measured)

Definitions differ between papers; these follow Maier-Hein et al. 2024, arXiv:2206.01653. Two empty masks agree
completely. Of one empty and one non-empty mask distances are the image's diagonal, which no two of its pixels reach,
and NSD is 0: a missed tumour counts as the worst value, never as absent.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import ndimage

TOLERANCE_MM = 2.0


class SurfaceScore(NamedTuple):
    """See the module's text.

    Attributes:
      hd95_mm: millimetres, at least 0.
      assd_mm: millimetres, at least 0.
      nsd: in [0, 1].
    """

    hd95_mm: float
    assd_mm: float
    nsd: float


def compare_surfaces(
    predicted_mask: np.ndarray, true_mask: np.ndarray, *, spacing_mm: float, tolerance_mm: float = TOLERANCE_MM
) -> SurfaceScore:
    """Measures the distances of two outlines.

    Args:
      predicted_mask: (H, W) bool.
      true_mask: (H, W) bool.
      spacing_mm: side of a pixel; NaN where it is not known.
      tolerance_mm: of NSD.

    Returns:
      The three measures; NaN where the spacing is.

    Raises:
      ValueError: the shapes differ.
    """
    if predicted_mask.shape != true_mask.shape:
        raise ValueError(f"The masks have shapes {predicted_mask.shape} and {true_mask.shape}; they must be equal.")
    if math.isnan(spacing_mm):
        return SurfaceScore(math.nan, math.nan, math.nan)
    if not predicted_mask.any() and not true_mask.any():
        return SurfaceScore(0.0, 0.0, 1.0)
    if not predicted_mask.any() or not true_mask.any():
        diagonal = math.hypot(*true_mask.shape) * spacing_mm
        return SurfaceScore(diagonal, diagonal, 0.0)
    window = _bounding_box(predicted_mask | true_mask)
    # One pixel of margin, so that an outline at the cut is an outline still.
    predicted, true = (_outline(np.pad(mask[window], 1)) for mask in (predicted_mask, true_mask))
    from_predicted = ndimage.distance_transform_edt(~true, sampling=spacing_mm)[predicted]
    from_true = ndimage.distance_transform_edt(~predicted, sampling=spacing_mm)[true]
    both = np.concatenate([from_predicted, from_true])
    return SurfaceScore(
        hd95_mm=float(max(np.percentile(from_predicted, 95), np.percentile(from_true, 95))),
        assd_mm=float(both.mean()),
        nsd=float((both <= tolerance_mm).mean()),
    )


def _outline(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask)


def _bounding_box(mask: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
