"""Summarizes the scores of many slices: means, their intervals, classes and tumour sizes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from brainseg_jax.evaluation.scores import SIZES, SliceScore
from brainseg_jax.metrics.bootstrap import bootstrap_mean, patient_weights
from brainseg_jax.metrics.slice_metrics import METRICS


def summarize(scores: Sequence[SliceScore], *, classes: Sequence[str]) -> dict[str, Any]:
    """Computes counts, means and their 95 % intervals.

    Args:
      scores: one or more.
      classes: the names of all classes of the dataset.

    Returns:
      `slices`, `patients` (ids), `families`; for each of `METRICS` the mean over the slices whose value is known (None
      where there is none); `dice_median`; `dice_patient_mean`, the mean over the patient ids of their means;
      `share_missed`, the share of the slices with a tumour whose Dice is 0; where there are slices without a tumour,
      see `_false_alarms`; `dice_by_class`; `by_class` and `by_size`: for each of `classes` and `SIZES` `slices` (with a
      tumour), `families`, `dice`, `dice_median`, `share_missed` (the last three None where there is no slice);
      `intervals`, which repeats the keys of the means with [low, high], see `interval`.
    """
    values = {name: np.array([score.metrics[name] for score in scores], float) for name in METRICS}
    dice = values["dice"]
    has_tumour = np.array([score.tumour_pixels > 0 for score in scores])
    missed = np.where(has_tumour, dice == 0, np.nan)
    families = np.array([score.family for score in scores])
    weights = patient_weights([score.patient_id for score in scores if score.tumour_pixels])
    intervals: dict[str, Any] = {name: interval(values[name], families) for name in METRICS}
    intervals["dice_patient_mean"] = interval(dice[has_tumour], families[has_tumour], weights)
    intervals["share_missed"] = interval(missed, families)
    groups: dict[str, dict[str, Any]] = {"by_class": {}, "by_size": {}}
    for kind, names, of_slices in (
        ("by_class", classes, np.array([score.label for score in scores])),
        ("by_size", SIZES, np.array([score.size for score in scores])),
    ):
        intervals[kind] = {}
        for name in names:
            chosen = (of_slices == name) & has_tumour
            groups[kind][name] = {
                "slices": int(chosen.sum()),
                "families": len(set(families[chosen].tolist())),
                "dice": _mean(dice[chosen]),
                "dice_median": _median(dice[chosen]),
                "share_missed": _mean(missed[chosen]),
            }
            intervals[kind][name] = {
                "dice": interval(dice[chosen], families[chosen]),
                "share_missed": interval(missed[chosen], families[chosen]),
            }
    false_alarms, intervals_of_alarms = _false_alarms(scores)
    return {
        "slices": len(scores),
        "patients": len({score.patient_id for score in scores}),
        "families": len(set(families.tolist())),
        **{name: _mean(values[name]) for name in METRICS},
        "dice_median": _median(dice[has_tumour]),
        "dice_patient_mean": float(np.average(dice[has_tumour], weights=weights)) if weights.size else None,
        "share_missed": _mean(missed),
        **false_alarms,
        "dice_by_class": {name: group["dice"] for name, group in groups["by_class"].items()},
        **groups,
        "intervals": intervals | intervals_of_alarms,
    }


def interval(values: np.ndarray, families: np.ndarray, weights: np.ndarray | None = None) -> list[float] | None:
    """Computes the 95 % interval [low, high] of the mean of the known values by bootstrap over families.

    Args:
      values: (N,) float, NaN where it is not known.
      families: (N,) names.
      weights: (N,) of the mean; None for equal ones.

    Returns:
      The interval; None where there are too few families, see metrics/bootstrap.py.
    """
    known = ~np.isnan(values)
    low, high = bootstrap_mean(values[known], families[known], weights=None if weights is None else weights[known])
    return None if math.isnan(low) else [low, high]


def pooled_dice(scores: Sequence[SliceScore]) -> float:
    """Computes the Dice of all pixels of all slices together, in [0, 1]: large tumours count more than small ones.

    Args:
      scores: one or more, of which one has a true or a predicted pixel.
    """
    # Dice = 2 · shared / (true + predicted), from which the number of shared pixels follows.
    total = np.array([score.tumour_pixels + score.predicted_pixels for score in scores])
    # Where there is no tumour nothing is shared.
    shared = np.rint(np.nan_to_num([score.dice for score in scores]) * total / 2)
    return float(2 * shared.sum() / total.sum())


def describe(summary: Mapping[str, Any]) -> str:
    """Returns the main numbers of a summary in a line."""
    alarms = ""
    if "false_alarm_share" in summary:
        alarms = (
            f", false alarms in {summary['false_alarm_share']:.1%} of the {summary['slices_without_tumour']} without "
            f"tumour ({summary['false_positive_pixels']:.1f} pixels a slice)"
        )
    where = f"{summary['slices']} slices of {summary['families']} families{alarms}, protocol {summary['protocol']!r}"
    if summary["dice"] is None:
        return f"no tumour on {where}"
    classes = ", ".join(f"{name} {dice:.3f}" for name, dice in summary["dice_by_class"].items() if dice is not None)
    ends = summary["intervals"]["dice"]
    within = "" if ends is None else ", 95 % interval {:.3f} to {:.3f}".format(*ends)
    return (
        f"mean Dice {summary['dice']:.3f} (median {summary['dice_median']:.3f}{within}; {classes}; "
        f"{summary['share_missed']:.1%} missed) on {where}"
    )


def _false_alarms(scores: Sequence[SliceScore]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Describes what was predicted in slices without a tumour.

    Returns:
      Two dicts. The first has `slices_without_tumour`; `false_alarm_share`, the share of them in which any pixel was
      predicted; and `false_positive_pixels`, the mean number of predicted pixels over all of them. The second has the
      interval of the share. Both are empty where every slice has a tumour.
    """
    without = [score for score in scores if not score.tumour_pixels]
    if not without:
        return {}, {}
    pixels = np.array([score.predicted_pixels for score in without], float)
    alarms = (pixels > 0).astype(float)
    means = {
        "slices_without_tumour": len(without),
        "false_alarm_share": float(alarms.mean()),
        "false_positive_pixels": float(pixels.mean()),
    }
    return means, {"false_alarm_share": interval(alarms, np.array([score.family for score in without]))}


def _median(values: np.ndarray) -> float | None:
    return float(np.median(values)) if values.size else None


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None
