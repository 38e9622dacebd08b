"""U-Net by the published recipe at a fifth of the learning rate: the run that the published report shows."""

from pathlib import Path

import ml_collections

from brainseg_jax.config import load_config


def get_config() -> ml_collections.ConfigDict:
    """Learning rate 1e-4, which the published table prints as "10e-4"; its log does not say the batch size."""
    config = load_config(Path(__file__).with_name("unet.py"))
    config.optimizer.learning_rate = 1e-4
    return config
