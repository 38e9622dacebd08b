"""Reads evaluation_<split>.json, which evaluate.py and cross_validate.py write."""

from pathlib import Path
from typing import Any

from brainseg_jax.errors import InputError
from brainseg_jax.evaluation.scores import SIZES
from brainseg_jax.metrics.calibration import BINS
from brainseg_jax.metrics.slice_metrics import METRICS
from brainseg_jax.utils.files import read_json

# See utils/json_shape.py. Evaluations of older versions lack some of the keys that end in "?".
_MEAN, _INTERVAL = (float, None), ([float, float], None)
_MEANS = (*METRICS, "dice_patient_mean", "share_missed", "false_alarm_share")
_GROUP = {"slices": int, "families": int, "dice": _MEAN, "dice_median": _MEAN, "share_missed": _MEAN}
_GROUP_INTERVALS = {"dice": _INTERVAL, "share_missed": _INTERVAL}
_ENVIRONMENT = {"commit?": (str, None), "versions?": {str: str}}
_MASKS = {"threshold?": float, "min_component_fraction?": float, "tta_flip?": bool, "checkpoint_epoch?": (int, [int])}
_SHAPE: dict[Any, Any] = {
    **dict.fromkeys(("split", "dataset", "trained_on", "protocol", "network"), str),
    **dict.fromkeys(("slices", "patients", "families", "start_filters", "image_size"), int),
    **{f"{name}?": _MEAN for name in (*_MEANS, "false_positive_pixels")},
    "dice": _MEAN,
    "dice_median": _MEAN,
    "share_missed": _MEAN,
    "slices_without_tumour?": int,
    "by_class": {str: _GROUP},
    "by_size": dict.fromkeys(SIZES, _GROUP),
    "dice_by_class": {str: _MEAN},
    "intervals": {
        **{f"{name}?": _INTERVAL for name in _MEANS},
        "dice": _INTERVAL,
        "share_missed": _INTERVAL,
        "by_class": {str: _GROUP_INTERVALS},
        "by_size": dict.fromkeys(SIZES, _GROUP_INTERVALS),
    },
    "seen?": {"slices": int, "families": int, "dice": _MEAN, "other_slices": int, "other_dice": _MEAN},
    "calibration": {
        "pixels": [int] * BINS,
        "mean_probability": [_MEAN] * BINS,
        "tumour_share": [_MEAN] * BINS,
        "expected_error": _MEAN,
        "expected_error_uncertain": _MEAN,
    },
    "fold": (int, None),
    "seed": (int, str),
    "members?": [str],
    "trained_with": _ENVIRONMENT,
    **_ENVIRONMENT,
    "by_fold?": {str: {**_MASKS, "slices": int, "families": int, "dice": _MEAN}},
    **_MASKS,
}
# Keys that need another key beside them.
_TOGETHER = {"threshold": "min_component_fraction", "false_alarm_share": "slices_without_tumour"}


def read_evaluation(path: Path) -> dict[str, Any]:
    """Reads an evaluation; see `evaluate` for what it holds.

    Raises:
      InputError: the file is missing or damaged.
    """
    evaluation: dict[str, Any] = read_json(path, _SHAPE)
    intervals = evaluation["intervals"]
    lost = [f"intervals.{name}" for name in _MEANS if name in evaluation and name not in intervals]
    lost += [f"intervals.by_class.{name}" for name in evaluation["by_class"] if name not in intervals["by_class"]]
    lost += [f"by_class.{name}" for name in intervals["by_class"] if name not in evaluation["by_class"]]
    lost += [other for name, other in _TOGETHER.items() if name in evaluation and other not in evaluation]
    if not any(name in evaluation for name in ("threshold", "by_fold")):
        lost.append("threshold")
    bins = zip(*(evaluation["calibration"][name] for name in ("mean_probability", "tumour_share")), strict=True)
    if any((mean is None) != (share is None) for mean, share in bins):
        lost.append("calibration.mean_probability of a bin, or its tumour_share,")
    if lost:
        raise InputError(f"{path} is damaged ({lost[0]} is missing): score the run again.")
    return evaluation
