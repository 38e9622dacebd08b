"""Says what to change where a step of training does not fit into the memory of a device."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import ml_collections
import numpy as np

from brainseg_jax.data.loaders import SliceLoader
from brainseg_jax.errors import InputError
from brainseg_jax.models import create_model
from brainseg_jax.training.setup import TrainingSetup
from brainseg_jax.utils.memory import free_memory, is_out_of_memory

GIGABYTE = 1e9
# A step takes less memory than this number of feature maps of `start_filters` channels at full size.
FEATURE_MAPS = 60


@contextmanager
def explain_memory(config: ml_collections.ConfigDict) -> Iterator[None]:
    """Turns XLA's error about memory into a sentence with a setting and a value that should fit.

    Args:
      config: of the training in the block.

    Raises:
      InputError: the memory of a device did not suffice.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(f"The memory of {jax.devices()[0].device_kind} does not suffice: {_remedy(config)}") from error


def require_memory(config: ml_collections.ConfigDict, training: TrainingSetup, loader: SliceLoader) -> None:
    """Refuses a step on a CPU that needs more than the free memory of the host.

    On a CPU XLA would not raise an error: the system would kill the process without a message. The step is compiled for
    this check only if a rough bound exceeds the free memory.

    Args:
      config: of the training.
      training: its network, devices, state and step.
      loader: the slices to train on.

    Raises:
      InputError: the step does not fit.
    """
    size, share = config.data.image_size, config.train.batch_size // training.mesh.size
    bound = FEATURE_MAPS * share * size**2 * training.model.start_filters * np.dtype(np.float32).itemsize
    if training.mesh.local_devices[0].platform != "cpu" or bound < (free := free_memory(training.mesh)):
        return
    rows = np.arange(config.train.batch_size, dtype=np.int32)[None] % len(loader)
    (batch,) = loader.iterate(rows, steps_per_call=1)
    step: Any = training.train_step
    needed = step.lower(training.state, batch).compile().memory_analysis().temp_size_in_bytes
    if needed > free:
        raise InputError(
            f"A step of {config.train.batch_size} slices of {size}×{size} takes {needed / GIGABYTE:.1f} GB, but only "
            f"{free / GIGABYTE:.1f} GB of memory are free: end other programs, or {_remedy(config)}"
        )


def _remedy(config: ml_collections.ConfigDict) -> str:
    """Returns the end of a sentence: which setting to lower, and to what."""
    if config.data.cache == "device":
        return "set config.data.cache to 'stream', so that the slices wait outside it; the same command then goes on."
    devices, stride = jax.device_count(), create_model(config.model).stride
    size = config.data.image_size // 2 // stride * stride
    ways = []
    if batch_size := config.train.batch_size // 2 // devices * devices:
        ways.append(f"config.train.batch_size from {config.train.batch_size} to {batch_size}")
    if size:
        ways.append(f"config.data.image_size from {config.data.image_size} to {size}")
    return f"lower {' or '.join(ways) or 'config.model.start_filters'}, in another --workdir."
