"""Divides the slices into train, validation and test.

Three protocols, and two that measure what leakage is worth:
  slice     70 % / 20 % / 10 % of the slices at random, as the published results have it. Slices of one patient fall
            into several splits: its test Dice flatters.
  official  the dataset's own five folds, by patient id; test is one fold.
  family    as official, but ids that differ only in a trailing letter, which look like one head at several dates, all
            follow the fold of the first of them. The honest one.
  family_apart   as family, but half of each test family's slices are in no split.
  family_leaked  the same test slices and as many to train on, but that half is among them, in place of others.
Under all but the first, validation is a share of the training families, chosen by a hash of the family's name: a family
keeps its split when others are added.
"""

import hashlib
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from brainseg_jax.data.metadata import SliceMetadata
from brainseg_jax.errors import InputError

SPLITS = ("train", "validation", "test")
PROTOCOLS = ("slice", "official", "family", "family_apart", "family_leaked")


# What two splits may not share under a protocol; slices never.
MUST_NOT_SHARE = {
    "slice": (),
    "official": ("patient_ids",),
    "family": ("patient_ids", "families"),
    "family_apart": ("patient_ids", "families"),
    "family_leaked": (),
}


def has_folds(protocol: str) -> bool:
    """Whether the test split under a protocol is one of five folds."""
    return protocol != "slice"


