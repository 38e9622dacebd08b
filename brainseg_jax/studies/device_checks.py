"""Whether this device computes what it should: the first steps again, streamed, against the CPU; gradients in bf16."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from brainseg_jax.config import get_config
from brainseg_jax.data.loaders import DeviceLoader, SliceLoader, StreamingLoader, epoch_batches
from brainseg_jax.data.packing import PackedSlices, pack, unpack
from brainseg_jax.models import MODELS, create_model
from brainseg_jax.published import PUBLISHED_START_FILTERS
from brainseg_jax.training.losses import create_loss
from brainseg_jax.training.setup import setup_training
from brainseg_jax.training.step import run_epoch
from brainseg_jax.utils import markdown
from brainseg_jax.utils.files import write_json
from brainseg_jax.utils.provenance import describe_environment
from brainseg_jax.utils.sharding import AXIS, make_mesh

LEARNING_RATE = 1e-4  # of both networks: the losses are to stay near each other over the steps


@dataclass(frozen=True)
class Sizes:
    """How much is computed.

    Attributes:
      networks: which.
      start_filters: of each network; None for the published ones.
      image_size: side of the images.
      batch_size: slices a step.
      steps: training steps.
    """

    networks: tuple[str, ...]
    start_filters: int | None
    image_size: int
    batch_size: int
    steps: int


SIZES = {"full": Sizes(("unet", "linknet"), None, 128, 8, 8), "tiny": Sizes(("unet",), 8, 32, 4, 2)}


@dataclass(frozen=True)
class Check:
    """What was measured, and what it may be.

    Attributes:
      name: of the check.
      network: "unet" or "linknet".
      measures: what `value` is.
      value: the largest difference; None where it could not be measured here.
      limit: the largest that passes.
      why_not: why it could not be measured.
    """

    name: str
    network: str
    measures: str
    value: float | None
    limit: float
    why_not: str = ""

    @property
    def passed(self) -> bool | None:
        """Whether the value is within its limit, NaN never; None where there is none."""
        return None if self.value is None else self.value <= self.limit


def run_checks(
    sizes: Sizes, *, log: Callable[[str], None], save: Callable[[dict[str, Any]], None] = lambda found: None
) -> dict[str, Any]:
    """Measures everything, on noise.

    Args:
      sizes: how much.
      log: told each check when it is done.
      save: given what was found so far, again and again.

    Returns:
      What checks.json holds.
    """
    found: dict[str, Any] = {
        **describe_environment(devices=jax.device_count()),
        "image_size": sizes.image_size,
        "batch_size": sizes.batch_size,
        "steps": sizes.steps,
        "checks": [],
    }
    for network in sizes.networks:
        for check in _check_network(network, sizes):
            found["checks"].append({**vars(check), "passed": check.passed})
            log(_describe(check))
            save(found)
    return found


def _check_network(network: str, sizes: Sizes) -> Iterator[Check]:
    mesh, cpu = make_mesh(batch_size=1, count=1), Mesh(np.array(jax.devices("cpu")[:1]), (AXIS,))
    exact = gradients(network, sizes, dtype="float32", precision="highest")
    for dtype, limit in (("float32", 0.02), ("bfloat16", 0.2)):
        difference = np.linalg.norm(gradients(network, sizes, dtype=dtype) - exact) / np.linalg.norm(exact)
        measures = "‖difference‖ / ‖gradient‖ to float32 at the highest precision"
        yield Check(f"{dtype} gradients", network, measures, float(difference), limit)
    losses, params = first_steps(network, sizes, mesh)
    other_losses, other_params = first_steps(network, sizes, mesh)
    # NumPy's maximum, which keeps a NaN that Python's may lose.
    worst = float(np.max([_difference(losses, other_losses), _difference(params, other_params)]))
    yield Check("again", network, "largest relative difference of losses and parameters", worst, 0.0)
    other_losses, _ = first_steps(network, sizes, mesh, loader_class=StreamingLoader)
    yield Check("streamed", network, "largest relative difference of losses", _difference(losses, other_losses), 1e-3)
    name, measures, limit = "against the CPU", "largest relative difference of losses at the highest precision", 1e-3
    if jax.default_backend() == "cpu":
        yield Check(name, network, measures, None, limit, "there is no other device")
    else:
        both = (first_steps(network, sizes, where, precision="highest")[0] for where in (mesh, cpu))
        yield Check(name, network, measures, _difference(*both), limit)


def gradients(network: str, sizes: Sizes, *, dtype: str, precision: str | None = None) -> np.ndarray:
    """The gradient of the published loss at the start, of all parameters, (P,) float32.

    Args:
      network: "unet" or "linknet".
      sizes: of the network and its batch.
      dtype: of the computation.
      precision: of JAX's products and convolutions; None for its default, which on a GPU is less than float32 has.
    """
    model = create_model(_config(network, sizes, dtype).model)
    images, masks = unpack(_noise(sizes))
    loss_function = create_loss("bce")

    def mean_loss(params: Any, rest: Any) -> jax.Array:
        logits, _ = model.apply({"params": params, **rest}, images, train=True, mutable=["batch_stats"])
        return loss_function(logits, masks).mean()

    with jax.default_matmul_precision(precision):
        variables = dict(jax.jit(model.init)(jax.random.key(0), images))
        found = jax.jit(jax.grad(mean_loss))(variables.pop("params"), variables)
    return _flat(found)


def first_steps(
    network: str,
    sizes: Sizes,
    mesh: Mesh,
    *,
    loader_class: Callable[[PackedSlices, Mesh], SliceLoader] = DeviceLoader,
    precision: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Trains for a few steps by the code that train.py runs, compiled anew.

    Args:
      network: "unet" or "linknet".
      sizes: of the network, its batches and how many.
      mesh: the devices.
      loader_class: whether slices wait on the device or are streamed.
      precision: see `gradients`.

    Returns:
      The losses (steps,) and the parameters after the last step, (P,) float32.
    """
    config = _config(network, sizes, "float32")
    config.optimizer.learning_rate = LEARNING_RATE
    config.augmentation.update({"flip": 0.5, "noise": 0.05})
    with _without_cache(), jax.default_matmul_precision(precision):
        # Parameters drawn on the CPU, whatever device the steps run on: the same everywhere.
        with jax.default_device(jax.devices("cpu")[0]):
            training = setup_training(config, steps_per_epoch=sizes.steps, mesh=mesh)
        slices = _noise(sizes)
        batches = epoch_batches(seed=0, epoch=1, slices=len(slices.images), batch_size=sizes.batch_size)
        loader = loader_class(slices, mesh)
        state, metrics = run_epoch(training.train_step, training.state, loader, batches, steps_per_call=1)
    return metrics.loss / metrics.slices, _flat(state.params)


