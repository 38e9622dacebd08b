"""Trains a network: the loop over the epochs, from a config to the files of a run."""

import contextlib
import math
import time
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
import psutil
from tqdm import tqdm

from brainseg_jax.data.dataset import Dataset
from brainseg_jax.data.loaders import SliceLoader, choose_steps_per_call, epoch_batches, make_loaders
from brainseg_jax.data.packing import load_slices
from brainseg_jax.data.splits import describe_splits
from brainseg_jax.errors import InputError
from brainseg_jax.inference.postprocessing import tune_postprocessing, write_postprocessing
from brainseg_jax.inference.predictor import Predictor, predict_slices, restore_variables
from brainseg_jax.plots.learning_curves import learning_curves
from brainseg_jax.training.memory import explain_memory, require_memory
from brainseg_jax.training.preflight import check_no_leakage, open_splits
from brainseg_jax.training.setup import setup_training
from brainseg_jax.training.state import TrainState, current_learning_rate, observe_validation_loss, with_variables
from brainseg_jax.training.step import BatchMetrics, TrainStep, evaluate_slices, join_metrics, mean_metrics, run_epoch
from brainseg_jax.training.tensorboard import TensorBoard
from brainseg_jax.utils.locks import lock_folder
from brainseg_jax.utils.provenance import describe_environment
from brainseg_jax.utils.sharding import is_primary, replicated, shard
from brainseg_jax.workdir.checkpoints import Checkpoints, has_checkpoint
from brainseg_jax.workdir.files import (
    check_resumable,
    describe_run,
    read_config,
    read_metrics,
    start_run,
    write_metrics,
)
from brainseg_jax.workdir.weights import find_weights

SECONDS_BETWEEN_DRAWINGS = 10.0  # of the learning curves: an epoch of a small network is shorter than a drawing


def train_and_evaluate(config: ml_collections.ConfigDict, directory: Path) -> None:
    """Trains the network of `config`, or resumes where an earlier call with the same workdir stopped.

    Args:
      config: see brainseg_jax/config.py.
      directory: the workdir, which gets config.json, environment.json, splits.json, metrics.jsonl, checkpoints/,
        tensorboard/, figures/learning_curves.png and, where the postprocessing is tuned, postprocessing.json.

    Raises:
      InputError: a bad config or dataset; a workdir that belongs to another run, is in use by another process, or was
        deleted; a loss or gradient that is not finite; or too little memory.
    """
    with explain_memory(config):
        _train(config, directory)


