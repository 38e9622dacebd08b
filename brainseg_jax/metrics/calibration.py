"""Whether the probabilities mean what they say: of the pixels called 0.7, are 70 % tumour?"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np

BINS = 20


class Calibration(NamedTuple):
    """Pixels by predicted probability, in `BINS` bins of equal width over [0, 1]; (BINS,) float64 each.

    Attributes:
      pixels: how many.
      probability: sum of their probabilities.
      tumour: how many of them are tumour.
    """

    pixels: np.ndarray
    probability: np.ndarray
    tumour: np.ndarray

    @classmethod
    def empty(cls) -> Self:
        """No pixels."""
        return cls(*np.zeros((3, BINS)))

    def add(self, probabilities: np.ndarray, true_mask: np.ndarray) -> "Calibration":
        """With the pixels of one more slice: probabilities (H, W) in [0, 1] and its mask, bool or 0 and 1."""
        bins = np.minimum((probabilities.ravel() * BINS).astype(np.int64), BINS - 1)
        of_slice = (
            np.bincount(bins, weights, minlength=BINS) for weights in (None, probabilities.ravel(), true_mask.ravel())
        )
        return Calibration(*(sum_ + more for sum_, more in zip(self, of_slice, strict=True)))

    def join(self, other: "Calibration") -> "Calibration":
        """The pixels of both."""
        return Calibration(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    @classmethod
    def parse(cls, found: Mapping[str, Any]) -> Self:
        """Undoes `describe`."""
        pixels = np.array(found["pixels"], float)
        shares = (np.array([share or 0.0 for share in found[name]]) for name in ("mean_probability", "tumour_share"))
        return cls(pixels, *(share * pixels for share in shares))

    def describe(self) -> dict[str, Any]:
        """The bins, and the expected calibration error (Naeini et al. 2015) of pixels and of uncertain pixels.

        Returns:
          `pixels`, `mean_probability` and `tumour_share` by bin (None where a bin is empty); `expected_error`, the
          mean over all pixels of the difference between probability and tumour share of their bin, and
          `expected_error_uncertain`, that over the pixels outside the first and the last bin, in which nearly all
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
