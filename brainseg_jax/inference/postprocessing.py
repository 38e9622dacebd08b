"""From probabilities to a mask: the threshold, the smallest component, and how both are chosen on validation."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from brainseg_jax.errors import InputError

THRESHOLDS = tuple(round(0.1 * tenths, 1) for tenths in range(1, 10))
SMALLEST_COMPONENTS = (0.0, 0.0001, 0.0002, 0.0005, 0.001, 0.002)
_EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Decision:
    """Which pixels are tumour.

    Attributes:
      threshold: a pixel is tumour where its probability exceeds it, in (0, 1).
      smallest_component: components (of 8 neighbours) of less than this share of the picture are left out, in [0, 1).

    Raises:
      InputError: a value is outside its range.
    """

    threshold: float
    smallest_component: float

    def __post_init__(self) -> None:  # noqa: D105
        if not 0 < self.threshold < 1:
            raise InputError(f"config.evaluation.threshold is {self.threshold}: set it to a number between 0 and 1.")
        if not 0 <= self.smallest_component < 1:
            raise InputError(
                f"config.evaluation.smallest_component is {self.smallest_component}: set it to a number in [0, 1)."
            )

    def mask(self, probabilities: np.ndarray) -> np.ndarray:
        """The mask, (H, W) bool, of probabilities (H, W)."""
        above = probabilities > self.threshold
        if not self.smallest_component:
            return above
        components, _ = ndimage.label(above, _EIGHT_NEIGHBOURS)
        large = np.bincount(components.ravel()) >= self.smallest_component * above.size
        large[0] = False
        return large[components]


def choose(predictions: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[Decision, float]:
    """Tries every pair of `THRESHOLDS` and `SMALLEST_COMPONENTS`.

    Args:
      predictions: for each slice its probabilities (H, W) and its true mask (H, W), not empty.

    Returns:
      The decision of the highest mean Dice (of equals the threshold next to one half, then the smallest component),
      and that mean.
    """
    dice: dict[Decision, list[float]] = {
        Decision(threshold, smallest): [] for threshold in THRESHOLDS for smallest in SMALLEST_COMPONENTS
    }
    for probabilities, true_mask in predictions:
        truth = true_mask.astype(bool)
        for threshold in THRESHOLDS:
            # Sizes and shared pixels of the components serve all smallest sizes.
            components, count = ndimage.label(probabilities > threshold, _EIGHT_NEIGHBOURS)
            sizes = np.bincount(components.ravel(), minlength=count + 1)[1:]
            shared = np.bincount(components[truth], minlength=count + 1)[1:]
            for smallest in SMALLEST_COMPONENTS:
                kept = sizes >= smallest * truth.size
                dice[Decision(threshold, smallest)].append(
                    2.0 * shared[kept].sum() / (sizes[kept].sum() + np.count_nonzero(truth))
                )
    means = {decision: float(np.mean(values)) for decision, values in dice.items()}
    best = max(means, key=lambda one: (means[one], -abs(one.threshold - 0.5), -one.smallest_component))
    return best, means[best]
