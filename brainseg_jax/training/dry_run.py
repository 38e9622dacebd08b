"""Says what a training would do and runs its first step; writes nothing."""

from typing import Any

import jax
import ml_collections
import numpy as np

from brainseg_jax.data.loaders import DeviceLoader
from brainseg_jax.data.packing import load_slices
from brainseg_jax.data.splits import describe_splits
from brainseg_jax.training.memory import explain_memory, require_memory
from brainseg_jax.training.preflight import check_no_leakage, open_splits
from brainseg_jax.training.setup import setup_training

MEBIBYTE = 2**20


def dry_run(config: ml_collections.ConfigDict) -> str:
    """Describes a training and does its first step.

    Args:
      config: see brainseg_jax/config.py.

    Returns:
      Text: all settings, the split, the network's parameters, the memory that the compiled step takes
      on a device, and the loss of the first step.

    Raises:
      InputError: a bad config or dataset, or too little memory; see `train_and_evaluate`.
    """
    with explain_memory(config):
        return _dry_run(config)


def _dry_run(config: ml_collections.ConfigDict) -> str:
    dataset, splits = open_splits(config)
    if config.train.init_from:
        check_no_leakage(config.train.init_from, config, splits, dataset.metadata)
    batch_size, size = config.train.batch_size, config.data.image_size
    training = setup_training(config, steps_per_epoch=splits["train"].size // batch_size)
    slices = load_slices(
        dataset, splits["train"][:batch_size], image_size=size, percentile=config.data.intensity_percentile
    )
    rows = np.arange(batch_size, dtype=np.int32)[None]
    loader = DeviceLoader(slices, training.mesh)
    require_memory(config, training, loader)
    (batch,) = loader.iterate(rows, steps_per_call=1)
    step: Any = training.train_step
    compiled = step.lower(training.state, batch).compile()
    memory = compiled.memory_analysis()
    taken = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    _, metrics = compiled(training.state, batch)
    return (
        f"{config}\nProtocol {config.split.protocol!r}:\n{describe_splits(dataset.metadata, splits)}\n"
        f"{_parameters(training.state.params)}\n"
        f"A step of {batch_size} slices takes {taken / MEBIBYTE:,.0f} MiB on a device, of which state and slices take "
        f"{memory.argument_size_in_bytes / MEBIBYTE:,.0f} MiB.\n"
        f"Loss of the first step: {float(metrics.loss.sum() / metrics.slices.sum()):.4f}. Nothing was written."
    )


def _parameters(params: Any) -> str:
    """Returns a line for each array of parameters: its path, shape and size."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    rows = [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape, leaf.size) for path, leaf in leaves]
    width = max(len(name) for name, *_ in rows)
    lines = [f"{name:<{width}}  {shape!s:<22}{size:>12,}" for name, shape, size in rows]
    return "\n".join([*lines, f"{'parameters':<{width}}  {'':<22}{sum(size for *_, size in rows):>12,}"])
