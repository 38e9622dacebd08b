"""Settings reach the run: what a short training leaves behind is what its config asks for.

Each epoch is one step, on half of the slices plus one. A learning rate of nearly 0 leaves the parameters as they were
drawn; the runs differ in settings outside their compiled programs, most of which they share.
"""

import shutil

import jax
import numpy as np
import pytest

from brainseg_jax.data import loaders
from brainseg_jax.data.dataset import Dataset
from brainseg_jax.data.loaders import epoch_batches
from brainseg_jax.data.preprocessing import resize_to_model
from brainseg_jax.data.splits import make_splits
from brainseg_jax.inference.predictor import restore_variables
from brainseg_jax.models import create_model
from brainseg_jax.training import loop
from brainseg_jax.training.loop import train_and_evaluate
from brainseg_jax.workdir.checkpoints import Checkpoints
from brainseg_jax.workdir.files import read_config, read_splits
from tests.helpers import rows_of, setup_of

SIZE, PERCENTILE, SEED = 16, 20.0, 3
STILL = 1e-12
# Below 1/10, the decay of the first step, the config's holds from the start.
LEARNING = {"model.dropout_rate": 0.3, "train.ema_decay": 0.05, "optimizer.learning_rate": 0.05}


@pytest.fixture(scope="module")
def make(make_config, data_dir):
    """A function that makes the config of a run of this file, with the changes given."""
    config = make_config()
    splits = make_splits(Dataset(str(data_dir), config="phantom").metadata, **config.split)
    small = {
        "seed": SEED,
        "data.image_size": SIZE,
        "data.intensity_percentile": PERCENTILE,
        "model.start_filters": 2,
        "train.batch_size": len(splits["train"]) // 2 + 1,
        "train.epochs": 1,
        "train.loss": "bce_dice",
        "optimizer.learning_rate": STILL,
        "optimizer.minimum_learning_rate": 0.0,
    }
    return lambda **changes: make_config(**{**small, **changes})


@pytest.fixture(scope="module")
def still(tmp_path_factory, make):
    """The workdir of a run of one step that moved nothing."""
    workdir = tmp_path_factory.mktemp("still") / "run"
    train_and_evaluate(make(), workdir)
    return workdir


@pytest.fixture(scope="module")
def learning(tmp_path_factory, make, still):
    """For each of two seeds the workdir of a step with dropout, from the same parameters and on the same slices."""
    runs = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "epoch_batches", lambda **settings: epoch_batches(**{**settings, "seed": SEED}))
        for seed in (3, 4):
            runs[seed] = tmp_path_factory.mktemp("learning") / "run"
            train_and_evaluate(make(**LEARNING, **{"seed": seed, "train.init_from": str(still)}), runs[seed])
    return runs


def losses_by_hand(workdir, split, data_dir, *, percentile):
    """(N,) losses of the run's best checkpoint on the slices of a split, scaled with NumPy's percentiles."""
    inputs, masks = [], []
    for sample in Dataset(str(data_dir), config="phantom").read(read_splits(workdir)[split]):
        low, high = np.percentile(sample.image, [percentile, 100 - percentile])
        inputs.append(resize_to_model(((sample.image - low) / (high - low)).clip(0, 1), size=SIZE))
        masks.append(resize_to_model(sample.mask, size=SIZE) >= 0.5)
    config = read_config(workdir)
    variables, _ = restore_variables(workdir, config)
    model = create_model(config.model)
    images = np.zeros((128, SIZE, SIZE, 1), np.float32)  # one size of batch, one program
    images[: len(inputs), ..., 0] = inputs
    logits = np.asarray(jax.jit(model.apply)(variables, images), np.float64)[: len(inputs), ..., 0]
    probabilities, masks = 1 / (1 + np.exp(-logits)), np.array(masks)
    shared, total = (probabilities * masks).sum((1, 2)), probabilities.sum((1, 2)) + masks.sum((1, 2))
    cross_entropy = -np.log(np.where(masks, probabilities, 1 - probabilities)).mean((1, 2))
    return cross_entropy + 1 - (2 * shared + 1) / (total + 1)


