"""LinkNet with 64 start filters and batch norm: the published recipe."""

import ml_collections

from brainseg_jax.config import get_config as get_defaults


def get_config() -> ml_collections.ConfigDict:
    """Returns the defaults with LinkNet, batch 10, learning rate 5e-4."""
    config = get_defaults()
    config.model = ml_collections.ConfigDict()
    config.model.name = "linknet"
    config.model.start_filters = 64
    config.model.prior = 0.5
    config.model.dtype = "float32"
    config.train.batch_size = 10
    config.optimizer.learning_rate = 5e-4
    return config
