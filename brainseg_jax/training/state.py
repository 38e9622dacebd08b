"""The state of a run as one pytree, and how the optimizer makes the next one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import Array
from jax.typing import ArrayLike

from brainseg_jax.training.optimizer import Optimization

Variables = dict[str, Any]


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
