"""The compiled steps of training and evaluation, and how they run over many batches."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import Array
from jax.sharding import Mesh

from brainseg_jax.data.augmentation import Augmentation, augment
from brainseg_jax.data.loaders import SliceLoader, StepBatches, choose_steps_per_call, padded_batches, scan_batches
from brainseg_jax.data.packing import PackedSlices, unpack
from brainseg_jax.metrics import overlap
from brainseg_jax.training.losses import LossFunction
from brainseg_jax.training.optimizer import OptimizerSpec
from brainseg_jax.training.state import TrainState, apply_gradients
from brainseg_jax.utils.sharding import batch_sharding, shard

# Calls queued on the device: enough to keep it busy, few enough that streamed slices do not fill its memory.
CALLS_AHEAD = 3


class BatchMetrics(NamedTuple):
    """Sums over a batch, float32; (K,) for K batches.

    Attributes:
      loss: of the slices' losses.
      dice: of their Dice.
      slices: how many slices.
      gradient_norm: the norm of the batch's gradient times the number of slices, so that it is averaged like the
        others; 0 in evaluation.
    """

    loss: Any
    dice: Any
    slices: Any
    gradient_norm: Any


TrainStep = Callable[[TrainState, StepBatches], tuple[TrainState, BatchMetrics]]
EvaluationStep = Callable[[TrainState, StepBatches, Array], BatchMetrics]


def make_train_step(
    model: nn.Module,
    optimizer: OptimizerSpec,
    loss_function: LossFunction,
    augmentation: Augmentation,
    *,
    ema_decay: float = 0.0,
    options: Mapping[str, bool] | None = None,
) -> TrainStep:
    """Makes the compiled training step, which reuses the memory of the state that is passed to it.

    Args:
      model: the network.
      optimizer: see `create_optimizer`.
      loss_function: (logits, masks) (B, H, W, 1) to (B,).
      augmentation: what happens to images and masks before the network sees them.
      ema_decay: decay of the EMA, where the state carries one.
      options: XLA's; see `compiler_options`.

    Returns:
      `train_step(state, step_batches)`: the state after the K batches, and their metrics. A step's randomness
      follows from `state.key_data` and `state.step` alone.
    """

    def step(state: TrainState, slices: PackedSlices) -> tuple[TrainState, BatchMetrics]:
        step_key = jax.random.fold_in(jax.random.wrap_key_data(state.key_data), state.step)
        augmentation_key, dropout_key = jax.random.split(step_key)
        images, masks = augment(augmentation_key, *unpack(slices), augmentation=augmentation)

        def mean_loss(params: Any) -> tuple[Array, tuple[Array, Any]]:
            logits, updated = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                images,
                train=True,
                rngs={"dropout": dropout_key},
                mutable=["batch_stats"],
            )
            return loss_function(logits, masks).mean(), (logits, updated.get("batch_stats", {}))

        (loss, (logits, batch_stats)), gradients = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
        next_state = apply_gradients(state, optimizer, gradients, batch_stats, ema_decay=ema_decay)
        dice = overlap.dice(overlap.count_overlap(logits > 0, masks))
        count = jnp.float32(len(images))
        norm = optax.tree.norm(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), gradients))
        return next_state, BatchMetrics(loss * count, dice.sum(), count, norm * count)

    @functools.partial(jax.jit, donate_argnums=0, compiler_options=dict(options or {}))
    def train_step(state: TrainState, step_batches: StepBatches) -> tuple[TrainState, BatchMetrics]:
        return scan_batches(step, state, step_batches)

    return train_step


def make_evaluation_step(
    model: nn.Module, loss_function: LossFunction, *, options: Mapping[str, bool] | None = None
) -> EvaluationStep:
    """Makes the compiled evaluation.

    Args:
      model: the network.
      loss_function: (logits, masks) (B, H, W, 1) to (B,).
      options: XLA's; see `compiler_options`.

    Returns:
      `evaluation_step(state, step_batches, weights)`: sums over the slices, without the padding, where `weights`, (K,
      B), is 0.
    """

    def step(state: TrainState, slices: PackedSlices, weights: Array) -> tuple[TrainState, BatchMetrics]:
        images, masks = unpack(slices)
        logits: Any = model.apply(state.variables, images, train=False)
        dice = overlap.dice(overlap.count_overlap(logits > 0, masks))
        losses = loss_function(logits, masks)
        sums = (losses * weights).sum(), (dice * weights).sum(), weights.sum()
        return state, BatchMetrics(*sums, gradient_norm=jnp.float32(0))

    @functools.partial(jax.jit, compiler_options=dict(options or {}))
    def evaluation_step(state: TrainState, step_batches: StepBatches, weights: Array) -> BatchMetrics:
        return scan_batches(step, state, step_batches, weights)[1]

    return evaluation_step


def evaluate_slices(
    evaluation_step: EvaluationStep,
    state: TrainState,
    loader: SliceLoader,
    mesh: Mesh,
    *,
    batch_size: int,
    steps_per_call: int = 0,
) -> dict[str, float]:
    """Computes the means of `loss` and `dice` over all slices, and their number `slices`, whatever the batch size."""
    batches, weights = padded_batches(len(loader), batch_size)
    steps = choose_steps_per_call(steps_per_call, loader, batches=len(batches))
    sums = []
    for first, step_batches in zip(
        range(0, len(batches), steps), loader.iterate(batches, steps_per_call=steps), strict=True
    ):
        their_weights = shard(weights[first : first + steps], batch_sharding(mesh, axis=1))
        sums.append(evaluation_step(state, step_batches, their_weights))
        jax.block_until_ready(sums[-CALLS_AHEAD:][0])
    return mean_metrics(join_metrics(sums))


def run_epoch(
    train_step: TrainStep,
    state: TrainState,
    loader: SliceLoader,
    batches: np.ndarray,
    *,
    steps_per_call: int,
    progress: Callable[[list[BatchMetrics]], None] = lambda done: None,
) -> tuple[TrainState, BatchMetrics]:
    """Trains on batches, one call of the compiled step after the other, without waiting for the device.

    Args:
      train_step: see `make_train_step`.
      state: the state before.
      loader: the slices.
      batches: (E, B) rows of them.
      steps_per_call: steps that a call takes.
      progress: called after each call with the metrics of all so far; those of the last one may not be ready yet.

    Returns:
      The state after, and the metrics of the E batches, (E,) NumPy arrays each.
    """
    done: list[BatchMetrics] = []
    # An implicit transfer between host and device is an error here, since it would wait for the device.
    with jax.transfer_guard("disallow"):
        for step_batches in loader.iterate(batches, steps_per_call=steps_per_call):
            state, sums = train_step(state, step_batches)
            done.append(sums)
            jax.block_until_ready(done[-CALLS_AHEAD:][0])
            progress(done)
    return state, join_metrics(done)


def join_metrics(done: list[BatchMetrics]) -> BatchMetrics:
    """Joins the metrics of several calls, (K,) NumPy arrays; waits for the device."""
    return BatchMetrics(*(np.concatenate(of_calls) for of_calls in zip(*jax.device_get(done), strict=True)))


def mean_metrics(sums: BatchMetrics) -> dict[str, float]:
    """Computes means over the slices of all batches: `loss`, `dice`, `gradient_norm`, and their number `slices`."""
    totals = {name: float(np.sum(of_batches, dtype=np.float64)) for name, of_batches in sums._asdict().items()}
    slices = totals.pop("slices")
    return {**{name: total / slices for name, total in totals.items()}, "slices": slices}
