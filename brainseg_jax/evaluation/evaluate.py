"""Scores trained networks on a split of their dataset, slice by slice, each at its own size."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from brainseg_jax.data.dataset import Dataset
from brainseg_jax.data.dataset_info import LABELS
from brainseg_jax.data.splits import SPLITS, has_folds
from brainseg_jax.errors import InputError
from brainseg_jax.evaluation import score_charts
from brainseg_jax.evaluation.examples import draw_examples
from brainseg_jax.evaluation.scores import SliceScore, score_slice, write_scores
from brainseg_jax.evaluation.summary import summarize
from brainseg_jax.inference.postprocessing import tune_postprocessing
from brainseg_jax.inference.predictor import Ensemble, Predictor, Segmenter, predict_slices
from brainseg_jax.metrics.calibration import Calibration
from brainseg_jax.utils.files import read_json, write_json
from brainseg_jax.utils.provenance import describe_environment
from brainseg_jax.workdir.files import describe_run, read_config, read_environment, read_splits

EXAMPLES = 4  # slices in each figure of predicted masks


def evaluate(
    directory: Path,
    *,
    split: str,
    output: Path,
    data_dir: str = "",
    examples: int = EXAMPLES,
    threshold: float | None = None,
    min_component_fraction: float | None = None,
    tta_flip: bool | None = None,
) -> dict[str, Any]:
    """Scores the best checkpoint of a run.

    Args:
      directory: the run's workdir.
      split: "train", "validation", "test" or "all".
      output: folder for evaluation_<split>.json, per_slice_<split>.csv and the figures.
      data_dir: another prepared dataset, of which "all" is scored; "" for the one that the run was trained with.
      examples: slices in each of the figures of the best, the median and the worst predictions; 0 for no such figures.
      threshold: in place of the run's.
      min_component_fraction: in place of the run's.
      tta_flip: in place of the run's.

    Returns:
      The content of evaluation_<split>.json.

    Raises:
      InputError: no run, no dataset, an unknown split, or a split other than "all" of another dataset.
    """
    if split not in (*SPLITS, "all"):
        raise InputError(f"--split is {split!r}: set it to one of {', '.join(SPLITS)}, all.")
    if data_dir and split != "all":
        raise InputError(f"--split={split} is a split of the run's own dataset: add --split=all to score {data_dir}.")
    predictor = Predictor.from_workdir(
        directory, threshold=threshold, min_component_fraction=min_component_fraction, tta_flip=tta_flip
    )
    config = predictor.config
    dataset = _open(data_dir, config.data.dataset) if data_dir else Dataset.from_config(config.data)
    slice_ids = dataset.metadata.slice_ids if split == "all" else np.array(read_splits(directory)[split])
    about = {
        "dataset": f"{dataset.name} in {data_dir}" if data_dir else dataset.name,
        "checkpoint_epoch": predictor.epoch,
        "trained_with": read_environment(directory),
        **({} if tta_flip is None else {"tta_flip": tta_flip}),
    }
    title = describe_run(config, name=directory.resolve().name)
    return _score_and_write(predictor, dataset, slice_ids, about, split, output, title=title, examples=examples)


def evaluate_ensemble(
    directories: Sequence[Path], *, split: str, output: Path, examples: int = EXAMPLES
) -> dict[str, Any]:
    """Scores the ensemble of several runs.

    Args:
      directories: see `Ensemble`. The first run's config says how masks are made; where its threshold and smallest
        component were tuned on validation, they are tuned anew for the ensemble.
      split: "train", "validation" or "test".
      output: folder for the files of `evaluate`, for members.json, and for config.json and splits.json of the first run.
      examples: see `evaluate`.

    Returns:
      The content of evaluation_<split>.json: that of a run, the `seed` of each, and `members`, their names.

    Raises:
      InputError: see `Ensemble`.
    """
    first, splits = directories[0], read_splits(directories[0])
    ensemble = Ensemble.from_workdirs(directories)
    config = ensemble.config
    dataset = Dataset.from_config(config.data)
    if config.evaluation.tune_postprocessing:
        validation = predict_slices(ensemble, dataset, np.array(splits["validation"]))
        pairs = ((probabilities, sample.mask) for sample, probabilities in validation)
        ensemble.postprocessing, _ = tune_postprocessing(pairs)
    members = [directory.resolve().name for directory in directories]
    seeds = ", ".join(str(read_config(directory).seed) for directory in directories)
    about = {
        "members": members,
        "seed": seeds,
        "checkpoint_epoch": ensemble.epochs,
        "trained_with": read_environment(first),
    }
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "members.json", members)
    for name in ("config.json", "splits.json"):
        write_json(output / name, read_json(first / name))
    title = describe_run(config, name=output.resolve().name, seeds=seeds)
    slice_ids = np.array(splits[split])
    return _score_and_write(ensemble, dataset, slice_ids, about, split, output, title=title, examples=examples)


def describe_scored_run(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the settings that tell the results of a run from those of others."""
    return {
        "protocol": config.split.protocol,
        "fold": config.split.fold if has_folds(config.split.protocol) else None,
        "seed": config.seed,
        "network": config.model.name,
        "start_filters": config.model.start_filters,
        "image_size": config.data.image_size,
        "epochs": config.train.epochs,
        "init_from": config.train.init_from,
        "tta_flip": config.evaluation.tta_flip,
    }


