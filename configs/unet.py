"""U-Net with 16 start filters: the published recipe."""

import ml_collections

from brainseg_jax.config import get_config as get_defaults


def get_config() -> ml_collections.ConfigDict:
    """Returns the defaults: batch 8, learning rate 5e-4, as in the log of the run that the published README shows."""
    config = get_defaults()
    config.model.name = "unet"
    config.model.start_filters = 16
    config.train.batch_size = 8
    config.optimizer.learning_rate = 5e-4
    return config
