"""The optimizer and the learning rate's schedule."""

import math
from typing import Any, NamedTuple

import jax
import optax

from brainseg_jax.errors import InputError

SCHEDULES = ("plateau", "cosine")


class OptimizerSpec(NamedTuple):
    """The optimizer and the learning rate's schedule of a training.

    Attributes:
      transformation: turns gradients into updates for a learning rate of 1.
      learning_rate: maps the epochs trained so far, fractions included, to the learning rate.
      plateau: watches the validation loss, once an epoch, and scales the learning rate; None under "cosine".
    """

    transformation: optax.GradientTransformation
    learning_rate: optax.Schedule
    plateau: optax.GradientTransformationExtraArgs | None


def create_optimizer(
    *,
    learning_rate: float,
    schedule: str,
    warmup_epochs: float,
    weight_decay: float,
    l2_penalty: float,
    plateau_factor: float,
    plateau_patience: int,
    plateau_rtol: float,
    plateau_atol: float,
    minimum_learning_rate: float,
    epochs: int,
) -> OptimizerSpec:
    """Makes Adam (Kingma, Ba 2015, arXiv:1412.6980) or AdamW (Loshchilov, Hutter 2019, arXiv:1711.05101).

    Args:
      learning_rate: the highest, above 0.
      schedule: under "plateau" the rate falls when the validation loss stalls; under "cosine" it rises from 0 and falls
        along half a cosine to the minimum at the last step (Loshchilov, Hutter 2017, arXiv:1608.03983).
      warmup_epochs: epochs of the rise under "cosine", at least 0, fewer than `epochs`.
      weight_decay: each step subtracts `weight_decay` · learning rate · kernel from each kernel; 0 for Adam.
      l2_penalty: `l2_penalty` · Σ w² over the kernels is added to the loss; 0 for none.
      plateau_factor: multiplies the learning rate after `plateau_patience` epochs without improvement, in (0, 1).
      plateau_patience: epochs, at least 1.
      plateau_rtol: an epoch counts as an improvement if its validation loss is below the lowest so far
        · (1 - `plateau_rtol`) - `plateau_atol`; in [0, 1).
      plateau_atol: at least 0, and above 0 if `plateau_rtol` is 0. Keras has 0 and 1e-4, PyTorch and optax 1e-4 and 0.
      minimum_learning_rate: lower bound of the learning rate, except during the warm-up.
      epochs: of the whole run.

    Returns:
      The optimizer and its learning rate's schedule.

    Raises:
      InputError: an unknown schedule, a warm-up as long as the run, or a smallest improvement out of range.
    """
    if schedule not in SCHEDULES:
        raise InputError(f"config.optimizer.schedule is {schedule!r}: set it to one of {', '.join(SCHEDULES)}.")
    if not 0 <= warmup_epochs < epochs:
        raise InputError(
            f"config.optimizer.warmup_epochs is {warmup_epochs}: set it to 0 or more, fewer than the {epochs} of "
            "config.train.epochs."
        )
    for name, value, top in (("plateau_rtol", plateau_rtol, 1.0), ("plateau_atol", plateau_atol, math.inf)):
        if not 0 <= value < top:
            raise InputError(f"config.optimizer.{name} is {value}: set it to a number in [0, {top:g}).")
    if not plateau_rtol + plateau_atol > 0:
        raise InputError("config.optimizer.plateau_rtol and plateau_atol are both 0: set one of them above 0.")
    minimum = min(minimum_learning_rate, learning_rate)
    if schedule == "cosine":
        # In epochs, not steps: folds differ in their number of steps, but share one compiled program.
        rate = optax.warmup_cosine_decay_schedule(
            0.0 if warmup_epochs else learning_rate, learning_rate, warmup_epochs, epochs, minimum
        )
    else:
        rate = optax.constant_schedule(learning_rate)
    optimizer = optax.adamw(1.0, weight_decay=weight_decay, mask=_kernels) if weight_decay else optax.adam(1.0)
    if l2_penalty:
        optimizer = optax.chain(optax.add_decayed_weights(2 * l2_penalty, mask=_kernels), optimizer)
    if schedule == "cosine":
        return OptimizerSpec(optimizer, rate, None)
    plateau = optax.contrib.reduce_on_plateau(
        factor=plateau_factor,
        patience=plateau_patience,
        rtol=plateau_rtol,
        atol=plateau_atol,
        min_scale=minimum / learning_rate,
    )
    return OptimizerSpec(optimizer, rate, plateau)


def _kernels(params: Any) -> Any:
    return jax.tree.map_with_path(lambda path, _: path[-1].key == "kernel", params)
