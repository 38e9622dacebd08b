"""Locks out a second process; the system frees a lock when its process ends, however it ends."""

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from brainseg_jax.errors import InputError


@contextmanager
def lock(path: Path, *, refusal: str) -> Iterator[IO[str]]:
    """Holds a lock until the block or the process ends; yields its file, emptied, to write a note in.

    Raises:
      InputError: another process holds the lock of this file; `refusal` is the message.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(refusal) from error
        file.truncate(0)
        yield file


@contextmanager
def lock_folder(folder: Path, *, remedy: str) -> Iterator[None]:
    """Holds a lock of a folder, in its file `.lock`, until the block or the process ends.

    Args:
      folder: exists.
      remedy: end of the error message: what the user of another process should do.

    Raises:
      InputError: another process holds the lock; the message names its host and its id.
    """
    path = folder / ".lock"
    holder = path.read_text().strip() if path.exists() else ""
    with lock(path, refusal=f"{folder} is in use by {holder or 'another process'}: {remedy}.") as note:
        note.write(f"process {os.getpid()} on {platform.node()}")
        note.flush()
        yield
