"""Lists how the files that two runs of a command left differ, ignoring times and paths."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from PIL import Image

from brainseg_jax.data.dataset import Dataset
from brainseg_jax.workdir.checkpoints import Checkpoints

# What may differ between two runs: when and where they ran.
OF_THE_CALL = ("command", "seconds", "slices_per_second", "data_dir")


def same_dataset(whole: Path, other: Path) -> list[str]:
    """Compares two datasets of phantoms: every slice's pixels and metadata."""
    first, second = (Dataset(str(folder), config="phantom") for folder in (whole, other))
    about = [
        {name: np.asarray(value).tolist() for name, value in vars(one.metadata).items()} for one in (first, second)
    ]
    if first.fingerprint != second.fingerprint or about[0] != about[1]:
        return ["the dataset's metadata differ"]
    ids = first.metadata.slice_ids
    pairs = zip(first.read(ids), second.read(ids), strict=True)
    return [
        f"slice {one.slice_id} differs"
        for one, two in pairs
        if not all(np.array_equal(*both, equal_nan=True) for both in zip(one, two, strict=True))
    ]


def same_run(whole: Path, other: Path) -> list[str]:
    """Compares two workdirs: metrics, both checkpoints, the tuned masks, the splits, and which files there are."""
    wrong = [] if lines(whole / "metrics.jsonl") == lines(other / "metrics.jsonl") else ["metrics.jsonl differs"]
    wrong += [name for name in ("postprocessing.json", "splits.json") if load(whole / name) != load(other / name)]
    with Checkpoints(whole / "checkpoints") as first, Checkpoints(other / "checkpoints") as second:
        epochs = [(one.latest_epoch(), one.best_epoch()) for one in (first, second)]
    if epochs[0] != epochs[1]:
        wrong.append(f"the checkpoints are of epochs {epochs[1]}, not {epochs[0]}")
    for epoch in {*epochs[0]}:
        arrays = [arrays_of(folder / "checkpoints", epoch) for folder in (whole, other)]
        if arrays[0].keys() != arrays[1].keys() or not all(
            np.array_equal(array, arrays[1][name]) for name, array in arrays[0].items()
        ):
            wrong.append(f"the checkpoint of epoch {epoch} differs")
    return wrong + same_pictures(whole, other)


def same_masks(whole: Path, other: Path) -> list[str]:
    """Compares two folders of masks: the pictures and predictions.csv."""
    table = "predictions.csv"
    wrong = [] if (whole / table).read_bytes() == (other / table).read_bytes() else [f"{table} differs"]
    return wrong + same_pictures(whole, other)


def same_scores(whole: Path, other: Path) -> list[str]:
    """Compares the scores that two folders hold, also of the folds of a cross-validation."""
    wrong = []
    for path in sorted(whole.rglob("per_slice_*.csv")):
        name = path.relative_to(whole)
        if not (other / name).exists() or path.read_bytes() != (other / name).read_bytes():
            wrong.append(f"{name} differs")
    for path in sorted(whole.rglob("evaluation_*.json")):
        name = path.relative_to(whole)
        if not (other / name).exists() or load(path) != load(other / name):
            wrong.append(f"{name} differs")
    return wrong + same_pictures(whole, other)


def same_pictures(whole: Path, other: Path) -> list[str]:
    """Compares all PNG files: which there are, that they are whole, and the pixels of those that are no figures."""
    names = [{str(path.relative_to(folder)) for path in folder.rglob("*.png")} for folder in (whole, other)]
    if names[0] != names[1]:
        return [f"these PNG files are in one folder only: {sorted(names[0] ^ names[1])}"]
    wrong = []
    for name in sorted(names[0]):
        first, second = (np.asarray(Image.open(folder / name)) for folder in (whole, other))
        # Titles of figures name the folder.
        if "figures/" not in name and not np.array_equal(first, second):
            wrong.append(f"{name} differs")
    return wrong


def lines(path: Path) -> list[Any]:
    """Returns a JSONL file without times."""
    return [without_times(json.loads(line)) for line in path.read_text().splitlines()]


def load(path: Path) -> Any:
    """Returns a JSON file without times and places."""
    return without_times(json.loads(path.read_text()))


def without_times(value: Any) -> Any:
    """Leaves out of a JSON value what `OF_THE_CALL` names."""
    if isinstance(value, dict):
        kept = {key: one for key, one in value.items() if not any(word in key for word in OF_THE_CALL)}
        return {key: without_times(one) for key, one in kept.items()}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def arrays_of(directory: Path, epoch: int) -> dict[str, np.ndarray]:
    """Returns every array of a checkpoint by its path, read by orbax alone."""
    tree = ocp.PyTreeCheckpointer().restore(directory / str(epoch) / "default")
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def write_images(folder: Path, *, count: int = 6, size: int = 40) -> None:
    """Writes pictures of noise to predict."""
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size), np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{number}.png")
