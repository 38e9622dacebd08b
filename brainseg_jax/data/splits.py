"""Divides the slices into train, validation and test.

Three protocols, and two that measure how much leakage raises the test Dice:
  slice     70 % / 20 % / 10 % of the slices at random, as in the published work. Slices of one patient are in several
            splits, so its test Dice is too high for new patients.
  official  the dataset's own five folds, by patient id; test is one fold.
  family    as official, but ids that differ only in a trailing letter, which look like one head at several dates, are
            all in the fold of the first of them: no person is in two splits. In a user's own slices each patient is a
            family, so that this is the same as official.
  family_apart   as family, but half of each test family's slices are in no split.
  family_leaked  as family_apart, but that half is in train, in place of as many other slices.
Under all but "slice", validation is a share of the training families, chosen by a hash of the family's name: a family
stays in its split when families are added.
"""

import hashlib
import itertools
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from brainseg_jax.data.metadata import SliceMetadata
from brainseg_jax.errors import InputError

SPLITS = ("train", "validation", "test")
# What two splits may not share under each protocol, beside slices.
MUST_NOT_SHARE: dict[str, tuple[str, ...]] = {
    "slice": (),
    "official": ("patient_ids",),
    "family": ("patient_ids", "families"),
    "family_apart": ("patient_ids", "families"),
    "family_leaked": (),
}


def has_folds(protocol: str) -> bool:
    """Returns whether the test split under a protocol is one of five folds."""
    return protocol != "slice"


def make_splits(
    metadata: SliceMetadata, *, protocol: str, fold: int, seed: int, validation_share: float
) -> dict[str, np.ndarray]:
    """Divides the slices.

    Args:
      metadata: the dataset's slices.
      protocol: one of those above.
      fold: the fold that is the test split, 1..5; not used under "slice".
      seed: seed of the permutation under "slice"; nothing else here is random.
      validation_share: share of the training families in validation, in (0, 1); not used under "slice".

    Returns:
      The slice ids of each split, int64, ascending. The splits are disjoint; together they are the whole dataset,
      except under "family_apart" and "family_leaked".

    Raises:
      InputError: an unknown protocol, a fold without slices, a share outside (0, 1), an empty split, or a patient id
        whose slices are in several of the official folds.
    """
    if protocol not in MUST_NOT_SHARE:
        raise InputError(f"config.split.protocol is {protocol!r}: set it to one of {', '.join(MUST_NOT_SHARE)}.")
    if protocol == "slice":
        warnings.warn(
            "Protocol 'slice' puts slices of one patient into several splits: its test Dice says little about new "
            "patients. Use --config.split.protocol=family for that.",
            stacklevel=2,
        )
        order = np.random.default_rng(seed).permutation(metadata.slice_ids)
        parts = np.split(order, [round(0.7 * order.size), round(0.9 * order.size)])
    else:
        if not 0 < validation_share < 1:
            raise InputError(f"config.split.validation_share is {validation_share}: set it to a number in (0, 1).")
        families = np.array(metadata.families)
        folds = metadata.folds if protocol == "official" else _family_folds(metadata)
        is_test = folds == fold
        if not is_test.any():
            raise InputError(f"config.split.fold is {fold}, of which this dataset has no slice: set it to one it has.")
        is_validation = ~is_test & np.isin(families, _validation_families(families[~is_test], validation_share))
        parts = [metadata.slice_ids[rows] for rows in (~is_test & ~is_validation, is_validation, is_test)]
        if protocol in ("family_apart", "family_leaked"):
            parts = _halve_test_families(metadata, *parts, leaked=protocol == "family_leaked")
    splits = {split: np.sort(slice_ids) for split, slice_ids in zip(SPLITS, parts, strict=True)}
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
    """Lists the patient ids and families that two splits share.

    Returns:
      {"patient_ids": {"train+validation": ids, "train+test": ids, "validation+test": ids}, "families": likewise}.
    """
    result: dict[str, dict[str, list[str]]] = {}
    for kind, names in (("patient_ids", metadata.patient_ids), ("families", metadata.families)):
        members = {split: set(_names_of(metadata, names, slice_ids)) for split, slice_ids in splits.items()}
        pairs = itertools.combinations(SPLITS, 2)
        result[kind] = {f"{one}+{other}": sorted(members[one] & members[other]) for one, other in pairs}
    return result


