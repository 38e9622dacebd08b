"""A training gives the same bits in another process, and one that is interrupted goes on to the same end."""

import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from brainseg_jax.workdir.files import read_config
from tests.conftest import REPOSITORY
from tests.helpers import latest_state, rows_of

OPTIONS = {
    "data.image_size": 32,
    "model.start_filters": 2,
    "train.epochs": 4,
    "augmentation.flip": 0.5,
    "deterministic": True,
}


@pytest.fixture(scope="module")
def command(data_dir):
    script, config = REPOSITORY / "scripts" / "train.py", REPOSITORY / "configs" / "quickstart.py"
    options = {"data.data_dir": data_dir, **OPTIONS}.items()
    return [sys.executable, script, f"--config={config}", *(f"--config.{name}={value}" for name, value in options)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, command):
    workdir = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run([*command, f"--workdir={workdir}"], capture_output=True, check=True)
    return workdir


def test_another_process_gives_the_same_bits(tmp_path, command, whole):
    subprocess.run([*command, f"--workdir={tmp_path}/run"], capture_output=True, check=True)
    assert rows_of(tmp_path / "run") == rows_of(whole)
    states = [latest_state(run, read_config(run)) for run in (whole, tmp_path / "run")]
    jax.tree.map(np.testing.assert_array_equal, *states)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_what_was_complete_is_kept(tmp_path, command, whole, number, code):
    command = [*command, f"--workdir={tmp_path}/run"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # What runs in the background of a shell ignores interrupts, and so would its children.
    options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, **options) as process:
        for line in process.stdout:
            if line.startswith("epoch   1"):
                process.send_signal(number)
                break
        _, errors = process.communicate(timeout=120)
    assert process.returncode == code
    assert errors.splitlines()[-1].startswith("interrupted; what was complete is kept")
    assert "Traceback" not in errors
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Resumed after epoch" in again.stdout
    assert rows_of(tmp_path / "run") == rows_of(whole)
