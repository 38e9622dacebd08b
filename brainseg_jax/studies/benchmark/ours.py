"""Makes our programs: the training step and the inference that train.py and predict.py run."""

import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np

from brainseg_jax.config import get_config
from brainseg_jax.data.loaders import DeviceLoader, StreamingLoader, choose_steps_per_call, epoch_batches
from brainseg_jax.data.packing import PackedSlices, pack, unpack
from brainseg_jax.inference.predictor import make_predict_step
from brainseg_jax.models import create_model
from brainseg_jax.models.compilation import ONEDNN, compiler_options, has_onednn
from brainseg_jax.studies.benchmark.case import Case
from brainseg_jax.studies.benchmark.timing import Program
from brainseg_jax.training.setup import TrainingSetup, setup_training
from brainseg_jax.training.step import run_epoch
from brainseg_jax.utils.sharding import batch_sharding, make_mesh, shard


def random_slices(count: int, size: int) -> PackedSlices:
    """Returns slices of noise: the cost of a step does not depend on its images."""
    images = np.random.default_rng(0).random((count, size, size), np.float32)
    return pack(images, images > 0.9)


def make_config(case: Case) -> ml_collections.ConfigDict:
    """Makes the config of a case."""
    config = get_config()
    config.model = ml_collections.ConfigDict({"name": case.model, "start_filters": case.start_filters})
    config.model.dtype = case.dtype
    config.data.image_size, config.train.batch_size = case.image_size, case.batch_size
    return config


def start(case: Case, *, augmented: bool = False) -> TrainingSetup:
    """Sets up the training of a case, as scripts/train.py does."""
    config = make_config(case)
    if augmented:
        config.augmentation.update(
            flip=0.5, rotation=15.0, scale=0.15, shift=0.05, elastic=0.01, gamma=0.2, contrast=0.2, noise=0.02
        )
    return setup_training(config, steps_per_epoch=1, mesh=make_mesh(batch_size=case.batch_size, count=case.devices))


def choose_options(case: Case) -> dict[str, bool]:
    """Returns XLA's options for a case, as scripts/train.py or scripts/predict.py chooses them."""
    model = create_model(make_config(case).model)
    if case.mode == "inference":
        return compiler_options(model, image_size=case.image_size)
    return compiler_options(model, image_size=case.image_size, batch_size=case.batch_size, steps_per_call=case.steps)


def uses_onednn(case: Case) -> bool | None:
    """Returns whether oneDNN computes the convolutions of a case; None where there is no oneDNN."""
    return choose_options(case).get(ONEDNN, False) if has_onednn() else None


def make_program(case: Case, *, onednn: bool | None = None) -> Program:
    """Compiles our training step or inference for a case and runs it once.

    Args:
      case: what to do.
      onednn: whether oneDNN computes the convolutions; None: as scripts/train.py decides.
    """
    training = start(case)
    slices, mesh = random_slices(case.batch_size, case.image_size), training.mesh
    parameters = sum(leaf.size for leaf in jax.tree.leaves(training.state.params))
    step: Any
    weights: Any
    if case.mode == "train":
        rows = np.tile(np.arange(case.batch_size, dtype=np.int32), (case.steps, 1))
        (inputs,) = DeviceLoader(slices, mesh).iterate(rows, steps_per_call=case.steps)
        step, weights = training.train_step, training.state
    else:
        inputs = shard(unpack(slices)[0], batch_sharding(mesh, axis=0))
        step = make_predict_step(training.model, tta_flip=False, options=choose_options(case))
        weights = training.state.variables
    started = time.perf_counter()
    compiled = step.lower(weights, inputs).compile(None if onednn is None else {ONEDNN: onednn})

    def run() -> None:
        nonlocal weights
        if case.mode == "train":
            weights, _ = jax.block_until_ready(compiled(weights, inputs))
        else:
            jax.block_until_ready([compiled(weights, inputs) for _ in range(case.steps)])

    run()
    seconds = time.perf_counter() - started
    # XLA counts the program of one device, and a loop's body once: that is one device's share of one batch.
    cost, memory, share = compiled.cost_analysis() or {}, compiled.memory_analysis(), case.batch_size / mesh.size
    peak_bytes = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
    return Program(
        run=run,
        units=case.batch_size * case.steps,
        compile_seconds=seconds,
        memory_bytes=(peak_bytes - memory.alias_size_in_bytes) * mesh.size,
        parameters=parameters,
        flops_per_slice=max(cost.get("flops", 0), 0) / share,
        bytes_per_slice=max(cost.get("bytes accessed", 0), 0) / share,
        text=compiled.as_text(),
    )


def make_epoch(
    case: Case,
    slices: PackedSlices,
    loader_class: type[DeviceLoader] | type[StreamingLoader] = DeviceLoader,
    *,
    augmented: bool = False,
) -> Program:
    """Makes an epoch of training on slices that wait in device memory or are streamed."""
    training = start(case, augmented=augmented)
    loader = loader_class(slices, training.mesh)
    batches = len(loader) // case.batch_size
    steps = choose_steps_per_call(0, loader, batches=batches)
    state, epochs = training.state, itertools.count(1)

    def run() -> None:
        nonlocal state
        rows = epoch_batches(seed=0, epoch=next(epochs), slices=len(loader), batch_size=case.batch_size)
        state, _ = jax.block_until_ready(run_epoch(training.train_step, state, loader, rows, steps_per_call=steps))

    return Program(run, batches * case.batch_size)


def jit_program(
    function: Callable[..., Any], *arguments: Any, units: int, options: Mapping[str, bool] | None = None
) -> Program:
    """Makes a program of a function; arrays are arguments, since XLA would evaluate constants at compile time."""
    compiled = jax.jit(function, compiler_options=dict(options or {}))
    return Program(lambda: jax.block_until_ready(compiled(*arguments)), units)
