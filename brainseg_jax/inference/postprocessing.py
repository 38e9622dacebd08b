"""From probabilities to a mask: a threshold, a smallest component, and how both are tuned on validation."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import ml_collections
import numpy as np
from scipy import ndimage

from brainseg_jax.errors import InputError
from brainseg_jax.utils.files import read_json, write_json

FILE = "postprocessing.json"
_SHAPE = {"threshold": float, "min_component_fraction": float, "epoch": int, "tta_flip": bool}

THRESHOLDS = tuple(round(0.1 * tenths, 1) for tenths in range(1, 10))
MIN_COMPONENT_FRACTIONS = (0.0, 0.0001, 0.0002, 0.0005, 0.001, 0.002)
_EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Postprocessing:
    """Decides which pixels are tumour.

    Attributes:
      threshold: a pixel is tumour where its probability exceeds it, in (0, 1).
      min_component_fraction: components (of 8 neighbours) smaller than this share of the image are left out, in [0, 1).

    Raises:
      InputError: a value is outside its range.
    """

    threshold: float
    min_component_fraction: float

    def __post_init__(self) -> None:  # noqa: D105
        if not 0 < self.threshold < 1:
            raise InputError(f"config.evaluation.threshold is {self.threshold}: set it to a number between 0 and 1.")
        if not 0 <= self.min_component_fraction < 1:
            raise InputError(
                f"config.evaluation.min_component_fraction is {self.min_component_fraction}: set it to a number in "
                "[0, 1)."
            )

    def with_changes(self, threshold: float | None, min_component_fraction: float | None) -> "Postprocessing":
        """Returns a copy with the values that are not None."""
        return Postprocessing(
            self.threshold if threshold is None else threshold,
            self.min_component_fraction if min_component_fraction is None else min_component_fraction,
        )

    def mask(self, probabilities: np.ndarray) -> np.ndarray:
        """Returns the mask, (H, W) bool, of probabilities (H, W)."""
        above = probabilities > self.threshold
        if not self.min_component_fraction:
            return above
        components, _ = ndimage.label(above, _EIGHT_NEIGHBOURS)
        large = np.bincount(components.ravel()) >= self.min_component_fraction * above.size
        large[0] = False
        return large[components]


def tune_postprocessing(predictions: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[Postprocessing, float]:
    """Tries every pair of `THRESHOLDS` and `MIN_COMPONENT_FRACTIONS`.

    Args:
      predictions: for each slice its probabilities (H, W) and its true mask (H, W). A slice without a tumour counts
        with 1 if nothing is predicted and with 0 otherwise, so that false alarms lower the mean.

    Returns:
      The pair with the highest mean Dice, and that mean. Ties go to the threshold nearest to one half, then to the
      lowest fraction.
    """
    dice: dict[Postprocessing, list[float]] = {
        Postprocessing(threshold, smallest): [] for threshold in THRESHOLDS for smallest in MIN_COMPONENT_FRACTIONS
    }
    for probabilities, true_mask in predictions:
        truth = true_mask.astype(bool)
        for threshold in THRESHOLDS:
            # The components are measured once for all smallest sizes.
            components, count = ndimage.label(probabilities > threshold, _EIGHT_NEIGHBOURS)
            sizes = np.bincount(components.ravel(), minlength=count + 1)[1:]
            shared = np.bincount(components[truth], minlength=count + 1)[1:]
            for smallest in MIN_COMPONENT_FRACTIONS:
                kept = sizes >= smallest * truth.size
                total = sizes[kept].sum() + np.count_nonzero(truth)
                dice[Postprocessing(threshold, smallest)].append(2.0 * shared[kept].sum() / total if total else 1.0)
    means = {pair: float(np.mean(values)) for pair, values in dice.items()}
    best = max(means, key=lambda one: (means[one], -abs(one.threshold - 0.5), -one.min_component_fraction))
    return best, means[best]


def write_postprocessing(
    directory: Path, postprocessing: Postprocessing, *, epoch: int, tta_flip: bool, validation_dice: float
) -> None:
    """Writes postprocessing.json of a run: the tuned values, the epoch of their checkpoint, and the mean Dice."""
    tuned = {**asdict(postprocessing), "epoch": epoch, "tta_flip": tta_flip, "validation_dice": validation_dice}
    write_json(directory / FILE, tuned)


def read_postprocessing(
    directory: Path, config: ml_collections.ConfigDict, *, epoch: int, tta_flip: bool
) -> Postprocessing:
    """Reads the postprocessing of a run: the config's, or the one that was tuned on validation.

    Args:
      directory: the workdir.
      config: of the run.
      epoch: of the checkpoint whose masks are to be made.
      tta_flip: whether probabilities are means over an image and its mirror image.

    Raises:
      InputError: it was to be tuned, but was tuned for another epoch or flip, or training has not ended.
    """
    settings = config.evaluation
    if not settings.tune_postprocessing:
        return Postprocessing(settings.threshold, settings.min_component_fraction)
    path = directory / FILE
    tuned = read_json(path, _SHAPE) if path.exists() else {}
    if tuned.get("epoch") != epoch:
        raise InputError(
            f"{path} is missing or of another epoch; training writes it at its end: run scripts/train.py with "
            f"--workdir={directory} to its end first."
        )
    if tuned.get("tta_flip") != tta_flip:
        raise InputError(
            f"{path} was tuned with tta_flip = {tuned.get('tta_flip')}, not {tta_flip}: give --threshold and "
            "--min_component_fraction too, or train the run to its end again."
        )
    try:
        return Postprocessing(tuned["threshold"], tuned["min_component_fraction"])
    except InputError as error:
        raise InputError(f"{path} is damaged: train the run to its end again. {error}") from error