def write_evaluation(
    output: Path, split: str, summary: Mapping[str, Any], scores: Sequence[SliceScore], *, title: str
) -> None:
    """Writes evaluation_<split>.json, per_slice_<split>.csv and figures/<split>_scores.png."""
    output.mkdir(parents=True, exist_ok=True)
    write_scores(output / f"per_slice_{split}.csv", scores)
    score_charts.score_overview(scores, summary["calibration"], output / "figures" / f"{split}_scores.png", title=title)
    write_json(output / f"evaluation_{split}.json", summary)


def _score_and_write(
    segmenter: Segmenter,
    dataset: Dataset,
    slice_ids: np.ndarray,
    about: Mapping[str, Any],
    split: str,
    output: Path,
    *,
    title: str,
    examples: int,
) -> dict[str, Any]:
    """Scores slices and writes the files of an evaluation, whose summary has the entries of `about` too."""
    config, metadata = segmenter.config, dataset.metadata
    scores, calibration = [], Calibration.empty()
    for sample, probabilities in predict_slices(segmenter, dataset, slice_ids):
        row = int(np.searchsorted(metadata.slice_ids, sample.slice_id))
        patient_id, label = metadata.patient_ids[row], LABELS[int(metadata.labels[row]) - 1]
        mask = segmenter.postprocessing.mask(probabilities)
        scores.append(score_slice(sample, mask, patient_id=patient_id, label=label))
        calibration = calibration.add(probabilities, sample.mask)
    summary = {
        "split": split,
        "dataset": dataset.name,
        "trained_on": config.data.dataset,
        **summarize(scores),
        "calibration": calibration.describe(),
        **describe_scored_run(config),
        "threshold": segmenter.postprocessing.threshold,
        "min_component_fraction": segmenter.postprocessing.min_component_fraction,
        **describe_environment(devices=jax.local_device_count()),
        **about,
    }
    if examples:
        draw_examples(segmenter, dataset, scores, output / "figures", split=split, count=examples)
    write_evaluation(output, split, summary, scores, title=title)
    return summary


def _open(data_dir: str, kind: str) -> Dataset:
    """Opens a dataset of the kind if there is one, else of the other: phantom networks may be scored on real slices."""
    try:
        return Dataset(data_dir, config=kind)
    except InputError:
        return Dataset(data_dir, config="phantom" if kind == "figshare" else "figshare")
