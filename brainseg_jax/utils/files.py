"""Reads JSON files and writes files atomically."""

import csv
import errno
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brainseg_jax.errors import InputError
from brainseg_jax.utils.json_shape import find_misfit

_OF_THE_DISK = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO),
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR),
)


def refusal_of_disk(error: Exception) -> str:
    """Returns the system's message if an error says that a file cannot be written, otherwise "".

    Libraries in C++ raise errors of their own classes for this, with the system's message inside a longer one.
    """
    return next((os.strerror(number) for number in _OF_THE_DISK if os.strerror(number) in str(error)), "")


def read_json(path: Path, shape: Any = None) -> Any:
    """Reads a JSON file of a run.

    Args:
      path: the file.
      shape: what it must hold, as utils/json_shape.py writes it; None for any value.

    Raises:
      InputError: it is missing or damaged, or it has another shape.
    """
    try:
        return parse_json(path.read_bytes(), shape)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: name the --workdir of a run that scripts/train.py made.") from error
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): restore it, or name another --workdir.") from error


def parse_json(content: bytes, shape: Any = None) -> Any:
    """Parses the JSON of one of our files, in UTF-8, whose whole numbers have at most 64 bits.

    Raises:
      ValueError: it is not such JSON, or it has another shape; see `read_json`.
    """
    try:
        value = json.loads(content.decode(), parse_int=_parse_int)
    except RecursionError as error:
        raise ValueError("lists or objects are nested too deeply") from error
    json.dumps(value, ensure_ascii=False).encode()  # raises for half a surrogate pair, which could not be written
    if shape is not None and (misfit := find_misfit(value, shape)):
        raise ValueError(misfit)
    return value


def _parse_int(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        raise ValueError(f"{digits[:20]}… has more than 64 bits")
    return int(digits)


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a CSV file with a header atomically; each row has a value for each column."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically: a killed process or a full disk leaves the old file or the new one."""
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # Python names a file that cannot be opened, but not one that cannot be written
        raise


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Writes an image, (H, W) or (H, W, 3) uint8 or (H, W) uint16, as a PNG file atomically."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    write_bytes(path, content.getvalue())
