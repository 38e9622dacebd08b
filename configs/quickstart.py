"""U-Net on the phantom slices: scripts/quickstart.sh trains it in a minute or two on two CPU cores."""

import ml_collections

from brainseg_jax.config import get_config as get_defaults


def get_config() -> ml_collections.ConfigDict:
    """Returns the settings: small images, few epochs, a larger learning rate; families apart."""
    config = get_defaults()
    config.data.dataset = "phantom"
    config.data.data_dir = "runs/phantom_data"
    config.data.image_size = 80
    config.split.protocol = "family"
    config.train.epochs = 20
    config.train.loss = "bce_dice"
    config.optimizer.learning_rate = 2e-3
    return config
