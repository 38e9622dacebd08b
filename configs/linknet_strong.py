"""LinkNet by the strong recipe of configs/unet_strong.py."""

import ml_collections

from configs import unet_strong


def get_config() -> ml_collections.ConfigDict:
    """64 start filters; batch norm is part of the network, of its logits too, which start where tumours are rare."""
    config = unet_strong.get_config()
    config.model.name = "linknet"
    config.model.start_filters = 64
    config.model.batch_norm = False
    config.model.prior = 0.01
    config.optimizer.learning_rate = 2e-3
    return config
