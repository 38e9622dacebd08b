"""Refuses a bad run before it writes anything."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import ml_collections
import numpy as np

from brainseg_jax.data.dataset import Dataset
from brainseg_jax.data.dataset_info import families_of
from brainseg_jax.data.metadata import SliceMetadata
from brainseg_jax.data.splits import MUST_NOT_SHARE, make_splits, patients_of
from brainseg_jax.errors import InputError, shorten
from brainseg_jax.workdir.files import read_config, read_patients, read_splits
from brainseg_jax.workdir.ranges import check_ranges
from brainseg_jax.workdir.weights import find_weights

# Fields of a network that may differ from the run that gives the initial weights: they change no parameter's shape.
KEEP_PARAMETERS = {"dropout_rate", "prior", "dtype"}


def open_splits(config: ml_collections.ConfigDict) -> tuple[Dataset, dict[str, np.ndarray]]:
    """Checks the config, then opens the dataset of a run and divides it into splits.

    Returns:
      The dataset, and the slice ids of each split.

    Raises:
      InputError: see `check_config`; there is no such dataset or split, or too few slices for a batch.
    """
    check_config(config)
    dataset = Dataset.from_config(config.data)
    splits = make_splits(dataset.metadata, **config.split)
    if splits["train"].size < config.train.batch_size:
        raise InputError(
            f"config.train.batch_size is {config.train.batch_size}, more than the {splits['train'].size} slices to "
            "train on: lower it."
        )
    return dataset, splits


def check_config(config: ml_collections.ConfigDict) -> None:
    """Refuses a config that is wrong for any dataset.

    Raises:
      InputError: the argument is not a config, or a value is outside its range.
    """
    if not isinstance(config, ml_collections.ConfigDict):
        getattr(config, "model", None)  # the stand-in for a file that could not be loaded raises the reason here
        raise InputError(
            f"The config is {type(config).__name__}, not a ConfigDict: let get_config of the config file return "
            "that of brainseg_jax/config.py with its changes."
        )
    check_ranges(config)


def check_no_leakage(
    start: str | Path, config: ml_collections.ConfigDict, splits: Mapping[str, np.ndarray], metadata: SliceMetadata
) -> None:
    """Refuses initial weights from a run that has seen patients on whom this run is scored.

    This run's validation split must not overlap the other run's training split, nor its test split the other's training
    or validation split; likewise for the runs that the other started from. Another dataset passes.

    Args:
      start: the run that gives the weights: a workdir, a folder of weights, or a name of weights in the package.
      config: of this run.
      splits: the slice ids of each split of this run.
      metadata: this run's dataset.

    Raises:
      InputError: the other run has seen such patients, has another network, or does not exist.
    """
    start = find_weights(start)
    other = read_config(start)
    fields = (set(other.model) | set(config.model)) - KEEP_PARAMETERS - {"name"}
    for field in ("name", *sorted(fields)):
        if other.model.get(field) != config.model.get(field):
            raise InputError(
                f"{start / 'config.json'} has model.{field} = {shorten(repr(other.model.get(field)))}, this command "
                f"{config.model.get(field)!r}: start from a run of the same network."
            )
    if other.data.dataset == config.data.dataset:
        slices, patients = read_splits(start), read_patients(start)
        for split, teaching in (("validation", ("train",)), ("test", ("train", "validation"))):
            mine = _identities(config, splits[split].tolist(), patients_of(metadata, splits[split]))
            seen = _identities(
                config,
                [slice_id for name in teaching for slice_id in slices[name]],
                [patient_id for name in teaching for patient_id in patients[name]],
            )
            if shared := sorted(mine & seen):
                other_table = " (or, if the tables are two, give different people different ids)"
                raise InputError(
                    f"config.train.init_from is {start}, which knows {shared[0]} and {len(shared) - 1} others of this "
                    f"run's {split} split: start from a run of the same protocol and fold"
                    f"{other_table if config.data.dataset == 'folder' else ''}."
                )
    if other.train.init_from:
        check_no_leakage(other.train.init_from, config, splits, metadata)


def _identities(config: ml_collections.ConfigDict, slice_ids: Iterable[int], patient_ids: Iterable[str]) -> set[str]:
    """Returns the slices, patients and families that another split must not have under the config's protocol."""
    patient_ids = list(patient_ids)
    kinds = MUST_NOT_SHARE[config.split.protocol]
    # In "folder", slice ids are the row numbers of a table: between two tables only patient ids can be compared.
    numbers_are_rows = config.data.dataset == "folder" and "patient_ids" in kinds
    result = set() if numbers_are_rows else {f"slice {slice_id}" for slice_id in slice_ids}
    if "patient_ids" in kinds:
        result |= {f"patient {patient_id}" for patient_id in patient_ids}
    if "families" in kinds:
        result |= {f"family {family}" for family in families_of(patient_ids, dataset=config.data.dataset)}
    return result
