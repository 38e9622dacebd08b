"""Makes our programs: the training step and the inference that train.py and predict.py run."""

import functools
import time
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from brainseg_jax.config import get_config
from brainseg_jax.data.loaders import DeviceLoader, StreamingLoader, choose_steps_per_call, epoch_batches
from brainseg_jax.data.packing import PackedSlices, pack
from brainseg_jax.inference.predictor import make_predict_step
from brainseg_jax.models import create_model
from brainseg_jax.studies.benchmark.case import Case
from brainseg_jax.studies.benchmark.timing import Program
from brainseg_jax.training.setup import TrainingSetup, setup_training
from brainseg_jax.training.step import run_epoch
from brainseg_jax.utils.sharding import batch_sharding, make_mesh, replicated, shard

AUGMENTED = {
    "flip": 0.5,
    "rotation": 15.0,
    "scale": 0.15,
    "shift": 0.05,
    "elastic": 0.01,
    "gamma": 0.2,
    "contrast": 0.2,
    "noise": 0.02,
}


def make_program(case: Case) -> Program:
    """Compiles our training step or inference for a case and runs it once."""
    return _training(case) if case.mode == "train" else _inference(case)


def random_slices(count: int, size: int) -> PackedSlices:
    """Returns slices of noise: the cost of a step does not depend on its images."""
    images = np.random.default_rng(0).random((count, size, size), np.float32)
    return pack(images, images > 0.9)


def start(case: Case, *, augmented: bool = False) -> TrainingSetup:
    """Sets up the training of a case, as scripts/train.py does."""
    config = get_config()
    config.model = ml_collections.ConfigDict({"name": case.model, "start_filters": case.start_filters})
    config.model.dtype = case.dtype
    config.data.image_size = case.image_size
    config.augmentation.update(AUGMENTED if augmented else {})
    return setup_training(config, steps_per_epoch=1, mesh=make_mesh(batch_size=case.batch_size, count=case.devices))


def _training(case: Case) -> Program:
    training = start(case)
    slices = random_slices(case.batch_size, case.image_size)
    batches = np.tile(np.arange(case.batch_size, dtype=np.int32), (case.steps, 1))
    (step_batches,) = DeviceLoader(slices, training.mesh).iterate(batches, steps_per_call=case.steps)
    parameters = _count(training.state.params)
    started = time.perf_counter()
    compiled = training.train_step.lower(training.state, step_batches).compile()  # type: ignore[attr-defined]
    state = jax.block_until_ready(compiled(training.state, step_batches))[0]
    seconds = time.perf_counter() - started

    def run() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(compiled(state, step_batches))

    return _program(compiled, run, case, training.mesh, seconds, parameters)


def _inference(case: Case) -> Program:
    model = create_model({"name": case.model, "start_filters": case.start_filters, "dtype": case.dtype})
    mesh = make_mesh(batch_size=case.batch_size, count=case.devices)
    images = np.random.default_rng(0).random((case.batch_size, case.image_size, case.image_size, 1), np.float32)
    variables = shard(jax.jit(model.init)(jax.random.key(0), images[:1]), replicated(mesh))
    batch = shard(images, batch_sharding(mesh, axis=0))
    predict = make_predict_step(model, tta_flip=False)
    started = time.perf_counter()
    compiled = predict.lower(variables, batch).compile()  # type: ignore[attr-defined]
    jax.block_until_ready(compiled(variables, batch))
    seconds = time.perf_counter() - started

    def run() -> None:
        jax.block_until_ready([compiled(variables, batch) for _ in range(case.steps)])

    return _program(compiled, run, case, mesh, seconds, _count(variables["params"]))


def _program(compiled: Any, run: Any, case: Case, mesh: Mesh, seconds: float, parameters: int) -> Program:
    # XLA counts the program of one device and the body of a loop once: so a batch's share of one device.
    cost, memory = compiled.cost_analysis() or {}, compiled.memory_analysis()
    share = case.batch_size / mesh.size
    peak_bytes = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
    return Program(
        run=run,
        slices=case.batch_size * case.steps,
        compile_seconds=seconds,
        parameters=parameters,
        memory_bytes=(peak_bytes - memory.alias_size_in_bytes) * mesh.size,
        flops_per_slice=max(cost.get("flops", 0), 0) / share or None,
        bytes_per_slice=max(cost.get("bytes accessed", 0), 0) / share or None,
    )


def make_epochs(case: Case, *, slices: int) -> dict[str, Program]:
    """Returns an epoch in four ways: bare steps on one batch, from device memory, the same augmented, and streamed.

    All four read the metrics of all steps at the end, as training does.
    """
    host_slices = random_slices(slices, case.image_size)
    return {name: _make_epoch(name, case, host_slices) for name in ("bare", "device", "augmented", "stream")}


def _make_epoch(name: str, case: Case, host_slices: PackedSlices) -> Program:
    training = start(case, augmented=name == "augmented")
    loader = (StreamingLoader if name == "stream" else DeviceLoader)(host_slices, training.mesh)
    count = len(host_slices.images)
    steps = choose_steps_per_call(0, loader, batches=count // case.batch_size)
    step, state, epoch = training.train_step, training.state, 0

    def draw_batches() -> np.ndarray:
        return epoch_batches(seed=0, epoch=epoch, slices=count, batch_size=case.batch_size)

    batches = draw_batches()
    fixed: Any = next(iter(loader.iterate(batches, steps_per_call=steps))) if name == "bare" else None

    def run() -> None:
        nonlocal state, epoch
        epoch += 1
        batches = draw_batches()
        if name == "bare":
            sums = []
            for _ in range(0, len(batches), steps):
                state, step_sums = step(state, fixed)
                sums.append(step_sums)
            jax.device_get(sums)
        else:
            state, _ = run_epoch(step, state, loader, batches, steps_per_call=steps)
        jax.block_until_ready(state)

    started = time.perf_counter()
    run()
    seconds = time.perf_counter() - started
    return Program(run, len(batches) * case.batch_size, seconds, _count(state.params))


def peaks(*, on_gpu: bool) -> dict[str, tuple[Any, int]]:
    """Returns programs that reach the device's peaks: large matrix products and, as "bytes", a large copy.

    With each comes the number of its operations or bytes.
    """
    size = 8192 if on_gpu else 2048
    matrix = jax.random.normal(jax.random.key(0), (size, size))
    values = jax.random.normal(jax.random.key(0), (2**28 if on_gpu else 2**25,))
    multiply, copy = jax.jit(lambda a: a @ a), jax.jit(lambda a: a + 1.0)
    runs: dict[str, tuple[Any, int]] = {
        dtype: (functools.partial(wait_for, multiply, matrix.astype(dtype)), 2 * size**3)
        for dtype in ("float32", "bfloat16")
    }
    return runs | {"bytes": (functools.partial(wait_for, copy, values), 2 * values.nbytes)}


def wait_for(function: Any, *arguments: Any) -> None:
    """Calls a compiled function and waits for its result."""
    jax.block_until_ready(function(*arguments))


def _count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
