"""Training: bit for bit the same when resumed, independent of batch sizes, and loud when something is wrong."""

import dataclasses
import functools
import inspect
import json
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brainseg_jax
from brainseg_jax.config import get_config
from brainseg_jax.data.augmentation import Augmentation
from brainseg_jax.data.dataset import Dataset
from brainseg_jax.data.loaders import epoch_batches
from brainseg_jax.data.splits import make_splits
from brainseg_jax.errors import InputError
from brainseg_jax.models import UNet
from brainseg_jax.training import loop, setup
from brainseg_jax.training.loop import train_and_evaluate
from brainseg_jax.training.optimizer import create_optimizer
from brainseg_jax.workdir.files import check_resumable, read_config, read_fingerprint, read_splits, start_run
from tests.conftest import REPOSITORY, TRAINED, train_as_users_do
from tests.helpers import (
    latest_state,
    load_recipe,
    rows_of,
)


def test_a_resumed_run_equals_a_straight_one_bit_for_bit(tmp_path, make_config):
    changes = {"model.dropout_rate": 0.1, "model.batch_norm": True}
    straight, resumed = make_config(**changes, **{"train.epochs": 3}), make_config(**changes)
    train_and_evaluate(straight, tmp_path / "straight")
    train_and_evaluate(make_config(**changes, **{"train.epochs": 1}), tmp_path / "resumed")
    train_and_evaluate(resumed, tmp_path / "resumed")
    train_and_evaluate(straight, tmp_path / "resumed")
    jax.tree.map(
        np.testing.assert_array_equal,
        latest_state(tmp_path / "straight", straight),
        latest_state(tmp_path / "resumed", straight),
    )
    assert rows_of(tmp_path / "straight") == rows_of(tmp_path / "resumed")


def test_a_workdir_holds_what_the_readme_says(trained):
    for name in ("config.json", "environment.json", "splits.json", "metrics.jsonl", "figures/learning_curves.png"):
        assert (trained / name).stat().st_size > 0
    assert list((trained / "checkpoints").iterdir())
    assert list((trained / "tensorboard").iterdir())
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    first, last = rows[0], rows[-1]
    assert list(first) == [
        "epoch",
        "step",
        "train_loss",
        "train_dice",
        "validation_loss",
        "validation_dice",
        "learning_rate",
        "gradient_norm",
        "seconds",
        "slices_per_second",
        "seconds_since_start",
    ]
    assert [row["epoch"] for row in rows] == list(range(1, TRAINED["train.epochs"] + 1))
    assert last["step"] == TRAINED["train.epochs"] * first["step"]
    assert last["train_loss"] < 0.7 * first["train_loss"]
    assert last["train_dice"] > 0.4


def test_the_saved_splits_are_those_of_the_protocol(trained, make_config, data_dir):
    config = make_config()
    table = Dataset(str(data_dir), config="phantom").metadata
    splits = make_splits(table, **config.split)
    assert read_splits(trained) == {split: slice_ids.tolist() for split, slice_ids in splits.items()}
    saved = json.loads((trained / "splits.json").read_text())["overlaps"]
    assert not any(saved["families"].values())


def test_streaming_gives_the_parameters_that_device_memory_gives(tmp_path, make_config, monkeypatch):
    # At the lowest effort, with which the tests compile, the two programs round differently.
    compile_well = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 1})
    for name in ("make_train_step", "make_evaluation_step"):
        make = getattr(setup, name)
        monkeypatch.setattr(
            setup, name, lambda *of, make=make, **options: compile_well(make(*of, **options).__wrapped__)
        )
    # Two calls of two steps: one program for each place.
    monkeypatch.setattr(loop, "epoch_batches", lambda **options: np.arange(64).reshape(4, 16)[:, ::-1])
    found = {}
    for cache in ("device", "stream"):
        config = make_config(
            **{
                "model.dropout_rate": 0.1,
                "model.batch_norm": True,
                "data.cache": cache,
                "train.steps_per_call": 2,
                "train.epochs": 1,
                "train.batch_size": 16,
                "augmentation.noise": 0.05,
            },
        )
        train_and_evaluate(config, tmp_path / cache)
        found[cache] = latest_state(tmp_path / cache, config)
    jax.tree.map(np.testing.assert_array_equal, found["device"], found["stream"])
    assert rows_of(tmp_path / "device") == rows_of(tmp_path / "stream")


