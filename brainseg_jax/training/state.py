"""The state of a training as one pytree, and the step from one state to the next."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct
from jax import Array

from brainseg_jax.training.optimizer import OptimizerSpec

Variables = dict[str, Any]


@struct.dataclass
class TrainState:
    """Everything that a training carries from step to step.

    Attributes:
      step: () int32, steps taken.
      key_data: (2,) uint32, data of the PRNG key from which each step's randomness follows.
      steps_per_epoch: () float32. Like the key it is an input of the compiled program, not a constant in it, so that
        all seeds and folds of a recipe share one program.
      params: the network's parameters, float32.
      batch_stats: running statistics of batch norm, {} where there is none.
      opt_state: the optimizer's.
      plateau: state of the schedule that watches the validation loss, {} where there is none; `plateau.scale`
        multiplies the learning rate.
      ema: exponential moving average of `params` and `batch_stats`, {} where there is none.
    """

    step: Array
    key_data: Array
    steps_per_epoch: Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    plateau: Any
    ema: Any

    @property
    def variables(self) -> Variables:
        """The variables for `model.apply` that are scored: the EMA, where there is one."""
        return self.ema or {"params": self.params, "batch_stats": self.batch_stats}


def create_train_state(
    key: Array,
    model: nn.Module,
    optimizer: OptimizerSpec,
    *,
    image_size: int,
    steps_per_epoch: int,
    with_ema: bool = False,
) -> TrainState:
    """Draws the parameters and starts the optimizer.

    Args:
      key: PRNG key.
      model: the network.
      optimizer: see `create_optimizer`.
      image_size: side of the images, a multiple of the network's stride.
      steps_per_epoch: steps of an epoch.
      with_ema: whether the state carries an average of the weights.

    Returns:
      The state before the first step.
    """

    @jax.jit  # one program instead of a small one for every parameter's shape
    def create(init_key: Array, key_data: Array, steps_per_epoch: Array) -> TrainState:
        variables = model.init(init_key, jnp.zeros((1, image_size, image_size, 1), jnp.float32))
        weights = {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            key_data=key_data,
            steps_per_epoch=steps_per_epoch,
            **weights,
            opt_state=optimizer.transformation.init(weights["params"]),
            plateau=optimizer.plateau.init({}) if optimizer.plateau else {},
            ema=_copy(weights) if with_ema else {},
        )

    init_key, step_key = jax.random.split(key)
    return create(init_key, jax.random.key_data(step_key), np.float32(steps_per_epoch))


def with_variables(state: TrainState, variables: Variables) -> TrainState:
    """Returns the state with other parameters and batch statistics; its EMA, where it has one, starts from them too."""
    weights = {name: variables[name] for name in ("params", "batch_stats")}
    return state.replace(**weights, ema=_copy(weights) if state.ema else {})  # type: ignore[attr-defined]


def current_learning_rate(state: TrainState, optimizer: OptimizerSpec) -> float:
    """Returns the learning rate of the next step; reads from the device."""
    scale = float(state.plateau.scale) if optimizer.plateau else 1.0
    return float(optimizer.learning_rate(int(state.step) / float(state.steps_per_epoch))) * scale


def observe_validation_loss(state: TrainState, optimizer: OptimizerSpec, validation_loss: float) -> TrainState:
    """Tells a plateau schedule the epoch's validation loss; the learning rate may fall."""
    if optimizer.plateau is None:
        return state
    _, plateau = jax.jit(optimizer.plateau.update)({}, state.plateau, value=np.float32(validation_loss))
    return state.replace(plateau=plateau)  # type: ignore[attr-defined]


def apply_gradients(
    state: TrainState, optimizer: OptimizerSpec, gradients: Any, batch_stats: Any, *, ema_decay: float
) -> TrainState:
    """Takes a step.

    Args:
      state: the state before.
      optimizer: see `create_optimizer`.
      gradients: of the loss with respect to `state.params`.
      batch_stats: those after the step.
      ema_decay: decay of the EMA, in [0, 1), where the state carries one. In the first steps the decay is lower,
        (1 + step) / (10 + step), so that the EMA forgets the random initial parameters.

    Returns:
      The state after the step.
    """
    gradients = jax.tree.map(_in_order_of_parameters, gradients)
    updates, opt_state = optimizer.transformation.update(gradients, state.opt_state, state.params)
    rate = optimizer.learning_rate(state.step / state.steps_per_epoch)
    if optimizer.plateau:
        rate *= state.plateau.scale
    updates = jax.tree.map(lambda update: update * rate, updates)
    weights = {"params": optax.apply_updates(state.params, updates), "batch_stats": batch_stats}
    ema = state.ema
    if ema:
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, ema, weights)
    return state.replace(  # type: ignore[attr-defined]
        step=state.step + 1, **weights, opt_state=opt_state, ema=ema
    )


def _in_order_of_parameters(gradient: Array) -> Array:
    """Lays a gradient out in memory as its parameter is.

    On a GPU the gradients of convolutions come transposed. If the optimizer read them in that layout, XLA would write
    parameters and both moments to new memory and then copy them back.
    """
    return jax.lax.optimization_barrier(gradient.reshape(-1)).reshape(gradient.shape)


def _copy(tree: Any) -> Any:
    # The step reuses the memory of the state, so no array may be in the state twice.
    return jax.tree.map(jnp.copy, tree)
