"""The process that reads damaged files, within bounds of memory."""

import contextlib
import faulthandler
import os
import resource
import shutil
import sys
import traceback
import warnings
import zlib
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from brainseg_jax.errors import InputError

MEMORY = 4 * 2**30  # bytes beyond what the process has when it begins to read a file
LONGEST = 1000  # characters of a line of a sentence


class Outcome(NamedTuple):
    """What came of a damaged file: "clean", "refused" with a sentence, or "find" with what was wrong."""

    kind: str
    text: str = ""


def serve(connection: Connection, folder: Path, log: Path) -> None:
    """Answers jobs: the name of a kind to make its seeds, or (name, seed, number) to damage and read a file."""
    with log.open("ab") as file:  # what libraries print, and where a crash was
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    faulthandler.enable(sys.__stderr__)
    warnings.simplefilter("ignore")
    from tests.nightly.fuzzing.kinds import KINDS

    seeds: dict[str, Any] = {}
    while job := connection.recv():
        if isinstance(job, str):
            place = folder / "seeds" / job
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            seeds[job] = KINDS[job].prepare(place)
            connection.send(Outcome("clean"))
        else:
            name, seed, number = job
            connection.send(
                _try(KINDS[name], seeds[name], np.random.default_rng([seed, zlib.crc32(name.encode()), number]), folder)
            )


def _try(kind: Any, seeds: Any, rng: np.random.Generator, folder: Path) -> Outcome:
    place = folder / "damaged"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    path = kind.damage(rng, seeds, place)
    try:
        with _bounded_memory():
            kind.read(path)
    except InputError as error:
        return _judge(error, place, kind.also_named)
    except BaseException as error:
        return Outcome("find", _describe(error, place))
    return Outcome("clean")


def _judge(error: InputError, place: Path, also_named: tuple[str, ...]) -> Outcome:
    """Refusals are good if they name the file or the setting, in one sentence, and memory sufficed to read the file."""
    sentence = str(error)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError):
            return Outcome("find", f"took more than {MEMORY // 2**30} GiB: {sentence.replace(str(place), '…')}")
        cause = cause.__cause__ or cause.__context__
    is_named = any(word in sentence for word in (str(place), *also_named))
    sentence = sentence.replace(str(place), "…")
    lines = sentence.split("\n")
    is_list = len(lines) > 1 and "problems" in lines[0]
    if not is_named or (len(lines) > 1 and not is_list) or max(map(len, lines)) > LONGEST:
        return Outcome("find", f"not one sentence that names the file: {sentence[:LONGEST]}")
    return Outcome("refused", sentence)


def _describe(error: BaseException, place: Path) -> str:
    """Returns the error and the lines of ours that it came through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/brainseg_jax/" in frame.filename]
    lines = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-4:]))
    text = " ".join(str(error).split()).replace(str(place), "…")[:300]
    return f"{type(error).__name__}: {text} [{lines}]"


@contextlib.contextmanager
def _bounded_memory():
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
