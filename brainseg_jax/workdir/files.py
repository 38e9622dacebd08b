"""The files of a run's folder: config, environment, splits and metrics."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from brainseg_jax.config import flatten, get_config
from brainseg_jax.data.metadata import SliceMetadata
from brainseg_jax.data.splits import SPLITS, has_folds, overlaps, patients_of
from brainseg_jax.errors import InputError, shorten
from brainseg_jax.models import MODELS
from brainseg_jax.utils.files import parse_json, read_json, write_json, write_text
from brainseg_jax.workdir.ranges import check_ranges

SPLIT_PAIRS = ("train+validation", "train+test", "validation+test")
# See utils/json_shape.py. Runs of older versions lack the keys that end in "?".
_SPLITS_SHAPE = {
    "splits": {split: [int] for split in SPLITS},
    "patient_ids?": {split: [str] for split in SPLITS},
    "overlaps?": {kind: {pair: [str] for pair in SPLIT_PAIRS} for kind in ("patient_ids", "families")},
    "dataset_fingerprint?": str,
}
_ENVIRONMENT_SHAPE = {"commit?": (str, None), "versions?": {str: str}}


def check_resumable(
    directory: Path, config: ml_collections.ConfigDict, splits: Mapping[str, np.ndarray], *, fingerprint: str
) -> None:
    """Refuses to resume a run with other settings or slices; changes nothing.

    Args:
      directory: the workdir.
      config: the configuration of the run that is to start or to be resumed there.
      splits: the slice ids of each split.
      fingerprint: of the dataset; "" if it is not known.

    Raises:
      InputError: the workdir holds a run of another config (except for `_MAY_CHANGE`) or of other slices.
    """
    if not (directory / "config.json").exists():
        return
    _require_same_config(directory, json.loads(config.to_json()))
    if read_splits(directory) != _members(splits):
        raise InputError(
            f"{directory / 'splits.json'} lists other slices than the dataset gives now: name another --workdir, "
            "or the --config.data.data_dir that the run was started with."
        )
    before = read_fingerprint(directory)
    if before and fingerprint and before != fingerprint:
        raise InputError(
            f"The dataset was built from other files than when {directory} was started: name another --workdir, or the "
            "--config.data.data_dir with the old dataset."
        )


def start_run(
    directory: Path,
    config: ml_collections.ConfigDict,
    metadata: SliceMetadata,
    splits: Mapping[str, np.ndarray],
    environment: Mapping[str, Any],
    *,
    fingerprint: str = "",
) -> None:
    """Writes config.json and, where they are not there yet, environment.json and splits.json.

    Args:
      directory: the workdir; made if missing.
      config: the run's configuration.
      metadata: the dataset's slices.
      splits: the slice ids of each split.
      environment: see `describe_environment` of utils/provenance.py.
      fingerprint: of the dataset; "" if it is not known.

    Raises:
      InputError: see `check_resumable`.
    """
    check_resumable(directory, config, splits, fingerprint=fingerprint)
    if not (directory / "config.json").exists():
        directory.mkdir(parents=True, exist_ok=True)
        patients = {split: patients_of(metadata, slice_ids) for split, slice_ids in splits.items()}
        shared = overlaps(metadata, splits)
        content = {"splits": _members(splits), "patient_ids": patients, "overlaps": shared}
        write_json(directory / "splits.json", content | {"dataset_fingerprint": fingerprint})
        write_json(directory / "environment.json", environment)
    write_json(directory / "config.json", json.loads(config.to_json()))


def read_config(directory: Path) -> ml_collections.ConfigDict:
    """Reads the configuration of the run in a workdir.

    Fields that are newer than the run get their defaults, which change nothing about the run.

    Raises:
      InputError: there is no run, config.json is damaged or has a value outside its range, or a newer version made it.
    """
    config, path = get_config(), directory / "config.json"
    sections = [name for name, value in config.items() if isinstance(value, ml_collections.ConfigDict)]
    settings = read_json(path, {f"{section}?": {} for section in sections})
    model = settings.pop("model", {})  # its fields depend on the network
    flat = flatten(settings)
    if unknown := sorted(flat.keys() - flatten(config.to_dict()).keys()):
        raise InputError(
            f"{path} has {unknown[0]}, which this version does not know: update the package, or name another --workdir."
        )
    try:
        config.model = ml_collections.ConfigDict(model)
        config.update_from_flattened_dict(flat)
        check_ranges(config)
    except (TypeError, ValueError) as error:  # an InputError is a ValueError
        problem = shorten(error, characters=300)
        raise InputError(f"{path} is damaged ({problem}): restore it, or name another --workdir.") from error
    return config


def read_splits(directory: Path) -> dict[str, list[int]]:
    """Reads the slice ids of each split of the run in a workdir.

    Raises:
      InputError: there is no run, or splits.json is damaged.
    """
    splits: dict[str, list[int]] = read_split_record(directory)["splits"]
    return splits


def read_split_record(directory: Path) -> dict[str, Any]:
    """Reads all that splits.json of a run holds: `splits`, `patient_ids`, `overlaps` and `dataset_fingerprint`.

    Raises:
      InputError: there is no run, or splits.json is damaged.
    """
    record: dict[str, Any] = read_json(directory / "splits.json", _SPLITS_SHAPE)
    return record


def read_patients(directory: Path) -> dict[str, list[str]]:
    """Reads the patient ids of each split of the run in a workdir.

    Raises:
      InputError: there is no run, splits.json is damaged, or an older version wrote it.
    """
    record = read_split_record(directory)
    if "patient_ids" not in record:
        raise InputError(
            f"{directory / 'splits.json'} has no patient_ids: an older version made the run; train it again."
        )
    patients: dict[str, list[str]] = record["patient_ids"]
    return patients


def read_fingerprint(directory: Path) -> str:
    """Reads the fingerprint of the dataset of the run in a workdir; "" if the run does not have it.

    Raises:
      InputError: there is no run, or splits.json is damaged.
    """
    fingerprint: str = read_split_record(directory).get("dataset_fingerprint", "")
    return fingerprint


def read_environment(directory: Path) -> dict[str, Any]:
    """Reads commit, versions and machine with which the run in a workdir was started.

    Raises:
      InputError: there is no run, or environment.json is damaged.
    """
    environment: dict[str, Any] = read_json(directory / "environment.json", _ENVIRONMENT_SHAPE)
    return environment


def read_metrics(directory: Path, *, epochs: int, columns: Sequence[str] = ()) -> list[dict[str, float]]:
    """Reads the first `epochs` rows of metrics.jsonl: rows of epochs whose checkpoint was not written are left out.

    Args:
      directory: the workdir.
      epochs: the last epoch that counts.
      columns: further columns that each row must have.

    Raises:
      InputError: a line is damaged, lacks a column, or is not of a later epoch than the line before.
    """
    path = directory / "metrics.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    rows: list[dict[str, float]] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = parse_json(line, {"epoch": int, **dict.fromkeys(columns, float), str: float})
            if not (rows[-1]["epoch"] if rows else 0) < row["epoch"] < 2**31:
                raise ValueError(f"its epoch is {row['epoch']}")
        except ValueError as error:
            raise InputError(
                f"{path} is damaged (line {number}: {error}): remove its damaged line to go on without it."
            ) from error
        rows.append(row)
    return [row for row in rows if row["epoch"] <= epochs]


def write_metrics(directory: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Writes metrics.jsonl, a row per epoch."""
    write_text(directory / "metrics.jsonl", "".join(json.dumps(dict(row)) + "\n" for row in rows))


