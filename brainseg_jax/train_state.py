"""The state of a run as one pytree, and how the optimizer makes the next one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import Array

Variables = dict[str, Any]


class TrainState(NamedTuple):
    """Everything that a run carries from step to step.

    Attributes:
      step: () int32, steps taken.
      params: the network's parameters, float32.
      batch_stats: running statistics of batch norm, {} where there is none.
      opt_state: the optimizer's.
      plateau: state of the learning rate's schedule; `plateau.scale` multiplies the initial learning rate.
    """

    step: Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    plateau: Any

    @property
    def variables(self) -> Variables:
        """What `model.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


class Optimization(NamedTuple):
    """The optimizer and the schedule of a run.

    Attributes:
      optimizer: turns gradients into updates at the initial learning rate.
      schedule: watches the validation loss, once an epoch.
    """

    optimizer: optax.GradientTransformation
    schedule: optax.GradientTransformationExtraArgs


def create_optimization(
    *,
    learning_rate: float,
    l2_penalty: float,
    plateau_factor: float,
    plateau_patience: int,
    minimum_learning_rate: float,
) -> Optimization:
    """Adam (Kingma, Ba 2015, arXiv:1412.6980) with a learning rate that falls when the validation loss stalls.

    Args:
      learning_rate: the initial one, above 0.
      l2_penalty: `l2_penalty` · Σ w² over the kernels joins the loss; 0 for none.
      plateau_factor: multiplies the learning rate after `plateau_patience` epochs without improvement, in (0, 1).
      plateau_patience: epochs, at least 1.
      minimum_learning_rate: never below it.

    Returns:
      Both transformations.
    """
    optimizer = optax.adam(learning_rate)
    if l2_penalty:
        optimizer = optax.chain(optax.add_decayed_weights(2 * l2_penalty, mask=_kernels), optimizer)
    schedule = optax.contrib.reduce_on_plateau(
        factor=plateau_factor,
        patience=plateau_patience,
        min_scale=min(minimum_learning_rate / learning_rate, 1.0),
    )
    return Optimization(optimizer, schedule)


def create_train_state(key: Array, model: nn.Module, optimization: Optimization, *, image_size: int) -> TrainState:
    """Draws the parameters and starts the optimizer.

    Args:
      key: PRNG key.
      model: the network.
      optimization: see `create_optimization`.
      image_size: side of the pictures, a multiple of the network's stride.

    Returns:
      The state before the first step.
    """

    @jax.jit  # one program instead of a small one for every parameter's shape
    def create(key: Array) -> TrainState:
        variables = model.init(key, jnp.zeros((1, image_size, image_size, 1), jnp.float32))
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=variables["params"],
            batch_stats=variables.get("batch_stats", {}),
            opt_state=optimization.optimizer.init(variables["params"]),
            plateau=optimization.schedule.init({}),
        )

    return create(key)


def observe_validation_loss(state: TrainState, optimization: Optimization, validation_loss: float) -> TrainState:
    """Tells the schedule the epoch's validation loss; the learning rate may fall."""
    _, plateau = jax.jit(optimization.schedule.update)({}, state.plateau, value=np.float32(validation_loss))
    return state._replace(plateau=plateau)


def _kernels(params: Any) -> Any:
    return jax.tree.map_with_path(lambda path, _: path[-1].key == "kernel", params)
