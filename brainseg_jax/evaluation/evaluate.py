"""Scores trained networks on a split of their dataset, slice by slice, each slice at its own size."""

import contextlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from brainseg_jax.data.dataset import BUILDERS, Dataset
from brainseg_jax.data.splits import SPLITS, has_folds, patients_of
from brainseg_jax.errors import InputError
from brainseg_jax.evaluation import score_charts
from brainseg_jax.evaluation.examples import draw_examples
from brainseg_jax.evaluation.scores import SliceScore, score_slice, write_scores
from brainseg_jax.evaluation.seen_slices import describe_seen, find_seen
from brainseg_jax.evaluation.summary import summarize
from brainseg_jax.inference.ensemble import Ensemble
from brainseg_jax.inference.postprocessing import tune_postprocessing
from brainseg_jax.inference.predictor import Predictor, predict_slices
from brainseg_jax.metrics.calibration import Calibration
from brainseg_jax.utils.files import read_json, write_json, write_png
from brainseg_jax.utils.provenance import describe_environment
from brainseg_jax.workdir.files import (
    describe_run,
    read_config,
    read_environment,
    read_fingerprint,
    read_patients,
    read_splits,
)


def evaluate(
    directory: Path | Sequence[Path],
    *,
    split: str,
    output: Path,
    data_dir: str = "",
    examples: int = 4,
    save_masks: bool = False,
    threshold: float | None = None,
    min_component_fraction: float | None = None,
    tta_flip: bool | None = None,
) -> dict[str, Any]:
    """Scores the best checkpoint of a run, or several runs as an ensemble (see `Ensemble`).

    An ensemble makes masks as its first run's config says; if that run's threshold and smallest component were tuned on
    validation, they are tuned again for the ensemble.

    Args:
      directory: the run's workdir, or a folder of weights; for an ensemble, a sequence of these.
      split: "train", "validation", "test" or "all".
      output: folder for evaluation_<split>.json, per_slice_<split>.csv and the figures; for an ensemble also for
        members.json and for config.json and splits.json of its first run.
      data_dir: the folder of the prepared dataset if it was moved, or of another dataset, of which "all" can be scored;
        "" for the folder that the run was trained with.
      examples: slices in each of the figures of the best, the median and the worst predictions; 0 for no such figures.
      save_masks: whether to write the predicted masks too, as masks_<split>/<slice id>.png of 0 and 255.
      threshold: overrides the run's.
      min_component_fraction: overrides the run's.
      tta_flip: overrides the run's.

    Returns:
      The content of evaluation_<split>.json; for an ensemble with `members`, their names, and the `seed` of each.

    Raises:
      InputError: there is no run or no dataset; the split is unknown; the dataset lacks the slices or has other
        patients; one of the last three arguments is given for an ensemble; or see `Ensemble`.
    """
    options: dict[str, Any] = {
        "threshold": threshold,
        "min_component_fraction": min_component_fraction,
        "tta_flip": tta_flip,
    }
    runs = [directory] if isinstance(directory, Path) else list(directory)
    if split not in (*SPLITS, "all"):
        raise InputError(f"--split is {split!r}: set it to one of {', '.join(SPLITS)}, all.")
    if len(runs) == 1:
        segmenter: Predictor | Ensemble = Predictor.from_workdir(runs[0], **options)
    elif given := [name for name, value in options.items() if value is not None]:
        raise InputError(f"--{given[0]} is for a single run: an ensemble has that of its first run; leave it out.")
    else:
        segmenter = Ensemble.from_workdirs(runs)
    config = segmenter.config
    dataset = open_dataset(config, data_dir)
    about: dict[str, Any] = {"trained_with": read_environment(runs[0]), "dataset": dataset.name}
    if split != "all":
        _require_same_pixels(runs[0], dataset, data_dir)
    if data_dir:
        about["dataset"] += f" in {data_dir}"
    if isinstance(segmenter, Predictor):
        about |= {"checkpoint_epoch": segmenter.epoch} | ({} if tta_flip is None else {"tta_flip": tta_flip})
        title = describe_run(config, name=runs[0].resolve().name)
    else:
        seeds = ", ".join(str(read_config(run).seed) for run in runs)
        about |= {"members": [run.resolve().name for run in runs], "seed": seeds, "checkpoint_epoch": segmenter.epochs}
        title = describe_run(config, name=output.resolve().name, seeds=seeds)
        if config.evaluation.tune_postprocessing:
            own = Dataset.from_config(config.data)
            validation = predict_slices(segmenter, own, np.array(read_splits(runs[0])["validation"]))
            pairs = ((probabilities, sample.mask) for sample, probabilities in validation)
            segmenter.postprocessing, _ = tune_postprocessing(pairs)
        output.mkdir(parents=True, exist_ok=True)
        write_json(output / "members.json", about["members"])
        for name in ("config.json", "splits.json"):
            write_json(output / name, read_json(runs[0] / name))

    metadata = dataset.metadata
    slice_ids = metadata.slice_ids if split == "all" else _slices_of(runs[0], split, dataset)
    scores, calibration = [], Calibration.empty()
    masks = output / f"masks_{split}"
    if save_masks:
        masks.mkdir(parents=True, exist_ok=True)
    for sample, probabilities in predict_slices(segmenter, dataset, slice_ids):
        row = int(np.searchsorted(metadata.slice_ids, sample.slice_id))
        about_slice = {
            "patient_id": metadata.patient_ids[row],
            "family": metadata.families[row],
            "label": metadata.label_names[int(metadata.labels[row]) - 1],
        }
        mask = segmenter.postprocessing.mask(probabilities)
        scores.append(score_slice(sample, mask, **about_slice))
        calibration = calibration.add(probabilities, sample.mask)
        if save_masks:
            write_png(masks / f"{sample.slice_id}.png", mask.astype(np.uint8) * 255)
    summary = {
        "split": split,
        "dataset": dataset.name,
        "trained_on": config.data.dataset,
        **summarize(scores, classes=metadata.label_names),
        "seen": describe_seen(scores, find_seen(runs, dataset)),
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


def describe_scored_run(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the settings that distinguish the results of a run from those of other runs."""
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
    score_charts.score_overview(
        scores,
        summary["calibration"],
        output / "figures" / f"{split}_scores.png",
        title=title,
        classes=[*summary["by_class"]],
    )
    write_json(output / f"evaluation_{split}.json", summary)


def open_dataset(config: ml_collections.ConfigDict, data_dir: str) -> Dataset:
    """Opens the dataset of a run, or the one in `data_dir` if that is not "".

    In `data_dir` that is the dataset of the run's kind, or else the only one of another kind: any may be scored.

    Raises:
      InputError: there is no such dataset.
    """
    if not data_dir:
        place = Path(config.data.data_dir)
        if not place.exists():  # moved, or named relative to another folder
            raise InputError(
                f"The run's dataset is not in {place.absolute()}: name the folder that holds it as --data_dir."
            )
        return Dataset.from_config(config.data)
    kind = config.data.dataset
    try:
        return Dataset(data_dir, config=kind)
    except InputError:
        others = []
        for other in BUILDERS.keys() - {kind}:
            with contextlib.suppress(InputError):
                others.append(Dataset(data_dir, config=other))
        if not others:
            raise
    if len(others) > 1:
        names = " and ".join(sorted(other.name for other in others))
        raise InputError(f"--data_dir {data_dir} holds {names} slices: name a folder that holds one of them.")
    return others[0]


def _require_same_pixels(run: Path, dataset: Dataset, data_dir: str) -> None:
    """Refuses a dataset that was replaced since the run; only warns if the user names it with `data_dir`."""
    before = read_fingerprint(run)
    if not before or not dataset.fingerprint or before == dataset.fingerprint:
        return
    if data_dir:
        warnings.warn(
            f"the dataset in {data_dir} was built from other files than that of {run}: its pixels may differ",
            stacklevel=3,
        )
        return
    raise InputError(
        f"The dataset of {run} was replaced by one from other files since it was trained: name the old one with "
        "--data_dir, or this one if its slices are the same all the same."
    )


def _slices_of(run: Path, split: str, dataset: Dataset) -> np.ndarray:
    """Returns the slice ids of a split of a run, (N,); the dataset must have them, with the same patients."""
    slice_ids = np.array(read_splits(run)[split])
    missing = slice_ids[~np.isin(slice_ids, dataset.metadata.slice_ids)]
    if missing.size:
        raise InputError(
            f"The dataset has no slice {missing[0]} ({missing.size} of {slice_ids.size} of {run / 'splits.json'} are "
            "missing): name the --data_dir that the run was trained with, or add --split=all to score another dataset."
        )
    if patients_of(dataset.metadata, slice_ids) != read_patients(run)[split]:
        raise InputError(
            f"The dataset has other patients than {run / 'splits.json'} names: name the --data_dir that the run was "
            "trained with, or add --split=all to score another dataset."
        )
    return slice_ids
