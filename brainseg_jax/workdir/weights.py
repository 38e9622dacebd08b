"""Trained weights in a folder that travels: model.safetensors beside config.json, as on the Hugging Face hub.

Such a folder opens like the workdir of a run. The file is an open format: reading it unpickles and executes nothing.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from flax import traverse_util
from safetensors import numpy as safetensors_numpy

from brainseg_jax.errors import InputError, shorten
from brainseg_jax.utils.files import write_bytes

FILE = "model.safetensors"
PACKAGED = Path(__file__).resolve().parents[1] / "weights"
DEFAULT = "unet_strong_64_to_128_family"  # what scripts/predict.py takes
DTYPES = ("float32", "float16")


def find_weights(name: str | Path) -> Path:
    """Returns the folder of trained weights: that of packaged weights, or the path itself.

    Args:
      name: a name from `packaged_weights`, or the path of a workdir or of a folder that `write_weights` wrote. A folder
        of that path comes before a name.

    Raises:
      InputError: there is neither.
    """
    path = Path(name).expanduser()
    if os.path.isdir(path):  # Path.is_dir raises where a name is too long
        return path
    if str(name) in packaged_weights():
        return PACKAGED / str(name)
    raise InputError(
        f"{name} is no folder and no name of weights in the package: name a workdir, a folder with {FILE}, or one of "
        f"{', '.join(packaged_weights()) or 'none'}."
    )


def packaged_weights() -> list[str]:
    """Returns the names of the weights that come with the package."""
    return sorted(path.parent.name for path in PACKAGED.glob(f"*/{FILE}"))


def check_new(folder: Path) -> None:
    """Refuses a folder for weights that holds something already.

    Raises:
      InputError: it does, or it is a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already: name a new folder for the weights.")


def write_weights(directory: Path, variables: Mapping[str, Any], *, epoch: int, dtype: str = "float32") -> None:
    """Writes model.safetensors; its head has the epoch and a checksum of the arrays.

    Args:
      directory: made if missing.
      variables: what `model.apply` takes: a nested dict of float arrays.
      epoch: of the checkpoint.
      dtype: "float32", or "float16", which halves the file.

    Raises:
      InputError: another dtype.
    """
    if dtype not in DTYPES:
        raise InputError(f"The dtype of the weights is {dtype!r}: set it to one of {', '.join(DTYPES)}.")
    flat = traverse_util.flatten_dict(dict(variables), sep=".")
    arrays = {name: np.ascontiguousarray(array, dtype) for name, array in flat.items()}
    head = {"format": "flax", "epoch": str(epoch), "sha256": _checksum(arrays)}
    directory.mkdir(parents=True, exist_ok=True)
    write_bytes(directory / FILE, safetensors_numpy.save(arrays, head))


def read_weights(directory: Path, shapes: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Reads model.safetensors.

    Args:
      directory: the folder.
      shapes: the variables of the network as shapes (`jax.eval_shape`).

    Returns:
      The variables as nested float32 NumPy arrays, and the epoch of their checkpoint.

    Raises:
      InputError: the file is damaged, or it is of another network than `shapes`.
    """
    path = directory / FILE
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            head = file.metadata()
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 it is no mapping
        checksum, epoch = head["sha256"], int(head["epoch"])
    except Exception as error:  # safetensors and NumPy have errors of many classes for files that are damaged
        problem = shorten(error)
        raise InputError(f"{path} is damaged ({problem}): copy it again from where it came.") from error
    if checksum != _checksum(arrays):
        raise InputError(f"{path} is damaged (its checksum differs): copy it again from where it came.")
    expected = {name: leaf.shape for name, leaf in traverse_util.flatten_dict(dict(shapes), sep=".").items()}
    if {name: array.shape for name, array in arrays.items()} != expected:
        raise InputError(f"{path} does not fit config.json beside it: copy both from one place.")
    flat = {name: array.astype(np.float32) for name, array in arrays.items()}
    return traverse_util.unflatten_dict(flat, sep="."), epoch


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + str(arrays[name].dtype).encode() + arrays[name].tobytes())
    return digest.hexdigest()
