"""Computes distances between the outlines of two masks.

The outline of a mask consists of its pixels that have one of their 4 neighbours outside the mask; everything beyond the
edge of the image is outside. Distances are Euclidean, between pixel centres, in millimetres. With P the distances of
all predicted outline pixels to the nearest true one and T those of all true outline pixels to the nearest predicted
one:

  HD95  the larger of the 95th percentiles of P and of T (a robust Hausdorff distance)
  ASSD  the mean of P and T together (average symmetric surface distance)
  NSD   the share of P and T together that is at most the tolerance (normalised surface Dice; Nikolov et al. 2021,
        arXiv:1809.04430, with outline pixels counted instead of measured)

Definitions differ between papers; these follow Maier-Hein et al. 2024, arXiv:2206.01653. Two empty masks agree
completely. If only one mask is empty, the distances are the image's diagonal, which is more than any two pixels are
apart, and NSD is 0: a missed tumour counts with the worst value and is not left out.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import ndimage

TOLERANCE_MM = 2.0


class SurfaceScore(NamedTuple):
    """The three measures, as the module's docstring defines them.

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
    """Computes HD95, ASSD and NSD of two masks.

    Args:
      predicted_mask: (H, W) bool.
      true_mask: (H, W) bool.
      spacing_mm: side of a pixel; NaN if unknown.
      tolerance_mm: tolerance of NSD.

    Returns:
      The three measures; NaN if the spacing is unknown.

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
    (box,) = ndimage.find_objects((predicted_mask | true_mask).astype(np.uint8))
    # The padding keeps outline pixels at the border of the box.
    predicted, true = (_outline(np.pad(mask[box], 1)) for mask in (predicted_mask, true_mask))
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
