"""Which of two runs is better on the same slices, and by how much: differences slice by slice, second minus first."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainseg_jax.data.dataset import Dataset, Sample
from brainseg_jax.data.dataset_info import LABELS
from brainseg_jax.data.preprocessing import scale_image
from brainseg_jax.errors import InputError
from brainseg_jax.evaluation.scores import SIZES, SliceScore
from brainseg_jax.inference.predictor import Predictor, predict_slices
from brainseg_jax.metrics.bootstrap import bootstrap_mean
from brainseg_jax.metrics.slice_metrics import METRICS
from brainseg_jax.plots.segmentations import prediction_comparison
from brainseg_jax.utils import markdown
from brainseg_jax.workdir.files import read_splits

ROWS = (*METRICS, "share_missed")
LOWER_IS_BETTER = {"hd95_mm", "assd_mm", "share_missed"}


def pair_scores(first: Sequence[SliceScore], second: Sequence[SliceScore]) -> list[tuple[SliceScore, SliceScore]]:
    """Pairs the rows of the same slices.

    Raises:
      InputError: one has a slice that the other lacks, or they disagree on a tumour.
    """
    by_id = {score.slice_id: score for score in second}
    if missing := sorted(by_id.keys() ^ {score.slice_id for score in first}):
        raise InputError(
            f"{len(missing)} slices, {missing[0]} for one, were scored in only one of the two folders: compare runs "
            "of one protocol, fold and dataset."
        )
    pairs = [(score, by_id[score.slice_id]) for score in first]
    for one, other in pairs:
        if (one.patient_id, one.tumour_pixels) != (other.patient_id, other.tumour_pixels):
            raise InputError(
                f"Slice {one.slice_id} has another patient or another tumour in the second folder: compare runs of "
                "one dataset."
            )
    return pairs


def compare_scores(first: Sequence[SliceScore], second: Sequence[SliceScore]) -> dict[str, Any]:
    """Computes paired differences with 95 % intervals by bootstrap over families.

    Returns:
      `slices`, `families`; for each of `METRICS` and `share_missed` a dict of `first`, `second` (means over
      the slices of which both are known), `difference` (second minus first), `interval` ([low, high], None where
      there are too few families, see metrics/bootstrap.py); `by_class` and `by_size`: the same of Dice and its
      `slices`; all None where there is no slice.

    Raises:
      InputError: see `pair_scores`.
    """
    pairs = pair_scores(first, second)
    families = np.array([one.family for one, _ in pairs])
    labels = np.array([one.label for one, _ in pairs])
    sizes = np.array([one.size for one, _ in pairs])
    values = {name: np.array([[score.metrics[name] for score in pair] for pair in pairs], float) for name in METRICS}
    values["share_missed"] = (values["dice"] == 0).astype(float)

    def of_group(chosen: np.ndarray) -> dict[str, Any]:
        return {"slices": int(chosen.sum()), **_difference(values["dice"][chosen], families[chosen])}

    return {
        "slices": len(pairs),
        "families": len(set(families.tolist())),
        **{name: _difference(both, families) for name, both in values.items()},
        "by_class": {label: of_group(labels == label) for label in LABELS},
        "by_size": {size: of_group(sizes == size) for size in SIZES},
    }


def comparison_table(comparison: dict[str, Any], *, names: tuple[str, str]) -> str:
    """Returns a Markdown table of a comparison.

    Args:
      comparison: see `compare_scores`.
      names: of the two runs.

    Returns:
      A row a metric, with an arrow in the direction of better values; the last column names the run that is better
      where the interval of the difference leaves no doubt.
    """
    rows = [
        *(_row(name, comparison[name], names, lower_is_better=name in LOWER_IS_BETTER) for name in ROWS),
        *(_row(f"dice, {label}", comparison["by_class"][label], names) for label in LABELS),
        *(_row(f"dice, tumour {size} of the image", comparison["by_size"][size], names) for size in SIZES),
    ]
    return markdown.table(("", *names, "Difference", "95 % interval", "Better"), [row for row in rows if row])


def short_names(first: Path, second: Path) -> tuple[str, str]:
    """Returns the folders' own names, with those above them as far as is needed to tell them apart."""
    parts = first.absolute().parts, second.absolute().parts
    length = next((n for n in range(1, min(map(len, parts))) if parts[0][-n:] != parts[1][-n:]), 1)
    return "/".join(parts[0][-length:]), "/".join(parts[1][-length:])


