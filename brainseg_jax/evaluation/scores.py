"""The scores of slices: a row each, their file, and what they are in sum.

Every function here takes rows, wherever they come from: one part of one run, or all folds of a cross-validation.
"""

import csv
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brainseg_jax.data.dataset import Sample
from brainseg_jax.data.dataset_info import family_of
from brainseg_jax.errors import InputError
from brainseg_jax.metrics.slice_metrics import METRICS, MaskPair

# Tumour sizes as shares of the image: names and upper ends. The dataset's median is 1.3 %.
SIZES: Mapping[str, float] = {"under 0.5 %": 0.005, "0.5 to 1 %": 0.01, "1 to 2 %": 0.02, "over 2 %": math.inf}


@dataclass(frozen=True)
class SliceScore:
    """One row of per_slice_<split>.csv.

    Attributes:
      slice_id: the slice.
      patient_id: its patient.
      family: of the patient's id.
      label: its class, one of `LABELS`.
      image_pixels: pixels of the slice at its own size.
      tumour_pixels: those of the true mask.
      predicted_pixels: those of the predicted one.
      metrics: a value for each of `METRICS`, NaN where it is not known.
    """

    slice_id: int
    patient_id: str
    family: str
    label: str
    image_pixels: int
    tumour_pixels: int
    predicted_pixels: int
    metrics: Mapping[str, float]

    @property
    def dice(self) -> float:
        """The Dice of the two masks."""
        return self.metrics["dice"]

    @property
    def size(self) -> str:
        """The tumour's size, one of `SIZES`."""
        share = self.tumour_pixels / self.image_pixels
        return next(name for name, end in SIZES.items() if share < end)


COLUMNS = {field.name: field.type for field in dataclasses.fields(SliceScore) if field.name != "metrics"}


def score_slice(record: Sample, predicted_mask: np.ndarray, *, patient_id: str, label: str) -> SliceScore:
    """Compares a predicted mask, (H, W) bool, with the slice's own."""
    pair = MaskPair(predicted_mask, record.mask.astype(bool), record.spacing_mm)
    return SliceScore(
        slice_id=record.slice_id,
        patient_id=patient_id,
        family=family_of(patient_id),
        label=label,
        image_pixels=pair.true.size,
        tumour_pixels=int(pair.true.sum()),
        predicted_pixels=int(pair.predicted.sum()),
        metrics={name: compute(pair) for name, compute in METRICS.items()},
    )


def write_scores(path: Path, scores: Sequence[SliceScore]) -> None:
    """Writes a CSV file, a row a slice."""
    unfinished = path.with_name(path.name + ".unfinished")
    with unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *METRICS], lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: getattr(score, name) for name in COLUMNS} | dict(score.metrics) for score in scores)
    unfinished.replace(path)


def read_scores(path: Path) -> list[SliceScore]:
    """Reads what `write_scores` wrote.

    Raises:
      InputError: the file is missing, an older version wrote it, or a value is not a number.
    """
    try:
        with path.open(newline="") as file:
            return [
                SliceScore(
                    **{name: convert(row[name]) for name, convert in COLUMNS.items()},  # type: ignore[operator]
                    # A metric that is younger than the file has no column there.
                    metrics={"dice": float(row["dice"])} | {name: float(row.get(name, "nan")) for name in METRICS},
                )
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