def describe_run(config: ml_collections.ConfigDict, *, name: str = "", all_folds: bool = False, seeds: str = "") -> str:
    """Returns a title that distinguishes a run from others.

    Args:
      config: of the run.
      name: of its folder.
      all_folds: whether it is of all five folds.
      seeds: those of an ensemble.
    """
    fold = f" fold {config.split.fold}" if has_folds(config.split.protocol) else ""
    fold = ", five folds" if all_folds else fold
    size = config.data.image_size
    dataset = {"figshare": "", "folder": ", own slices"}.get(config.data.dataset, f", {config.data.dataset} slices")
    return (
        (f"{name}: " if name else "")
        + f"{MODELS[config.model.name].title} {config.model.start_filters}, {size}×{size}{dataset}, "
        + f"{config.train.loss}, {config.optimizer.schedule}, {config.split.protocol}{fold}, "
        + (f"ensemble of seeds {seeds}" if seeds else f"seed {config.seed}")
    )


# What may change when a run is resumed: more epochs, the dataset in another place, other hardware, other masks.
_MAY_CHANGE = (
    "deterministic",
    "train.epochs",
    "train.steps_per_call",
    "data.data_dir",
    "data.cache",
    "evaluation.threshold",
    "evaluation.min_component_fraction",
    "evaluation.tune_postprocessing",
    "evaluation.tta_flip",
)


def _require_same_config(directory: Path, settings: Mapping[str, Any]) -> None:
    before, now = flatten(read_config(directory).to_dict()), flatten(settings)
    for key in sorted(before.keys() | now.keys()):
        if key in _MAY_CHANGE:
            continue
        if before.get(key) != now.get(key):
            raise InputError(
                f"{directory / 'config.json'} has {key} = {shorten(repr(before.get(key)))}, this command "
                f"{now.get(key)!r}: name another --workdir for another run, or the same settings to go on."
            )
    if now["optimizer.schedule"] == "cosine" and now["train.epochs"] != before["train.epochs"]:
        raise InputError(
            f"{directory / 'config.json'} has train.epochs = {before['train.epochs']}, this command "
            f"{now['train.epochs']}: under optimizer.schedule = 'cosine' the learning rate follows from it; name "
            f"another --workdir, with --config.train.init_from={directory} to start from these weights."
        )
    if now["train.epochs"] < before["train.epochs"]:
        raise InputError(
            f"{directory / 'config.json'} has train.epochs = {before['train.epochs']}, this command only "
            f"{now['train.epochs']}: a run can be made longer, not shorter; name another --workdir."
        )


def _members(splits: Mapping[str, np.ndarray]) -> dict[str, list[int]]:
    return {split: slice_ids.tolist() for split, slice_ids in splits.items()}
