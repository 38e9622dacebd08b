"""Commands that are run in processes of their own, and the lock that keeps a second caller off."""

import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from brainseg_jax.errors import InputError
from brainseg_jax.utils import xla_setup

GRACE_SECONDS = 10.0  # that a stopped command has to end by itself


def run_command(
    command: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str],
    timeout: float | None = None,
    grace: float = GRACE_SECONDS,
    **options: Any,
) -> int | None:
    """Runs a command that ends when this process does.

    Args:
      command: the program and its arguments.
      log: file that its output is added to; missing folders are made.
      environment: all of its environment variables.
      timeout: seconds after which it is interrupted; None for no limit.
      grace: seconds from the interrupt until it is killed.
      **options: of `subprocess.Popen`.

    Returns:
      Its exit code; None if the timeout stopped it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    variables = {**environment, xla_setup.PARENT: str(os.getpid())}
    with log.open("a") as output:
        options |= {"stdout": output, "stderr": subprocess.STDOUT, "start_new_session": True}
        process = subprocess.Popen(command, env=variables, **options)
        try:
            return process.wait(timeout)
        except BaseException as error:
            process.send_signal(signal.SIGINT)  # a training saves what it has
            try:
                process.wait(grace)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                return None
            raise


@contextmanager
def lock(path: Path, *, refusal: str) -> Iterator[IO[str]]:
    """Holds a lock for as long as the block lasts or the process lives; yields its file, emptied, for a note.

    Args:
      path: file of the lock; made if missing.
      refusal: message of the error.

    Raises:
      InputError: another process holds the lock.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(refusal) from error
        file.truncate(0)
        yield file
