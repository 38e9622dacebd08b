"""Runs commands in processes of their own."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brainseg_jax.utils import xla_setup

GRACE_SECONDS = 10.0  # between the interrupt of a command and its kill


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
      log: its output is appended to this file; missing folders are made.
      environment: all its environment variables.
      timeout: seconds after which it is interrupted; None for no limit.
      grace: seconds from the interrupt until it is killed.
      **options: for `subprocess.Popen`.

    Returns:
      Its exit code; None if it ran into the timeout.
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
