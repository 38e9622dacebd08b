"""LinkNet with 64 start filters and batch norm: the published recipe."""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
    """Batch 10, learning rate 5e-4."""
    config = default.get_config()
    config.model.name = "linknet"
    config.model.start_filters = 64
    config.train.batch_size = 10
    config.optimizer.learning_rate = 5e-4
    return config
