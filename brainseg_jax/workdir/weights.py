"""Trained weights in a folder that travels: model.safetensors beside config.json, as on the Hugging Face hub.

Such a folder opens like the workdir of a run. The file is an open format: reading it unpickles and executes nothing.
Weights in six bits are compressed as well, in model.safetensors.xz.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util
from safetensors import numpy as safetensors_numpy

from brainseg_jax.errors import InputError, shorten
from brainseg_jax.utils.files import write_bytes
from brainseg_jax.workdir import quantization

FILE = "model.safetensors"
COMPRESSED = "model.safetensors.xz"  # has weights in six bits
PACKAGED = Path(__file__).resolve().parents[1] / "weights"
DEFAULT = "linknet_strong_256_family"  # the default of scripts/predict.py
DTYPES = ("float32", "float16", "int6")


def find_weights(name: str | Path) -> Path:
    """Returns the folder of trained weights: that of packaged weights, or the path itself.

    Args:
      name: a name from `packaged_weights`, or the path of a workdir or of a folder that `write_weights` wrote. An
        existing folder takes precedence over a name.

    Raises:
      InputError: there is neither.
    """
    path = Path(name).expanduser()
    if os.path.isdir(path):  # Path.is_dir raises where a name is too long
        return path
    if str(name) in packaged_weights():
        return PACKAGED / str(name)
    raise InputError(
        f"{shorten(str(name))} is no folder and no name of weights in the package: name a workdir, a folder with "
        f"{FILE}, or one of {', '.join(packaged_weights()) or 'none'}."
    )


def packaged_weights() -> list[str]:
    """Returns the names of the weights that come with the package."""
    return sorted(folder.name for folder in PACKAGED.glob("*") if has_weights(folder))


def has_weights(folder: Path) -> bool:
    """Returns whether `write_weights` wrote into the folder."""
    return (folder / FILE).exists() or (folder / COMPRESSED).exists()


def has_network(folder: Path) -> bool:
    """Returns whether the folder holds a trained network: the checkpoints of a run, or weights."""
    return (folder / "checkpoints").is_dir() or has_weights(folder)


def check_new(folder: Path) -> None:
    """Refuses a folder for weights that holds something already.

    Raises:
      InputError: the folder is not empty, or it is a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already: name a new folder for the weights.")


def write_weights(directory: Path, variables: Mapping[str, Any], *, epoch: int, dtype: str = "float32") -> None:
    """Writes model.safetensors, or model.safetensors.xz; its head has the epoch and a checksum of the arrays.

    Args:
      directory: made if missing.
      variables: what `model.apply` takes: a nested dict of float arrays.
      epoch: of the checkpoint.
      dtype: "float32"; "float16", which halves the file; or "int6", kernels in six bits, for a sixth of the file.

    Raises:
      InputError: another dtype.
    """
    if dtype not in DTYPES:
        raise InputError(f"The dtype of the weights is {dtype!r}: set it to one of {', '.join(DTYPES)}.")
    flat = traverse_util.flatten_dict(dict(variables), sep=".")
    six_bits = dtype == "int6"
    arrays = {name: np.ascontiguousarray(array, "float32" if six_bits else dtype) for name, array in flat.items()}
    if six_bits:
        arrays = quantization.quantize(arrays)
    head = {"format": "flax", "epoch": str(epoch), "sha256": _checksum(arrays)}
    data = safetensors_numpy.save(arrays, head)
    directory.mkdir(parents=True, exist_ok=True)
    if six_bits:
        write_bytes(directory / COMPRESSED, quantization.compress(data))
    else:
        write_bytes(directory / FILE, data)


def read_weights(directory: Path, shapes: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Reads model.safetensors, or model.safetensors.xz.

    Args:
      directory: the folder.
      shapes: the variables of the network as shapes (`jax.eval_shape`).

    Returns:
      The variables as nested float32 NumPy arrays, and the epoch of their checkpoint.

    Raises:
      InputError: the file is damaged, or it is of another network than `shapes`; or both files exist.
    """
    path, compressed = directory / FILE, directory / COMPRESSED
    if path.exists() and compressed.exists():
        raise InputError(f"{directory} has {FILE} and {COMPRESSED}: remove the one that does not belong there.")
    expected = {name: leaf.shape for name, leaf in traverse_util.flatten_dict(dict(shapes), sep=".").items()}
    try:
        if compressed.exists():
            path = compressed
            largest = 4 * sum(math.prod(shape) for shape in expected.values()) + quantization.HEAD_BYTES
            data = quantization.decompress(path.read_bytes(), largest=largest)
        else:
            data = path.read_bytes()
        arrays = safetensors_numpy.load(data)
        head = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        checksum, epoch = head["sha256"], int(head["epoch"])
        known = checksum == _checksum(arrays)
        if path == compressed:
            arrays = quantization.dequantize(arrays)
    except Exception as error:  # lzma, safetensors and NumPy have errors of many classes for files that are damaged
        problem = shorten(error)
        raise InputError(f"{path} is damaged ({problem}): copy it again from where it came.") from error
    if not known:
        raise InputError(f"{path} is damaged (its checksum differs): copy it again from where it came.")
    if {name: array.shape for name, array in arrays.items()} != expected:
        raise InputError(f"{path} does not fit config.json beside it: copy both from one place.")
    flat = {name: array.astype(np.float32) for name, array in arrays.items()}
    return traverse_util.unflatten_dict(flat, sep="."), epoch


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + str(arrays[name].dtype).encode() + arrays[name].tobytes())
    return digest.hexdigest()
