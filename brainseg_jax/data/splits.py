"""Who is in train, validation and test.

Three protocols, and two that measure what leakage is worth:
  slice     70 % / 20 % / 10 % of the slices at random, as the published results have it. Slices of one patient fall
            into several parts: its test Dice flatters.
  official  the dataset's own five folds, by patient id; test is one fold.
  family    as official, but ids that differ only in a trailing letter, which look like one head at several dates, all
            follow the fold of the first of them. The honest one.
  family_apart   as family, but half of each test family's slices are in no part.
  family_leaked  the same test slices and as many to train on, but that half is among them, in place of others.
Under all but the first, validation is a share of the training families, chosen by a hash of the family's name: a family
keeps its part when others are added.
"""

import hashlib
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from brainseg_jax.data.metadata import SliceTable
from brainseg_jax.errors import InputError

PARTS = ("train", "validation", "test")
PROTOCOLS = ("slice", "official", "family", "family_apart", "family_leaked")


# What two parts may not share under a protocol; slices never.
MUST_NOT_SHARE = {
    "slice": (),
    "official": ("patient_ids",),
    "family": ("patient_ids", "families"),
    "family_apart": ("patient_ids", "families"),
    "family_leaked": (),
}


def has_folds(protocol: str) -> bool:
    """Whether the test part under a protocol is one of five folds."""
    return protocol != "slice"


