"""The state of a run as one pytree, and how the optimizer makes the next one."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import Array
from jax.typing import ArrayLike

from brainseg_jax.errors import InputError

Variables = dict[str, Any]
SCHEDULES = ("plateau", "cosine")


class TrainState(NamedTuple):
    """Everything that a run carries from step to step.

    Attributes:
      step: () int32, steps taken.
      params: the network's parameters, float32.
      batch_stats: running statistics of batch norm, {} where there is none.
      opt_state: the optimizer's.
      plateau: state of the schedule that watches the validation loss, {} where there is none; `plateau.scale`
        multiplies the learning rate.
      average: exponential moving average of `params` and `batch_stats`, {} where there is none.
    """

    step: Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    plateau: Any
    average: Any

    @property
    def variables(self) -> Variables:
        """What `model.apply` takes to be scored: the average, where there is one."""
        return self.average or {"params": self.params, "batch_stats": self.batch_stats}


class Optimization(NamedTuple):
    """The optimizer and the schedule of a run.

    Attributes:
      optimizer: turns gradients into updates of a learning rate of 1.
      learning_rate: epochs taken, a part of one too → the learning rate.
      steps_per_epoch: steps of an epoch.
      plateau: watches the validation loss, once an epoch, and scales the learning rate; None under "cosine".
    """

    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    steps_per_epoch: int
    plateau: optax.GradientTransformationExtraArgs | None


def create_optimization(
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
    steps_per_epoch: int,
) -> Optimization:
    """Adam (Kingma, Ba 2015, arXiv:1412.6980) or AdamW (Loshchilov, Hutter 2019, arXiv:1711.05101).

    Args:
      learning_rate: the highest, above 0.
      schedule: "plateau": it falls when the validation loss stalls; "cosine": it rises from 0 and falls along half a
        cosine to the minimum at the last step (Loshchilov, Hutter 2017, arXiv:1608.03983).
      warmup_epochs: epochs of the rise under "cosine", at least 0, fewer than `epochs`.
      weight_decay: times learning rate and kernel is taken off each kernel at each step; 0 for Adam.
      l2_penalty: `l2_penalty` · Σ w² over the kernels joins the loss; 0 for none.
      plateau_factor: multiplies the learning rate after `plateau_patience` epochs without improvement, in (0, 1).
      plateau_patience: epochs, at least 1.
      plateau_rtol: an epoch improves on the best validation loss so far where it is below
        best · (1 - `plateau_rtol`) - `plateau_atol`; in [0, 1).
      plateau_atol: at least 0; one of the two is above 0. Keras has 0 and 1e-4, PyTorch and optax 1e-4 and 0.
      minimum_learning_rate: never below it, but for the warm-up.
      epochs: of the whole run.
      steps_per_epoch: steps of one.

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
        # In epochs, not steps: the folds of a dataset differ in their steps, and one compiled program serves them all.
        rate = optax.warmup_cosine_decay_schedule(
            0.0 if warmup_epochs else learning_rate, learning_rate, warmup_epochs, epochs, minimum
        )
    else:
        rate = optax.constant_schedule(learning_rate)
    optimizer = optax.adamw(1.0, weight_decay=weight_decay, mask=_kernels) if weight_decay else optax.adam(1.0)
    if l2_penalty:
        optimizer = optax.chain(optax.add_decayed_weights(2 * l2_penalty, mask=_kernels), optimizer)
    if schedule == "cosine":
        return Optimization(optimizer, rate, steps_per_epoch, None)
    plateau = optax.contrib.reduce_on_plateau(
        factor=plateau_factor,
        patience=plateau_patience,
        rtol=plateau_rtol,
        atol=plateau_atol,
        min_scale=minimum / learning_rate,
    )
    return Optimization(optimizer, rate, steps_per_epoch, plateau)


def create_train_state(
    key: Array, model: nn.Module, optimization: Optimization, *, image_size: int, with_average: bool = False
) -> TrainState:
    """Draws the parameters and starts the optimizer.

    Args:
      key: PRNG key.
      model: the network.
      optimization: see `create_optimization`.
      image_size: side of the pictures, a multiple of the network's stride.
      with_average: whether the state carries an average of the weights.

    Returns:
      The state before the first step.
    """

    @jax.jit  # one program instead of a small one for every parameter's shape
    def create(key: Array) -> TrainState:
        variables = model.init(key, jnp.zeros((1, image_size, image_size, 1), jnp.float32))
        batch_stats = variables.get("batch_stats", {})
        weights = {"params": variables["params"], "batch_stats": batch_stats}
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=variables["params"],
            batch_stats=batch_stats,
            opt_state=optimization.optimizer.init(variables["params"]),
            plateau=optimization.plateau.init({}) if optimization.plateau else {},
            # Copies: the step takes over the memory of the state, in which nothing may stand twice.
            average=jax.tree.map(jnp.copy, weights) if with_average else {},
        )

    return create(key)


def observe_validation_loss(state: TrainState, optimization: Optimization, validation_loss: float) -> TrainState:
    """Tells a plateau schedule the epoch's validation loss; the learning rate may fall."""
    if optimization.plateau is None:
        return state
    _, plateau = jax.jit(optimization.plateau.update)({}, state.plateau, value=np.float32(validation_loss))
    return state._replace(plateau=plateau)


def replace_weights(state: TrainState, variables: Variables) -> TrainState:
    """The state with other parameters and batch statistics, which its average, where it has one, starts from too."""
    weights = {name: variables[name] for name in ("params", "batch_stats")}
    # Copies: the step takes over the memory of the state, in which nothing may stand twice.
    average = jax.tree.map(jnp.copy, weights) if state.average else {}
    return state._replace(**weights, average=average)


def current_learning_rate(state: TrainState, optimization: Optimization) -> float:
    """The learning rate of the next step; reads from the device."""
    scale = float(state.plateau.scale) if optimization.plateau else 1.0
    return float(optimization.learning_rate(int(state.step) / optimization.steps_per_epoch)) * scale


def update_state(
    state: TrainState,
    optimization: Optimization,
    gradients: Any,
    batch_stats: Any,
    *,
    steps_per_epoch: ArrayLike,
    ema_decay: float,
) -> TrainState:
    """The state after a step.

    Args:
      state: the state before.
      optimization: see `create_optimization`.
      gradients: of the loss by `state.params`.
      batch_stats: those after the step.
      steps_per_epoch: `optimization.steps_per_epoch`, as an array where it shall be no part of a compiled program.
      ema_decay: of the average, in [0, 1), where the state carries one. In the first steps the average forgets
        faster, (1 + step) / (10 + step), so that the parameters drawn at random leave it.

    Returns:
      The next state.
    """
    updates, opt_state = optimization.optimizer.update(gradients, state.opt_state, state.params)
    rate = optimization.learning_rate(state.step / steps_per_epoch)
    if optimization.plateau:
        rate *= state.plateau.scale
    updates = jax.tree.map(lambda update: update * rate, updates)
    params = optax.apply_updates(state.params, updates)
    average = state.average
    if average:
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
        new = {"params": params, "batch_stats": batch_stats}
        average = jax.tree.map(lambda old, now: decay * old + (1 - decay) * now, average, new)
    return TrainState(state.step + 1, params, batch_stats, opt_state, state.plateau, average)


def _kernels(params: Any) -> Any:
    return jax.tree.map_with_path(lambda path, _: path[-1].key == "kernel", params)
