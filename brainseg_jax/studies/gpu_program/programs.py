"""Makes our programs for devices that are not there: what is compiled, with the shapes of its arguments."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from jax.sharding import Mesh, NamedSharding

from brainseg_jax.data.loaders import StepBatches, round_up
from brainseg_jax.data.packing import PackedSlices
from brainseg_jax.inference.predictor import make_predict_step
from brainseg_jax.models import create_model
from brainseg_jax.training.optimizer import create_optimizer
from brainseg_jax.training.setup import create_state, make_steps
from brainseg_jax.utils.sharding import batch_sharding, replicated

TASKS = ("train", "train_epoch", "evaluate", "predict")
TRAINING_SLICES = 1961  # of the published split: 64 % of 3,064 slices


class Program(NamedTuple):
    """A compiled program that a run has.

    Attributes:
      config: name of its file in configs/.
      task: "train" (a step), "train_epoch" (the steps of an epoch in one call), "evaluate" (the validation loss and
        Dice of a batch) or "predict" (the probabilities of a batch, with the recipe's mirror image).
      dtype: "float32" or "bfloat16".
      devices: how many share the batch.
    """

    config: str
    task: str
    dtype: str
    devices: int = 1

    @property
    def title(self) -> str:
        """Its name in tables."""
        return ", ".join((self.config, self.task.replace("_", " "), self.dtype, f"{self.devices} × GPU"))


def list_programs(
    configs: Sequence[str], tasks: Sequence[str], dtypes: Sequence[str], devices: Iterable[int]
) -> list[Program]:
    """Lists programs: on several devices, only the training step."""
    return [
        Program(config, task, dtype, count)
        for count, config, task, dtype in itertools.product(devices, configs, tasks, dtypes)
        if count == 1 or task == "train"
    ]


def make_program(
    config: ml_collections.ConfigDict, task: str, mesh: Mesh
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Makes one of our jitted functions and describes its arguments.

    Each device holds as many slices as the published split trains on, as every GPU with enough memory does.

    Args:
      config: of the run. Its batch size is that of one device: n devices share a batch n times as large.
      task: see `Program`.
      mesh: the devices, which need not be there.

    Returns:
      The function, and its arguments as `jax.ShapeDtypeStruct` with shardings.
    """
    size, batch_size = config.data.image_size, config.train.batch_size * mesh.size
    model, optimizer = create_model(config.model), create_optimizer(**config.optimizer, epochs=config.train.epochs)
    steps = TRAINING_SLICES // batch_size if task == "train_epoch" else 1

    def array(shape: tuple[int, ...], dtype: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    everywhere = replicated(mesh)
    state = jax.eval_shape(lambda: create_state(config, model, optimizer, steps_per_epoch=1))
    state = jax.tree.map(lambda leaf: array(leaf.shape, leaf.dtype, everywhere), state)
    if task == "predict":
        images = array((batch_size, size, size, 1), jnp.float32, batch_sharding(mesh, axis=0))
        return make_predict_step(model, tta_flip=config.evaluation.tta_flip), (state.variables, images)
    count = round_up(TRAINING_SLICES)
    slices = PackedSlices(
        array((count, size, size), jnp.uint16, everywhere), array((count, size, size // 8), jnp.uint8, everywhere)
    )
    by_batch = batch_sharding(mesh, axis=1)
    rows: Any = array((steps, batch_size), jnp.int32, by_batch)
    batches = StepBatches(slices, rows)
    # No options: those of this machine's CPU are not for the GPU.
    train_step, evaluation_step = make_steps(config, model, optimizer, options={})
    if task == "evaluate":
        return evaluation_step, (state, batches, array((steps, batch_size), jnp.float32, by_batch))
    return train_step, (state, batches)
