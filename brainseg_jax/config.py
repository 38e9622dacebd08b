"""Settings of a run: every field with its default. The files of configs/ change some of them."""

import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the defaults: what the published recipes of both networks share, with U-Net as the network."""
    config = ml_collections.ConfigDict()
    config.seed = 0  # seed of the parameters, the order of the slices, augmentation and dropout
    config.deterministic = False  # on a GPU, kernels that add in a fixed order: the same bits twice, more slowly

    config.data = ml_collections.ConfigDict()
    config.data.dataset = "figshare"  # "figshare", "phantom" for phantom slices, "folder" for your own
    config.data.data_dir = ""  # the folder that prepare_data.py wrote to; "" for TFDS's own default
    config.data.image_size = 512  # side in pixels to which slices are resized, a multiple of the network's stride
    config.data.intensity_percentile = 0.0  # grey levels run from this percentile to 100 minus it; 0: from min to max
    config.data.cache = "auto"  # where slices wait for their step: "device", "stream" (the host), or "auto"

    # Random changes, drawn for each slice; the mask moves along; 0 turns one off.
    config.augmentation = ml_collections.ConfigDict()
    config.augmentation.probability = 1.0  # probability that each change (but the flip) happens to a slice, in [0, 1]
    config.augmentation.flip = 0.0  # probability of a left-right flip, in [0, 1]
    config.augmentation.rotation = 0.0  # largest angle in degrees, either way
    config.augmentation.scale = 0.0  # largest change of the side lengths, as a share of them, in [0, 1)
    config.augmentation.shift = 0.0  # largest shift in either direction, as a share of the side
    config.augmentation.elastic = 0.0  # standard deviation of a smooth displacement, as a share of the side
    config.augmentation.gamma = 0.0  # standard deviation of log(gamma); grey levels are raised to the power gamma
    config.augmentation.contrast = 0.0  # largest change of the distance of grey levels from their mean, in [0, 1)
    config.augmentation.bias = 0.0  # standard deviation of the logarithm of a smooth brightness across the image
    config.augmentation.blur = 0.0  # largest standard deviation of a blur, as a share of the side, in [0, 0.02]
    config.augmentation.low_resolution = 0.0  # largest share of rows and columns that is lost, in [0, 0.9]
    config.augmentation.noise = 0.0  # largest standard deviation of Gaussian noise; grey levels are in [0, 1]

    config.split = ml_collections.ConfigDict()
    config.split.protocol = "slice"  # "slice" (as published; leaks), "official" or "family"; see data/splits.py
    config.split.fold = 1  # the test fold, 1..5; "slice" has none
    config.split.seed = 0  # seed of the random division under "slice"
    config.split.validation_share = 0.15  # share of the training families that validate; "slice" has its own 20 %

    # The network's name and the fields of its class; a config of another network replaces this section whole.
    config.model = ml_collections.ConfigDict()
    config.model.name = "unet"  # one of models.MODELS
    config.model.start_filters = 16  # channels of the first level
    config.model.batch_norm = False  # batch norm after each 3×3 convolution; the published U-Net has none
    config.model.dropout_rate = 0.0  # dropout between the two convolutions of a level, in [0, 1)
    config.model.prior = 0.5  # probability of tumour from which the logits start
    config.model.dtype = "float32"  # dtype of the computation, "float32" or "bfloat16"; parameters are float32

    config.train = ml_collections.ConfigDict()
    config.train.epochs = 30  # passes over the training slices
    config.train.batch_size = 8  # slices per step, over all devices
    config.train.steps_per_call = 0  # steps in one compiled call; 0: a whole epoch on a GPU, one on a CPU
    config.train.init_from = ""  # weights of the same network to start from: a workdir, a weights folder or a name
    config.train.loss = "bce"  # "bce", "dice" or "bce_dice" (their sum)
    config.train.ema_decay = 0.0  # decay of the moving average of the weights (EMA) that is scored; 0: no average

    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.learning_rate = 5e-4  # Adam's learning rate at its highest
    config.optimizer.schedule = "plateau"  # how the learning rate falls: "plateau" or "cosine"
    config.optimizer.warmup_epochs = 0.0  # epochs in which the learning rate first rises from 0, under "cosine" only
    config.optimizer.weight_decay = 0.0  # AdamW's decoupled decay of the kernels; 0: plain Adam
    config.optimizer.l2_penalty = 0.0  # factor of the sum of squared kernels that is added to the loss
    config.optimizer.plateau_factor = 0.1  # multiplies the learning rate when the validation loss stalls
    config.optimizer.plateau_patience = 5  # epochs without improvement that count as stalled
    config.optimizer.plateau_rtol = 0.0  # smallest improvement that counts, as a share of the best loss
    config.optimizer.plateau_atol = 1e-4  # the same, as a loss; both are added. Keras, as published: 0 and 1e-4
    config.optimizer.minimum_learning_rate = 1e-5  # the schedule never goes below it

    config.evaluation = ml_collections.ConfigDict()
    config.evaluation.threshold = 0.5  # a pixel is tumour where its probability exceeds it
    config.evaluation.min_component_fraction = 0.0  # smaller components, as a share of the image, are removed
    config.evaluation.tune_postprocessing = False  # tune the two above on validation when training ends
    config.evaluation.tta_flip = False  # average the probabilities of the image and its mirror image
    return config.lock()  # so that a misspelt field raises instead of becoming a new field


def load_config(path: str | Path) -> ml_collections.ConfigDict:
    """Runs a config file and returns the settings of its `get_config`.

    Args:
      path: for instance "configs/unet.py".
    """
    settings: ml_collections.ConfigDict = runpy.run_path(str(path))["get_config"]()
    return settings


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings as `{"section.field": value}`."""
    result: dict[str, Any] = {}
    for key, value in settings.items():
        result |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return result


def is_like(value: Any, default: Any) -> bool:
    """Whether a value has the type of a default; a whole number also counts as a float, but a bool is not a number."""
    if isinstance(value, bool) or isinstance(default, bool):
        return type(value) is type(default)
    return isinstance(value, (int, float) if isinstance(default, float) else type(default))
