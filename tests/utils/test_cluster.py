"""Processes that cannot meet, or lose each other, end with a sentence."""

import os
import signal
import subprocess
import sys

import pytest

from brainseg_jax.errors import InputError
from brainseg_jax.utils import cluster, supervisor
from brainseg_jax.utils.cluster import initialize_distributed
from tests.conftest import REPOSITORY

LOST = (
    "error: --cluster=node:1,2,0: another process ended, lost its connection, or did not start within 120 s. The last"
)


def run_supervised(program, *, number=None):
    """Runs a program that is supervised, sends it a signal when it prints a line; its exit code and standard error."""
    script = (
        "import os, signal, sys, time\n"
        "from brainseg_jax import cli\n"
        "from brainseg_jax.utils.supervisor import supervise\n"
        f"def main():\n    supervise('node:1,2,0')\n    {program}\n"
        "cli.run(main)\n"
    )
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": REPOSITORY}
    with subprocess.Popen([sys.executable, "-c", script], **options) as process:
        if number:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@pytest.mark.parametrize("program", ["os.abort()", f"os._exit({supervisor.LOST})"])
def test_a_process_that_lost_the_others_ends_with_a_sentence(program):
    code, errors = run_supervised(program)
    assert (code, errors.splitlines()[-1][: len(LOST)]) == (1, LOST)


@pytest.mark.parametrize(
    ("program", "expected"), [("sys.exit(3)", 3), ("pass", 0), ("os.kill(os.getpid(), signal.SIGKILL)", 137)]
)
def test_a_process_that_ends_otherwise_ends_as_ever(program, expected):
    assert run_supervised(program) == (expected, "")


def test_sigterm_reaches_the_child():
    # Many short sleeps: a signal that comes just before one does not end it.
    program = "print('ready', flush=True); [time.sleep(0.1) for _ in range(300)]"
    code, errors = run_supervised(program, number=signal.SIGTERM)
    assert (code, errors[:11]) == (143, "interrupted")


def test_a_failed_computation_ends_the_process_without_waiting():
    program = (
        "import jax\n"
        "from brainseg_jax.utils.cluster import end_when_lost\n"
        "with end_when_lost('node:1,2,0'):\n"
        "    raise jax.errors.JaxRuntimeError('Connection reset by peer')\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert (finished.returncode, finished.stderr) == (supervisor.LOST, "Connection reset by peer\n")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("127.0.0.1:9,2,1", r"Process 0 does not answer at 127\.0\.0\.1:9 \(.*\): start it there too"),
        ("no-such-host.invalid:9,2,1", r"Process 0 does not answer at no-such-host\.invalid:9 \(.*\): start it there"),
        ("node1", r"--cluster=node1 did not work .* give auto under SLURM, .* HOST:PORT,PROCESSES,PROCESS"),
        ("node1:1,two,1", r"--cluster=node1:1,two,1 did not work"),
    ],
)
def test_processes_that_cannot_meet_are_told(monkeypatch, given, message):
    monkeypatch.setattr(cluster, "SECONDS_TO_MEET", 0.1)
    with pytest.raises(InputError, match=message):
        initialize_distributed(given)
    assert supervisor.SUPERVISED not in os.environ
