"""Defines what the fuzzer must know about a kind of file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from numpy.random import Generator

from brainseg_jax.errors import InputError


class Kind(NamedTuple):
    """A kind of file.

    Attributes:
      prepare: makes seeds, whole files, from phantoms; it gets a folder for what must lie in files.
      damage: writes a damaged seed into an empty folder and returns its path; it gets the random numbers and the seeds.
      read: reads it as our programs do. It may raise `InputError`; any other error is a find, also that what was
        accepted is not what it claims to be.
      also_named: words of which a sentence may have one in place of the file.
    """

    prepare: Callable[[Path], Any]
    damage: Callable[[Generator, Any, Path], Path]
    read: Callable[[Path], None]
    also_named: tuple[str, ...] = ()


def read_all(path: Path, *reads: Callable[[Path], object]) -> None:
    """Reads a file in each of several ways; raises the first refusal when all have been tried."""
    refusals = []
    for read in reads:
        try:
            read(path)
        except InputError as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]
