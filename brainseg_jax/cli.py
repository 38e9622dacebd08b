"""Runs a script: parses its flags and turns its errors into a sentence and an exit code."""

import contextlib
import difflib
import errno
import os
import re
import runpy
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

from absl import app, flags, logging

from brainseg_jax.config import flatten, get_config
from brainseg_jax.errors import InputError
from brainseg_jax.utils import xla_setup

# Errors that a full disk, missing rights or a taken name may cause in any program; other errors are our own bugs.
_OF_THE_SYSTEM = {
    getattr(errno, name, None)
    for name in (
        *("EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "EFBIG", "EIO", "ESTALE", "EPIPE"),
        *("ENOTDIR", "EISDIR", "EEXIST", "ELOOP", "ENAMETOOLONG"),
    )
} - {None}
_INTERRUPTED = "interrupted; what was complete is kept, and the same command goes on from there"


def run(main: Callable[..., None], *, arguments: Sequence[str] = ()) -> None:
    """Sets up JAX (`xla_setup.set_up`), parses the flags, runs `main` and exits.

    An `InputError` (also one that a library wrapped in an error of its own) or a mistake in a flag or a config file
    ends the program with one sentence on standard error and exit code 1. An interrupt ends it with exit code 130,
    SIGTERM with 143, both once the current file is complete, but at once during Python's shutdown.

    Args:
      main: the program.
      arguments: names of the required positional arguments; `main` is called with their values.
    """

    def guarded(given: list[str]) -> None:
        values = given[1:]
        if len(values) > len(arguments):
            _fail(f"{values[len(arguments)]} is not a flag: flags are written --name=value; --help lists them.")
        if len(values) < len(arguments):
            _fail(
                f"{' '.join(arguments[len(values) :])} is missing: give {' '.join(arguments)}; --help lists the flags."
            )
        try:
            main(*values)
            sys.stdout.flush()
        except Exception as error:
            _fail(_explain(error))
        _end_at_once_when_interrupted()

    try:
        xla_setup.end_with_parent()
        signal.signal(signal.SIGTERM, _interrupt)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # background jobs of a shell ignore it
            signal.signal(signal.SIGINT, _interrupt)
        sys.unraisablehook = _handle_unraisable
        xla_setup.set_up()
        logging.set_verbosity(logging.FATAL)  # libraries also raise the errors that they log
        warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
        # A shell expands "~" only at the beginning of a word, not after "--name=".
        home = str(Path("~").expanduser())
        sys.argv = [re.sub(r"(?<=[=,])~(?=/|$)", home, word) if word[:2] == "--" else word for word in sys.argv]
        app.run(guarded, flags_parser=_parse)
    except KeyboardInterrupt as interrupt:
        _end_at_once_when_interrupted()
        _end(_INTERRUPTED, 128 + interrupt.args[0] if interrupt.args else 130)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Handles SIGINT and SIGTERM (the warning before a machine is taken away): raises, but ends at once in an import.

    An error in the middle of an import crashes C++ modules, and some Python modules go on with a part missing.
    """
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            _end(_INTERRUPTED, 128 + number)
        frame = frame.f_back
    raise KeyboardInterrupt(number)


def _handle_unraisable(unraisable: Any) -> None:
    """Handles an error where Python cannot raise it, as in garbage-collector callbacks: sends an interrupt again.

    Hides what tensorstore's threads print when a checkpoint could not be written: it has been reported by then.
    """
    if isinstance(unraisable.exc_value, KeyboardInterrupt) and unraisable.exc_value.args:
        threading.Timer(0.1, os.kill, (os.getpid(), *unraisable.exc_value.args)).start()
    elif threading.current_thread() is threading.main_thread():
        sys.__unraisablehook__(unraisable)


def _end_at_once_when_interrupted() -> None:
    """Restores the system's handling of interrupts: during Python's shutdown no work is left to finish."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def run_program() -> None:
    """Runs the script that belongs to the program's name: brainseg-predict runs scripts/predict.py."""
    name = Path(sys.argv[0]).stem.removeprefix("brainseg-").replace("-", "_")
    runpy.run_module(f"brainseg_jax.scripts.{name}", run_name="__main__", alter_sys=True)


flags.disclaim_key_flags()  # so that --help of a script has the flags that are defined for it here


def define_postprocessing_flags() -> Callable[[], dict[str, Any]]:
    """Defines flags that override how a run makes its masks; returns a function that gives their values."""
    threshold = flags.DEFINE_float("threshold", None, "A pixel is tumour above it; the run's if not given.")
    fraction = flags.DEFINE_float(
        "min_component_fraction", None, "Components below this share of the image are left out; the run's if not given."
    )
    tta_flip = flags.DEFINE_bool("tta_flip", None, "Average over image and mirror image; as the run does if not given.")
    return lambda: {
        "threshold": threshold.value,
        "min_component_fraction": fraction.value,
        "tta_flip": tta_flip.value,
    }


def _parse(arguments: list[str]) -> list[str]:
    if "--version" in arguments[1:]:
        print(f"brainseg_jax {metadata.version('brainseg_jax')}")
        sys.exit(0)
    for word in arguments:
        if word in ("--config=", "--workdir=", "--weights=", "--input=", "--output=", "--out="):
            _fail(f"{word[:-1]} is empty: name a place, or leave it out.")
        config = Path(word.removeprefix("--config="))
        if word.startswith("--config=") and config.exists() and not config.is_file():  # reading a pipe would wait
            _fail(f"{word} names no file: give one that is written as configs/unet.py is.")
    try:
        return flags.FLAGS(arguments)
    except flags.Error as error:
        if "Traceback" in str(error):  # a config file raised; the message holds the whole traceback
            _fail(_explain_config(error))
        where = "brainseg_jax/config.py lists the fields of the config"
        _fail(f"{error}; {where if '--config.' in str(error) else '--help lists the flags'}.")
    except Exception as error:
        _fail(_explain(error))
    return []


def _explain(error: Exception) -> str:
    """Returns a sentence about a mistake that a user can correct; raises any other error again."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, InputError):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        return str(cause)
    if isinstance(error, BrokenPipeError):
        return "the program that reads the output has ended: let it read to the end, or write to a file."
    if isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM:
        return f"{error.filename or 'a file'}: {error.strerror}; name another place, or make room or rights there."
    # ml_collections has no error class of its own: a file that is missing, a key that the config lacks, a wrong type.
    if any("ml_collections" in frame.filename for frame in traceback.extract_tb(error.__traceback__)):
        return _explain_config(error)
    raise error


def _explain_config(error: BaseException) -> str:
    """Says what is wrong in a config file, with its line, or in a flag that begins with --config."""
    files = tuple(word.split("=", 1)[1] for word in sys.argv if word.startswith("--config="))
    place = ""
    link: BaseException | None = error
    while link:
        if files and isinstance(link, SyntaxError) and (link.filename or "").endswith(files):  # it has no frame there
            error, place = link, f"{link.filename}, line {link.lineno}: "
            break
        lines = [frame for frame in traceback.extract_tb(link.__traceback__) if frame.filename.endswith(files)]
        if files and lines:
            error, place = link, f"{lines[-1].filename}, line {lines[-1].lineno}: "
            break
        link = link.__context__
    message = " ".join(str(error.args[0] if error.args else error).strip("\"'").split())
    # ml_collections quotes its messages, and quotes messages within messages.
    bare = re.sub(r"""\\n|["'\\]""", " ", message)
    if unknown := re.match(r"(?:\w+Error: +)?(?:Key )?\s*(\w+)\s+(?:does not exist|Did you mean)|\s*(\w+)\s*$", bare):
        field = unknown[1] or unknown[2]
        settings = get_config().to_dict()
        names = {name.split(".")[-1]: f"config.{name}" for name in (*settings, *flatten(settings))}
        similar = difflib.get_close_matches(field, names, 1, 0.7)
        hint = f"did you mean {names[similar[0]]}?" if similar else "brainseg_jax/config.py lists all fields."
        message = f"config has no field {field}: {hint}"
    elif place:
        message = f"{type(error).__name__}: {message}"
    elif "config" not in message:
        message = f"a flag that begins with --config: {message}"
    return place + message


def _fail(message: str) -> None:
    _end(f"error: {message}", 1)


def _end(message: str, code: int) -> None:
    """Ends the program without the libraries' exit handlers: on a full disk they would only raise more errors."""
    print(message, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # the output may go to a full disk
            stream.flush()
    os._exit(code)