def write_checks(found: Mapping[str, Any], folder: Path) -> None:
    """Writes checks.json and README.md; the folder is made if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "checks.json", found)
    header = ("Network", "Check", "Measured", "Value", "Limit", "Passed")
    rows = [
        (
            MODELS[check["network"]].title,
            check["name"],
            check["measures"],
            "–" if check["value"] is None else f"{check['value']:.1e}",
            f"{check['limit']:.0e}",
            {True: "yes", False: "**no**", None: f"not checked: {check['why_not']}"}[check["passed"]],
        )
        for check in found["checks"]
    ]
    (folder / "README.md").write_text(
        f"# Checks on {found['device']}\n\nWritten by `{found['command']}` at commit {found['commit']}, jax "
        f"{found['versions']['jax']}: the first {found['steps']} training steps on noise, "
        f"{found['image_size']}×{found['image_size']}, batch {found['batch_size']}.\n\n{markdown.table(header, rows)}\n"
    )


def _config(network: str, sizes: Sizes, dtype: str) -> ml_collections.ConfigDict:
    config = get_config()
    config.model = ml_collections.ConfigDict({"name": network, "dtype": dtype})
    config.model.start_filters = sizes.start_filters or PUBLISHED_START_FILTERS[network]
    config.data.image_size = sizes.image_size
    config.train.batch_size = sizes.batch_size
    return config


def _noise(sizes: Sizes) -> PackedSlices:
    shape = (sizes.batch_size * sizes.steps, sizes.image_size, sizes.image_size)
    images = np.random.default_rng(0).random(shape, np.float32)
    return pack(images, images > 0.9)


def _flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(jax.device_get(tree))])


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference, by the largest value: NaN where one is."""
    return float(np.abs(one - other).max() / np.abs(one).max())


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
    """Has XLA compile anew, which is where a GPU may choose other kernels, instead of reading its cache."""
    before = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)


def _describe(check: Check) -> str:
    if check.value is None:
        return f"{check.network}, {check.name}: not checked, {check.why_not}"
    verdict = "passed" if check.passed else "FAILED"
    return f"{check.network}, {check.name}: {check.value:.1e}, limit {check.limit:.0e}: {verdict}"
