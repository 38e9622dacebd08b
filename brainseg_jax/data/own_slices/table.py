"""Reads the table of a user's own slices and checks every row, every image and every mask."""

import csv
import hashlib
import io
import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from brainseg_jax.data.dataset_info import FOLDS
from brainseg_jax.data.own_slices.folds import make_folds
from brainseg_jax.data.own_slices.pair import read_levels, read_mask
from brainseg_jax.errors import InputError

REQUIRED = ("image", "mask", "patient")
OPTIONAL = ("class", "fold", "spacing")
ONLY_CLASS = "tumour"  # of a table without classes
SHOWN = 20  # problems that are listed
SHOWN_OF_CELL = 100  # characters


@dataclass(frozen=True)
class OwnSlice:
    """A row of the table.

    Attributes:
      slice_id: 1 for the first row below the header.
      image: the file.
      mask: the file; None for a slice without tumour.
      patient_id: not empty.
      label: name of the class.
      fold: 1..5.
      spacing_mm: side of a pixel in millimetres, NaN if unknown.
    """

    slice_id: int
    image: Path
    mask: Path | None
    patient_id: str
    label: str
    fold: int
    spacing_mm: float

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Reads image, (H, W) float32, and mask, (H, W) uint8; all zeros where there is no file.

        Raises:
          InputError: see `read_levels` and `read_mask`.
        """
        image = read_levels(self.image)
        return image, read_mask(self.mask) if self.mask else np.zeros(image.shape, np.uint8)


@dataclass(frozen=True)
class Source:
    """Slices that were checked, and a checksum of all that is stored of them."""

    slices: tuple[OwnSlice, ...]
    fingerprint: str


def read_source(table: Path, *, images: Path, masks: Path, seed: int) -> Source:
    """Reads the table and every file that it names.

    Args:
      table: a CSV file in UTF-8 with the columns `REQUIRED` and, if wanted, `OPTIONAL`; others are not used.
      images: the folder to which the paths in column `image` are relative.
      masks: the same for column `mask`; an empty cell says that the slice has no tumour.
      seed: of the folds, where the table has none; see `make_folds`.

    Returns:
      The slices, in the order of the rows.

    Raises:
      InputError: a folder or a column is missing, or rows or files are bad: the message lists all problems.
    """
    for name, folder in (("images", images), ("masks", masks)):
        if not folder.is_dir():
            raise InputError(f"--{name} is {folder}, which is not a folder: name the folder of the {name}.")
    rows = _read_rows(table)
    problems: list[str] = []
    slices = [_parse(number, row, images, masks, problems.append) for number, row in enumerate(rows, start=1)]
    _check_together(rows, images, problems.append)
    if "fold" not in rows[0]:
        folds = make_folds([one.patient_id for one in slices], seed=seed)
        slices = [OwnSlice(**{**vars(one), "fold": fold}) for one, fold in zip(slices, folds, strict=True)]
    digest = hashlib.sha256()
    for row, one in zip(rows, tqdm(slices, "checking", unit="slice", leave=False, disable=None), strict=True):
        if row["image"]:
            facts = (one.slice_id, one.patient_id, one.label, one.fold, one.spacing_mm)
            digest.update(repr(facts).encode() + _check_files(one, problems.append))
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems[:SHOWN])
        more = f"\n  … and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise InputError(f"{table} has {len(problems)} problems; mend them and run this again:{listed}{more}")
    return Source(tuple(slices), digest.hexdigest())


def _read_rows(table: Path) -> list[dict[str, str]]:
    """Returns the rows with a cell for each known column of the table, without surrounding blanks."""
    if not table.is_file():
        raise InputError(f"--table is {table}, which cannot be read (it is no file): name a CSV file in UTF-8.")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets put a byte order mark first
            text = file.read()
        if "\0" in text:
            raise ValueError("it has characters of value 0, as UTF-16 has")
        header, *lines = [line for line in csv.reader(io.StringIO(text, newline="")) if any(line)] or [[]]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"--table is {table}, which cannot be read ({error}): name a CSV file in UTF-8.") from error
    columns = [name.strip() for name in header]
    if missing := [name for name in REQUIRED if name not in columns]:
        raise InputError(
            f"{table} has no column {', '.join(missing)}; its columns are {_in_a_line(columns) or 'none'}: separate "
            f"them by commas and name them {', '.join(REQUIRED)} and, if wanted, {', '.join(OPTIONAL)}."
        )
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise InputError(f"{table} has the column {_in_a_line(twice[:1])} twice: remove one.")
    if unused := [name for name in columns if name not in (*REQUIRED, *OPTIONAL)]:
        warnings.warn(f"{table}: these columns are not used: {', '.join(unused)}", stacklevel=2)
    if not lines:
        raise InputError(f"{table} has no row: give a row for each slice.")
    if uneven := [number for number, line in enumerate(lines, start=1) if len(line) != len(columns)]:
        raise InputError(
            f"{table} has {len(columns)} columns and row {uneven[0]} has {len(lines[uneven[0] - 1])} cells "
            f"({len(uneven)} rows in all are like that): give each row a cell for each column."
        )
    known = [name for name in columns if name in (*REQUIRED, *OPTIONAL)]
    cells = (dict(zip(columns, (cell.strip() for cell in line), strict=True)) for line in lines)
    return [{name: row[name] for name in known} for row in cells]


def _in_a_line(columns: list[str]) -> str:
    """Joins column names in a line: if a table does not close its quotes, one name is the whole text."""
    return " ".join(", ".join(columns).split())[:200]


def _parse(number: int, row: dict[str, str], images: Path, masks: Path, report: Callable[[str], None]) -> OwnSlice:
    """Returns a row as a slice; reports bad values and puts arbitrary good ones in their place."""
    where = f"slice {number} ({row['image'] or 'no image'})"
    for name in ("image", "patient", "class"):
        if not row.get(name, "given"):
            report(f"{where}: {name} is empty")
    fold, spacing = row.get("fold", "1"), row.get("spacing", "")
    if fold not in map(str, FOLDS):
        report(f"{where}: fold is {fold[:SHOWN_OF_CELL] or 'empty'}, not one of {', '.join(map(str, FOLDS))}")
        fold = "1"
    try:
        spacing_mm = float(spacing or "nan")
    except ValueError:
        spacing_mm = 0.0
    if spacing and not 0 < spacing_mm < math.inf:
        report(f"{where}: spacing is {spacing[:SHOWN_OF_CELL]}, not a positive number of millimetres")
    mask = masks / row["mask"] if row["mask"] else None
    label = row.get("class", ONLY_CLASS)
    return OwnSlice(number, images / row["image"], mask, row["patient"], label, int(fold), spacing_mm)


def _check_together(rows: list[dict[str, str]], images: Path, report: Callable[[str], None]) -> None:
    """Reports images that are named twice and patients in several folds."""
    first: dict[str, int] = {}
    folds: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        where = f"slice {number} ({row['image']})"
        if row["image"] and (same := first.setdefault(os.path.realpath(images / row["image"]), number)) != number:
            report(f"{where}: slice {same} has the same image")
        if (
            row["patient"]
            and row.get("fold")
            and (fold := folds.setdefault(row["patient"], row["fold"])) != row["fold"]
        ):
            report(f"{where}: patient {row['patient']} is in fold {row['fold']} here and in fold {fold} before")


def _check_files(one: OwnSlice, report: Callable[[str], None]) -> bytes:
    """Reports what is wrong with the files of a slice; returns the bytes of image and mask."""
    arrays: list[np.ndarray] = []
    for read, path in ((read_levels, one.image), (read_mask, one.mask)):
        try:
            arrays += [read(path)] if path else []
        except InputError as error:
            report(f"slice {one.slice_id}: {error}")
    if len(arrays) == 2 and arrays[0].shape != arrays[1].shape:
        sizes = ("×".join(map(str, array.shape)) for array in arrays)
        report(f"slice {one.slice_id}: {one.image} and {one.mask} have different sizes, {' and '.join(sizes)}")
    return b"".join(repr(array.shape).encode() + array.tobytes() for array in arrays)
