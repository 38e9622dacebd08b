"""Finds the slices on which a network was trained or chosen: their scores say nothing about new patients."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainseg_jax.data.dataset import Dataset
from brainseg_jax.data.dataset_info import families_of
from brainseg_jax.data.splits import MUST_NOT_SHARE
from brainseg_jax.errors import InputError
from brainseg_jax.evaluation.scores import SliceScore
from brainseg_jax.workdir.files import read_config, read_patients, read_splits
from brainseg_jax.workdir.weights import find_weights

TEACHING = ("train", "validation")  # validation chooses the epoch and the threshold


def find_seen(runs: Sequence[Path], dataset: Dataset) -> set[int]:
    """Finds the slices of a dataset on which runs, or the runs that they started from, were trained or chosen.

    Args:
      runs: workdirs, or folders of weights.
      dataset: the dataset that is scored.

    Returns:
      The ids of the slices that were in training or validation and, where the protocol keeps patients or families
      apart, of all slices of their patients or families. A run on a dataset of another kind adds none.
    """
    metadata, seen = dataset.metadata, set[int]()
    for run in _with_ancestors(runs):
        config = read_config(run)
        if config.data.dataset != dataset.name:
            continue
        splits, patients = read_splits(run), read_patients(run)
        slice_ids = {slice_id for split in TEACHING for slice_id in splits[split]}
        patient_ids = {patient_id for split in TEACHING for patient_id in patients[split]}
        apart = MUST_NOT_SHARE[config.split.protocol]
        families = set(families_of([*patient_ids], dataset=dataset.name)) if "families" in apart else set()
        for slice_id, patient_id, family in zip(
            metadata.slice_ids.tolist(), metadata.patient_ids, metadata.families, strict=True
        ):
            is_known_patient = patient_id in patient_ids
            if (is_known_patient and (slice_id in slice_ids or apart)) or family in families:
                seen.add(slice_id)
    return seen


def describe_seen(scores: Sequence[SliceScore], seen: set[int]) -> dict[str, Any]:
    """Counts the scored slices that are among `seen`, and gives the mean Dice of these and of the others.

    Returns:
      `slices`, `families`, `dice`, `other_slices` and `other_dice`; a mean is None where no slice has a Dice.
    """
    known = [score for score in scores if score.slice_id in seen]
    others = [score for score in scores if score.slice_id not in seen]
    return {
        "slices": len(known),
        "families": len({score.family for score in known}),
        "dice": _mean_dice(known),
        "other_slices": len(others),
        "other_dice": _mean_dice(others),
    }


def warn_of_seen(summary: Mapping[str, Any]) -> str:
    """Returns a warning if a summary mixes slices that the network has seen with others; "" otherwise."""
    seen = summary.get("seen", {"slices": 0})
    if not seen["slices"] or summary["split"] in TEACHING:
        return ""
    dice, other = ("–" if value is None else f"{value:.3f}" for value in (seen["dice"], seen["other_dice"]))
    return (
        f"{seen['slices']} of these {summary['slices']} slices ({seen['families']} families) trained or chose this "
        f"network: mean Dice {dice} on them, {other} on the {seen['other_slices']} others, which alone say something "
        "about new patients"
    )


def _with_ancestors(runs: Sequence[Path]) -> Iterator[Path]:
    for run in runs:
        yield run
        if start := read_config(run).train.init_from:
            try:
                ancestor = find_weights(start)
            except InputError:  # it was deleted; it had seen no slice of this run's test split
                continue
            yield from _with_ancestors([ancestor])


def _mean_dice(scores: Sequence[SliceScore]) -> float | None:
    known = [score.dice for score in scores if score.tumour_pixels]
    return float(np.mean(known)) if known else None
