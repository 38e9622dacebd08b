"""The scores of slices: a row each, their file, and what they are in sum.

Every function here takes rows, wherever they come from: one part of one run, or all folds of a cross-validation.
"""

import csv
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from brainseg_jax import metrics
from brainseg_jax.errors import InputError
from brainseg_jax.figshare_brain_tumor.mat_file import LABELS
from brainseg_jax.input_pipeline import Record
from brainseg_jax.slice_table import family_of
from brainseg_jax.statistics import bootstrap_mean, patient_weights
from brainseg_jax.surface import compare_surfaces

# Tumour sizes as shares of the picture: upper ends, and names. The dataset's median is 1.3 %.
SIZES: Mapping[str, float] = {"under 0.5 %": 0.005, "0.5 to 1 %": 0.01, "1 to 2 %": 0.02, "over 2 %": math.inf}
METRICS = ("dice", "iou", "precision", "recall", "hd95_mm", "assd_mm", "nsd_2mm")


@dataclass(frozen=True)
class SliceScore:
    """One row of per_slice_<split>.csv; pixel counts are at the slice's own size. See metrics.py and surface.py."""

    slice_id: int
    patient_id: str
    family: str
    label: str
    picture_pixels: int
    tumour_pixels: int
    predicted_pixels: int
    dice: float
    iou: float
    precision: float
    recall: float
    hd95_mm: float
    assd_mm: float
    nsd_2mm: float

    @property
    def size(self) -> str:
        """The tumour's size, one of `SIZES`."""
        share = self.tumour_pixels / self.picture_pixels
        return next(name for name, end in SIZES.items() if share < end)


def score_slice(record: Record, predicted_mask: np.ndarray, *, patient_id: str, label: str) -> SliceScore:
    """Compares a predicted mask, (H, W) bool, with the slice's own."""
    true_mask = record.mask.astype(bool)
    overlap = metrics.count_overlap(predicted_mask[None], true_mask[None])
    surface = compare_surfaces(predicted_mask, true_mask, spacing_mm=record.spacing_mm)
    return SliceScore(
        slice_id=record.slice_id,
        patient_id=patient_id,
        family=family_of(patient_id),
        label=label,
        picture_pixels=true_mask.size,
        tumour_pixels=int(overlap.true[0]),
        predicted_pixels=int(overlap.predicted[0]),
        dice=float(metrics.dice(overlap)[0]),
        iou=float(metrics.intersection_over_union(overlap)[0]),
        precision=float(metrics.precision(overlap)[0]),
        recall=float(metrics.recall(overlap)[0]),
        hd95_mm=surface.hd95_mm,
        assd_mm=surface.assd_mm,
        nsd_2mm=surface.nsd,
    )


def summarize(scores: Sequence[SliceScore]) -> dict[str, Any]:
    """Counts, means and their 95 % intervals (see statistics.py).

    Returns:
      `slices`, `patients` (ids), `families`; of each of `METRICS` the mean over the slices (of the last three over
      those whose spacing is known, None where it is of none); `dice_median`; `dice_patient_mean`, the mean over the
      patient ids of their means; `share_missed`, the share of the slices with Dice 0; `by_class` and `by_size`: for
      each of `LABELS` and `SIZES` `slices`, `families`, `dice`, `dice_median`, `share_missed` (the last three None
      where there is no slice); `dice_by_class`. `intervals` repeats the keys of the means with [low, high], None where
      there are too few families (see statistics.py).
    """
    values = {name: np.array([getattr(score, name) for score in scores], float) for name in METRICS}
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


def describe(summary: Mapping[str, Any]) -> str:
    """The main numbers of a summary in a line."""
    classes = ", ".join(f"{name} {dice:.3f}" for name, dice in summary["dice_by_class"].items() if dice is not None)
    interval = summary["intervals"]["dice"]
    within = "" if interval is None else ", 95 % interval {:.3f} to {:.3f}".format(*interval)
    return (
        f"mean Dice {summary['dice']:.3f} (median {summary['dice_median']:.3f}{within}; {classes}; "
        f"{summary['share_missed']:.1%} missed) on {summary['slices']} slices of {summary['families']} families, "
        f"protocol {summary['protocol']!r}"
    )


def write_scores(path: Path, scores: Sequence[SliceScore]) -> None:
    """Writes a CSV file, a row a slice."""
    unfinished = path.with_name(path.name + ".unfinished")
    with unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(SliceScore)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(score) for score in scores)
    unfinished.replace(path)


def read_scores(path: Path) -> list[SliceScore]:
    """Reads what `write_scores` wrote.

    Raises:
      InputError: the file is missing, an older version wrote it, or a value is not a number.
    """
    types = {field.name: field.type for field in dataclasses.fields(SliceScore)}
    try:
        with path.open(newline="") as file:
            return [
                SliceScore(**{name: convert(row[name]) for name, convert in types.items()})  # type: ignore[operator]
                for row in csv.DictReader(file)
            ]
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: score the run with scripts/evaluate.py first.") from error
    except KeyError as error:
        raise InputError(
            f"{path} has no column {error}: an older version wrote it; score the run again with scripts/evaluate.py."
        ) from error
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): score the run again with scripts/evaluate.py.") from error


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
