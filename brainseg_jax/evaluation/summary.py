"""What the scores of many slices are in sum."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from brainseg_jax.data.dataset_info import LABELS
from brainseg_jax.evaluation.scores import SIZES, SliceScore
from brainseg_jax.metrics.bootstrap import bootstrap_mean, patient_weights
from brainseg_jax.metrics.slice_metrics import METRICS


def summarize(scores: Sequence[SliceScore]) -> dict[str, Any]:
    """Computes counts, means and their 95 % intervals (see metrics/bootstrap.py).

    Returns:
      `slices`, `patients` (ids), `families`; of each of `METRICS` the mean over the slices (over
      those of which it is known, None where it is of none); `dice_median`; `dice_patient_mean`, the mean over the
      patient ids of their means; `share_missed`, the share of the slices with Dice 0; `by_class` and `by_size`: for
      each of `LABELS` and `SIZES` `slices`, `families`, `dice`, `dice_median`, `share_missed` (the last three None
      where there is no slice); `dice_by_class`. `intervals` repeats the keys of the means with [low, high], None where
      there are too few families (see metrics/bootstrap.py).
    """
    values = {name: np.array([score.metrics[name] for score in scores], float) for name in METRICS}
    families = np.array([score.family for score in scores])
    missed = (values["dice"] == 0).astype(float)
    weights = patient_weights([score.patient_id for score in scores])
    labels = np.array([score.label for score in scores])
    sizes = np.array([score.size for score in scores])
    groups = {
        "by_class": {label: labels == label for label in LABELS},
        "by_size": {size: sizes == size for size in SIZES},
    }
    intervals: dict[str, Any] = {name: _interval(values[name], families) for name in METRICS}
    intervals["dice_patient_mean"] = _interval(values["dice"], families, weights)
    intervals["share_missed"] = _interval(missed, families)
    for kind, members in groups.items():
        intervals[kind] = {
            name: {
                "dice": _interval(values["dice"][chosen], families[chosen]),
                "share_missed": _interval(missed[chosen], families[chosen]),
            }
            for name, chosen in members.items()
        }
    by_class, by_size = (
        {name: _group(values["dice"][chosen], families[chosen]) for name, chosen in members.items()}
        for members in groups.values()
    )
    return {
        "slices": len(scores),
        "patients": len({score.patient_id for score in scores}),
        "families": len(set(families.tolist())),
        **{name: _mean(values[name]) for name in METRICS},
        "dice_median": float(np.median(values["dice"])),
        "dice_patient_mean": float(np.average(values["dice"], weights=weights)),
        "share_missed": float(missed.mean()),
        "dice_by_class": {name: found["dice"] for name, found in by_class.items()},
        "by_class": by_class,
        "by_size": by_size,
        "intervals": intervals,
    }


def pooled_dice(scores: Sequence[SliceScore]) -> float:
    """Computes the Dice of all pixels of all slices together, in [0, 1]: large tumours count more than small ones.

    Twice the shared pixels over the true and the predicted ones; the shared ones follow from each slice's Dice.

    Args:
      scores: one or more, of which one has a true or a predicted pixel.
    """
    total = np.array([score.tumour_pixels + score.predicted_pixels for score in scores])
    shared = np.rint(np.array([score.dice for score in scores]) * total / 2)
    return float(2 * shared.sum() / total.sum())


def describe(summary: Mapping[str, Any]) -> str:
    """Returns the main numbers of a summary in a line."""
    classes = ", ".join(f"{name} {dice:.3f}" for name, dice in summary["dice_by_class"].items() if dice is not None)
    interval = summary["intervals"]["dice"]
    within = "" if interval is None else ", 95 % interval {:.3f} to {:.3f}".format(*interval)
    return (
        f"mean Dice {summary['dice']:.3f} (median {summary['dice_median']:.3f}{within}; {classes}; "
        f"{summary['share_missed']:.1%} missed) on {summary['slices']} slices of {summary['families']} families, "
        f"protocol {summary['protocol']!r}"
    )


def _interval(values: np.ndarray, families: np.ndarray, weights: np.ndarray | None = None) -> list[float] | None:
    known = ~np.isnan(values)
    weights = None if weights is None else weights[known]
    low, high = bootstrap_mean(values[known], families[known], weights=weights)
    return None if math.isnan(low) else [low, high]


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None


def _group(dice: np.ndarray, families: np.ndarray) -> dict[str, Any]:
    return {
        "slices": int(dice.size),
        "families": len(set(families.tolist())),
        "dice": float(dice.mean()) if dice.size else None,
        "dice_median": float(np.median(dice)) if dice.size else None,
        "share_missed": float((dice == 0).mean()) if dice.size else None,
    }
