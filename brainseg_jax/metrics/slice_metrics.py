"""The metrics of one slice. To add one: an entry in `METRICS`; files and summaries have it from then on."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from brainseg_jax.metrics.overlap import Overlap, count_overlap, dice, intersection_over_union, precision, recall
from brainseg_jax.metrics.surface_distance import SurfaceScore, compare_surfaces


@dataclass(frozen=True)
class MaskPair:
    """A predicted mask and the true mask.

    Attributes:
      predicted: (H, W) bool.
      true: (H, W) bool.
      spacing_mm: side of a pixel, NaN where it is not known.
    """

    predicted: np.ndarray
    true: np.ndarray
    spacing_mm: float

    @functools.cached_property
    def overlap(self) -> Overlap:
        """The pixel counts, (1,) each."""
        return count_overlap(self.predicted[None], self.true[None])

    @functools.cached_property
    def surface(self) -> SurfaceScore:
        """The distances of the outlines, NaN where the spacing is."""
        return compare_surfaces(self.predicted, self.true, spacing_mm=self.spacing_mm)


METRICS: Mapping[str, Callable[[MaskPair], float]] = {
    "dice": lambda pair: float(dice(pair.overlap)[0]),
    "iou": lambda pair: float(intersection_over_union(pair.overlap)[0]),
    "precision": lambda pair: float(precision(pair.overlap)[0]),
    "recall": lambda pair: float(recall(pair.overlap)[0]),
    "hd95_mm": lambda pair: pair.surface.hd95_mm,
    "assd_mm": lambda pair: pair.surface.assd_mm,
    "nsd_2mm": lambda pair: pair.surface.nsd,
}
