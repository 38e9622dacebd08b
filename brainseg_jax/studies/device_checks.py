"""Checks what a device computes: gradients by dtype and against difference quotients, and first training steps.

The steps are compared with a repetition, with streamed slices, and with the CPU.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from brainseg_jax.config import get_config
from brainseg_jax.data.loaders import DeviceLoader, SliceLoader, StreamingLoader, epoch_batches
from brainseg_jax.data.packing import PackedSlices, pack, unpack
from brainseg_jax.models import MODELS, create_model
from brainseg_jax.models.compilation import compiler_options
from brainseg_jax.published import PUBLISHED_START_FILTERS
from brainseg_jax.training.losses import create_loss
from brainseg_jax.training.setup import setup_training
from brainseg_jax.training.step import run_epoch
from brainseg_jax.utils import markdown
from brainseg_jax.utils.files import write_json
from brainseg_jax.utils.provenance import describe_environment
from brainseg_jax.utils.sharding import AXIS, make_mesh

LEARNING_RATE = 1e-4  # low, so that rounding errors do not grow over the steps
STEP = 3e-3  # of the difference quotients: short against the loss's curvature, long against rounding


class Sizes(NamedTuple):
    """Sizes of the computation."""

    networks: tuple[str, ...]  # "unet", "linknet"
    start_filters: int | None  # of each network; None for the published ones
    image_size: int  # side of the images
    batch_size: int
    steps: int  # training steps


SIZES = {"full": Sizes(("unet", "linknet"), None, 128, 8, 8), "tiny": Sizes(("unet",), 8, 32, 4, 2)}


class Check(NamedTuple):
    """A measurement and its limit."""

    name: str
    network: str  # "unet" or "linknet"
    measures: str  # what the value is
    value: float | None  # the largest difference; None if it could not be measured here
    limit: float  # the largest value that passes
    why_not: str = ""  # why it could not be measured

    @property
    def passed(self) -> bool | None:
        """Whether the value is within its limit, which NaN is not; None without a value."""
        return None if self.value is None else self.value <= self.limit


def run_checks(sizes: Sizes, folder: Path) -> dict[str, Any]:
    """Runs all checks on noise; prints a line and writes checks.json and README.md after each.

    Args:
      sizes: sizes of the computation.
      folder: where the files are written; made if missing.

    Returns:
      The content of checks.json; `complete` says whether all checks were run, or the program was stopped before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {
        **describe_environment(devices=jax.device_count()),
        **{name: getattr(sizes, name) for name in ("image_size", "batch_size", "steps")},
        "complete": False,
        "checks": [],
    }
    header, rows = ("Network", "Check", "Measured", "Value", "Limit", "Passed"), []
    text = (
        f"# Checks on {report['device']}\n\nWritten by `{report['command']}` at commit {report['commit']}, jax "
        f"{report['versions']['jax']}: the first {sizes.steps} training steps on noise, "
        f"{sizes.image_size}×{sizes.image_size}, batch {sizes.batch_size}.\n\n"
    )
    for check in (check for network in sizes.networks for check in _check_network(network, sizes)):
        value = "–" if check.value is None else f"{check.value:.1e}"
        passed = {True: "yes", False: "**no**", None: f"not checked: {check.why_not}"}[check.passed]
        row = (MODELS[check.network].title, check.name, check.measures, value, f"{check.limit:.0e}", passed)
        report["checks"].append({**check._asdict(), "passed": check.passed})
        rows.append(row)
        print(", ".join(f"{name.lower()}: {cell}" for name, cell in zip(header, row, strict=True)), flush=True)
        write_json(folder / "checks.json", report)
        (folder / "README.md").write_text(f"{text}{markdown.table(header, rows)}\n")
    report["complete"] = True
    write_json(folder / "checks.json", report)
    return report


def _check_network(network: str, sizes: Sizes) -> Iterator[Check]:
    mesh, cpu = make_mesh(batch_size=1, count=1), Mesh(np.array(jax.devices("cpu")[:1]), (AXIS,))
    exact = gradients(network, sizes, dtype="float32", precision="highest")
    for dtype, limit in (("float32", 0.02), ("bfloat16", 0.2)):
        difference = np.linalg.norm(gradients(network, sizes, dtype=dtype) - exact) / np.linalg.norm(exact)
        measures = "‖difference‖ / ‖gradient‖ to float32 at the highest precision"
        yield Check(f"{dtype} gradients", network, measures, float(difference), limit)
    measures = "largest relative difference to the loss's own differences, by parameter array"
    yield Check("gradients by differences", network, measures, difference_to_quotients(network, sizes), 0.2)
    first, again = first_steps(network, sizes, mesh), first_steps(network, sizes, mesh)
    # NumPy's maximum keeps a NaN, which Python's may lose.
    worst = float(np.max([_difference(*pair) for pair in zip(first, again, strict=True)]))
    yield Check("again", network, "largest relative difference of losses and parameters", worst, 0.0)
    measures = "largest relative difference of losses"
    streamed, _ = first_steps(network, sizes, mesh, loader_class=StreamingLoader)
    yield Check("streamed", network, measures, _difference(first[0], streamed), 1e-3)
    value, why_not = None, "there is no other device"
    if jax.default_backend() != "cpu":
        both = (first_steps(network, sizes, where, precision="highest")[0] for where in (mesh, cpu))
        value, why_not = _difference(*both), ""
    yield Check("against the CPU", network, f"{measures} at the highest precision", value, 1e-3, why_not)


