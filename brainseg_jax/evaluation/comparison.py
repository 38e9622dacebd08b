"""Compares two runs on the same slices, slice by slice: differences are second minus first."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainseg_jax.data.dataset import Dataset, Sample
from brainseg_jax.data.dataset_info import LABELS
from brainseg_jax.data.preprocessing import scale_image
from brainseg_jax.errors import InputError
from brainseg_jax.evaluation.scores import SIZES, SliceScore
from brainseg_jax.evaluation.summary import interval
from brainseg_jax.inference.predictor import Predictor, predict_slices
from brainseg_jax.metrics.slice_metrics import METRICS
from brainseg_jax.plots.segmentations import prediction_comparison
from brainseg_jax.utils import markdown
from brainseg_jax.workdir.files import read_splits

LOWER_IS_BETTER = {"hd95_mm", "assd_mm", "share_missed"}


def pair_scores(first: Sequence[SliceScore], second: Sequence[SliceScore]) -> list[tuple[SliceScore, SliceScore]]:
    """Pairs the rows of the same slices.

    Raises:
      InputError: one run has a slice that the other lacks, or they disagree on a slice's patient or tumour.
    """
    by_id = {score.slice_id: score for score in second}
    if missing := sorted(by_id.keys() ^ {score.slice_id for score in first}):
        raise InputError(
            f"{len(missing)} slices, for instance {missing[0]}, were scored in only one of the two folders: compare "
            "runs of one protocol (config.split.protocol), fold and dataset."
        )
    pairs = [(score, by_id[score.slice_id]) for score in first]
    for one, other in pairs:
        if (one.patient_id, one.tumour_pixels) != (other.patient_id, other.tumour_pixels):
            raise InputError(
                f"Slice {one.slice_id} has another patient or another tumour in the second folder: compare runs on the "
                "same dataset."
            )
    return pairs


def compare_scores(first: Sequence[SliceScore], second: Sequence[SliceScore]) -> dict[str, Any]:
    """Computes paired differences with 95 % intervals by bootstrap over families.

    Returns:
      `slices`, `families`; for each of `METRICS` and `share_missed` a dict of `first`, `second` (means over the slices
      for which both runs have a value), `difference` (second minus first), `interval` ([low, high], None where there
      are too few families, see metrics/bootstrap.py); `by_class` and `by_size`: the same of Dice, and its `slices`;
      None where there are none. Slices without a tumour have no values and count in `slices` and `families` alone.

    Raises:
      InputError: see `pair_scores`.
    """
    pairs = pair_scores(first, second)
    families, labels, sizes = (
        np.array([getattr(one, name) for one, _ in pairs]) for name in ("family", "label", "size")
    )
    values = {name: np.array([[score.metrics[name] for score in pair] for pair in pairs], float) for name in METRICS}
    has_tumour = np.array([one.tumour_pixels > 0 for one, _ in pairs])
    values["share_missed"] = np.where(has_tumour[:, None], values["dice"] == 0, np.nan)
    # Score files name only the classes that occur; figshare's three are known and all shown, in their own order.
    classes = LABELS if set(labels) <= set(LABELS) else sorted(set(labels.tolist()))

    def compare_group(chosen: np.ndarray) -> dict[str, Any]:
        chosen = chosen & has_tumour
        return {"slices": int(chosen.sum()), **_difference(values["dice"][chosen], families[chosen])}

    return {
        "slices": len(pairs),
        "families": len(set(families.tolist())),
        **{name: _difference(both, families) for name, both in values.items()},
        "by_class": {label: compare_group(labels == label) for label in classes},
        "by_size": {size: compare_group(sizes == size) for size in SIZES},
    }


def comparison_table(comparison: dict[str, Any], *, names: tuple[str, str]) -> str:
    """Returns a Markdown table of a comparison.

    Args:
      comparison: see `compare_scores`.
      names: of the two runs.

    Returns:
      A row per metric, with an arrow in the direction of better values; the last column names the better run where the
      interval of the difference excludes 0.
    """
    rows = {
        **{name: comparison[name] for name in (*METRICS, "share_missed")},
        **{f"dice, {label}": values for label, values in comparison["by_class"].items()},
        **{f"dice, tumour {size} of the image": comparison["by_size"][size] for size in SIZES},
    }
    cells = [_row(name, values, names) for name, values in rows.items() if values["difference"] is not None]
    return markdown.table(("", *names, "Difference", "95 % interval", "Better"), cells)


def short_names(first: Path, second: Path) -> tuple[str, str]:
    """Returns the names of two folders, each with as many parent folders as are needed to tell them apart."""
    parts = first.absolute().parts, second.absolute().parts
    length = next((n for n in range(1, min(map(len, parts))) if parts[0][-n:] != parts[1][-n:]), 1)
    return "/".join(parts[0][-length:]), "/".join(parts[1][-length:])


def draw_differences(
    directories: tuple[Path, Path], pairs: Sequence[tuple[SliceScore, SliceScore]], path: Path
) -> None:
    """Draws slices with the masks of both runs side by side.

    Args:
      directories: the workdirs of both runs or cross-validations, with checkpoints.
      pairs: the scores of both runs on these slices, see `pair_scores`.
      path: PNG file to write.

    Raises:
      InputError: a run's checkpoint or dataset is missing.
    """
    slice_ids = [one.slice_id for one, _ in pairs]
    first, second = (_predict(directory, slice_ids) for directory in directories)
    names = short_names(*directories)
    prediction_comparison(
        [scale_image(first[slice_id][0].image) for slice_id in slice_ids],
        [first[slice_id][0].mask for slice_id in slice_ids],
        {names[0]: [first[slice_id][1] for slice_id in slice_ids]}
        | {names[1]: [second[slice_id][1] for slice_id in slice_ids]},
        {name: [pair[row].dice for pair in pairs] for row, name in enumerate(names)},
        path,
        captions=[f"{one.slice_id}, {one.label}" for one, _ in pairs],
        title="Slices on which the two differ most",
    )


def _predict(directory: Path, slice_ids: Sequence[int]) -> dict[int, tuple[Sample, np.ndarray]]:
    """Returns sample and predicted mask of each slice; in a cross-validation, by the fold that tests it."""
    runs = sorted(directory.glob("fold_*")) or [directory]
    result = {}
    for run in runs:
        tested = slice_ids if len(runs) == 1 else sorted(set(slice_ids) & set(read_splits(run)["test"]))
        if tested:
            predictor = Predictor.from_workdir(run)
            dataset = Dataset.from_config(predictor.config.data)
            for sample, probabilities in predict_slices(predictor, dataset, np.array(tested)):
                result[sample.slice_id] = (sample, predictor.postprocessing.mask(probabilities))
    return result


def _difference(values: np.ndarray, families: np.ndarray) -> dict[str, Any]:
    known = ~np.isnan(values).any(axis=1)
    if not known.any():
        return dict.fromkeys(("first", "second", "difference", "interval"))
    differences = values[known, 1] - values[known, 0]
    return {
        "first": float(values[known, 0].mean()),
        "second": float(values[known, 1].mean()),
        "difference": float(differences.mean()),
        "interval": interval(differences, families[known]),
    }


def _row(name: str, values: dict[str, Any], names: tuple[str, str]) -> tuple[str, ...]:
    ends, better = values["interval"], "–"
    if ends is not None and (ends[0] > 0 or ends[1] < 0):
        better = names[(ends[0] > 0) != (name in LOWER_IS_BETTER)]
    return (
        f"{name} {'↓' if name in LOWER_IS_BETTER else '↑'}",
        f"{values['first']:.3f}",
        f"{values['second']:.3f}",
        f"{values['difference']:+.3f}",
        "–" if ends is None else "{:+.3f} to {:+.3f}".format(*ends),
        better,
    )