def _train(config: ml_collections.ConfigDict, directory: Path) -> None:
    dataset, splits = open_splits(config)
    starts_anew = not has_checkpoint(directory / "checkpoints")
    init_from = find_weights(config.train.init_from) if config.train.init_from and starts_anew else None
    if init_from:
        check_no_leakage(init_from, config, splits, dataset.metadata)
    training = setup_training(config, steps_per_epoch=splits["train"].size // config.train.batch_size)
    mesh, state = training.mesh, training.state
    # Every process checks, so that all of them end if the run is refused.
    check_resumable(directory, config, splits, fingerprint=dataset.fingerprint)
    if is_primary():
        print(f"Protocol {config.split.protocol!r}:\n{describe_splits(dataset.metadata, splits)}")
        environment = describe_environment(devices=mesh.size)
        start_run(directory, config, dataset.metadata, splits, environment, fingerprint=dataset.fingerprint)
    if init_from:
        variables, _ = restore_variables(init_from, read_config(init_from))
        state = shard(with_variables(state, variables), replicated(mesh))
    # Locked before the checkpoints are opened: orbax deletes unfinished ones, which another process may be writing.
    alone = lock_folder(directory, remedy="wait for it, or name another --workdir")
    with alone if is_primary() else contextlib.nullcontext(), Checkpoints(directory / "checkpoints") as checkpoints:
        first_epoch = 1
        if (latest := checkpoints.latest_epoch()) is not None:
            state = TrainState(**checkpoints.restore(latest, vars(state), replicated(mesh)))
            first_epoch += latest
            done = latest == config.train.epochs
            _print(
                f"All {latest} epochs are done." if done else f"Resumed after epoch {latest} of {config.train.epochs}."
            )
        rows = read_metrics(directory, epochs=first_epoch - 1)
        if first_epoch <= config.train.epochs:
            slices = [
                load_slices(
                    dataset,
                    splits[split],
                    image_size=config.data.image_size,
                    percentile=config.data.intensity_percentile,
                )
                for split in ("train", "validation")
            ]
            train_loader, validation_loader = make_loaders(slices, mesh, cache=config.data.cache)
            require_memory(config, training, train_loader)
        title, drawn = describe_run(config, name=directory.resolve().name), -math.inf
        curves = directory / "figures" / "learning_curves.png"
        if is_primary() and first_epoch > config.train.epochs:  # the call that trained may have ended before drawing
            learning_curves(rows, curves, title=title)
        with _tensorboard(directory, first_epoch) as tensorboard:
            for epoch in range(first_epoch, config.train.epochs + 1):
                start = time.perf_counter()
                learning_rate = current_learning_rate(state, training.optimizer)
                state, train = _train_epoch(
                    config, training.train_step, state, train_loader, splits["train"], epoch, checkpoints
                )
                seconds = time.perf_counter() - start
                validation = evaluate_slices(
                    training.evaluation_step,
                    state,
                    validation_loader,
                    mesh,
                    batch_size=config.train.batch_size,
                    steps_per_call=config.train.steps_per_call,
                )
                _require_finite(validation["loss"], f"validation loss of epoch {epoch}", config, checkpoints)
                state = observe_validation_loss(state, training.optimizer, validation["loss"])
                row = {
                    "epoch": epoch,
                    "step": int(state.step),
                    **{f"train_{name}": train[name] for name in ("loss", "dice")},
                    **{f"validation_{name}": validation[name] for name in ("loss", "dice")},
                    "learning_rate": learning_rate,
                    "gradient_norm": train["gradient_norm"],
                    "seconds": seconds,
                    "slices_per_second": train["slices"] / seconds,
                    "seconds_since_start": time.time() - psutil.Process().create_time(),
                }
                rows.append(row)
                if is_primary():
                    if not (directory / "config.json").exists():
                        raise InputError(f"{directory} was deleted or moved while it was trained: train again.")
                    # Before the checkpoint: a resumed run drops a row whose checkpoint was not written.
                    write_metrics(directory, rows)
                checkpoints.save(epoch, vars(state), validation_loss=validation["loss"])
                if not is_primary():
                    continue
                tensorboard.add_row(row, epoch=epoch)
                if epoch == config.train.epochs or time.perf_counter() - drawn > SECONDS_BETWEEN_DRAWINGS:
                    learning_curves(rows, curves, title=title)
                    if jax.process_count() == 1:  # otherwise all processes would have to predict
                        tensorboard.add_predictions(training.model, state, slices[1], epoch=epoch)
                    drawn = time.perf_counter()
                left = (config.train.epochs - epoch) * (time.perf_counter() - start)
                _print(
                    f"epoch {epoch:3d}  train loss {train['loss']:.4f} Dice {train['dice']:.3f}  validation loss "
                    f"{validation['loss']:.4f} Dice {validation['dice']:.3f}  {row['slices_per_second']:.1f} slices/s"
                    + (f"  {tqdm.format_interval(left)} left" if left else "")
                )
    if config.evaluation.tune_postprocessing:
        _tune_postprocessing(directory, dataset, splits["validation"])


def _tune_postprocessing(directory: Path, dataset: Dataset, validation_ids: np.ndarray) -> None:
    """Writes postprocessing.json, for the checkpoint that is now the best."""
    predictor = Predictor.from_workdir(directory, threshold=0.5, min_component_fraction=0.0)  # all processes restore
    if not is_primary():
        return
    predicted = predict_slices(predictor, dataset, validation_ids)
    tuned, dice = tune_postprocessing((probabilities, sample.mask) for sample, probabilities in predicted)
    write_postprocessing(
        directory, tuned, epoch=predictor.epoch, tta_flip=predictor.config.evaluation.tta_flip, validation_dice=dice
    )
    print(
        f"Tuned on validation, mean Dice {dice:.3f}: threshold {tuned.threshold}, smallest component "
        f"{tuned.min_component_fraction:.2%} of the image."
    )


def _train_epoch(
    config: ml_collections.ConfigDict,
    train_step: TrainStep,
    state: TrainState,
    loader: SliceLoader,
    slice_ids: np.ndarray,
    epoch: int,
    checkpoints: Checkpoints,
) -> tuple[TrainState, dict[str, float]]:
    batches = epoch_batches(seed=config.seed, epoch=epoch, slices=len(loader), batch_size=config.train.batch_size)
    steps = choose_steps_per_call(config.train.steps_per_call, loader, batches=len(batches))
    steps_before = int(state.step)
    bar = tqdm(
        total=len(batches),
        desc=f"epoch {epoch}/{config.train.epochs}",
        unit="batch",
        leave=False,
        mininterval=1,
        disable=None if is_primary() else True,
    )
    shown = time.perf_counter()

    def progress(done: list[BatchMetrics]) -> None:
        nonlocal shown
        bar.update(done[-1].slices.size)
        # Reads only the calls before the last one, so that the loop never waits for the device.
        if len(done) > 1 and time.perf_counter() - shown > 1:
            shown = time.perf_counter()
            means = mean_metrics(join_metrics(done[-20:-1]))
            rate = (bar.format_dict["rate"] or 0.0) * config.train.batch_size
            bar.set_postfix(loss=f"{means['loss']:.4f}", dice=f"{means['dice']:.3f}", slices_s=f"{rate:.0f}")

    with bar:
        state, sums = run_epoch(train_step, state, loader, batches, steps_per_call=steps, progress=progress)
    for step in np.flatnonzero(~(np.isfinite(sums.loss) & np.isfinite(sums.gradient_norm)))[:1]:
        what = "gradient" if np.isfinite(sums.loss[step]) else "loss"
        where = f"step {steps_before + step + 1}, of epoch {epoch}, with slices {_join(slice_ids[batches[step]])}"
        _require_finite(math.nan, f"{what} at {where},", config, checkpoints)
    return state, mean_metrics(sums)


def _join(values: np.ndarray) -> str:
    return ", ".join(str(value) for value in values)


def _print(message: str) -> None:
    if is_primary():
        print(message, flush=True)


def _tensorboard(directory: Path, first_epoch: int) -> Any:
    if not is_primary():
        return contextlib.nullcontext()
    return TensorBoard(directory, first_epoch=first_epoch)


def _require_finite(loss: float, name: str, config: ml_collections.ConfigDict, checkpoints: Checkpoints) -> None:
    if not math.isfinite(loss):
        kept = checkpoints.latest_epoch()
        where = f"the last good checkpoint is that of epoch {kept}" if kept else "there is no checkpoint yet"
        raise InputError(
            f"The {name} is not finite: {where}; lower config.optimizer.learning_rate (now "
            f"{config.optimizer.learning_rate}) and start in another --workdir."
        )
