"""Training: the jitted step, the evaluation pass and the loop over the epochs."""

import contextlib
import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import linen as nn
from jax import Array
from jax.sharding import Mesh
from tensorboardX import SummaryWriter
from tqdm import tqdm

from brainseg_jax import figures, metrics, parallel, splits, workdir
from brainseg_jax.augment import Augmentation, augment
from brainseg_jax.batches import (
    RESIDENCIES,
    Load,
    Supply,
    choose_steps_per_call,
    epoch_batches,
    make_supplies,
    padded_batches,
    scan_batches,
)
from brainseg_jax.checkpoint import Checkpoints
from brainseg_jax.decision import Decision, choose
from brainseg_jax.environment import describe_environment
from brainseg_jax.errors import InputError
from brainseg_jax.input_pipeline import Dataset, Slices, load_slices, unpack
from brainseg_jax.losses import LossFunction, create_loss
from brainseg_jax.models import create_model
from brainseg_jax.predict import Predictor, predict_records, restore_best
from brainseg_jax.train_state import (
    Optimization,
    TrainState,
    create_optimization,
    create_train_state,
    current_learning_rate,
    observe_validation_loss,
    replace_weights,
    update_state,
)

# Calls that may wait for the device: enough to keep it busy, few enough that streamed slices do not fill its memory.
CALLS_AHEAD = 3


class BatchMetrics(NamedTuple):
    """Sums over a batch, float32: of the slices' losses, of their Dice, and how many slices; (K,) for K batches."""

    loss: Any
    dice: Any
    slices: Any


TrainStep = Callable[[TrainState, Load], tuple[TrainState, BatchMetrics]]
EvaluationStep = Callable[[TrainState, Load, Array], BatchMetrics]


def make_train_step(
    key: Array,
    model: nn.Module,
    optimization: Optimization,
    loss_function: LossFunction,
    augmentation: Augmentation,
    *,
    ema_decay: float = 0.0,
) -> TrainStep:
    """Makes the compiled step; it takes over the memory of the state that it is given.

    Args:
      key: PRNG key of the run; a step's own randomness follows from it and `state.step`.
      model: the network.
      optimization: see `create_optimization`.
      loss_function: (logits, masks) (B, H, W, 1) to (B,).
      augmentation: what happens to pictures and masks before the network sees them.
      ema_decay: of the average of the weights, where the state carries one.

    Returns:
      `train_step(state, load)`: the state after the K batches of the load, and their metrics.
    """
    # Numbers of the host, which become constants of the program; a device's array would have to be read back for that.
    key_data = np.asarray(jax.random.key_data(key))

    def step(state: TrainState, slices: Slices) -> tuple[TrainState, BatchMetrics]:
        step_key = jax.random.fold_in(jax.random.wrap_key_data(jnp.asarray(key_data)), state.step)
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
        next_state = update_state(state, optimization, gradients, batch_stats, ema_decay=ema_decay)
        dice = metrics.dice(metrics.count_overlap(logits > 0, masks))
        count = jnp.float32(len(images))
        return next_state, BatchMetrics(loss * count, dice.sum(), count)

    @functools.partial(jax.jit, donate_argnums=0)
    def train_step(state: TrainState, load: Load) -> tuple[TrainState, BatchMetrics]:
        return scan_batches(step, state, load)

    return train_step


def make_evaluation_step(model: nn.Module, loss_function: LossFunction) -> EvaluationStep:
    """Makes the compiled evaluation of a load.

    Returns:
      `evaluation_step(state, load, weights)`, weights (K, B) 0 where a batch is filled up: sums of the rest.
    """

    def step(state: TrainState, slices: Slices, weights: Array) -> tuple[TrainState, BatchMetrics]:
        images, masks = unpack(slices)
        logits: Any = model.apply(state.variables, images, train=False)
        dice = metrics.dice(metrics.count_overlap(logits > 0, masks))
        losses = loss_function(logits, masks)
        return state, BatchMetrics((losses * weights).sum(), (dice * weights).sum(), weights.sum())

    @jax.jit
    def evaluation_step(state: TrainState, load: Load, weights: Array) -> BatchMetrics:
        return scan_batches(step, state, load, weights)[1]

    return evaluation_step


