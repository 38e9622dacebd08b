"""Measures calibration: of the pixels with a predicted probability of 0.7, are 70 % tumour?"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np

BINS = 20


class Calibration(NamedTuple):
    """Pixels by predicted probability, in `BINS` bins of equal width over [0, 1]; (BINS,) float64 each.

    Attributes:
      pixels: number of pixels.
      probability: sum of their probabilities.
      tumour: number of tumour pixels.
    """

    pixels: np.ndarray
    probability: np.ndarray
    tumour: np.ndarray

    @classmethod
    def empty(cls) -> Self:
        """Returns bins without pixels."""
        return cls(*np.zeros((3, BINS)))

    def add(self, probabilities: np.ndarray, true_mask: np.ndarray) -> "Calibration":
        """Returns the bins with a slice added: probabilities (H, W) in [0, 1] and its mask, bool or 0 and 1."""
        bins = np.minimum((probabilities.ravel() * BINS).astype(np.int64), BINS - 1)
        counts = (
            np.bincount(bins, weights, minlength=BINS) for weights in (None, probabilities.ravel(), true_mask.ravel())
        )
        return Calibration(*(sum_ + more for sum_, more in zip(self, counts, strict=True)))

    def join(self, other: "Calibration") -> "Calibration":
        """Returns the sum of both."""
        return Calibration(*(one + two for one, two in zip(self, other, strict=True)))

    @classmethod
    def parse(cls, description: Mapping[str, Any]) -> Self:
        """Restores the bins from the result of `describe`."""
        pixels = np.array(description["pixels"], float)
        shares = (
            np.array([share or 0.0 for share in description[name]]) for name in ("mean_probability", "tumour_share")
        )
        return cls(pixels, *(share * pixels for share in shares))

    def describe(self) -> dict[str, Any]:
        """Summarizes the bins and computes the expected calibration error (Naeini et al. 2015).

        Returns:
          `pixels`, `mean_probability` and `tumour_share` by bin (None where a bin is empty); `expected_error`, the
          mean over all pixels of the difference between probability and tumour share of their bin, and
          `expected_error_uncertain`, the same over the pixels outside the first and the last bin, in which nearly all
          pixels lie (None where there are none).
        """
        filled = self.pixels > 0
        pixels = np.maximum(self.pixels, 1)
        mean, share = self.probability / pixels, self.tumour / pixels
        gaps = np.abs(mean - share) * self.pixels

        def by_bin(values: np.ndarray) -> list[float | None]:
            return [float(value) if full else None for value, full in zip(values, filled, strict=True)]

        def error(bins: slice) -> float | None:
            total = self.pixels[bins].sum()
            return float(gaps[bins].sum() / total) if total else None

        return {
            "pixels": [int(count) for count in self.pixels],
            "mean_probability": by_bin(mean),
            "tumour_share": by_bin(share),
            "expected_error": error(slice(None)),
            "expected_error_uncertain": error(slice(1, -1)),
        }
