"""Trained networks as functions from images to probabilities and masks."""

import functools
import itertools
import json
import math
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax import Array
from jax.sharding import Mesh

from brainseg_jax.data.dataset import Dataset, Sample
from brainseg_jax.data.preprocessing import resize_to_model, resize_to_original, scale_image
from brainseg_jax.errors import InputError
from brainseg_jax.inference.postprocessing import Postprocessing, read_postprocessing
from brainseg_jax.models import Network, create_model
from brainseg_jax.models.compilation import compiler_options
from brainseg_jax.utils.files import write_json
from brainseg_jax.utils.memory import is_out_of_memory
from brainseg_jax.utils.sharding import AXIS, batch_sharding, replicated, shard
from brainseg_jax.workdir import weights
from brainseg_jax.workdir.checkpoints import Checkpoints
from brainseg_jax.workdir.files import read_config

BATCH_SIZE = 16
PredictStep = Callable[[dict[str, Any], Array], Array]


class Segmenter(Protocol):
    """The interface of whatever predicts: one trained network, or several as one."""

    config: ml_collections.ConfigDict
    postprocessing: Postprocessing

    def probabilities(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns for each image (H, W) the probability that a pixel is tumour, (H, W) float32."""


class Predictor:
    """A trained network.

    Attributes:
      config: of its training.
      variables: what `model.apply` takes, NumPy arrays.
      epoch: of its checkpoint.
      postprocessing: how its probabilities become masks.
      tta_flip: whether probabilities are means over an image and its mirror image.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        variables: dict[str, Any],
        postprocessing: Postprocessing,
        *,
        epoch: int = 0,
        tta_flip: bool = False,
    ) -> None:
        """Wraps a network.

        Args:
          config: of its training; see brainseg_jax/config.py.
          variables: what `model.apply` takes.
          postprocessing: how its probabilities become masks.
          epoch: of its checkpoint.
          tta_flip: whether probabilities are means over an image and its mirror image.

        Raises:
          InputError: the config names no network.
        """
        self.config, self.variables, self.postprocessing = config, variables, postprocessing
        self.epoch, self.tta_flip = epoch, tta_flip
        self._directory: Path | None = None
        self._filled, self._most = 1, sys.maxsize
        devices = jax.local_devices()

        @functools.cache
        def on_devices(count: int) -> tuple[Mesh, dict[str, Any]]:
            mesh = Mesh(np.array(devices[:count]), (AXIS,))
            return mesh, shard(variables, replicated(mesh))

        model = create_model(config.model)
        options = compiler_options(model, image_size=config.data.image_size)
        self._predict = make_predict_step(model, tta_flip=tta_flip, options=options)
        self._on_devices = on_devices

    @classmethod
    def from_workdir(
        cls,
        directory: str | Path,
        *,
        threshold: float | None = None,
        min_component_fraction: float | None = None,
        tta_flip: bool | None = None,
    ) -> "Predictor":
        """Opens the best checkpoint of a run; where there are several processes, all must call it.

        Args:
          directory: the run's workdir, or a folder that `save_pretrained` wrote.
          threshold: overrides the run's.
          min_component_fraction: overrides the run's.
          tta_flip: overrides the run's.

        Raises:
          InputError: there is no run, no checkpoint or no postprocessing yet, or a value is outside its range.
        """
        directory = Path(directory)
        config = read_config(directory)
        variables, epoch = restore_variables(directory, config)
        tta_flip = config.evaluation.tta_flip if tta_flip is None else tta_flip
        if threshold is not None and min_component_fraction is not None:
            postprocessing = Postprocessing(threshold, min_component_fraction)
        else:
            postprocessing = read_postprocessing(directory, config, epoch=epoch, tta_flip=tta_flip)
            postprocessing = postprocessing.with_changes(threshold, min_component_fraction)
        predictor = cls(config, variables, postprocessing, epoch=epoch, tta_flip=tta_flip)
        predictor._directory = directory
        return predictor

    @classmethod
    def from_pretrained(cls, name: str | Path = weights.DEFAULT, **options: Any) -> "Predictor":
        """Opens trained weights.

        Args:
          name: of weights in the package (`packaged_weights()` of workdir/weights.py), or a folder: a workdir, or one
            that `save_pretrained` wrote.
          **options: see `from_workdir`.

        Raises:
          InputError: see `find_weights` and `from_workdir`.
        """
        return cls.from_workdir(weights.find_weights(name), **options)

    def save_pretrained(self, folder: str | Path, *, dtype: str = "float32") -> None:
        """Writes the network into a folder that travels: `from_pretrained` opens it on any machine.

        It gets model.safetensors; config.json, with this predictor's threshold, smallest component and flip, but
        without paths; and splits.json, with the training patients, and environment.json of the run, if there is one.

        Args:
          folder: made if missing.
          dtype: of the weights, "float32", "float16" or "int6" (see `write_weights`).

        Raises:
          InputError: the folder is not empty, or the dtype is unknown.
        """
        folder = Path(folder)
        weights.check_new(folder)
        config = self.config.copy_and_resolve_references()
        # The path of a run that this one started from means nothing elsewhere, and that run has seen no slice that this
        # one is tested on (`check_no_leakage`). Names of packaged weights are kept: they may be of another dataset.
        start = config.train.init_from if config.train.init_from in weights.packaged_weights() else ""
        config.update_from_flattened_dict({"data.data_dir": "", "train.init_from": start})
        config.evaluation.update(vars(self.postprocessing), tta_flip=self.tta_flip, tune_postprocessing=False)
        weights.write_weights(folder, self.variables, epoch=self.epoch, dtype=dtype)
        write_json(folder / "config.json", json.loads(config.to_json()))
        for name in ("splits.json", "environment.json"):
            if self._directory and (self._directory / name).exists():
                shutil.copyfile(self._directory / name, folder / name)

    def probabilities(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Predicts.

        Args:
          images: each (H, W) of any size, real dtype and range, upright.

        Returns:
          For each the probability that a pixel is tumour, (H, W) float32 in [0, 1], at the image's own size.

        Raises:
          InputError: a single image does not fit into the memory of the device; a batch that does not fit is halved.
        """
        if len(images) > self._most:
            parts = [images[first : first + self._most] for first in range(0, len(images), self._most)]
            return [one for part in parts for one in self.probabilities(part)]
        settings = self.config.data
        scaled = [scale_image(image, percentile=settings.intensity_percentile) for image in images]
        inputs = np.stack([resize_to_model(image, size=settings.image_size) for image in scaled])
        # Pads the batch to a power of two, or to the largest size so far, so that few programs are compiled.
        filled = self._filled = max(1 << (len(images) - 1).bit_length(), self._filled)
        inputs = np.pad(inputs, ((0, filled - len(images)), (0, 0), (0, 0)))
        mesh, variables = self._on_devices(math.gcd(filled, 1 << (jax.local_device_count().bit_length() - 1)))
        batch = shard(inputs[..., None], batch_sharding(mesh, axis=0))
        try:
            outputs = np.asarray(self._predict(variables, batch))[..., 0]
        except jax.errors.JaxRuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if filled == 1:
                raise InputError(
                    f"The memory of {jax.devices()[0].device_kind} does not suffice for one image of "
                    f"{settings.image_size}×{settings.image_size}: end other programs that use it, or set "
                    "JAX_PLATFORMS=cpu to predict on the CPU."
                ) from error
            self._filled, self._most = 1, filled // 2
            return self.probabilities(images)
        return [resize_to_original(output, shape=image.shape) for output, image in zip(outputs, images, strict=False)]

    def masks(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns a mask, (H, W) bool, for each image; see `probabilities`."""
        return [self.postprocessing.mask(of_image) for of_image in self.probabilities(images)]


def make_predict_step(model: Network, *, tta_flip: bool, options: Mapping[str, bool] | None = None) -> PredictStep:
    """Makes the compiled prediction: (variables, images (B, S, S, 1) in [0, 1]) to probabilities (B, S, S, 1) float32.

    Args:
      model: the network.
      tta_flip: whether probabilities are means over an image and its mirror image.
      options: XLA's; see `compiler_options`.
    """

    @functools.partial(jax.jit, compiler_options=dict(options or {}))
    def predict(variables: dict[str, Any], images: Array) -> Array:
        def apply(images: Array) -> Array:
            logits: Any = model.apply(variables, images, train=False)
            return jax.nn.sigmoid(logits)

        if tta_flip:
            return (apply(images) + apply(images[:, :, ::-1])[:, :, ::-1]) / 2
        return apply(images)

    return predict


def restore_variables(directory: Path, config: ml_collections.ConfigDict) -> tuple[dict[str, Any], int]:
    """Restores what `model.apply` takes from the best checkpoint of a run or from model.safetensors, and nothing else.

    Args:
      directory: the workdir, or a folder of `Predictor.save_pretrained`.
      config: of the run.

    Returns:
      Parameters and batch statistics, averaged (EMA) if the run has an average, as NumPy arrays; and the epoch.

    Raises:
      InputError: there is no checkpoint, or it is of another network.
    """
    model, size = create_model(config.model), config.data.image_size
    shapes = dict(jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, size, size, 1), jnp.float32))))
    if weights.has_weights(directory):
        variables, epoch = weights.read_weights(directory, shapes)
        return {"batch_stats": {}, **variables}, epoch
    if not (directory / "checkpoints").is_dir():
        raise InputError(f"{directory / 'checkpoints'} is missing: train first, or name another --workdir.")
    with Checkpoints(directory / "checkpoints") as checkpoints:
        best = checkpoints.best_epoch()
        if config.train.ema_decay > 0:
            restored = checkpoints.restore(best, {"ema": shapes})["ema"]
        else:
            restored = checkpoints.restore(best, shapes)
    return {"batch_stats": {}, **jax.device_get(restored)}, best or 0


def predict_slices(
    segmenter: Segmenter, dataset: Dataset, slice_ids: np.ndarray
) -> Iterator[tuple[Sample, np.ndarray]]:
    """Reads slices, predicts them in batches and yields each with its probabilities, (H, W) at its own size."""
    records = dataset.read(slice_ids)
    while batch := list(itertools.islice(records, BATCH_SIZE)):
        yield from zip(batch, segmenter.probabilities([record.image for record in batch]), strict=True)
