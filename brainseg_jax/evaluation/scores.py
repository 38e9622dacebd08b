"""The scores of slices: a row each, their file, and what they are in sum.

Every function here takes rows, wherever they come from: one part of one run, or all folds of a cross-validation.
"""

import csv
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from brainseg_jax.data.dataset import Record
from brainseg_jax.data.dataset_info import family_of
from brainseg_jax.errors import InputError
from brainseg_jax.metrics.overlap import count_overlap, dice, intersection_over_union, precision, recall
from brainseg_jax.metrics.surface_distance import compare_surfaces

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
    overlap = count_overlap(predicted_mask[None], true_mask[None])
    surface = compare_surfaces(predicted_mask, true_mask, spacing_mm=record.spacing_mm)
    return SliceScore(
        slice_id=record.slice_id,
        patient_id=patient_id,
        family=family_of(patient_id),
        label=label,
        picture_pixels=true_mask.size,
        tumour_pixels=int(overlap.true[0]),
        predicted_pixels=int(overlap.predicted[0]),
        dice=float(dice(overlap)[0]),
        iou=float(intersection_over_union(overlap)[0]),
        precision=float(precision(overlap)[0]),
        recall=float(recall(overlap)[0]),
        hd95_mm=surface.hd95_mm,
        assd_mm=surface.assd_mm,
        nsd_2mm=surface.nsd,
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
