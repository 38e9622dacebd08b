"""What the tests of steps, of runs and of recipes share."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from brainseg_jax.data.augmentation import Augmentation
from brainseg_jax.data.loaders import Load
from brainseg_jax.data.packing import pack
from brainseg_jax.models import create_model
from brainseg_jax.training.losses import create_loss
from brainseg_jax.training.optimizer import create_optimization
from brainseg_jax.training.state import create_train_state
from brainseg_jax.training.step import make_train_step
from brainseg_jax.utils.sharding import make_mesh
from brainseg_jax.workdir.checkpoints import Checkpoints
from configs import default

LINKNET = {"model.name": "linknet", "model.start_filters": 8, "data.image_size": 64}
ADAM = {
    "learning_rate": 1e-3,
    "schedule": "plateau",
    "warmup_epochs": 0.0,
    "weight_decay": 0.0,
    "l2_penalty": 0.0,
    "plateau_factor": 0.1,
    "plateau_patience": 5,
    "plateau_rtol": 0.0,
    "plateau_atol": 1e-4,
    "minimum_learning_rate": 1e-5,
    "epochs": 1,
    "steps_per_epoch": 1,
}


def start_of(config):
    """(model, optimization, state before the first step)."""
    model = create_model(**config.model)
    optimization = create_optimization(**config.optimizer, epochs=1, steps_per_epoch=1)
    state = create_train_state(jax.random.key(config.seed), model, optimization, image_size=config.data.image_size)
    return model, optimization, state


def latest_state(directory, config):
    with Checkpoints(directory / "checkpoints") as checkpoints:
        return checkpoints.restore(checkpoints.latest_epoch(), start_of(config)[2])


def rows_of(directory):
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if "second" not in name} for row in rows]


NO_AUGMENTATION = Augmentation(**default.get_config().augmentation)
ONE_DEVICE = make_mesh(batch_size=1)


def some_slices(count, size):
    """Random pictures (count, size, size) float32 and the masks of their brightest pixels."""
    images = np.random.default_rng(0).random((count, size, size), np.float32)
    return images, images > 0.75


def load_of(images, masks, *batches):
    return Load(jax.tree.map(jnp.asarray, pack(images, masks)), jnp.array(batches, jnp.int32))


def train_step_of(config, model, optimization, loss="bce", **options):
    augmentation = Augmentation(**config.augmentation)
    return make_train_step(
        jax.random.key(1), model, optimization, create_loss(loss), augmentation, ONE_DEVICE, **options
    )