def train_and_evaluate(config: ml_collections.ConfigDict, directory: Path) -> None:
    """Trains the network of `config`, or goes on where an earlier call with the same workdir stopped.

    Args:
      config: see configs/default.py.
      directory: the workdir: config.json, environment.json, splits.json, metrics.jsonl, checkpoints/, tensorboard/ and
        figures/learning_curves.png.

    Raises:
      InputError: a bad config or dataset, a workdir of another run, or a loss that is not finite.
    """
    model = create_model(**config.model)
    loss_function = create_loss(config.train.loss)
    augmentation = Augmentation(**config.augmentation)
    _check(config, stride=model.stride)
    mesh = parallel.make_mesh(batch_size=config.train.batch_size)
    dataset = Dataset(config.data.data_dir, config=config.data.dataset)
    parts = splits.make_splits(dataset.table, **config.split)
    if parts["train"].size < config.train.batch_size:
        raise InputError(
            f"config.train.batch_size is {config.train.batch_size}, more than the {parts['train'].size} slices to "
            "train on: lower it."
        )
    if config.train.start_from:
        _require_unseen(Path(config.train.start_from), config, dataset, parts)
    optimization = create_optimization(
        **config.optimizer,
        epochs=config.train.epochs,
        steps_per_epoch=parts["train"].size // config.train.batch_size,
    )
    workdir.require_same_run(directory, config, parts)  # by every process, so that all of them end
    if parallel.is_primary():
        print(f"Protocol {config.split.protocol!r}:\n{splits.describe_splits(dataset.table, parts)}")
        workdir.start_run(
            directory, config, parts, splits.overlaps(dataset.table, parts), describe_environment(devices=mesh.size)
        )

    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    state = create_train_state(
        init_key, model, optimization, image_size=config.data.image_size, with_average=config.train.ema_decay > 0
    )
    if config.train.start_from:
        state = replace_weights(state, restore_best(Path(config.train.start_from)).variables)
    state = parallel.put(state, parallel.replicated(mesh))
    with Checkpoints(directory / "checkpoints") as checkpoints:
        first_epoch = 1
        if checkpoints.latest_epoch() is not None:
            state = checkpoints.restore(checkpoints.latest_epoch(), state, parallel.replicated(mesh))
            first_epoch += checkpoints.latest_epoch() or 0
            _say(f"Going on after epoch {first_epoch - 1} of {config.train.epochs}.")
        rows = workdir.read_metrics(directory, epochs=first_epoch - 1)
        if first_epoch <= config.train.epochs:
            training, validating = make_supplies(
                [
                    load_slices(dataset, parts[part], image_size=config.data.image_size)
                    for part in ("train", "validation")
                ],
                mesh,
                residency=config.data.residency,
            )
        train_step = make_train_step(
            step_key, model, optimization, loss_function, augmentation, ema_decay=config.train.ema_decay
        )
        evaluation_step = make_evaluation_step(model, loss_function)
        with _tensorboard(directory, first_epoch) as tensorboard:
            for epoch in range(first_epoch, config.train.epochs + 1):
                start = time.perf_counter()
                learning_rate = current_learning_rate(state, optimization)
                state, train = _train_epoch(config, train_step, state, training, epoch, checkpoints)
                seconds = time.perf_counter() - start
                validation = evaluate_slices(
                    evaluation_step,
                    state,
                    validating,
                    mesh,
                    batch_size=config.train.batch_size,
                    steps_per_call=config.train.steps_per_call,
                )
                _require_finite(validation["loss"], f"validation loss of epoch {epoch}", config, checkpoints)
                state = observe_validation_loss(state, optimization, validation["loss"])
                row = {
                    "epoch": epoch,
                    "step": int(state.step),
                    **{f"train_{name}": train[name] for name in ("loss", "dice")},
                    **{f"validation_{name}": validation[name] for name in ("loss", "dice")},
                    "learning_rate": learning_rate,
                    "seconds": seconds,
                    "slices_per_second": train["slices"] / seconds,
                }
                rows.append(row)
                checkpoints.save(epoch, state, validation_loss=validation["loss"])
                if not parallel.is_primary():
                    continue
                workdir.write_metrics(directory, rows)
                for name, value in row.items():
                    tensorboard.add_scalar(name, value, epoch)
                figures.learning_curves(
                    rows, directory / "figures" / "learning_curves.png", title=workdir.describe_run(config)
                )
                _say(
                    f"epoch {epoch:3d}  train loss {train['loss']:.4f} Dice {train['dice']:.3f}  validation loss "
                    f"{validation['loss']:.4f} Dice {validation['dice']:.3f}  {row['slices_per_second']:.1f} slices/s"
                )
    if config.evaluation.choose_on_validation and parallel.is_primary():
        _choose_decision(directory, dataset, parts["validation"])


