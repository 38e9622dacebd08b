"""Cross-validation: each slice of the dataset is predicted once, by a network that never saw its patient."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from brainseg_jax.config import flatten
from brainseg_jax.data.dataset import Dataset
from brainseg_jax.data.dataset_info import FOLDS
from brainseg_jax.data.metadata import SliceMetadata
from brainseg_jax.data.splits import make_splits
from brainseg_jax.errors import InputError
from brainseg_jax.evaluation.evaluate import describe_scored_run, evaluate, write_evaluation
from brainseg_jax.evaluation.evaluation_file import read_evaluation
from brainseg_jax.evaluation.scores import read_scores
from brainseg_jax.evaluation.seen_slices import describe_seen
from brainseg_jax.evaluation.summary import summarize
from brainseg_jax.metrics.calibration import Calibration
from brainseg_jax.training.loop import train_and_evaluate
from brainseg_jax.training.preflight import check_no_leakage
from brainseg_jax.utils.files import write_json
from brainseg_jax.utils.provenance import describe_environment
from brainseg_jax.workdir.files import check_resumable, describe_run, read_config

PROTOCOLS = ("official", "family")
FOLD_KEYS = (
    *("slices", "families", "dice", "dice_median", "dice_by_class", "share_missed"),
    *("threshold", "min_component_fraction", "checkpoint_epoch", "trained_with"),
)


def cross_validate(config: ml_collections.ConfigDict, directory: Path) -> dict[str, Any]:
    """Trains and scores the five folds, or resumes an earlier call.

    Args:
      config: see brainseg_jax/config.py; `split.fold` is set for each fold. Where `train.init_from` is the folder of
        another cross-validation, each fold starts from the fold of the same number there.
      directory: gets the workdirs fold_1 … fold_5, config.json, evaluation_cv.json, per_slice_cv.csv and
        figures/cv_scores.png.

    Returns:
      The content of evaluation_cv.json.

    Raises:
      InputError: see `check_folds`; a start from a run that was trained on a fold's patients; or the directory holds
        another run or folds of another config.
    """
    configs = {fold: _select_fold(config, fold) for fold in FOLDS}
    dataset = Dataset.from_config(config.data)
    metadata = dataset.metadata
    if (directory / "checkpoints").exists():
        raise InputError(f"{directory} holds a single run: name another --workdir for the folds.")
    for fold, splits in check_folds(metadata, config).items():  # before hours of training
        check_resumable(directory / f"fold_{fold}", configs[fold], splits, fingerprint=dataset.fingerprint)
        if init_from := configs[fold].train.init_from:
            check_no_leakage(Path(init_from), configs[fold], splits, metadata)
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "config.json", json.loads(config.to_json()))
    for fold, fold_config in configs.items():
        run = directory / f"fold_{fold}"
        evaluation = run / "evaluation_test.json"
        if evaluation.exists() and _differ_only_in_place(read_config(run), fold_config):
            print(f"Fold {fold} is done already.")
            continue
        # Otherwise a kill would leave the scores of an earlier training beside the new checkpoints.
        evaluation.unlink(missing_ok=True)
        (directory / "evaluation_cv.json").unlink(missing_ok=True)
        print(f"Fold {fold}:")
        train_and_evaluate(fold_config, run)
        evaluate(run, split="test", output=run, examples=0)
    return _join_folds(directory)


def check_folds(metadata: SliceMetadata, config: ml_collections.ConfigDict) -> dict[int, dict[str, np.ndarray]]:
    """Returns the slice ids of each split, for each fold.

    Raises:
      InputError: a protocol other than `PROTOCOLS`, a fold without slices, a patient in two splits of a fold, or a
        slice that would not be in exactly one test split.
    """
    if config.split.protocol not in PROTOCOLS:
        raise InputError(
            f"config.split.protocol is {config.split.protocol!r}: cross-validation needs folds that keep patients "
            f"apart; set it to one of {', '.join(PROTOCOLS)}."
        )
    splits = {fold: make_splits(metadata, **_select_fold(config, fold).split) for fold in FOLDS}
    tested = Counter(np.concatenate([of_fold["test"] for of_fold in splits.values()]).tolist())
    for slice_id in metadata.slice_ids.tolist():
        if tested[slice_id] != 1:
            raise InputError(
                f"Slice {slice_id} would be tested {tested[slice_id]} times: its fold is none of "
                f"{', '.join(map(str, FOLDS))}; prepare the dataset with its own cvind.mat."
            )
    return splits


def _join_folds(directory: Path) -> dict[str, Any]:
    """Writes the evaluation of all folds, which are scored, and returns the content of evaluation_cv.json."""
    scores, calibration, by_fold = [], Calibration.empty(), {}
    for fold in FOLDS:
        run = directory / f"fold_{fold}"
        scores += read_scores(run / "per_slice_test.csv")
        evaluation = read_evaluation(run / "evaluation_test.json")
        calibration = calibration.join(Calibration.parse(evaluation["calibration"]))
        by_fold[str(fold)] = {key: evaluation[key] for key in FOLD_KEYS}
    scores.sort(key=lambda score: score.slice_id)
    config = read_config(directory)
    summary = {
        "split": "cv",
        "dataset": config.data.dataset,
        "trained_on": config.data.dataset,
        **summarize(scores, classes=[*by_fold["1"]["dice_by_class"]]),
        "seen": describe_seen(scores, set()),
        "calibration": calibration.describe(),
        **describe_scored_run(config),
        "fold": None,
        "by_fold": by_fold,
        **describe_environment(devices=jax.local_device_count()),
        "trained_with": by_fold["1"]["trained_with"],
    }
    title = describe_run(config, name=directory.resolve().name, all_folds=True)
    write_evaluation(directory, "cv", summary, scores, title=title)
    return summary


def _differ_only_in_place(one: ml_collections.ConfigDict, other: ml_collections.ConfigDict) -> bool:
    """Returns whether two configs differ at most in the path of the dataset."""
    first, second = ({**flatten(config.to_dict()), "data.data_dir": ""} for config in (one, other))
    return first == second


def _select_fold(config: ml_collections.ConfigDict, fold: int) -> ml_collections.ConfigDict:
    result = config.copy_and_resolve_references()
    result.split.fold = fold
    # Each fold of another cross-validation was trained on the patients of its own training split only.
    if config.train.init_from and (start := Path(config.train.init_from, f"fold_{fold}")).is_dir():
        result.train.init_from = str(start)
    return result
