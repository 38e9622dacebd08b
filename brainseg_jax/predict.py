"""Masks from a trained network: for arrays, and for files."""

import functools
import glob
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from flax import linen as nn
from jax import Array
from jax.sharding import Mesh
from PIL import Image, UnidentifiedImageError

from brainseg_jax import parallel, workdir
from brainseg_jax.checkpoint import Checkpoints
from brainseg_jax.decision import Decision
from brainseg_jax.errors import InputError
from brainseg_jax.figshare_brain_tumor import mat_file
from brainseg_jax.input_pipeline import Dataset, Record, from_network_size, scale_image, to_network_size
from brainseg_jax.models import create_model
from brainseg_jax.overlays import overlay
from brainseg_jax.train_state import Variables, create_optimization, create_train_state

BATCH_SIZE = 16
SUFFIXES = (".mat", ".png", ".jpg", ".jpeg")


# Pictures, each (H, W), to the probability that a pixel is tumour, each (H, W).
Probabilities = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


class TrainedNetwork(NamedTuple):
    """The best checkpoint of a run.

    Attributes:
      config: the run's.
      model: the network.
      variables: what `model.apply` takes, NumPy arrays.
      epoch: the epoch of the checkpoint.
    """

    config: ml_collections.ConfigDict
    model: nn.Module
    variables: Variables
    epoch: int


def restore_best(directory: Path) -> TrainedNetwork:
    """Restores the best checkpoint of the run in a workdir; where there are several processes, all must call it.

    Raises:
      InputError: there is no run or no checkpoint.
    """
    config = workdir.read_config(directory)
    model = create_model(**config.model)
    optimization = create_optimization(**config.optimizer, epochs=config.train.epochs, steps_per_epoch=1000)
    shapes = jax.eval_shape(
        lambda: create_train_state(
            jax.random.key(0),
            model,
            optimization,
            image_size=config.data.image_size,
            with_average=config.train.ema_decay > 0,
        )
    )
    if not (directory / "checkpoints").is_dir():
        raise InputError(f"{directory / 'checkpoints'} is missing: train first, or name another --workdir.")
    with Checkpoints(directory / "checkpoints") as checkpoints:
        best = checkpoints.best_epoch()
        variables = jax.device_get(checkpoints.restore(best, shapes).variables)
    return TrainedNetwork(config, model, variables, best or 0)