def test_both_losses_of_an_epoch_are_those_of_the_configs_loss_percentile_seed_and_batch_size(still, data_dir, make):
    (row,) = rows_of(still)
    validation = losses_by_hand(still, "validation", data_dir, percentile=PERCENTILE)
    assert row["validation_loss"] == pytest.approx(validation.mean(), rel=2e-5)
    training = losses_by_hand(still, "train", data_dir, percentile=PERCENTILE)
    batch_size = make().train.batch_size
    batches = epoch_batches(seed=SEED, epoch=1, slices=len(training), batch_size=batch_size)
    assert batches.shape == (1, batch_size)
    assert row["step"] == 1
    assert row["train_loss"] == pytest.approx(training[batches].mean(), rel=2e-5)
    # Other slices, or other grey levels, have another mean.
    other = epoch_batches(seed=0, epoch=1, slices=len(training), batch_size=batch_size)
    assert abs(training[other].mean() / training[batches].mean() - 1) > 1e-4
    plain = losses_by_hand(still, "validation", data_dir, percentile=0.0)
    assert abs(plain.mean() / validation.mean() - 1) > 1e-4


def test_the_seed_decides_the_parameters(still, tmp_path, make):
    train_and_evaluate(make(seed=4), tmp_path / "run")
    one, other = (
        restore_variables(run, read_config(run))[0]["params"]["bottom"]["conv_1"]["kernel"]
        for run in (still, tmp_path / "run")
    )
    assert np.abs(one - other).mean() > 0.5 * one.std()


def test_the_seed_decides_what_is_dropped(learning):
    one, other = (rows_of(workdir)[0]["train_loss"] for workdir in learning.values())
    assert abs(one - other) > 1e-5


def test_the_learning_rate_falls_as_the_plateau_settings_say(tmp_path, make):
    # Nothing improves by 100, so every epoch but the first is one without improvement.
    changes = {"factor": 0.5, "patience": 1, "atol": 100.0}
    changes = {f"optimizer.plateau_{name}": value for name, value in changes.items()}
    train_and_evaluate(
        make(**changes, **{"train.epochs": 4, "optimizer.minimum_learning_rate": 0.4 * STILL}), tmp_path / "run"
    )
    rates = [row["learning_rate"] / STILL for row in rows_of(tmp_path / "run")]  # at the start of each epoch
    np.testing.assert_allclose(rates, [1.0, 1.0, 0.5, 0.4], rtol=1e-5)


def test_the_average_has_the_configs_decay_and_is_what_validates(learning, tmp_path, make, still, data_dir):
    config = make(**LEARNING, **{"train.epochs": 2, "train.init_from": str(still)})
    target = vars(setup_of(config).state)
    shutil.copytree(learning[SEED], tmp_path / "run")
    states = []
    for epochs in (1, 2):
        if epochs == 2:
            train_and_evaluate(config, tmp_path / "run")
        with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
            states.append(jax.device_get(checkpoints.restore(epochs, target)))
            best = checkpoints.best_epoch()
    before, after = states
    expected = jax.tree.map(lambda old, new: 0.05 * old + 0.95 * new, before["ema"]["params"], after["params"])
    found = after["ema"]["params"]
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6), found, expected)
    apart = jax.tree.map(lambda one, other: np.abs(one - other).max(), found, after["params"])
    assert max(jax.tree.leaves(apart)) > 1e-3
    losses = losses_by_hand(tmp_path / "run", "validation", data_dir, percentile=PERCENTILE)
    assert rows_of(tmp_path / "run")[best - 1]["validation_loss"] == pytest.approx(losses.mean(), rel=1e-4)


@pytest.mark.parametrize(("cache", "name"), [("device", "DeviceLoader"), ("stream", "StreamingLoader")])
def test_slices_wait_where_the_config_says(tmp_path, make, monkeypatch, cache, name):
    def arrive(slices, mesh):
        raise InterruptedError(name)

    # Under any other name the run would go on, or end with another error.
    monkeypatch.setattr(loaders, "DeviceLoader", None)
    monkeypatch.setattr(loaders, "StreamingLoader", None)
    monkeypatch.setattr(loaders, name, arrive)
    with pytest.raises(InterruptedError, match=name):
        train_and_evaluate(make(**{"data.cache": cache}), tmp_path / "run")