def _choose_decision(directory: Path, dataset: Dataset, validation_ids: np.ndarray) -> None:
    """Writes decision.json, for the checkpoint that is now the best."""
    predictor = Predictor(directory)
    predicted = predict_records(predictor, dataset, validation_ids)
    decision, dice = choose((probabilities, record.mask) for record, probabilities in predicted)
    workdir.write_decision(directory, decision, epoch=predictor.epoch, validation_dice=dice)
    print(
        f"Chosen on validation, mean Dice {dice:.3f}: threshold {decision.threshold}, smallest component "
        f"{decision.smallest_component:.2%} of the picture."
    )


def evaluate_slices(
    evaluation_step: EvaluationStep,
    state: TrainState,
    supply: Supply,
    mesh: Mesh,
    *,
    batch_size: int,
    steps_per_call: int = 0,
) -> dict[str, float]:
    """Means over all slices of `loss`, `dice`, and their number `slices`; the batch size changes no value."""
    batches, weights = padded_batches(len(supply), batch_size)
    steps = choose_steps_per_call(steps_per_call, supply, batches=len(batches))
    sums = []
    for first, load in zip(range(0, len(batches), steps), supply.loads(batches, steps_per_call=steps), strict=True):
        of_load = parallel.put(weights[first : first + steps], parallel.divided(mesh, axis=1))
        sums.append(evaluation_step(state, load, of_load))
        jax.block_until_ready(sums[-CALLS_AHEAD:][0])
    return _means(_join(sums))


def run_epoch(
    train_step: TrainStep,
    state: TrainState,
    supply: Supply,
    batches: np.ndarray,
    *,
    steps_per_call: int,
    progress: Callable[[list[BatchMetrics]], None] = lambda done: None,
) -> tuple[TrainState, BatchMetrics]:
    """Trains on batches, one call of the compiled step after the other, without waiting for the device.

    Args:
      train_step: see `make_train_step`.
      state: the state before.
      supply: the slices.
      batches: (E, B) rows of them.
      steps_per_call: steps that a call takes.
      progress: told after each call the metrics of all so far; those of the last call may not be there yet.

    Returns:
      The state after, and the metrics of the E batches, (E,) NumPy arrays each.
    """
    done: list[BatchMetrics] = []
    # Whatever would travel between host and device unasked for is an error here: it would wait for the device.
    with jax.transfer_guard("disallow"):
        for load in supply.loads(batches, steps_per_call=steps_per_call):
            state, sums = train_step(state, load)
            done.append(sums)
            jax.block_until_ready(done[-CALLS_AHEAD:][0])
            progress(done)
    return state, _join(done)


def _train_epoch(
    config: ml_collections.ConfigDict,
    train_step: TrainStep,
    state: TrainState,
    supply: Supply,
    epoch: int,
    checkpoints: Checkpoints,
) -> tuple[TrainState, dict[str, float]]:
    batches = epoch_batches(seed=config.seed, epoch=epoch, slices=len(supply), batch_size=config.train.batch_size)
    steps = choose_steps_per_call(config.train.steps_per_call, supply, batches=len(batches))
    steps_before = int(state.step)
    bar = tqdm(
        total=len(batches),
        desc=f"epoch {epoch}/{config.train.epochs}",
        unit="batch",
        leave=False,
        mininterval=1,
        disable=None if parallel.is_primary() else True,
    )
    shown = time.perf_counter()

    def progress(done: list[BatchMetrics]) -> None:
        nonlocal shown
        bar.update(done[-1].slices.size)
        # The calls before the last are read, so that the device is never waited for.
        if len(done) > 1 and time.perf_counter() - shown > 1:
            shown = time.perf_counter()
            means = _means(_join(done[-20:-1]))
            rate = (bar.format_dict["rate"] or 0.0) * config.train.batch_size
            bar.set_postfix(loss=f"{means['loss']:.4f}", dice=f"{means['dice']:.3f}", slices_s=f"{rate:.0f}")

    with bar:
        state, sums = run_epoch(train_step, state, supply, batches, steps_per_call=steps, progress=progress)
    for step in np.flatnonzero(~np.isfinite(sums.loss))[:1]:
        _require_finite(float(sums.loss[step]), f"loss at step {steps_before + step + 1}", config, checkpoints)
    return state, _means(sums)


