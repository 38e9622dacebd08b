"""Settings of a run: every field with its default. The files of configs/ are differences from these."""

import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the defaults: what the published recipes of both networks share, with U-Net as the network."""
    config = ml_collections.ConfigDict()
    config.seed = 0  # of the parameters, the order of the slices and dropout

    config.data = ml_collections.ConfigDict()
    config.data.dataset = "figshare"  # "figshare", or "phantom" for the phantom slices
    config.data.data_dir = ""  # the TFDS root that prepare_data.py wrote to; "" for TFDS's own default
    config.data.image_size = 512  # side in pixels to which slices are resized, a multiple of the network's stride
    config.data.intensity_percentile = 0.0  # of a slice's pixels, becomes 0, and 100 minus it 1; 0: smallest, largest
    config.data.cache = "auto"  # where slices wait: "device" memory, or the host's, from which they "stream"

    config.augmentation = ml_collections.ConfigDict()  # at random, slice by slice, image and mask alike; 0 for none
    config.augmentation.probability = 1.0  # with which each change but the flip happens to a slice, in [0, 1]
    config.augmentation.flip = 0.0  # probability of a left-right flip, in [0, 1]
    config.augmentation.rotation = 0.0  # degrees, up to so many either way
    config.augmentation.scale = 0.0  # sides up to this share longer or shorter, in [0, 1)
    config.augmentation.shift = 0.0  # up to this share of the side in either direction
    config.augmentation.elastic = 0.0  # standard deviation of a smooth displacement, as a share of the side
    config.augmentation.gamma = 0.0  # standard deviation of the natural logarithm of an exponent of the intensities
    config.augmentation.contrast = 0.0  # intensities up to this share further from or nearer to their mean, in [0, 1)
    config.augmentation.bias = 0.0  # standard deviation of the natural logarithm of a smooth brightness across an image
    config.augmentation.blur = 0.0  # standard deviation of a Gaussian blur, up to, as a share of the side, in [0, 0.02]
    config.augmentation.low_resolution = 0.0  # up to this share of rows and columns is lost, in [0, 0.9]
    config.augmentation.noise = 0.0  # standard deviation of Gaussian noise, up to; the range of an image is 1

    config.split = ml_collections.ConfigDict()
    config.split.protocol = "slice"  # "slice" (as published; leaks), "official" or "family"; more in splits.py
    config.split.fold = 1  # the test fold under "official" and "family", 1..5
    config.split.seed = 0  # of the random division under "slice"
    config.split.validation_share = 0.15  # share of the training families that validate under "official" and "family"

    # The network's name and the fields of its class; a config of another network replaces this section whole.
    config.model = ml_collections.ConfigDict()
    config.model.name = "unet"  # one of models.MODELS
    config.model.start_filters = 16  # channels of the first level
    config.model.batch_norm = False  # after each 3×3 convolution; the published U-Net has none
    config.model.dropout_rate = 0.0  # dropout between the two convolutions of a level, in [0, 1)
    config.model.prior = 0.5  # probability of tumour from which the logits start
    config.model.dtype = "float32"  # of the computation: "float32" or "bfloat16"; parameters are float32

    config.train = ml_collections.ConfigDict()
    config.train.epochs = 30
    config.train.batch_size = 8  # slices a step
    config.train.steps_per_call = 0  # steps that one compiled call takes; 0: all of an epoch on a GPU, one on a CPU
    config.train.init_from = ""  # workdir of a run of the same network whose weights this one starts with
    config.train.loss = "bce"  # "bce", "dice" or "bce_dice" (their sum)
    config.train.ema_decay = 0.0  # of the exponential moving average of the weights that is scored; 0: the weights

    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.learning_rate = 5e-4  # Adam's, the highest
    config.optimizer.schedule = "plateau"  # how it falls: "plateau" or "cosine"
    config.optimizer.warmup_epochs = 0.0  # under "cosine": it rises from 0 in so many epochs first
    config.optimizer.weight_decay = 0.0  # decoupled (AdamW), of the kernels, times the learning rate
    config.optimizer.l2_penalty = 0.0  # times the sum of the squared kernels joins the loss
    config.optimizer.plateau_factor = 0.1  # multiplies the learning rate when the validation loss stalls
    config.optimizer.plateau_patience = 5  # for so many epochs
    config.optimizer.plateau_rtol = 0.0  # it improves when it is below its best by more than this share of it
    config.optimizer.plateau_atol = 1e-4  # plus this much; Keras', of the published runs, has 1e-4 here and 0 above
    config.optimizer.minimum_learning_rate = 1e-5  # never below it, but for the warm-up

    config.evaluation = ml_collections.ConfigDict()
    config.evaluation.threshold = 0.5  # a pixel is tumour where its probability exceeds it
    config.evaluation.min_component_fraction = 0.0  # parts smaller than this share of the image are left out of a mask
    config.evaluation.tune_postprocessing = False  # the two above, for the highest mean Dice, when training ends
    config.evaluation.tta_flip = False  # probabilities are means over the image and its mirror image
    return config


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