def patients_of(metadata: SliceMetadata, slice_ids: np.ndarray) -> list[str]:
    """Returns the patient ids of slices, each once, sorted."""
    return sorted(set(_names_of(metadata, metadata.patient_ids, slice_ids)))


def describe_splits(metadata: SliceMetadata, splits: dict[str, np.ndarray]) -> str:
    """Counts slices, ids and families of each split and those that two splits share, in a few lines of text."""
    lines = []
    for split, slice_ids in splits.items():
        ids = patients_of(metadata, slice_ids)
        families = set(_names_of(metadata, metadata.families, slice_ids))
        lines.append(f"  {split:<11} {slice_ids.size:5d} slices {len(ids):4d} ids {len(families):4d} families")
    overlap = overlaps(metadata, splits)
    for pair in overlap["families"]:
        shared_ids, shared_families = (len(overlap[kind][pair]) for kind in ("patient_ids", "families"))
        lines.append(f"  {pair.replace('+', ' and ')} share {shared_ids} ids and {shared_families} families")
    return "\n".join(lines)


def _names_of(metadata: SliceMetadata, names: Sequence[str], slice_ids: np.ndarray) -> list[str]:
    return [names[row] for row in np.searchsorted(metadata.slice_ids, slice_ids)]


def _family_folds(metadata: SliceMetadata) -> np.ndarray:
    """Returns the fold of the first id of each slice's family: the id without a letter, which sorts first."""
    rows = zip(metadata.families, metadata.patient_ids, metadata.folds, strict=True)
    fold_of = {family: fold for family, _, fold in sorted(rows, key=lambda row: row[:2], reverse=True)}
    return np.array([fold_of[family] for family in metadata.families], np.int64)


def _halve_test_families(
    metadata: SliceMetadata, train: np.ndarray, validation: np.ndarray, test: np.ndarray, *, leaked: bool
) -> list[np.ndarray]:
    """Moves half of each test family's slices out of test; if `leaked`, into train in place of as many others."""
    test = test[np.argsort(_draws("half", test.astype(str)), kind="stable")]
    families = np.array(_names_of(metadata, metadata.families, test))
    kept, moved = [], []
    for family in np.unique(families):
        members = test[families == family]
        half = (members.size + 1) // 2
        kept.append(members[:half])
        moved.append(members[half:])
    if leaked:
        remaining = train.size - sum(map(len, moved))
        if remaining < 0:
            raise InputError("Protocol 'family_leaked' needs more slices to train on: prepare a larger dataset.")
        order = np.argsort(_draws("kept", train.astype(str)), kind="stable")
        train = np.concatenate([train[order[:remaining]], *moved])
    return [train, validation, np.concatenate(kept)]


def _draws(purpose: str, names: Sequence[str] | np.ndarray) -> list[float]:
    """Computes a number in [0, 1) for each name from its hash."""
    return [int.from_bytes(hashlib.sha256(f"{purpose} {name}".encode()).digest()[:8]) / 2**64 for name in names]


def _validation_families(families: np.ndarray, share: float) -> list[str]:
    """Chooses about this share of the training families for validation."""
    names = sorted(set(families.tolist()))
    draws = dict(zip(names, _draws("validation", names), strict=True))
    # With few families it can happen that no number is below the share: then the family with the lowest one validates.
    return [family for family, draw in draws.items() if draw < share] or [min(draws, key=lambda name: draws[name])]