def test_bfloat16_learns_what_float32_learns(tmp_path, make_config, trained):
    train_as_users_do(make_config(**TRAINED, **{"model.dtype": "bfloat16"}), tmp_path)
    single, half = (np.mean([row["train_dice"] for row in rows_of(run)[-5:]]) for run in (trained, tmp_path))
    assert half > 0.4
    # Three seeds of float32 have a standard deviation of 0.065 here; this is twice that.
    assert abs(half - single) < 0.13
    parameters = latest_state(tmp_path, make_config(**TRAINED))["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(parameters)} == {np.dtype("float32")}


def test_a_loss_that_is_not_finite_stops_with_the_last_good_checkpoint(tmp_path, make_config, monkeypatch):
    config = make_config(**{"train.epochs": 1})
    train_and_evaluate(config, tmp_path / "run")
    before = rows_of(tmp_path / "run")
    monkeypatch.setattr(setup, "create_loss", lambda name: lambda logits, masks: logits.sum((1, 2, 3)) * jnp.nan)
    config.train.epochs = 2
    train_ids = np.array(read_splits(tmp_path / "run")["train"])
    batches = epoch_batches(seed=0, epoch=2, slices=train_ids.size, batch_size=8)
    slices = ", ".join(str(slice_id) for slice_id in train_ids[batches[0]])
    message = (
        rf"loss at step {len(batches) + 1}, of epoch 2, with slices {slices}, is not finite: the last good checkpoint "
        "is that of epoch 1; lower"
    )
    with pytest.raises(InputError, match=message):
        train_and_evaluate(config, tmp_path / "run")
    assert rows_of(tmp_path / "run") == before
    assert int(latest_state(tmp_path / "run", config)["step"]) == before[0]["step"]
    # The square root has the value 0 and no derivative there.
    monkeypatch.setattr(setup, "create_loss", lambda name: lambda logits, masks: jnp.sqrt(0 * logits).sum((1, 2, 3)))
    with pytest.raises(
        InputError, match=r"gradient at step 1, of epoch 1, .* is not finite: there is no checkpoint yet"
    ):
        train_and_evaluate(config, tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.image_size": 40}, r"config\.data\.image_size is 40: set it to a multiple of 16"),
        ({"train.epochs": 0}, r"config\.train\.epochs is 0"),
        ({"train.batch_size": 0}, r"config\.train\.batch_size is 0"),
        ({"train.batch_size": 5000}, r"config\.train\.batch_size is 5000, more than the"),
        ({"optimizer.learning_rate": math.nan}, r"config\.optimizer\.learning_rate is nan"),
        ({"augmentation.noise": math.inf}, r"config\.augmentation\.noise is inf: set it to a finite number"),
        ({"optimizer.learning_rate": 0.0}, r"config\.optimizer\.learning_rate is 0"),
        ({"optimizer.plateau_patience": 0}, r"config\.optimizer\.plateau_patience is 0"),
        ({"optimizer.plateau_rtol": 1.0}, r"config\.optimizer\.plateau_rtol is 1\.0: set it to a number in \[0, 1\)"),
        (
            {"optimizer.plateau_atol": -1e-4},
            r"config\.optimizer\.plateau_atol is -0\.0001: set it to a number in \[0, inf\)",
        ),
        ({"optimizer.plateau_atol": 0.0}, r"plateau_rtol and plateau_atol are both 0"),
        ({"train.steps_per_call": -1}, r"config\.train\.steps_per_call is -1"),
        ({"data.intensity_percentile": 50.0}, r"config\.data\.intensity_percentile is 50\.0: set it to a number in"),
        ({"data.cache": "disk"}, r"config\.data\.cache is 'disk'"),
        ({"augmentation.flip": 2.0}, r"config\.augmentation\.flip is 2\.0: set it to a number from 0 to 1\.0"),
        ({"train.loss": "huber"}, r"config\.train\.loss is 'huber'"),
        ({"split.fold": 9}, r"config\.split\.fold is 9"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(tmp_path, make_config, changes, message):
    with pytest.raises(InputError, match=message):
        train_and_evaluate(make_config(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_workdir_of_another_run_is_refused(trained, make_config):
    before = (trained / "config.json").read_text()
    for changes, message in (
        ({"seed": 1}, r"has seed = 0, this command 1"),
        ({"train.batch_size": 4}, r"has train\.batch_size = 8, this command 4"),
        ({"train.epochs": 1}, r"has train\.epochs = 25, this command only 1"),
    ):
        with pytest.raises(InputError, match=message):
            train_and_evaluate(make_config(**{**TRAINED, **changes}), trained)
    assert (trained / "config.json").read_text() == before


def test_a_long_value_in_a_damaged_config_is_quoted_in_short(tmp_path, trained, make_config):
    settings = json.loads((trained / "config.json").read_text())
    settings["data"]["dataset"] = "x" * 5000
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"config\.json has data\.dataset = 'x{199}, this command 'phantom': name"):
        check_resumable(tmp_path, make_config(**TRAINED), {}, fingerprint="")


def test_a_workdir_with_other_slices_is_refused(tmp_path, trained, make_config):
    config = make_config(**TRAINED)
    with pytest.raises(InputError, match=r"splits\.json lists other slices"):
        start_run(trained, config, None, {"train": np.array([1]), "validation": np.array([2])}, {})
    splits = {split: np.array(slice_ids) for split, slice_ids in read_splits(trained).items()}
    before = (trained / "splits.json").read_text()
    with pytest.raises(InputError, match=r"The dataset was built from other files than when .*run was started"):
        start_run(trained, config, None, splits, {}, fingerprint="other")
    start_run(trained, config, None, splits, {}, fingerprint=read_fingerprint(trained))
    assert len(read_fingerprint(trained)) == 64
    assert (trained / "splits.json").read_text() == before


def test_damaged_and_missing_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"config\.json is missing: name the --workdir of a run"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"seed": ')
    with pytest.raises(InputError, match=r"config\.json is damaged"):
        read_config(tmp_path)


CONFIGS = sorted(path.stem for path in (REPOSITORY / "configs").glob("[a-z]*.py"))


@pytest.mark.filterwarnings("ignore:Protocol 'slice'")
@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_runs(tmp_path, make_config, name):
    config = load_recipe(name)
    assert config.model.name in name or config.model.name == "unet"
    config.data.update(dataset="phantom", data_dir=make_config().data.data_dir, image_size=64)
    config.model.start_filters = 4
    config.train.epochs = 1
    config.optimizer.warmup_epochs = 0.0
    train_and_evaluate(config, tmp_path / "run")
    (row,) = rows_of(tmp_path / "run")
    assert math.isfinite(row["train_loss"])
    assert math.isfinite(row["validation_loss"])


def test_the_configs_are_the_published_recipes():
    names = ("unet", "unet_low_rate", "linknet")
    unet, low_rate, linknet = (load_recipe(name) for name in names)
    for config, batch_size, rate in ((unet, 8, 5e-4), (low_rate, 8, 1e-4), (linknet, 10, 5e-4)):
        assert (config.train.batch_size, config.optimizer.learning_rate) == (batch_size, rate)
        assert (config.train.epochs, config.train.loss, config.data.image_size) == (30, "bce", 512)
        assert (config.optimizer.plateau_factor, config.optimizer.plateau_patience) == (0.1, 5)
        assert (config.optimizer.plateau_rtol, config.optimizer.plateau_atol) == (0.0, 1e-4)
        assert (config.optimizer.minimum_learning_rate, config.evaluation.threshold) == (1e-5, 0.5)
        assert config.split.protocol == "slice"
    assert (unet.model.start_filters, linknet.model.start_filters) == (16, 64)


def test_every_config_key_is_read():
    config = get_config()
    for section, function in (
        ("optimizer", create_optimizer),
        ("split", make_splits),
    ):
        parameters = inspect.signature(function).parameters.values()
        named = {p.name for p in parameters if p.kind == p.KEYWORD_ONLY}
        assert set(config[section]) == named - {"epochs"}
    assert set(config.model) == {field.name for field in dataclasses.fields(UNet)} - {"parent"}
    package = Path(brainseg_jax.__file__).parent
    source = "".join(path.read_text() for path in package.rglob("*.py"))
    for section in ("data", "train", "evaluation"):
        for key in config[section]:
            assert re.search(rf"(config|settings)(\.{section})?\.{key}\b", source), key
    fields = {field.name for field in dataclasses.fields(Augmentation)}
    assert set(config.augmentation) == fields
    sections = {"data", "augmentation", "split", "model", "train", "optimizer", "evaluation"}
    assert set(config) == {"seed", "deterministic"} | sections
    assert "config.seed" in source
    assert "config.deterministic" in source
