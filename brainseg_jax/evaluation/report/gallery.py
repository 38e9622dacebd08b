"""Chooses the slices of a report's gallery and encodes them small enough to travel in the page."""

import base64
import io
import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from brainseg_jax.evaluation.scores import SliceScore
from brainseg_jax.inference.postprocessing import Postprocessing

THUMBNAIL = 128  # pixels of the longer side of a slice in the gallery


def worst_first(scores: Sequence[SliceScore]) -> list[SliceScore]:
    """Sorts by Dice; of slices with the same Dice, the one with the larger tumour comes first.

    Slices without a tumour have no Dice: those with a false alarm count as missed, the others as correct.
    """

    def key(score: SliceScore) -> tuple[float, int, int]:
        dice = score.dice if score.tumour_pixels else float(not score.predicted_pixels)
        return dice, -(score.tumour_pixels or score.predicted_pixels), score.slice_id

    return sorted(scores, key=key)


def choose_slices(scores: Sequence[SliceScore], *, count: int) -> list[SliceScore]:
    """Chooses which slices the gallery shows.

    Args:
      scores: of all slices.
      count: the most that are shown.

    Returns:
      All slices if there are no more than `count`; else the worst half, and a quarter each from the middle and from the
      best (all from the worst if `count` is under 3). They are in the order of `worst_first`.
    """
    ranked = worst_first(scores)
    if len(ranked) <= count:
        return ranked
    worst, quarter = _shares(count)
    middle = max(worst, (len(ranked) - quarter) // 2)
    return ranked[:worst] + ranked[middle : middle + quarter] + ranked[len(ranked) - quarter :]


def describe_choice(total: int, *, count: int) -> str:
    """Says in a sentence which of `total` slices `choose_slices` chooses."""
    if total <= count:
        return f"All {total} slices."
    worst, quarter = _shares(count)
    return (
        f"{count} of {total} slices: the {worst} of lowest Dice, {quarter} about the median and "
        f"the {quarter} of highest Dice. scripts/report.py shows more with --max_slices."
    )


def _shares(count: int) -> tuple[int, int]:
    """Returns how many of `count` slices come from the worst, and how many from the middle and from the best each."""
    quarter = (count + 1) // 4
    return count - 2 * quarter, quarter


def encode_slice(
    image: np.ndarray,
    probabilities: np.ndarray,
    postprocessing: Postprocessing,
    *,
    name: str,
    true_mask: np.ndarray | None = None,
    dice: float = math.nan,
    label: str = "",
    patient_id: str = "",
    size: str = "",
) -> dict[str, Any]:
    """Encodes a slice for the gallery, at most `THUMBNAIL` pixels wide and high.

    Args:
      image: (H, W) float in [0, 1].
      probabilities: (H, W) float in [0, 1].
      postprocessing: how the probabilities become the mask.
      name: identifies the slice, such as "slice 12".
      true_mask: (H, W) bool or 0 and 1; None where it is not known.
      dice: of the mask at full size, in [0, 1]; NaN where it is not known.
      label: the class; "" where it is not known.
      patient_id: "" where it is not known.
      size: the group of tumour sizes; "" where it is not known.

    Returns:
      A JSON object for assets/gallery.js. Numbers that the page computes with are zlib-compressed bytes, not an image:
      browsers that guard against fingerprinting add noise to the pixels that a page reads from an image.
    """
    height, width = (max(1, round(side * min(1, THUMBNAIL / max(image.shape)))) for side in image.shape)
    levels, small = (_to_bytes(_shrink(values, width, height)) for values in (image, probabilities))
    truth = None if true_mask is None else np.packbits(shrink_mask(true_mask, width, height))
    return {
        "name": name,
        "label": label,
        "patient": patient_id,
        "size": size,
        "share": None if true_mask is None else float(np.count_nonzero(true_mask) / true_mask.size),
        "dice": None if math.isnan(dice) else dice,
        "threshold": postprocessing.threshold,
        "smallest": postprocessing.min_component_fraction,
        "fullSize": [image.shape[1], image.shape[0]],
        "width": width,
        "height": height,
        "image": f"data:image/png;base64,{_base64(_png(levels))}",
        "probability": _base64(zlib.compress(small.tobytes(), 9)),
        "truth": None if truth is None else _base64(zlib.compress(truth.tobytes(), 9)),
    }


def shrink_mask(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    """Shrinks a mask, (H, W) bool or 0 and 1, to (height, width) bool: the pixels of which at least half is mask.

    If no pixel reaches half, the one with the largest share is kept, so that no tumour disappears.
    """
    share = _shrink(mask, width, height)
    return share >= (min(0.5, share.max()) if mask.any() else 0.5)


def _shrink(values: np.ndarray, width: int, height: int) -> np.ndarray:
    """Averages (H, W) over the area of each pixel of (height, width) float32."""
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize((width, height), Image.Resampling.BOX))


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(255 * values.clip(0, 1)).astype(np.uint8)


def _png(levels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(levels).save(content, format="PNG", optimize=True)
    return content.getvalue()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