def make_splits(
    table: SliceTable, *, protocol: str, fold: int, seed: int, validation_share: float
) -> dict[str, np.ndarray]:
    """Divides the slices.

    Args:
      table: the dataset's slices.
      protocol: one of `PROTOCOLS`.
      fold: the fold that is the test part, 1..5; "slice" has none.
      seed: of the permutation under "slice", the only random choice here.
      validation_share: share of the training families that validate, in (0, 1); "slice" has its own 20 %.

    Returns:
      For each part its slices' ids, ascending, int64; the parts are disjoint and, but for "family_apart" and
      "family_leaked", together the whole table.

    Raises:
      InputError: an unknown protocol, a fold without slices, a share outside (0, 1), a part left empty, or an id of
        which the official folds put slices into several parts.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"config.split.protocol is {protocol!r}: set it to one of {', '.join(PROTOCOLS)}.")
    if protocol == "slice":
        warnings.warn(
            "Protocol 'slice' puts slices of one patient into several parts: its test Dice says little about new "
            "patients. Use --config.split.protocol=family for that.",
            stacklevel=2,
        )
        order = np.random.default_rng(seed).permutation(table.slice_ids)
        bounds = [round(0.7 * order.size), round(0.9 * order.size)]
        parts = dict(zip(PARTS, np.split(order, bounds), strict=True))
    else:
        if not 0 < validation_share < 1:
            raise InputError(f"config.split.validation_share is {validation_share}: set it to a number in (0, 1).")
        families = np.array(table.families)
        folds = table.folds if protocol == "official" else _family_folds(table)
        is_test = folds == fold
        if not is_test.any():
            raise InputError(f"config.split.fold is {fold}, of which this dataset has no slice: set it to one it has.")
        is_validation = ~is_test & np.isin(families, _validation_families(families[~is_test], validation_share))
        parts = {
            "train": table.slice_ids[~is_test & ~is_validation],
            "validation": table.slice_ids[is_validation],
            "test": table.slice_ids[is_test],
        }
        if protocol in ("family_apart", "family_leaked"):
            parts = _halve_test_families(table, parts, leaked=protocol == "family_leaked")
    parts = {part: np.sort(slice_ids) for part, slice_ids in parts.items()}
    for part, slice_ids in parts.items():
        if not slice_ids.size:
            raise InputError(
                f"Protocol {protocol!r} leaves no slice for {part}: prepare a dataset with more patients "
                "(config.data.data_dir)."
            )
    overlap = overlaps(table, parts)
    for kind in MUST_NOT_SHARE[protocol]:
        for pair, shared in overlap[kind].items():
            if shared:
                raise InputError(
                    f"Protocol {protocol!r} would put {', '.join(shared[:3])} into both {pair.replace('+', ' and ')}: "
                    "cvind.mat gives their slices different folds; fetch the dataset's own cvind.mat."
                )
    return parts


def overlaps(table: SliceTable, parts: Mapping[str, np.ndarray]) -> dict[str, dict[str, list[str]]]:
    """Which patients two parts share.

    Returns:
      {"patient_ids": {"train+validation": ids, "train+test": ids, "validation+test": ids}, "families": likewise}.
    """
    result: dict[str, dict[str, list[str]]] = {}
    for kind, names in (("patient_ids", table.patient_ids), ("families", table.families)):
        of_part = {part: set(_names_of(table, names, slice_ids)) for part, slice_ids in parts.items()}
        result[kind] = {
            f"{one}+{other}": sorted(of_part[one] & of_part[other])
            for one, other in (("train", "validation"), ("train", "test"), ("validation", "test"))
        }
    return result


def patients_of(table: SliceTable, slice_ids: np.ndarray) -> list[str]:
    """The patient ids of slices, each once, sorted."""
    return sorted(set(_names_of(table, table.patient_ids, slice_ids)))


def describe_splits(table: SliceTable, parts: dict[str, np.ndarray]) -> str:
    """A few lines: slices, ids and families of each part, and how many of them two parts share."""
    families = table.families
    lines = [
        f"  {part:<11} {slice_ids.size:5d} slices {len(set(_names_of(table, table.patient_ids, slice_ids))):4d} ids "
        f"{len(set(_names_of(table, families, slice_ids))):4d} families"
        for part, slice_ids in parts.items()
    ]
    overlap = overlaps(table, parts)
    for pair in overlap["families"]:
        ids, shared = len(overlap["patient_ids"][pair]), len(overlap["families"][pair])
        lines.append(f"  {pair.replace('+', ' and ')} share {ids} ids and {shared} families")
    return "\n".join(lines)


def _names_of(table: SliceTable, names: Sequence[str], slice_ids: np.ndarray) -> list[str]:
    return [names[row] for row in np.searchsorted(table.slice_ids, slice_ids)]


def _family_folds(table: SliceTable) -> np.ndarray:
    # The first id of a family is the one without a letter; it sorts before those with one.
    first_id = {
        family: patient for patient, family in sorted(zip(table.patient_ids, table.families, strict=True), reverse=True)
    }
    fold_of_id = dict(zip(table.patient_ids, table.folds, strict=True))
    return np.array([fold_of_id[first_id[family]] for family in table.families], np.int64)


def _halve_test_families(table: SliceTable, parts: dict[str, np.ndarray], *, leaked: bool) -> dict[str, np.ndarray]:
    """Takes half of each test family's slices out of test; if `leaked`, into train in place of as many others."""
    test = parts["test"][np.argsort(_draws("half", parts["test"].astype(str)), kind="stable")]
    families = np.array(_names_of(table, table.families, test))
    held, taken = [], []
    for family in sorted(set(families.tolist())):
        members = test[families == family].tolist()
        middle = (len(members) + 1) // 2
        held += members[:middle]
        taken += members[middle:]
    train = parts["train"]
    if leaked:
        if len(taken) > train.size:
            raise InputError("Protocol 'family_leaked' needs more slices to train on: prepare a larger dataset.")
        kept = np.argsort(_draws("kept", train.astype(str)), kind="stable")[: train.size - len(taken)]
        train = np.concatenate([train[kept], np.array(taken, np.int64)])
    return {"train": train, "validation": parts["validation"], "test": np.array(held, np.int64)}


def _draws(purpose: str, names: Sequence[str] | np.ndarray) -> list[float]:
    """A number in [0, 1) for each name, from its hash alone."""
    return [int.from_bytes(hashlib.sha256(f"{purpose} {name}".encode()).digest()[:8]) / 2**64 for name in names]


def _validation_families(families: np.ndarray, share: float) -> list[str]:
    names = sorted(set(families.tolist()))
    draws = dict(zip(names, _draws("validation", names), strict=True))
    # In a dataset of few families none may fall under the share: then the lowest one validates.
    return [family for family, draw in draws.items() if draw < share] or [min(draws, key=lambda name: draws[name])]
