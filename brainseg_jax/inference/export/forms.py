"""Writes a trained network in forms that run without this package, and compares each with the network itself."""

import importlib.util
import itertools
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from brainseg_jax.data.phantom.generate import phantom_slices
from brainseg_jax.errors import InputError
from brainseg_jax.inference.export import run_model
from brainseg_jax.inference.predictor import Predictor, make_predict_step
from brainseg_jax.models import create_model
from brainseg_jax.utils.files import write_bytes, write_text
from brainseg_jax.workdir.weights import check_new

FORMS = {"onnx": "model.onnx", "stablehlo": "model.stablehlo"}
PLATFORMS = ("cpu", "cuda")  # that model.stablehlo runs on
TOLERANCE = 1e-4  # of probabilities
_HEADING = "\n## Without brainseg_jax\n"
_RUNNING = """
`python run_model.py slice.png` makes masks with {files}.
It needs NumPy, Pillow for images, and ONNX Runtime for `model.onnx` or JAX for `model.stablehlo`.
From images (B, {size}, {size}, 1) float32 in [0, 1] both make probabilities of the same shape, for any B;
`run_model.py` scales and resizes a slice, and makes its mask, as `config.json` beside it says.
"""


class Comparison(NamedTuple):
    """How the masks of a form differ from those of the network.

    Attributes:
      file: of the form.
      slices: how many phantom slices both saw.
      difference: the largest difference between the two probabilities of a pixel.
      pixels: how many pixels are tumour in one mask only.
    """

    file: str
    slices: int
    difference: float
    pixels: int


def check_forms(forms: Sequence[str]) -> None:
    """Refuses forms that cannot be written.

    Raises:
      InputError: there is no such form, or a package that it needs is not installed.
    """
    for form in forms:
        if form not in FORMS:
            raise InputError(f"--formats names {form}: choose from {', '.join(FORMS)}; the weights are always written.")
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if "onnx" in forms and missing:
        raise InputError(
            f"--formats names onnx, and {' and '.join(missing)} is not installed: run "
            "`pip install 'brainseg_jax[onnx]'`, or leave onnx out."
        )


def export_network(
    predictor: Predictor, folder: Path, *, card: str, forms: Sequence[str] = (), dtype: str = "float32"
) -> list[Comparison]:
    """Writes a network into a new folder: what `Predictor.save_pretrained` writes, its card, and further forms.

    Args:
      predictor: the network.
      folder: new, or empty. It appears when all is written and compared.
      card: for README.md.
      forms: names from `FORMS`. They compute in float32, with the weights as they are stored in the folder.
      dtype: of the weights, "float32", "float16" or "int6".

    Returns:
      For each form how it differs from the network on phantom slices.

    Raises:
      InputError: the folder holds something, a form or dtype cannot be written, or a form gives other probabilities.
    """
    check_forms(forms)
    check_new(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.unfinished.") as unfinished:
        made = Path(unfinished) / folder.name
        predictor.save_pretrained(made, dtype=dtype)
        network = _in_float32(Predictor.from_pretrained(made))
        for form in forms:
            write_bytes(made / FORMS[form], convert(network, form))
        if forms:
            shutil.copyfile(run_model.__file__, made / "run_model.py")
        write_text(made / "README.md", _with_running(card, forms, size=predictor.config.data.image_size))
        comparisons = [compare(network, made / FORMS[form]) for form in forms]
        for one in comparisons:
            if not one.difference <= TOLERANCE:
                raise InputError(
                    f"{one.file} gives probabilities that differ from the network's by {one.difference:.1g}, more than "
                    f"{TOLERANCE:g}: nothing was written; leave that form out, and report it."
                )
        made.replace(folder)
    return comparisons


def convert(network: Predictor, form: str) -> bytes:
    """Returns a network as the bytes of one of `FORMS`: images (B, S, S, 1) to probabilities (B, S, S, 1), float32.

    Raises:
      InputError: the network has an operation that ONNX export does not know.
    """
    predict = make_predict_step(create_model(network.config.model), tta_flip=network.tta_flip)
    size = network.config.data.image_size

    def function(images: Array) -> Array:
        return predict(network.variables, images)

    if form == "onnx":
        from brainseg_jax.inference.export.to_onnx import to_onnx  # needs the extra

        return to_onnx(function, (size, size, 1))
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, size, size, 1), jnp.float32)
    limit = jax.config.jax_traceback_in_locations_limit  # type: ignore[attr-defined]
    jax.config.update("jax_traceback_in_locations_limit", 0)  # else the file would name paths of this machine
    try:
        return bytes(jax.export.export(jax.jit(function), platforms=PLATFORMS)(images).serialize())
    finally:
        jax.config.update("jax_traceback_in_locations_limit", limit)


def compare(network: Predictor, model: Path) -> Comparison:
    """Compares a form, run as by run_model.py, with the network on a few phantom slices that are not square."""
    slices = itertools.islice(phantom_slices(patients=10, size=128), 4)
    images = [one.image[:, 8 * number :] for number, (one, _) in enumerate(slices)]
    expected, found = network.probabilities(images), run_model.probabilities(images, model=model)
    masks = [network.postprocessing.mask(of_image) for of_image in expected]
    return Comparison(
        model.name,
        len(images),
        max(float(np.abs(one - other).max()) for one, other in zip(expected, found, strict=True)),
        sum(int((one != other).sum()) for one, other in zip(masks, run_model.masks(images, model=model), strict=True)),
    )


def _in_float32(network: Predictor) -> Predictor:
    # ONNX Runtime has no bfloat16 on a CPU, and a form is to give the same numbers wherever it runs.
    config = network.config.copy_and_resolve_references()
    config.model.dtype = "float32"
    return Predictor(config, network.variables, network.postprocessing, epoch=network.epoch, tta_flip=network.tta_flip)


def _with_running(card: str, forms: Sequence[str], *, size: int) -> str:
    card = card.split(_HEADING)[0]
    if not forms:
        return card
    return card + _HEADING + _RUNNING.format(files=" or ".join(f"`{FORMS[form]}`" for form in forms), size=size)
