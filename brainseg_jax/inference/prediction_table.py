"""The table predictions.csv: what was measured in each slice, and which files were written."""

import csv
import io
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from brainseg_jax.data.formats.image_slice import ImageSlice
from brainseg_jax.data.image_files import format_of, stem_of
from brainseg_jax.errors import InputError
from brainseg_jax.metrics.mask_measures import centroid, largest_diameter
from brainseg_jax.utils.files import write_csv

FILE = "predictions.csv"
MEASURED = (
    *("file", "slice", "mask", "tumour_pixels", "tumour_share", "tumour_mm2", "largest_diameter_pixels"),
    *("largest_diameter_mm", "mean_probability", "centroid_row", "centroid_column"),
)
COLUMNS = (*MEASURED, "weights", "threshold", "min_component_fraction")
_OF_SLICE = ("_mask.png", "_overlay.png", "_probabilities.png")
_OF_FILE = {"NIfTI": ("_mask.nii.gz", "_probabilities.nii.gz"), "DICOM": ("_mask.dcm",)}
_OURS = re.compile(r"(.+?)(_\d{3,})?_(mask|overlay|probabilities)\.(png|nii\.gz|dcm)")


def slice_name(path: Path, number: int | None) -> str:
    """Returns the beginning of the names of a slice's files; `number` is that of `ImageSlice`."""
    return stem_of(path) + ("" if number is None else f"_{number:03d}")


class PredictionTable:
    """The rows of predictions.csv in a folder, one per slice; those of earlier calls stay.

    Attributes:
      owners: maps the name of each file that the rows list as written to the image file that it belongs to.
    """

    def __init__(self, folder: Path) -> None:
        """Reads the table if there is one.

        Raises:
          InputError: the file is not a table of this program.
        """
        self.path, self._rows = folder / FILE, dict[tuple[str, str], Mapping[str, str]]()
        self.owners: dict[str, Path] = {}
        self._is_whole = False  # whether the file holds exactly these rows
        if self.path.exists():
            with self.path.open(newline="", errors="replace") as file:
                text = file.read()
            # A killed process may leave the beginning of a row.
            reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
            if tuple(reader.fieldnames or ()) not in (COLUMNS, MEASURED):  # earlier versions had only what is measured
                raise InputError(f"{self.path} is there and not of this program: name another --output.")
            self._take({name: row.get(name, "") for name in COLUMNS} for row in reader)

    def check(self, paths: Sequence[Path]) -> None:
        """Checks that no file would be overwritten except those that earlier calls wrote for the same image.

        Raises:
          InputError: another file would be overwritten.
        """
        sources = {stem_of(path): path for path in paths}
        for existing in self.path.parent.iterdir() if self.path.parent.is_dir() else ():
            if match := _OURS.fullmatch(existing.name):
                stems = (match[1], match[1] + (match[2] or ""))
                for path in (sources[stem] for stem in stems if stem in sources):
                    self.check_name(existing.name, path)

    def check_name(self, name: str, path: Path) -> None:
        """Checks that a file does not exist in the folder, or was written for the image `path`; see `check`."""
        owner = self.owners.get(name)
        if (self.path.parent / name).exists() and owner is None:
            raise InputError(
                f"{self.path.parent / name} is there and not listed in {self.path}: name another --output."
            )
        if owner is not None and owner.resolve() != path.resolve():
            raise InputError(f"{self.path.parent / name} is of {owner} and not of {path}: name another --output.")

    def append(self, rows: Sequence[Mapping[str, str]]) -> None:
        """Appends all rows to the file or none; the time that it takes does not depend on the file's length."""
        if not self._is_whole:
            self.finish()
        before = self.path.stat().st_size
        try:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, COLUMNS, lineterminator="\n").writerows(rows)
        except OSError:
            os.truncate(self.path, before)
            raise
        self._take(rows)

    def finish(self) -> None:
        """Rewrites the file with only the last row of each slice."""
        write_csv(self.path, COLUMNS, self._rows.values())
        self._is_whole = True

    def _take(self, rows: Iterable[Mapping[str, str]]) -> None:
        for row in rows:
            path = Path(row["file"])
            self._rows[row["file"], row["slice"]] = row
            name = slice_name(path, int(row["slice"]) if row["slice"] else None)
            names = [name + ending for ending in _OF_SLICE]
            names += [stem_of(path) + ending for ending in _OF_FILE.get(format_of(path) or "DICOM", ())]
            self.owners.update(dict.fromkeys(names, path))


def measure(path: Path, slice_: ImageSlice, mask: np.ndarray, probabilities: np.ndarray) -> dict[str, str]:
    """Measures a mask.

    Args:
      path: the slice's file.
      slice_: the slice.
      mask: (H, W) bool.
      probabilities: (H, W) float32.

    Returns:
      The `MEASURED` cells of a row: number and share of the tumour's pixels and their area in mm², their largest
      distance in pixels and mm, their mean probability, and their mean row and column, from 0. What is not known is
      empty.
    """
    area, (row, column) = int(mask.sum()), centroid(mask)
    down, right = slice_.spacing_mm or (math.nan, math.nan)
    numbers = (
        *(area / mask.size, area * down * right, largest_diameter(mask), largest_diameter(mask, spacing=(down, right))),
        *(float(probabilities[mask].mean()) if area else math.nan, row, column),
    )
    name = f"{slice_name(path, slice_.number)}_mask.png"
    number = "" if slice_.number is None else str(slice_.number)
    cells = (str(path), number, name, str(area), *("" if math.isnan(x) else f"{x:.6g}" for x in numbers))
    return dict(zip(MEASURED, cells, strict=True))
