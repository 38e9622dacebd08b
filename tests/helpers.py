"""What the tests of steps, of runs and of recipes share."""

import contextlib
import json
import resource

import jax
import jax.numpy as jnp
import numpy as np

from brainseg_jax.config import get_config, load_config
from brainseg_jax.data.augmentation import Augmentation
from brainseg_jax.data.loaders import StepBatches
from brainseg_jax.data.packing import pack
from brainseg_jax.training.setup import setup_training
from brainseg_jax.utils.sharding import make_mesh
from brainseg_jax.workdir.checkpoints import Checkpoints
from tests.conftest import REPOSITORY

LINKNET = {"model": {"name": "linknet", "start_filters": 8, "prior": 0.5, "dtype": "float32"}, "data.image_size": 64}
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
}


def load_recipe(name):
    """The config configs/<name>.py."""
    return load_config(REPOSITORY / "configs" / f"{name}.py")


def setup_of(config, **options):
    """The training of a config on one device, before the first step."""
    return setup_training(config, mesh=ONE_DEVICE, **{"steps_per_epoch": 1, **options})


def latest_state(directory, config):
    with Checkpoints(directory / "checkpoints") as checkpoints:
        return checkpoints.restore(checkpoints.latest_epoch(), vars(setup_of(config).state))


def rows_of(directory):
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if "second" not in name} for row in rows]


@contextlib.contextmanager
def files_of_at_most(size):
    """Lets this process write no file of more bytes: what a full disk does, also to root."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


NO_AUGMENTATION = Augmentation(**get_config().augmentation)
ONE_DEVICE = make_mesh(batch_size=1)


def some_slices(count, size):
    """Random images (count, size, size) float32 and the masks of their brightest pixels."""
    images = np.random.default_rng(0).random((count, size, size), np.float32)
    return images, images > 0.75


def step_batches_of(images, masks, *batches):
    return StepBatches(jax.tree.map(jnp.asarray, pack(images, masks)), jnp.array(batches, jnp.int32))
