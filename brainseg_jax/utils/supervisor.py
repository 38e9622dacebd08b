"""A parent for each of several processes that train together: it says why its child was aborted. Needs no JAX."""

import os
import signal
import subprocess
import sys

from brainseg_jax.errors import InputError
from brainseg_jax.utils import xla_setup

SUPERVISED = "BRAINSEG_JAX_SUPERVISED"
LOST = 75  # exit code of a child that has itself noticed the loss: EX_TEMPFAIL of sysexits.h
SECONDS_TO_MEET = 120  # for which a process waits for the others, which may be started by hand


def supervise(cluster: str) -> None:
    """Starts this program again as a child, passes signals on to it, and ends as it ends.

    JAX aborts a process that has not heard from another one for a while, whatever it is doing: only a parent can then
    end with a sentence. The function returns in the child.

    Args:
      cluster: see `initialize_distributed`; where it is "", the process is alone and nothing happens.

    Raises:
      InputError: the child lost the others, or never met them.
    """
    if not cluster or os.environ.pop(SUPERVISED, ""):
        return
    sys.stdout.flush()
    # The child ends when this process ends, however it ends: see `xla_setup.end_with_parent`.
    environment = {**os.environ, SUPERVISED: "1", xla_setup.PARENT: str(os.getpid())}
    child = subprocess.Popen([sys.executable, *sys.orig_argv[1:]], env=environment)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both
    code = child.wait()
    if code in (-signal.SIGABRT, LOST):
        raise InputError(
            f"--cluster={cluster}: another process ended, lost its connection, or did not start within "
            f"{SECONDS_TO_MEET} s. The last checkpoint is whole: mend the cause, which its own output "
            "names, and the same commands go on from it."
        )
    sys.exit(code if code >= 0 else 128 - code)
