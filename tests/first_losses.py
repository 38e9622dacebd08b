"""Prints what the first steps of a training saw and lost, as JSON: run alone, or as one of several processes."""

import json
import sys

import jax
import numpy as np

from brainseg_jax.config import get_config
from brainseg_jax.data.loaders import DeviceLoader, StreamingLoader, epoch_batches
from brainseg_jax.data.packing import pack
from brainseg_jax.training.setup import setup_training
from brainseg_jax.utils.cluster import initialize_distributed
from brainseg_jax.utils.sharding import replicated

CACHES = ("device", "stream")
STEPS, BATCH_SIZE, SIDE, SLICES = 5, 8, 32, 48


def first_losses(*, cache):
    """(slice numbers of each batch as the step saw them, mean loss of each step) of a U-Net with norms and dropout."""
    config = get_config()
    config.model.update(start_filters=4, batch_norm=True, dropout_rate=0.1)
    config.data.image_size, config.train.batch_size = SIDE, BATCH_SIZE
    config.augmentation.noise = 0.01
    training = setup_training(config, steps_per_epoch=1)
    mesh, state = training.mesh, training.state
    images = np.random.default_rng(0).random((SLICES, SIDE, SIDE), np.float32)
    slices = pack(images, images > 0.8)
    slices.images[:, 0, 0] = np.arange(SLICES)  # the corner tells which slice it is
    loader = {"device": DeviceLoader, "stream": StreamingLoader}[cache](slices, mesh)
    look = jax.jit(
        lambda step_batches: (
            step_batches.slices.images[..., 0, 0]
            if step_batches.rows is None
            else step_batches.slices.images[step_batches.rows, 0, 0]
        ),
        out_shardings=replicated(mesh),
    )
    batches = epoch_batches(seed=0, epoch=1, slices=SLICES, batch_size=BATCH_SIZE)[:STEPS]
    seen, losses = [], []
    for step_batches in loader.iterate(batches, steps_per_call=1):
        seen += np.asarray(look(step_batches)).tolist()
        state, sums = training.train_step(state, step_batches)
        losses.append(float(sums.loss[0] / sums.slices[0]))
    return seen, losses


if __name__ == "__main__":
    initialize_distributed(sys.argv[1].removeprefix("--cluster=") if sys.argv[1:] else "")
    print(json.dumps({"devices": jax.device_count(), **{cache: first_losses(cache=cache) for cache in CACHES}}))
