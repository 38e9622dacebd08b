"""The scores of single slices, and the CSV file that holds them, a row per slice."""

import csv
import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from brainseg_jax.data.dataset import Sample
from brainseg_jax.errors import InputError, shorten
from brainseg_jax.metrics.slice_metrics import METRICS, MaskPair
from brainseg_jax.utils.files import write_csv

# Tumour sizes as shares of the image: names and upper ends. The dataset's median is 1.3 %.
SIZES: Mapping[str, float] = {"under 0.5 %": 0.005, "0.5 to 1 %": 0.01, "1 to 2 %": 0.02, "over 2 %": math.inf}


@dataclasses.dataclass(frozen=True)
class SliceScore:
    """The scores of one slice: a row of per_slice_<split>.csv."""

    slice_id: int
    patient_id: str
    family: str  # of the patient
    label: str  # the class of the tumour
    image_pixels: int  # at the slice's own size
    tumour_pixels: int  # of the true mask
    predicted_pixels: int  # of the predicted mask
    metrics: Mapping[str, float]  # a value for each of `METRICS`, NaN where it is not known or there is no tumour

    @property
    def dice(self) -> float:
        """The Dice of the predicted and the true mask."""
        return self.metrics["dice"]

    @property
    def size(self) -> str:
        """The tumour's share of the image, one of `SIZES`; "none" without a tumour."""
        if not self.tumour_pixels:
            return "none"
        share = self.tumour_pixels / self.image_pixels
        return next(name for name, end in SIZES.items() if share < end)


COLUMNS = {field.name: field.type for field in dataclasses.fields(SliceScore) if field.name != "metrics"}


def score_slice(sample: Sample, predicted_mask: np.ndarray, *, patient_id: str, family: str, label: str) -> SliceScore:
    """Compares a predicted mask, (H, W) bool, with the true mask of the slice.

    Without a tumour every metric is NaN, since overlap is not defined then; `predicted_pixels` still counts what was
    predicted.
    """
    pair = MaskPair(predicted_mask, sample.mask.astype(bool), sample.spacing_mm)
    return SliceScore(
        slice_id=sample.slice_id,
        patient_id=patient_id,
        family=family,
        label=label,
        image_pixels=pair.true.size,
        tumour_pixels=int(pair.true.sum()),
        predicted_pixels=int(pair.predicted.sum()),
        metrics={name: compute(pair) if pair.true.any() else math.nan for name, compute in METRICS.items()},
    )


def write_scores(path: Path, scores: Sequence[SliceScore]) -> None:
    """Writes a CSV file, a row per slice."""
    rows = ({name: getattr(score, name) for name in COLUMNS} | dict(score.metrics) for score in scores)
    write_csv(path, [*COLUMNS, *METRICS], rows)


def read_scores(path: Path) -> list[SliceScore]:
    """Reads a file of `write_scores`; a metric that has no column is NaN.

    Raises:
      InputError: the file or a column is missing, or a value is not a number.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            scores = [_parse(row) for row in csv.DictReader(file)]
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: score the run with scripts/evaluate.py first.") from error
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        detail = shorten(error)
        problem = f"has no column {detail}" if isinstance(error, KeyError) else f"is damaged ({detail})"
        raise InputError(f"{path} {problem}: score the run again with scripts/evaluate.py.") from error
    if not scores:
        raise InputError(f"{path} has no row: score the run again with scripts/evaluate.py.")
    if twice := [slice_id for slice_id, rows in Counter(score.slice_id for score in scores).items() if rows > 1]:
        raise InputError(f"{path} has slice {twice[0]} twice: score the run again with scripts/evaluate.py.")
    return scores


def _parse(row: Mapping[str, str]) -> SliceScore:
    """Returns a row of the file.

    Raises:
      KeyError: a column is missing.
      ValueError: a value is not a number, or is impossible for a slice.
      TypeError: the row is too short.
    """
    score = SliceScore(
        **{name: convert(row[name]) for name, convert in COLUMNS.items()},  # type: ignore[operator]
        metrics={"dice": float(row["dice"])} | {name: float(row.get(name, "nan")) for name in METRICS},
    )
    pixels, has_tumour = score.image_pixels, score.tumour_pixels > 0
    if not (0 < pixels < 2**40 and 0 <= score.tumour_pixels <= pixels and 0 <= score.predicted_pixels <= pixels):
        raise ValueError(f"slice {score.slice_id} has {score.tumour_pixels} tumour pixels of {pixels}")
    if has_tumour != (0 <= score.dice <= 1):
        raise ValueError(f"slice {score.slice_id} has a Dice of {score.dice} and {score.tumour_pixels} tumour pixels")
    if not 0 <= score.slice_id < 2**63 or not score.label:
        raise ValueError(f"a row has the id {score.slice_id} and the class {score.label!r}")
    return score
