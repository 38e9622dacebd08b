"""Prints what the first steps of a training saw and lost, as JSON: run alone, or as one of several processes."""

import json
import sys

import jax
import numpy as np

from brainseg_jax.data.augmentation import Augmentation
from brainseg_jax.data.loaders import DeviceSupply, StreamSupply, epoch_batches
from brainseg_jax.data.packing import pack
from brainseg_jax.models import create_model
from brainseg_jax.training.losses import create_loss
from brainseg_jax.training.optimizer import create_optimization
from brainseg_jax.training.state import create_train_state
from brainseg_jax.training.step import make_train_step
from brainseg_jax.utils.sharding import initialize_distributed, make_mesh, replicated, shard
from configs import default

CASES = (("unet", "device"), ("unet", "stream"), ("linknet", "device"))
STEPS, BATCH_SIZE, SIDE, SLICES = 5, 8, 64, 48


def first_losses(name, *, residency):
    """(slice numbers of each batch as the step saw them, mean loss of each step)."""
    config = default.get_config()
    mesh = make_mesh(batch_size=BATCH_SIZE)
    model = create_model(name=name, start_filters=4, dropout_rate=0.1 if name == "unet" else 0.0, dtype="float32")
    optimization = create_optimization(**config.optimizer, epochs=1, steps_per_epoch=1)
    state = create_train_state(jax.random.key(0), model, optimization, image_size=SIDE)
    state = shard(state, replicated(mesh))
    images = np.random.default_rng(0).random((SLICES, SIDE, SIDE), np.float32)
    slices = pack(images, images > 0.8)
    slices.images[:, 0, 0] = np.arange(SLICES)  # the corner tells which slice it is
    supply = {"device": DeviceSupply, "stream": StreamSupply}[residency](slices, mesh)
    augmentation = Augmentation(**{**config.augmentation, "noise": 0.01})
    step = make_train_step(jax.random.key(1), model, optimization, create_loss("bce"), augmentation, mesh)
    look = jax.jit(
        lambda load: load.slices.images[..., 0, 0] if load.rows is None else load.slices.images[load.rows, 0, 0],
        out_shardings=replicated(mesh),
    )
    batches = epoch_batches(seed=0, epoch=1, slices=SLICES, batch_size=BATCH_SIZE)[:STEPS]
    seen, losses = [], []
    for load in supply.loads(batches, steps_per_call=1):
        seen += np.asarray(look(load)).tolist()
        state, sums = step(state, load)
        losses.append(float(sums.loss[0] / sums.slices[0]))
    return seen, losses


if __name__ == "__main__":
    initialize_distributed(sys.argv[1].removeprefix("--cluster=") if sys.argv[1:] else "")
    cases = [[*case, *first_losses(case[0], residency=case[1])] for case in CASES]
    print(json.dumps({"devices": jax.device_count(), "cases": cases}))
