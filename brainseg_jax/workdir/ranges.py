"""Checks the ranges of the settings, both of a command and of a run's config.json."""

import math

import ml_collections

from brainseg_jax.config import flatten, get_config, is_like
from brainseg_jax.data.loaders import CACHES
from brainseg_jax.data.splits import MUST_NOT_SHARE, has_folds
from brainseg_jax.errors import InputError
from brainseg_jax.models import create_model

_OF_ALL_MODELS = ("model.name", "model.start_filters")
LARGEST = 2**31 - 1  # of whole numbers: more than any field needs, and the largest int32


def check_ranges(config: ml_collections.ConfigDict) -> None:
    """Refuses bad values that no other check refuses before training starts.

    Args:
      config: see brainseg_jax/config.py.

    Raises:
      InputError: a field is missing or unknown, has another type than its default, or a value outside its range.
    """
    _check_fields(config)
    stride = create_model(config.model).stride
    size = config.data.image_size
    if size < stride or size % stride:
        raise InputError(f"config.data.image_size is {size}: set it to a multiple of {stride}, the network's stride.")
    if not 0 <= config.data.intensity_percentile < 50:
        raise InputError(
            f"config.data.intensity_percentile is {config.data.intensity_percentile}: set it to a number in [0, 50)."
        )
    for name, value, known in (
        ("data.cache", config.data.cache, CACHES),
        ("split.protocol", config.split.protocol, tuple(MUST_NOT_SHARE)),
    ):
        if value not in known:
            raise InputError(f"config.{name} is {value!r}: set it to one of {', '.join(known)}.")
    for name, value, least in (
        ("train.epochs", config.train.epochs, 1),
        ("train.batch_size", config.train.batch_size, 1),
        ("train.steps_per_call", config.train.steps_per_call, 0),
        ("seed", config.seed, 0),
        ("split.seed", config.split.seed, 0),
        ("optimizer.plateau_patience", config.optimizer.plateau_patience, 1),
    ):
        if value < least:
            raise InputError(f"config.{name} is {value}: set it to {least} or more.")
    for name, low, high in (
        ("train.ema_decay", 0, 1),
        ("optimizer.weight_decay", 0, math.inf),
        ("optimizer.l2_penalty", 0, math.inf),
        ("optimizer.minimum_learning_rate", 0, math.inf),
        ("evaluation.min_component_fraction", 0, 1),
    ):
        value = config[name.split(".")[0]][name.split(".")[1]]
        if not low <= value < high:
            raise InputError(f"config.{name} is {value}: set it to a number in [{low}, {high:g}).")
    for name, value in (
        ("optimizer.plateau_factor", config.optimizer.plateau_factor),
        ("evaluation.threshold", config.evaluation.threshold),
    ):
        if not 0 < value < 1:
            raise InputError(f"config.{name} is {value}: set it to a number between 0 and 1.")
    rate, minimum = config.optimizer.learning_rate, config.optimizer.minimum_learning_rate
    if not 0 < rate < math.inf:
        raise InputError(f"config.optimizer.learning_rate is {rate}: set it to a number above 0.")
    if minimum > rate:
        raise InputError(
            f"config.optimizer.minimum_learning_rate is {minimum}, above the learning rate of {rate}: lower it."
        )
    if not has_folds(config.split.protocol) and config.split.fold != 1:
        raise InputError(
            f"config.split.fold is {config.split.fold}, but protocol {config.split.protocol!r} has no folds: leave it "
            "out, or choose another protocol."
        )
    for name, value in flatten(config.to_dict()).items():
        if isinstance(value, float) and not math.isfinite(value):  # of a field that is not checked above
            raise InputError(f"config.{name} is {value}: set it to a finite number.")


def _check_fields(config: ml_collections.ConfigDict) -> None:
    """Refuses fields that a config file took away, added to, or gave another type."""
    given, defaults = (flatten(one.to_dict()) for one in (config, get_config()))
    defaults, common = (  # the network's own fields are known to `create_model`
        {name: value for name, value in one.items() if name in _OF_ALL_MODELS or not name.startswith("model.")}
        for one in (defaults, given)
    )
    if changed := sorted(common.keys() ^ defaults.keys()):
        problem = "is missing" if changed[0] in defaults else "is no field"
        raise InputError(f"config.{changed[0]} {problem}: keep to the fields of brainseg_jax/config.py.")
    for name, default in defaults.items():
        if not is_like(given[name], default):
            raise InputError(f"config.{name} is {given[name]!r}: set it to a value like its default, {default!r}.")
    for name, value in given.items():
        if isinstance(value, int) and abs(value) > LARGEST:
            raise InputError(f"config.{name} is beyond {LARGEST}: set it to a smaller number.")
