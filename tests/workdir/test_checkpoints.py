"""Checkpoints: the latest and the best are kept, whatever the losses, and come back bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from brainseg_jax.errors import InputError
from brainseg_jax.workdir.checkpoints import Checkpoints, has_checkpoint
from tests.helpers import files_of_at_most


@pytest.fixture(scope="module")
def state():
    return make_state(4)


def make_state(filters):
    """A tree like that of a training: nested, with an optimizer's tuples."""
    params = {"conv": {"kernel": jnp.ones((3, 3, 1, filters)), "bias": jnp.zeros(filters)}}
    return {"step": jnp.int32(0), "params": params, "opt_state": optax.adam(1.0).init(params), "ema": {}}


def at_epoch(state, epoch):
    return {**state, "step": jnp.int32(epoch), "params": jax.tree.map(lambda leaf: leaf + epoch, state["params"])}


def save_all(directory, state, losses):
    with Checkpoints(directory) as checkpoints:
        for epoch, loss in enumerate(losses, start=1):
            checkpoints.save(epoch, at_epoch(state, epoch), validation_loss=loss)


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([0.5, 0.3, 0.4, 0.6], 2),
        ([0.5, 0.4, 0.3], 3),
        ([0.5, float("nan"), 0.4, float("inf")], 3),
        ([float("nan"), 0.9], 2),
    ],
)
def test_the_best_and_the_latest_are_kept_and_no_other(tmp_path, state, losses, best):
    save_all(tmp_path, state, losses)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_epoch() == len(losses)
        assert checkpoints.best_epoch() == best
        for epoch in {best, len(losses)}:
            restored = checkpoints.restore(epoch, jax.eval_shape(lambda: state))
            jax.tree.map(np.testing.assert_array_equal, restored, at_epoch(state, epoch))
    assert {path.name for path in tmp_path.iterdir() if path.name.isdigit()} == {str(best), str(len(losses))}


def test_a_part_comes_back_alone(tmp_path, state):
    save_all(tmp_path, state, [0.5])
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(1, {"params": state["params"]})
    assert set(restored) == {"params"}
    jax.tree.map(np.testing.assert_array_equal, restored["params"], at_epoch(state, 1)["params"])


def test_an_unfinished_write_does_not_count(tmp_path, state):
    (tmp_path / "1.orbax-checkpoint-tmp").mkdir()
    assert not has_checkpoint(tmp_path)
    save_all(tmp_path, state, [0.5])
    assert has_checkpoint(tmp_path)
    assert not (tmp_path / "1.orbax-checkpoint-tmp").exists()
    (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_epoch() == 1


def test_a_changed_bit_of_an_array_is_refused(tmp_path):
    """The format itself would give another value."""
    values = {"params": {"kernel": np.random.default_rng(0).random((64, 64), np.float32)}}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, values, validation_loss=0.5)
    stored = max((path for path in tmp_path.rglob("d/*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 4
    stored.write_bytes(content)
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(InputError, match=r"epoch 1 in .* is damaged .*the checksum of params differs"),
    ):
        checkpoints.restore(1, values)


@pytest.mark.parametrize("content", ["", '{"validation_loss', "{}", '{"validation_loss": "low"}'])
def test_damaged_notes_about_the_best_are_named(tmp_path, state, content):
    save_all(tmp_path, state, [0.5])
    (tmp_path / "1" / "metrics" / "metrics").write_text(content)
    with (
        pytest.raises(InputError, match=r"The checkpoints in .* are damaged \(.*\): remove the damaged one"),
        Checkpoints(tmp_path) as checkpoints,
    ):
        checkpoints.best_epoch()


def test_a_full_disk_is_told_and_what_was_complete_stays(tmp_path, state, capfd):
    save_all(tmp_path, state, [0.5])
    message = r"A checkpoint in .* could not be written \(File too large\): make room or rights there"
    with files_of_at_most(300), pytest.raises(InputError, match=message), Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, at_epoch(state, 2), validation_loss=0.4)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_epoch() == 1
        restored = checkpoints.restore(1, jax.eval_shape(lambda: state))
        jax.tree.map(np.testing.assert_array_equal, restored, at_epoch(state, 1))
        checkpoints.save(2, at_epoch(state, 2), validation_loss=0.4)
    assert {path.name for path in tmp_path.iterdir()} == {"2"}


def test_an_error_of_the_training_comes_before_that_of_its_last_checkpoint(tmp_path, state):
    def train():
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(1, state, validation_loss=0.5)
            raise ZeroDivisionError

    with files_of_at_most(300), pytest.raises(ZeroDivisionError):
        train()


def test_an_empty_folder_and_another_network_are_refused(tmp_path, state):
    with Checkpoints(tmp_path / "empty") as checkpoints:
        assert checkpoints.latest_epoch() is None
        with pytest.raises(InputError, match="holds no checkpoint"):
            checkpoints.restore(checkpoints.best_epoch(), state)
    save_all(tmp_path / "run", state, [0.5])
    with (
        Checkpoints(tmp_path / "run") as checkpoints,
        pytest.raises(InputError, match=r"checkpoint of epoch 1 .* does not fit config\.json"),
    ):
        checkpoints.restore(1, make_state(8))