def make_splits(
    metadata: SliceMetadata, *, protocol: str, fold: int, seed: int, validation_share: float
) -> dict[str, np.ndarray]:
    """Divides the slices.

    Args:
      metadata: the dataset's slices.
      protocol: one of `PROTOCOLS`.
      fold: the fold that is the test split, 1..5; "slice" has none.
      seed: of the permutation under "slice", the only random choice here.
      validation_share: share of the training families that validate, in (0, 1); "slice" has its own 20 %.

    Returns:
      For each split its slices' ids, ascending, int64; the splits are disjoint and, but for "family_apart" and
      "family_leaked", together the whole dataset.

    Raises:
      InputError: an unknown protocol, a fold without slices, a share outside (0, 1), an empty split, or an id of
        which the official folds put slices into several splits.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"config.split.protocol is {protocol!r}: set it to one of {', '.join(PROTOCOLS)}.")
    if protocol == "slice":
        warnings.warn(
            "Protocol 'slice' puts slices of one patient into several splits: its test Dice says little about new "
            "patients. Use --config.split.protocol=family for that.",
            stacklevel=2,
        )
        order = np.random.default_rng(seed).permutation(metadata.slice_ids)
        bounds = [round(0.7 * order.size), round(0.9 * order.size)]
        splits = dict(zip(SPLITS, np.split(order, bounds), strict=True))
    else:
        if not 0 < validation_share < 1:
            raise InputError(f"config.split.validation_share is {validation_share}: set it to a number in (0, 1).")
        families = np.array(metadata.families)
        folds = metadata.folds if protocol == "official" else _family_folds(metadata)
        is_test = folds == fold
        if not is_test.any():
            raise InputError(f"config.split.fold is {fold}, of which this dataset has no slice: set it to one it has.")
        is_validation = ~is_test & np.isin(families, _validation_families(families[~is_test], validation_share))
        splits = {
            "train": metadata.slice_ids[~is_test & ~is_validation],
            "validation": metadata.slice_ids[is_validation],
            "test": metadata.slice_ids[is_test],
        }
        if protocol in ("family_apart", "family_leaked"):
            splits = _halve_test_families(metadata, splits, leaked=protocol == "family_leaked")
    splits = {split: np.sort(slice_ids) for split, slice_ids in splits.items()}
    for split, slice_ids in splits.items():
        if not slice_ids.size:
            raise InputError(
                f"Protocol {protocol!r} leaves no slice for {split}: prepare a dataset with more patients "
                "(config.data.data_dir)."
            )
    overlap = overlaps(metadata, splits)
    for kind in MUST_NOT_SHARE[protocol]:
        for pair, shared in overlap[kind].items():
            if shared:
                raise InputError(
                    f"Protocol {protocol!r} would put {', '.join(shared[:3])} into both {pair.replace('+', ' and ')}: "
                    "cvind.mat gives their slices different folds; fetch the dataset's own cvind.mat."
                )
    return splits


def overlaps(metadata: SliceMetadata, splits: Mapping[str, np.ndarray]) -> dict[str, dict[str, list[str]]]:
    """Lists which patients two splits share.

    Returns:
      {"patient_ids": {"train+validation": ids, "train+test": ids, "validation+test": ids}, "families": likewise}.
    """
    result: dict[str, dict[str, list[str]]] = {}
    for kind, names in (("patient_ids", metadata.patient_ids), ("families", metadata.families)):
        of_part = {split: set(_names_of(metadata, names, slice_ids)) for split, slice_ids in splits.items()}
        result[kind] = {
            f"{one}+{other}": sorted(of_part[one] & of_part[other])
            for one, other in (("train", "validation"), ("train", "test"), ("validation", "test"))
        }
    return result


def patients_of(metadata: SliceMetadata, slice_ids: np.ndarray) -> list[str]:
    """The patient ids of slices, each once, sorted."""
    return sorted(set(_names_of(metadata, metadata.patient_ids, slice_ids)))


def describe_splits(metadata: SliceMetadata, splits: dict[str, np.ndarray]) -> str:
    """A few lines: slices, ids and families of each split, and how many of them two splits share."""
    families = metadata.families
    lines = [
        f"  {split:<11} {slice_ids.size:5d} slices {len(patients_of(metadata, slice_ids)):4d} ids "
        f"{len(set(_names_of(metadata, families, slice_ids))):4d} families"
        for split, slice_ids in splits.items()
    ]
    overlap = overlaps(metadata, splits)
    for pair in overlap["families"]:
        ids, shared = len(overlap["patient_ids"][pair]), len(overlap["families"][pair])
        lines.append(f"  {pair.replace('+', ' and ')} share {ids} ids and {shared} families")
    return "\n".join(lines)


def _names_of(metadata: SliceMetadata, names: Sequence[str], slice_ids: np.ndarray) -> list[str]:
    return [names[row] for row in np.searchsorted(metadata.slice_ids, slice_ids)]


def _family_folds(metadata: SliceMetadata) -> np.ndarray:
    # The first id of a family is the one without a letter; it sorts before those with one.
    first_id = {
        family: patient
        for patient, family in sorted(zip(metadata.patient_ids, metadata.families, strict=True), reverse=True)
    }
    fold_of_id = dict(zip(metadata.patient_ids, metadata.folds, strict=True))
    return np.array([fold_of_id[first_id[family]] for family in metadata.families], np.int64)


def _halve_test_families(
    metadata: SliceMetadata, splits: dict[str, np.ndarray], *, leaked: bool
) -> dict[str, np.ndarray]:
    """Takes half of each test family's slices out of test; if `leaked`, into train in place of as many others."""
    test = splits["test"][np.argsort(_draws("half", splits["test"].astype(str)), kind="stable")]
    families = np.array(_names_of(metadata, metadata.families, test))
    held, taken = [], []
    for family in sorted(set(families.tolist())):
        members = test[families == family].tolist()
        middle = (len(members) + 1) // 2
        held += members[:middle]
        taken += members[middle:]
    train = splits["train"]
    if leaked:
        if len(taken) > train.size:
            raise InputError("Protocol 'family_leaked' needs more slices to train on: prepare a larger dataset.")
        kept = np.argsort(_draws("kept", train.astype(str)), kind="stable")[: train.size - len(taken)]
        train = np.concatenate([train[kept], np.array(taken, np.int64)])
    return {"train": train, "validation": splits["validation"], "test": np.array(held, np.int64)}


def _draws(purpose: str, names: Sequence[str] | np.ndarray) -> list[float]:
    """A number in [0, 1) for each name, from its hash alone."""
    return [int.from_bytes(hashlib.sha256(f"{purpose} {name}".encode()).digest()[:8]) / 2**64 for name in names]


def _validation_families(families: np.ndarray, share: float) -> list[str]:
    names = sorted(set(families.tolist()))
    draws = dict(zip(names, _draws("validation", names), strict=True))
    # In a dataset of few families none may fall under the share: then the lowest one validates.
    return [family for family, draw in draws.items() if draw < share] or [min(draws, key=lambda name: draws[name])]
