"""Several processes that train together: how they find each other, and end when one is lost."""

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from brainseg_jax.errors import InputError, shorten
from brainseg_jax.utils.supervisor import LOST, SECONDS_TO_MEET

SECONDS_OF_SILENCE = 20  # after which a process counts as lost; JAX's own 100 would leave devices idle


def initialize_distributed(cluster: str) -> None:
    """Makes this process one of several that train together; call it before any other use of JAX.

    Args:
      cluster: "" for a single process; "auto" where SLURM, Open MPI or a cloud's launcher numbers the processes; or
        "HOST:PORT,PROCESSES,PROCESS": the address of process 0, how many there are, and which this is, from 0.

    Raises:
      InputError: `cluster` is none of these, or the others cannot be reached.
    """
    if not cluster:
        return
    # JAX's preemption service would take over SIGTERM, so that a launcher could not end a training.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        address, processes, process = (None, None, None) if cluster == "auto" else _parse(cluster)
    except ValueError as error:
        raise InputError(_how_to(cluster, error)) from error
    if address and process:
        _wait_for(address)
    try:
        jax.distributed.initialize(
            address,
            processes,
            process,
            initialization_timeout=SECONDS_TO_MEET,
            heartbeat_timeout_seconds=SECONDS_OF_SILENCE,
            shutdown_timeout_seconds=SECONDS_OF_SILENCE,
        )
    except (ValueError, RuntimeError) as error:
        raise InputError(_how_to(cluster, error)) from error


@contextmanager
def end_when_lost(cluster: str) -> Iterator[None]:
    """Ends this process at once when a computation that it shares with others fails: the others would wait for it.

    The parent, see `supervise`, then says what to do.

    Args:
      cluster: see `initialize_distributed`; where it is "", nothing happens.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not cluster:
            raise
        print(shorten(error, characters=500), file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(LOST)  # skips JAX's own shutdown, which waits for the others


def _how_to(cluster: str, error: Exception) -> str:
    return (
        f"--cluster={cluster} did not work ({shorten(error)}): give auto under SLURM, Open MPI "
        "or a cloud's launcher, otherwise HOST:PORT,PROCESSES,PROCESS, for instance node1:1234,2,0."
    )


def _parse(cluster: str) -> tuple[str, int, int]:
    address, processes, process = cluster.split(",")
    return address, int(processes), int(process)


def _wait_for(address: str) -> None:
    """Waits until process 0, which may start later, listens; if it never did, JAX would abort."""
    host, _, port = address.rpartition(":")
    end = time.monotonic() + SECONDS_TO_MEET
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except OSError as error:
            if isinstance(error, socket.gaierror) or time.monotonic() > end:
                raise InputError(
                    f"Process 0 does not answer at {address} ({error.strerror or 'no answer'}): start it there too, "
                    "with the same --cluster but for the last number, or correct the address."
                ) from error
            time.sleep(0.5)
        else:
            return