def most_different(
    first: Sequence[SliceScore], second: Sequence[SliceScore], *, count: int
) -> list[tuple[SliceScore, SliceScore]]:
    """Returns the pairs of rows whose Dice differ most, largest difference first.

    Raises:
      InputError: see `pair_scores`.
    """
    return sorted(pair_scores(first, second), key=lambda pair: -abs(pair[1].dice - pair[0].dice))[:count]


def draw_most_different(
    directories: tuple[Path, Path], different: Sequence[tuple[SliceScore, SliceScore]], path: Path
) -> None:
    """Draws slices with the masks of both runs side by side.

    Args:
      directories: the workdirs of both, or of their cross-validations, with checkpoints.
      different: rows of both on the slices, see `most_different`.
      path: PNG file to write.

    Raises:
      InputError: a run's checkpoint or dataset is missing.
    """
    slice_ids = [one.slice_id for one, _ in different]
    first, second = (_predict(directory, slice_ids) for directory in directories)
    names = short_names(*directories)
    prediction_comparison(
        [scale_image(first[slice_id][0].image) for slice_id in slice_ids],
        [first[slice_id][0].mask for slice_id in slice_ids],
        {
            name: [found[slice_id][1] for slice_id in slice_ids]
            for name, found in zip(names, (first, second), strict=True)
        },
        {name: [pair[row].dice for pair in different] for row, name in enumerate(names)},
        path,
        captions=[f"{one.slice_id}, {one.label}" for one, _ in different],
        title="Slices on which the two differ most",
    )


def _predict(directory: Path, slice_ids: Sequence[int]) -> dict[int, tuple[Sample, np.ndarray]]:
    """Predicts the sample and the mask of each slice, by the run that was scored on it."""
    runs = sorted(directory.glob("fold_*")) or [directory]
    result = {}
    for run in runs:
        of_this_run = slice_ids if len(runs) == 1 else sorted(set(slice_ids) & set(read_splits(run)["test"]))
        if of_this_run:
            predictor = Predictor.from_workdir(run)
            dataset = Dataset.from_config(predictor.config.data)
            for record, probabilities in predict_slices(predictor, dataset, np.array(of_this_run)):
                result[record.slice_id] = (record, predictor.postprocessing.mask(probabilities))
    return result


def _difference(values: np.ndarray, families: np.ndarray) -> dict[str, Any]:
    known = ~np.isnan(values).any(axis=1)
    values, families = values[known], families[known]
    if not len(values):
        return {"first": None, "second": None, "difference": None, "interval": None}
    differences = values[:, 1] - values[:, 0]
    low, high = bootstrap_mean(differences, families)
    return {
        "first": float(values[:, 0].mean()),
        "second": float(values[:, 1].mean()),
        "difference": float(differences.mean()),
        "interval": None if np.isnan(low) else [low, high],
    }


def _row(
    name: str, values: dict[str, Any], names: tuple[str, str], *, lower_is_better: bool = False
) -> tuple[str, ...]:
    if values["difference"] is None:
        return ()
    interval, better = values["interval"], "–"
    if interval is not None and (interval[0] > 0 or interval[1] < 0):
        better = names[(interval[0] > 0) != lower_is_better]
    return (
        f"{name} {'↓' if lower_is_better else '↑'}",
        f"{values['first']:.3f}",
        f"{values['second']:.3f}",
        f"{values['difference']:+.3f}",
        "–" if interval is None else "{:+.3f} to {:+.3f}".format(*interval),
        better,
    )
