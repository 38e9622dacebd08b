"""LinkNet by the strong recipe of configs/unet_strong.py."""

from pathlib import Path

import ml_collections

from brainseg_jax.config import load_config

FOLDER = Path(__file__).parent


def get_config() -> ml_collections.ConfigDict:
    """Returns the strong recipe with LinkNet, whose logits, which have batch norm, start at a low prior of tumour."""
    config = load_config(FOLDER / "unet_strong.py")
    config.model = load_config(FOLDER / "linknet.py").model
    config.model.prior = 0.01
    config.optimizer.learning_rate = 2e-3
    return config
