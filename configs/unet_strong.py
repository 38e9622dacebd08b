"""U-Net, trained for the highest Dice on new patients; docs/results/ablation_64 says what each ingredient gives."""

import ml_collections

from brainseg_jax.config import get_config as get_defaults


def get_config() -> ml_collections.ConfigDict:
    """Returns the recipe: families apart, batch norm, augmentation, Dice with cross-entropy, AdamW with cosine, EMA."""
    config = get_defaults()
    config.split.protocol = "family"
    config.data.intensity_percentile = 0.5  # one bright pixel or a burnt-in letter must not rule the grey scale
    config.model.batch_norm = True
    config.train.epochs = 40
    config.train.batch_size = 16
    config.train.loss = "bce_dice"
    config.train.ema_decay = 0.99
    config.augmentation.flip = 0.5
    config.augmentation.rotation = 20.0
    config.augmentation.scale = 0.2
    config.augmentation.shift = 0.1
    config.augmentation.elastic = 0.02
    config.augmentation.gamma = 0.3
    config.augmentation.contrast = 0.3
    config.augmentation.bias = 0.2
    config.augmentation.blur = 0.01
    config.augmentation.noise = 0.05
    config.optimizer.learning_rate = 3e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 2.0
    config.optimizer.weight_decay = 0.01
    config.optimizer.minimum_learning_rate = 1e-6
    config.evaluation.tune_postprocessing = True
    config.evaluation.tta_flip = True
    return config
