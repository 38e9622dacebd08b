"""What every script shares: flags in, exit code out."""

import sys
import warnings
from collections.abc import Callable

from absl import app, logging

from brainseg_jax.errors import InputError


def run(main: Callable[[], None]) -> None:
    """Parses the flags, runs `main` and exits.

    An `InputError`, also one that a library raised again as its own, ends the program with its one sentence on
    standard error and exit code 1; an interrupt with exit code 130.
    """

    def guarded(arguments: list[str]) -> None:
        if len(arguments) > 1:
            _fail(f"{arguments[1]} is not a flag: flags are written --name=value; --help lists them.")
        try:
            main()
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, InputError):
                cause = cause.__cause__ or cause.__context__
            if cause is None:
                raise
            _fail(str(cause))

    logging.set_verbosity(logging.ERROR)
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    try:
        app.run(guarded)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # ml_collections raises these while flags are parsed: a key that the config lacks, a value of a wrong type.
        if "ml_collections" not in _origin(error):
            raise
        _fail(" ".join(str(error).strip("\"'").split()))


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def _origin(error: Exception) -> str:
    traceback, files = error.__traceback__, ""
    while traceback is not None:
        files += traceback.tb_frame.f_code.co_filename
        traceback = traceback.tb_next
    return files
