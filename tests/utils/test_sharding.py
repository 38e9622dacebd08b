"""Many devices and many processes do what one device does."""

import json
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from brainseg_jax.data.loaders import epoch_batches
from brainseg_jax.errors import InputError
from brainseg_jax.utils.sharding import make_mesh
from tests.conftest import REPOSITORY
from tests.first_losses import BATCH_SIZE, CACHES, SLICES, STEPS, first_losses


@pytest.fixture(scope="module")
def on_one_device():
    """(slices seen, losses) on one device."""
    seen, losses = first_losses(cache="device")
    np.testing.assert_array_equal(seen, epoch_batches(seed=0, epoch=1, slices=SLICES, batch_size=BATCH_SIZE)[:STEPS])
    return seen, losses


def run_each(commands, *, devices):
    """Runs processes of so many CPU devices each at the same time; their standard outputs."""
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen([sys.executable, *command], cwd=REPOSITORY, env=environment, **pipes) for command in commands
    ]
    outputs = [process.communicate(timeout=300) for process in processes]
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [output for output, _ in outputs]


def run_two(*command):
    """Runs a command as two processes with a device each, told of each other by a last argument."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return run_each([[*command, f"--cluster={address},2,{process}"] for process in (0, 1)], devices=1)


def require_same(output, on_one_device, *, devices):
    """The losses that `first_losses` printed are those of one device, and so are the slices of every batch."""
    found = json.loads(output.splitlines()[-1])
    assert found["devices"] == devices
    for cache in CACHES:
        seen, losses = found[cache]
        assert seen == on_one_device[0]
        # Adam magnifies what rounding leaves.
        np.testing.assert_allclose(losses, on_one_device[1], rtol=1e-3)


def test_eight_devices_follow_one(on_one_device):
    (output,) = run_each([["-m", "tests.first_losses"]], devices=8)
    require_same(output, on_one_device, devices=8)


def test_two_processes_follow_one(on_one_device):
    for output in run_two("-m", "tests.first_losses"):
        require_same(output, on_one_device, devices=2)


def test_two_processes_write_one_run_that_goes_on(tmp_path, data_dir):
    def train_epochs(epochs):
        settings = {
            "data.dataset": "phantom",
            "data.data_dir": data_dir,
            "data.image_size": 32,
            "split.protocol": "family",
            "model.start_filters": 4,
            "train.epochs": epochs,
            "evaluation.tune_postprocessing": True,
        }
        flags = [f"--config.{name}={value}" for name, value in settings.items()]
        config, run = REPOSITORY / "configs" / "unet.py", tmp_path / "run"
        return run_two("scripts/train.py", f"--config={config}", f"--workdir={run}", *flags)

    first, second = train_epochs(1)
    assert "epoch   1" in first
    assert "epoch" not in second
    first, second = train_epochs(2)
    assert "Resumed after epoch 1 of 2." in first
    assert "epoch" not in second
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["devices"] == 2
    assert json.loads((tmp_path / "run" / "postprocessing.json").read_text())["epoch"] in (1, 2)
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == {"2"} | (
        {"1"} if rows[0]["validation_loss"] < rows[1]["validation_loss"] else set()
    )


@pytest.mark.parametrize(("batch_size", "sizes"), [(12, "8 or 16"), (4, "8"), (20, "16 or 24")])
def test_a_batch_that_devices_cannot_share_is_refused_with_sizes_that_work(monkeypatch, batch_size, sizes):
    monkeypatch.setattr(jax, "devices", lambda: jax.local_devices() * 8)
    message = rf"config\.train\.batch_size is {batch_size}, which 8 devices cannot share evenly: set it to {sizes},"
    with pytest.raises(InputError, match=message):
        make_mesh(batch_size=batch_size)
