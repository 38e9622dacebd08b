"""Scoring of a trained network, slice by slice, each at its own size."""

import csv
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import jax
import numpy as np

from brainseg_jax import figures, metrics, splits, workdir
from brainseg_jax.environment import describe_environment
from brainseg_jax.errors import InputError
from brainseg_jax.figshare_brain_tumor.mat_file import LABELS
from brainseg_jax.input_pipeline import Dataset, Record, scale_image
from brainseg_jax.predict import Predictor
from brainseg_jax.slice_table import family_of

EXAMPLES_SHOWN = 4  # slices in each figure of predictions
BATCH_SIZE = 16


@dataclass(frozen=True)
class SliceScore:
    """One row of per_slice_<split>.csv; pixel counts are at the slice's own size."""

    slice_id: int
    patient_id: str
    family: str
    label: str
    tumour_pixels: int
    predicted_pixels: int
    dice: float
    iou: float


def evaluate(directory: Path, *, split: str, data_dir: str, output: Path) -> dict[str, Any]:
    """Scores the best checkpoint of a run.

    Args:
      directory: the run's workdir.
      split: "train", "validation", "test" or "all".
      data_dir: another prepared dataset, of which "all" is scored; "" for the one that the run was trained with.
      output: folder for evaluation_<split>.json, per_slice_<split>.csv and the figures.

    Returns:
      What evaluation_<split>.json holds.

    Raises:
      InputError: no run, no dataset, an unknown split, or a split other than "all" of another dataset.
    """
    if split not in (*splits.PARTS, "all"):
        raise InputError(f"--split is {split!r}: set it to one of {', '.join(splits.PARTS)}, all.")
    if data_dir and split != "all":
        raise InputError(f"--split={split} is a part of the run's own dataset: add --split=all to score {data_dir}.")
    config = workdir.read_config(directory)
    predictor = Predictor(directory)
    dataset = _open(config, data_dir)
    table = dataset.table
    slice_ids = table.slice_ids if split == "all" else np.array(workdir.read_splits(directory)[split])
    threshold = config.evaluation.threshold

    scores = []
    for record, probabilities in predict_records(predictor, dataset, slice_ids):
        row = int(np.searchsorted(table.slice_ids, record.slice_id))
        scores.append(
            score_slice(
                record,
                probabilities > threshold,
                patient_id=table.patient_ids[row],
                label=LABELS[int(table.labels[row]) - 1],
            )
        )
    summary = {
        "split": split,
        "dataset": f"{dataset.name} in {data_dir}" if data_dir else dataset.name,
        "trained_on": config.data.dataset,
        **summarize(scores),
        "threshold": threshold,
        "protocol": config.split.protocol,
        "fold": None if config.split.protocol == "slice" else config.split.fold,
        "seed": config.seed,
        "network": config.model.name,
        "start_filters": config.model.start_filters,
        "image_size": config.data.image_size,
        "checkpoint_epoch": predictor.epoch,
        **describe_environment(devices=jax.local_device_count()),
        "trained_with": workdir.read_environment(directory),
    }
    output.mkdir(parents=True, exist_ok=True)
    write_scores(output / f"per_slice_{split}.csv", scores)
    (output / f"evaluation_{split}.json").write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    _draw(predictor, dataset, scores, threshold, output / "figures", split)
    return summary


def predict_records(
    predictor: Predictor, dataset: Dataset, slice_ids: np.ndarray
) -> Iterator[tuple[Record, np.ndarray]]:
    """Reads slices, predicts them in batches and gives each with its probabilities, (H, W) at its own size."""
    records = dataset.read(slice_ids)
    while batch := list(itertools.islice(records, BATCH_SIZE)):
        yield from zip(batch, predictor([record.image for record in batch]), strict=True)


def score_slice(record: Record, predicted_mask: np.ndarray, *, patient_id: str, label: str) -> SliceScore:
    """Compares a predicted mask, (H, W) bool, with the slice's own."""
    overlap = metrics.count_overlap(predicted_mask[None], record.mask[None])
    return SliceScore(
        slice_id=record.slice_id,
        patient_id=patient_id,
        family=family_of(patient_id),
        label=label,
        tumour_pixels=int(overlap.true[0]),
        predicted_pixels=int(overlap.predicted[0]),
        dice=float(metrics.dice(overlap)[0]),
        iou=float(metrics.intersection_over_union(overlap)[0]),
    )


def summarize(scores: Sequence[SliceScore]) -> dict[str, Any]:
    """Counts and means over the slices.

    Returns:
      `slices`, `patients`, `families`; `dice` and `iou` (means over the slices), `dice_median`, `dice_by_class`
      (None for a class without slices), `share_missed` (share of the slices with Dice 0).
    """
    dice = np.array([score.dice for score in scores])
    labels = np.array([score.label for score in scores])
    return {
        "slices": len(scores),
        "patients": len({score.patient_id for score in scores}),
        "families": len({score.family for score in scores}),
        "dice": float(dice.mean()),
        "dice_median": float(np.median(dice)),
        "iou": float(np.mean([score.iou for score in scores])),
        "dice_by_class": {
            label: float(dice[labels == label].mean()) if (labels == label).any() else None for label in LABELS
        },
        "share_missed": float((dice == 0).mean()),
    }


def write_scores(path: Path, scores: Sequence[SliceScore]) -> None:
    """Writes a CSV file, a row a slice."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(SliceScore)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(score) for score in scores)


def _open(config: Any, data_dir: str) -> Dataset:
    if not data_dir:
        return Dataset(config.data.data_dir, config=config.data.dataset)
    # Another dataset may be of the other kind: a network of drawn slices scored on real ones, or the reverse.
    try:
        return Dataset(data_dir, config=config.data.dataset)
    except InputError:
        other = "phantom" if config.data.dataset == "figshare" else "figshare"
        return Dataset(data_dir, config=other)


def _draw(
    predictor: Predictor, dataset: Dataset, scores: Sequence[SliceScore], threshold: float, folder: Path, split: str
) -> None:
    ranked = sorted(scores, key=lambda score: score.dice)
    shown = min(EXAMPLES_SHOWN, len(ranked))
    middle = (len(ranked) - shown) // 2
    groups = {"worst": ranked[:shown], "median": ranked[middle : middle + shown], "best": ranked[::-1][:shown]}
    for name, group in groups.items():
        slice_ids = np.array([score.slice_id for score in group])
        examples = [
            figures.Example(
                image=scale_image(record.image),
                true_mask=record.mask.astype(bool),
                predicted_mask=probabilities > threshold,
                caption=f"{score.slice_id}, {score.label}",
                dice=score.dice,
            )
            for score, (record, probabilities) in zip(
                group, predict_records(predictor, dataset, slice_ids), strict=True
            )
        ]
        figures.segmentation_examples(
            examples, folder / f"{split}_{name}.png", title=f"{name.capitalize()} slices of {split}"
        )