def _join(done: list[BatchMetrics]) -> BatchMetrics:
    return BatchMetrics(*(np.concatenate(of_calls) for of_calls in zip(*jax.device_get(done), strict=True)))


def _means(sums: BatchMetrics) -> dict[str, float]:
    loss, dice, slices = (np.sum(of_batches, dtype=np.float64) for of_batches in sums)
    return {"loss": float(loss / slices), "dice": float(dice / slices), "slices": float(slices)}


def _say(message: str) -> None:
    if parallel.is_primary():
        print(message, flush=True)


def _tensorboard(directory: Path, first_epoch: int) -> Any:
    if not parallel.is_primary():
        return contextlib.nullcontext()
    return SummaryWriter(str(directory / "tensorboard"), purge_step=first_epoch)


def _require_finite(loss: float, name: str, config: ml_collections.ConfigDict, checkpoints: Checkpoints) -> None:
    if not math.isfinite(loss):
        kept = checkpoints.latest_epoch()
        where = f"the last good checkpoint is that of epoch {kept}" if kept else "there is no checkpoint yet"
        raise InputError(
            f"The {name} is not finite: {where}; lower config.optimizer.learning_rate (now "
            f"{config.optimizer.learning_rate}) and start in another --workdir."
        )


def _require_unseen(
    start: Path, config: ml_collections.ConfigDict, dataset: Dataset, parts: dict[str, np.ndarray]
) -> None:
    """Refuses to start from a run that was trained on, or chosen by, whom this one validates or tests.

    Raises:
      InputError: it was, or it is a run of another network.
    """
    other = workdir.read_config(start)
    for field in ("name", "start_filters", "batch_norm"):
        if other.model[field] != config.model[field]:
            raise InputError(
                f"{start / 'config.json'} has model.{field} = {other.model[field]!r}, this command "
                f"{config.model[field]!r}: start from a run of the same network."
            )
    if other.data.dataset != config.data.dataset:
        return
    seen = workdir.read_splits(start)
    # Validation may have chosen the other run's epoch, as it will this one's.
    for part, taught in (("validation", seen["train"]), ("test", seen["train"] + seen["validation"])):
        pair = splits.overlaps(
            dataset.table, {"train": np.array(taught), "validation": parts[part], "test": parts[part]}
        )
        shared = pair["families"]["train+test"]
        if shared and config.split.protocol != "slice":
            raise InputError(
                f"config.train.start_from is {start}, which was trained on {shared[0]} and {len(shared) - 1} other "
                f"families of this run's {part} part: start from a run of the same protocol and fold."
            )


def _check(config: ml_collections.ConfigDict, *, stride: int) -> None:
    Decision(config.evaluation.threshold, config.evaluation.smallest_component)
    size = config.data.image_size
    if size < stride or size % stride:
        raise InputError(f"config.data.image_size is {size}: set it to a multiple of {stride}, the network's stride.")
    if config.data.residency not in RESIDENCIES:
        raise InputError(
            f"config.data.residency is {config.data.residency!r}: set it to one of {', '.join(RESIDENCIES)}."
        )
    for name, value, least in (
        ("train.epochs", config.train.epochs, 1),
        ("train.batch_size", config.train.batch_size, 1),
        ("train.steps_per_call", config.train.steps_per_call, 0),
        ("optimizer.plateau_patience", config.optimizer.plateau_patience, 1),
    ):
        if value < least:
            raise InputError(f"config.{name} is {value}: set it to {least} or more.")
    if not 0 <= config.train.ema_decay < 1:
        raise InputError(f"config.train.ema_decay is {config.train.ema_decay}: set it to a number in [0, 1).")
    if not 0 < config.optimizer.learning_rate < math.inf:
        raise InputError(
            f"config.optimizer.learning_rate is {config.optimizer.learning_rate}: set it to a number above 0."
        )
