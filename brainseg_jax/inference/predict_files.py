"""Masks of image files."""

import csv
import glob
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from brainseg_jax.data.image_files import SUFFIXES, read_image
from brainseg_jax.data.preprocessing import scale_image
from brainseg_jax.errors import InputError
from brainseg_jax.inference.predictor import BATCH_SIZE, Segmenter
from brainseg_jax.metrics.mask_measures import centroid, largest_diameter
from brainseg_jax.plots.overlays import overlay
from brainseg_jax.utils.files import write_csv

TABLE = "predictions.csv"
COLUMNS = (
    *("file", "mask", "tumour_pixels", "tumour_share", "largest_diameter_pixels", "mean_probability"),
    *("centroid_row", "centroid_column"),
)
# Files of the dataset's folders that are no images.
NO_IMAGES = ("cvind.mat",)


def predict_files(segmenter: Segmenter, paths: Sequence[Path], output: Path) -> Iterator[tuple[Path, str]]:
    """Writes `<name>_mask.png` (0 and 255), `<name>_overlay.png` and a row of predictions.csv for each image.

    A row has the number and the share of the tumour's pixels, their largest distance in pixels, their mean probability,
    and their mean row and column; rows of earlier calls stay. An image that cannot be read is passed over.

    Args:
      segmenter: the network.
      paths: `.mat`, PNG and JPEG files; see `find_images`.
      output: folder for the files; made if missing.

    Yields:
      For each image its path and why it could not be read; "" when its files are written.

    Raises:
      InputError: the folder holds a file of one of those names that no earlier call wrote.
    """
    rows, written = _read_table(output), _written(output)
    for name in itertools.chain.from_iterable(map(_names, paths)):
        if (output / name).exists() and name not in written:
            raise InputError(f"{output / name} is there and not listed in {output / TABLE}: name another --output.")
    output.mkdir(parents=True, exist_ok=True)
    remaining = iter(paths)
    while batch := list(itertools.islice(remaining, BATCH_SIZE)):
        images, failures = {}, {}
        for path in batch:
            try:
                images[path] = read_image(path)
            except (InputError, OSError) as error:
                failures[path] = str(error)
        masks = {}
        predicted = segmenter.probabilities([*images.values()]) if images else []
        for path, probabilities in zip(images, predicted, strict=True):
            mask = masks[path] = segmenter.postprocessing.mask(probabilities)
            rows[str(path)] = _measure(path, mask, probabilities)
        # First the table: after an interruption it says which files are not the user's.
        write_csv(output / TABLE, COLUMNS, rows.values())
        for path, mask in masks.items():
            mask_name, overlay_name = _names(path)
            Image.fromarray(overlay(scale_image(images[path]), mask)).save(output / overlay_name)
            Image.fromarray(mask.astype(np.uint8) * 255).save(output / mask_name)
        yield from ((path, failures.get(path, "")) for path in batch)


def find_images(inputs: Sequence[str], *, output: Path) -> list[Path]:
    """Finds the files that paths, folders and glob patterns name.

    Args:
      inputs: each a file, a folder, whose images are taken, or a pattern; "~" is the home folder.
      output: the folder for the masks; what earlier calls wrote there is not taken.

    Returns:
      The files, each once, in the order of `inputs` and sorted within one.

    Raises:
      InputError: one of `inputs` names no file, a file has an unknown suffix, or two would give masks of one name.
    """
    found: dict[Path, None] = {}
    folder, written = output.resolve(), _written(output)
    for name in inputs:
        path = Path(name).expanduser()
        if path.is_file():
            names = [path]
        elif path.is_dir():
            names = sorted(one for one in path.iterdir() if one.suffix.lower() in SUFFIXES)
        else:
            names = sorted(map(Path, glob.glob(str(path), recursive=True)))
        names = [one for one in names if one.is_file() and one.name not in NO_IMAGES]
        # What earlier calls wrote is no image; what else is there may be one.
        names = [one for one in names if one.parent.resolve() != folder or one.name not in written]
        if not names:
            raise InputError(
                f"--input={name} names no image: give a file, a folder of images, or a quoted pattern such as "
                "'slices/*.png'."
            )
        found.update(dict.fromkeys(names))
    seen: dict[str, Path] = {}
    for path in found:
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(f"{path} has the suffix {path.suffix!r}: --input takes {', '.join(SUFFIXES)} files.")
        if path.stem in seen:
            raise InputError(f"{seen[path.stem]} and {path} would both give {path.stem}_mask.png: rename one of them.")
        seen[path.stem] = path
    return [*found]


def _names(path: Path) -> tuple[str, str]:
    """Returns the names of the mask and the overlay of an image."""
    return f"{path.stem}_mask.png", f"{path.stem}_overlay.png"


def _written(output: Path) -> set[str]:
    """Returns the names of all files that earlier calls wrote into a folder."""
    return set(itertools.chain.from_iterable(_names(Path(file)) for file in _read_table(output)))


def _measure(path: Path, mask: np.ndarray, probabilities: np.ndarray) -> dict[str, str]:
    area, (row, column) = int(mask.sum()), centroid(mask)
    mean_probability = float(probabilities[mask].mean()) if area else math.nan
    numbers = (area / mask.size, largest_diameter(mask), mean_probability, row, column)
    cells = (str(path), _names(path)[0], str(area), *("" if math.isnan(x) else f"{x:.6g}" for x in numbers))
    return dict(zip(COLUMNS, cells, strict=True))


def _read_table(output: Path) -> dict[str, dict[str, str]]:
    """Returns the rows of predictions.csv by file; none where there is no such file."""
    path = output / TABLE
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise InputError(f"{path} is there and not of this program: name another --output.")
        return {row["file"]: row for row in reader}
