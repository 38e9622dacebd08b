"""A step that does not fit into memory ends with a setting and a value that should fit."""

import jax
import pytest

from brainseg_jax.errors import InputError
from brainseg_jax.training import loop, memory
from brainseg_jax.training.dry_run import dry_run
from brainseg_jax.training.loop import train_and_evaluate
from brainseg_jax.training.memory import explain_memory

FULL = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 34359738368 bytes.")


def test_a_training_that_runs_out_says_which_setting_to_lower(tmp_path, make_config, monkeypatch):
    def run_epoch(*_, **__):
        raise FULL

    monkeypatch.setattr(loop, "run_epoch", run_epoch)
    message = (
        r"The memory of .* does not suffice: lower config\.train\.batch_size from 8 to 4 or config\.data\.image_size"
    )
    with pytest.raises(InputError, match=message + " from 32 to 16, in another --workdir"):
        train_and_evaluate(make_config(), tmp_path / "run")


@pytest.mark.parametrize(
    ("devices", "changes", "remedy"),
    [
        (3, {"train.batch_size": 15}, r"batch_size from 15 to 6 or"),
        (8, {"train.batch_size": 8}, r"lower config\.data\.image_size from 32 to 16,"),
        (1, {"train.batch_size": 1, "data.image_size": 16}, r"lower config\.model\.start_filters,"),
        (
            1,
            {"train.batch_size": 2, "data.image_size": 80},
            r"batch_size from 2 to 1 or config\.data\.image_size from 80 to 32",
        ),
        (1, {"data.cache": "device"}, r"set config\.data\.cache to 'stream'"),
    ],
)
def test_the_value_is_one_that_the_devices_and_the_network_take(make_config, monkeypatch, devices, changes, remedy):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    with pytest.raises(InputError, match=remedy), explain_memory(make_config(**changes)):
        raise FULL


def test_other_errors_stay_what_they_are(make_config):
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), explain_memory(make_config()):
        raise jax.errors.JaxRuntimeError("INTERNAL: a fault")


def test_a_step_above_the_free_memory_is_refused_before_it_runs(make_config, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda mesh: 1000)
    message = (
        r"A step of 8 slices of 32×32 takes 0\.0 GB, but only 0\.0 GB of memory are free: end other programs, or lower"
    )
    with pytest.raises(InputError, match=message):
        dry_run(make_config())
