"""Masks from a trained network: for arrays, and for files."""

import functools
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

from brainseg_jax.data.dataset import Dataset, Record
from brainseg_jax.data.preprocessing import from_network_size, scale_image, to_network_size
from brainseg_jax.errors import InputError
from brainseg_jax.models import create_model
from brainseg_jax.training.optimizer import create_optimization
from brainseg_jax.training.state import Variables, create_train_state
from brainseg_jax.utils.sharding import AXIS, batch_sharding, replicated, shard
from brainseg_jax.workdir.checkpoints import Checkpoints
from brainseg_jax.workdir.files import read_config, read_splits

BATCH_SIZE = 16


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
    config = read_config(directory)
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
            mesh = Mesh(np.array(devices[:count]), (AXIS,))
            return mesh, shard(variables, replicated(mesh))

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
        batch = shard(inputs[..., None], batch_sharding(mesh, axis=0))
        outputs = np.asarray(self._probabilities(variables, batch))[..., 0]
        return [from_network_size(output, shape=image.shape) for output, image in zip(outputs, images, strict=False)]


def predict_records(
    predictor: Probabilities, dataset: Dataset, slice_ids: np.ndarray
) -> Iterator[tuple[Record, np.ndarray]]:
    """Reads slices, predicts them in batches and gives each with its probabilities, (H, W) at its own size."""
    records = dataset.read(slice_ids)
    while batch := list(itertools.islice(records, BATCH_SIZE)):
        yield from zip(batch, predictor([record.image for record in batch]), strict=True)


class Ensemble:
    """The best checkpoints of several runs as one function from pictures to probabilities.

    Attributes:
      epochs: the epoch of each checkpoint.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        """Restores the networks.

        Args:
          directories: the workdirs of runs that were trained on the same slices; sizes and networks may differ.

        Raises:
          InputError: there is no run or no checkpoint, or two runs divide the slices differently, so that a test
            slice of one may be a training slice of another.
        """
        for directory in directories[1:]:
            if read_splits(directory) != read_splits(directories[0]):
                raise InputError(
                    f"{directory / 'splits.json'} lists other slices than that of {directories[0]}: name runs of one "
                    "protocol, fold, split seed and dataset, of which none was trained on another's test slices."
                )
        self._members = [Predictor(directory) for directory in directories]
        self.epochs = [member.epoch for member in self._members]

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Predicts; see `Predictor`."""
        of_members = [member(images) for member in self._members]
        return [np.mean(of_picture, axis=0) for of_picture in zip(*of_members, strict=True)]
