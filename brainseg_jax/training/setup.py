"""Puts a training together from its config; every program does it here."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import ml_collections
from jax.sharding import Mesh

from brainseg_jax.data.augmentation import Augmentation
from brainseg_jax.models import Network, create_model
from brainseg_jax.models.compilation import compiler_options
from brainseg_jax.training.losses import create_loss
from brainseg_jax.training.optimizer import OptimizerSpec, create_optimizer
from brainseg_jax.training.state import TrainState, create_train_state
from brainseg_jax.training.step import EvaluationStep, TrainStep, make_evaluation_step, make_train_step
from brainseg_jax.utils.sharding import make_mesh, replicated, shard


class TrainingSetup(NamedTuple):
    """What a training consists of.

    Attributes:
      model: the network.
      optimizer: the optimizer and its schedule.
      mesh: the devices.
      state: the state before the first step, on the devices.
      train_step: the compiled training step; see `make_train_step`.
      evaluation_step: the compiled evaluation; see `make_evaluation_step`.
    """

    model: Network
    optimizer: OptimizerSpec
    mesh: Mesh
    state: TrainState
    train_step: TrainStep
    evaluation_step: EvaluationStep


def setup_training(
    config: ml_collections.ConfigDict, *, steps_per_epoch: int, mesh: Mesh | None = None
) -> TrainingSetup:
    """Makes network, optimizer, first state and compiled steps.

    Args:
      config: see brainseg_jax/config.py.
      steps_per_epoch: steps of an epoch.
      mesh: the devices; all available ones if not given.

    Raises:
      InputError: a value of the config is outside its range, or the devices cannot share a batch evenly.
    """
    model, optimizer = create_model(config.model), create_optimizer(**config.optimizer, epochs=config.train.epochs)
    train_step, evaluation_step = make_steps(config, model, optimizer)
    mesh = mesh or make_mesh(batch_size=config.train.batch_size)
    state = create_state(config, model, optimizer, steps_per_epoch=steps_per_epoch)
    return TrainingSetup(model, optimizer, mesh, shard(state, replicated(mesh)), train_step, evaluation_step)


def make_steps(
    config: ml_collections.ConfigDict,
    model: Network,
    optimizer: OptimizerSpec,
    *,
    options: Mapping[str, bool] | None = None,
) -> tuple[TrainStep, EvaluationStep]:
    """Makes the compiled steps of training and evaluation; they compile when they are first called.

    Args:
      config: see brainseg_jax/config.py.
      model: the network.
      optimizer: see `create_optimizer`.
      options: XLA's; if None, those that suit the devices of this machine (`compiler_options`).

    Raises:
      InputError: a value of the config is outside its range.
    """
    loss_function = create_loss(config.train.loss)
    augmentation = Augmentation(**config.augmentation)
    if options is None:
        options = compiler_options(
            model,
            image_size=config.data.image_size,
            batch_size=config.train.batch_size,
            steps_per_call=config.train.steps_per_call,
            deterministic=config.deterministic,
        )
    train_step = make_train_step(
        model, optimizer, loss_function, augmentation, ema_decay=config.train.ema_decay, options=options
    )
    return train_step, make_evaluation_step(model, loss_function, options=options)


def create_state(
    config: ml_collections.ConfigDict, model: Network, optimizer: OptimizerSpec, *, steps_per_epoch: int
) -> TrainState:
    """Makes the state before the first step, on the default device."""
    return create_train_state(
        jax.random.key(config.seed),
        model,
        optimizer,
        image_size=config.data.image_size,
        steps_per_epoch=steps_per_epoch,
        with_ema=config.train.ema_decay > 0,
    )