class Predictor:
    """The best checkpoint of a run as a function from pictures to probabilities.

    Attributes:
      epoch: the epoch of the checkpoint.
    """

    def __init__(self, directory: Path) -> None:
        """Restores the network.

        Args:
          directory: the workdir of a run.

        Raises:
          InputError: there is no run or no checkpoint.
        """
        config, model, variables, self.epoch = restore_best(directory)
        devices = jax.local_devices()
        self._size, self._percentile = config.data.image_size, config.data.intensity_percentile
        self._largest = 1

        def probabilities(variables: Variables, images: Array) -> Array:
            def apply(images: Array) -> Array:
                logits: Any = model.apply(variables, images, train=False)
                return jax.nn.sigmoid(logits)

            if config.evaluation.flip:
                return (apply(images) + apply(images[:, :, ::-1])[:, :, ::-1]) / 2
            return apply(images)

        @functools.cache
        def on_devices(count: int) -> tuple[Mesh, Variables]:
            mesh = Mesh(np.array(devices[:count]), (parallel.AXIS,))
            return mesh, parallel.put(variables, parallel.replicated(mesh))

        self._probabilities = jax.jit(probabilities)
        self._on_devices = on_devices

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Predicts.

        Args:
          images: pictures, each (H, W) of any size, real dtype and range, upright.

        Returns:
          For each the probability that a pixel is tumour, (H, W) float32 in [0, 1], at the picture's own size.
        """
        scaled = [scale_image(image, percentile=self._percentile) for image in images]
        inputs = np.stack([to_network_size(image, size=self._size) for image in scaled])
        # The batch is filled up to a power of two, or to the largest before, whose program is there; few are compiled.
        filled = self._largest = max(1 << (len(images) - 1).bit_length(), self._largest)
        inputs = np.pad(inputs, ((0, filled - len(images)), (0, 0), (0, 0)))
        # Divided among the devices.
        mesh, variables = self._on_devices(math.gcd(filled, 1 << (jax.local_device_count().bit_length() - 1)))
        batch = parallel.put(inputs[..., None], parallel.divided(mesh, axis=0))
        outputs = np.asarray(self._probabilities(variables, batch))[..., 0]
        return [from_network_size(output, shape=image.shape) for output, image in zip(outputs, images, strict=False)]


def predict_records(
    predictor: Probabilities, dataset: Dataset, slice_ids: np.ndarray
) -> Iterator[tuple[Record, np.ndarray]]:
    """Reads slices, predicts them in batches and gives each with its probabilities, (H, W) at its own size."""
    records = dataset.read(slice_ids)
    while batch := list(itertools.islice(records, BATCH_SIZE)):
        yield from zip(batch, predictor([record.image for record in batch]), strict=True)


def read_picture(path: Path) -> np.ndarray:
    """Reads a picture: (H, W), upright, in the file's own range; colours become grey.

    Raises:
      InputError: the file is not a `.mat`, PNG or JPEG file, or it is damaged.
    """
    if path.suffix.lower() == ".mat":
        return mat_file.read_image(path.read_bytes(), name=str(path))
    try:
        with Image.open(path) as picture:
            # Pictures of 16 or 32 bits keep their levels; "L" would cut them to 8.
            grey = (
                picture if picture.mode in ("I", "F", "L") or picture.mode.startswith("I;16") else picture.convert("L")
            )
            return np.asarray(grey)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise InputError(
            f"{path} is not a readable PNG or JPEG picture: remove it from --input, or save it again."
        ) from error


def predict_files(predictor: Predictor, decision: Decision, paths: Sequence[Path], output: Path) -> Iterator[Path]:
    """Writes `<name>_mask.png` (0 and 255) and `<name>_overlay.png` for each picture, batch by batch.

    Args:
      predictor: the network.
      decision: which pixels are tumour.
      paths: `.mat`, PNG and JPEG files.
      output: folder for the pictures; made if missing.

    Yields:
      The path of each mask when both files are written.

    Raises:
      InputError: see `read_picture`.
    """
    output.mkdir(parents=True, exist_ok=True)
    remaining = iter(paths)
    while batch := list(itertools.islice(remaining, BATCH_SIZE)):
        images = [read_picture(path) for path in batch]
        for path, image, probabilities in zip(batch, images, predictor(images), strict=True):
            mask = decision.mask(probabilities)
            Image.fromarray(overlay(scale_image(image), mask)).save(output / f"{path.stem}_overlay.png")
            Image.fromarray(mask.astype(np.uint8) * 255).save(output / f"{path.stem}_mask.png")
            yield output / f"{path.stem}_mask.png"


def find_pictures(pattern: str) -> list[Path]:
    """The files that a glob pattern names, sorted.

    Raises:
      InputError: there are none, one has an unknown suffix, or two would give masks of one name.
    """
    paths = [Path(name) for name in sorted(glob.glob(pattern, recursive=True)) if Path(name).is_file()]
    if not paths:
        raise InputError(f"--input={pattern} names no file: give a path or a quoted pattern such as 'slices/*.png'.")
    seen: dict[str, Path] = {}
    for path in paths:
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(f"{path} has the suffix {path.suffix!r}: --input takes {', '.join(SUFFIXES)} files.")
        if path.stem in seen:
            raise InputError(f"{seen[path.stem]} and {path} would both give {path.stem}_mask.png: rename one of them.")
        seen[path.stem] = path
    return paths