def difference_to_quotients(network: str, sizes: Sizes) -> float:
    """Compares gradients with difference quotients of the loss, which do not depend on a library's gradients.

    Each array of parameters moves along its own gradient, in which direction the slope of the loss is the gradient's
    norm. Batch norm uses its running statistics, since with those of the batch the loss is too curved.

    Returns:
      The largest difference between a quotient and the norm, relative to the norm, or to a hundredth of the largest
      norm if that is more. About 0.01 if all is right, 1 and more if a gradient is wrong.
    """
    model = create_model(_config(network, sizes, "float32").model)
    images, masks = unpack(_noise(sizes))
    loss_function = create_loss("bce")
    options = compiler_options(
        model, image_size=sizes.image_size, batch_size=sizes.batch_size
    )  # with which it is trained

    @jax.jit
    def mean_loss(params: Any, rest: Any) -> jax.Array:
        logits: Any = model.apply({"params": params, **rest}, images, train=False)
        return loss_function(logits, masks).mean()

    with jax.default_matmul_precision("highest"):
        rest = dict(jax.jit(model.init)(jax.random.key(0), images))
        values, tree = jax.tree.flatten(rest.pop("params"))
        differentiate = jax.jit(jax.grad(mean_loss), compiler_options=options)
        slopes = jax.tree.leaves(differentiate(jax.tree.unflatten(tree, values), rest))
        lengths = np.array([float(np.linalg.norm(slope)) for slope in slopes])
        quotients = []
        for index, (slope, length) in enumerate(zip(slopes, lengths, strict=True)):
            ends = [
                [*values[:index], values[index] + step * slope / max(length, 1e-30), *values[index + 1 :]]
                for step in (STEP, -STEP)
            ]
            above, below = (float(mean_loss(jax.tree.unflatten(tree, end), rest)) for end in ends)
            quotients.append((above - below) / (2 * STEP))
    return float(np.max(np.abs(quotients - lengths) / np.maximum(lengths, 0.01 * lengths.max())))


def gradients(network: str, sizes: Sizes, *, dtype: str, precision: str | None = None) -> np.ndarray:
    """Computes the gradient of the published loss at the initial parameters, (P,) float32.

    Args:
      network: "unet" or "linknet".
      sizes: sizes of the network and its batch.
      dtype: "float32" or "bfloat16".
      precision: of matrix products and convolutions in JAX; None for its default, which on a GPU is below float32.
    """
    model = create_model(_config(network, sizes, dtype).model)
    images, masks = unpack(_noise(sizes))
    loss_function = create_loss("bce")

    def mean_loss(params: Any, rest: Any) -> jax.Array:
        logits, _ = model.apply({"params": params, **rest}, images, train=True, mutable=["batch_stats"])
        return loss_function(logits, masks).mean()

    with jax.default_matmul_precision(precision):
        variables = dict(jax.jit(model.init)(jax.random.key(0), images))
        options = compiler_options(model, image_size=sizes.image_size, batch_size=sizes.batch_size)
        gradient = jax.jit(jax.grad(mean_loss), compiler_options=options)(variables.pop("params"), variables)
    return _flatten(gradient)


def first_steps(
    network: str,
    sizes: Sizes,
    mesh: Mesh,
    *,
    loader_class: Callable[[PackedSlices, Mesh], SliceLoader] = DeviceLoader,
    precision: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Trains for a few steps with the code of scripts/train.py, compiled anew.

    Args:
      network: "unet" or "linknet".
      sizes: sizes of the network and its batches, and their number.
      mesh: the devices.
      loader_class: keeps the slices on the device or streams them.
      precision: see `gradients`.

    Returns:
      The losses (steps,) and the parameters after the last step, (P,) float32.
    """
    config = _config(network, sizes, "float32")
    config.optimizer.learning_rate = LEARNING_RATE
    config.augmentation.update({"flip": 0.5, "noise": 0.05})
    with _without_cache(), jax.default_matmul_precision(precision):
        # Drawn on the CPU, the parameters are the same whatever device the steps run on.
        with jax.default_device(jax.devices("cpu")[0]):
            training = setup_training(config, steps_per_epoch=sizes.steps, mesh=mesh)
        slices = _noise(sizes)
        batches = epoch_batches(seed=0, epoch=1, slices=len(slices.images), batch_size=sizes.batch_size)
        loader = loader_class(slices, mesh)
        state, metrics = run_epoch(training.train_step, training.state, loader, batches, steps_per_call=1)
    return metrics.loss / metrics.slices, _flatten(state.params)


def _config(network: str, sizes: Sizes, dtype: str) -> ml_collections.ConfigDict:
    config = get_config()
    config.model = ml_collections.ConfigDict({"name": network, "dtype": dtype})
    config.model.start_filters = sizes.start_filters or PUBLISHED_START_FILTERS[network]
    config.data.image_size = sizes.image_size
    config.train.batch_size = sizes.batch_size
    config.deterministic = True
    return config


def _noise(sizes: Sizes) -> PackedSlices:
    shape = (sizes.batch_size * sizes.steps, sizes.image_size, sizes.image_size)
    images = np.random.default_rng(0).random(shape, np.float32)
    return pack(images, images > 0.9)


def _flatten(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(jax.device_get(tree))])


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    """Computes the largest difference relative to the largest value; NaN if a value is."""
    return float(np.abs(one - other).max() / np.abs(one).max())


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
    """Turns off XLA's cache, so that each program is compiled anew: on a GPU the kernels may differ each time."""
    before = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
