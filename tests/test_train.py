"""Training: bit for bit the same when resumed, independent of batch sizes, and loud when something is wrong."""

import dataclasses
import importlib
import inspect
import json
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import brainseg_jax
from brainseg_jax import checkpoint, parallel, splits, steps, train, train_state, workdir
from brainseg_jax.augment import Augmentation, augment
from brainseg_jax.batches import DeviceSupply, Load
from brainseg_jax.errors import InputError
from brainseg_jax.input_pipeline import Dataset, pack
from brainseg_jax.losses import create_loss
from brainseg_jax.models import create_model
from configs import default
from tests.conftest import TRAINED

LINKNET = {"model.name": "linknet", "model.start_filters": 8, "data.image_size": 64}
ADAM = {
    "learning_rate": 1e-3,
    "schedule": "plateau",
    "warmup_epochs": 0.0,
    "weight_decay": 0.0,
    "l2_penalty": 0.0,
    "plateau_factor": 0.1,
    "plateau_patience": 5,
    "minimum_learning_rate": 1e-5,
    "epochs": 1,
    "steps_per_epoch": 1,
}


def start_of(config):
    """(model, optimization, state before the first step)."""
    model = create_model(**config.model)
    optimization = train_state.create_optimization(**config.optimizer, epochs=1, steps_per_epoch=1)
    state = train_state.create_train_state(
        jax.random.key(config.seed), model, optimization, image_size=config.data.image_size
    )
    return model, optimization, state


def latest_state(directory, config):
    with checkpoint.Checkpoints(directory / "checkpoints") as checkpoints:
        return checkpoints.restore(checkpoints.latest_epoch(), start_of(config)[2])


def rows_of(directory):
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if "second" not in name} for row in rows]


NO_AUGMENTATION = Augmentation(**default.get_config().augmentation)
ONE_DEVICE = parallel.make_mesh(batch_size=1)


def some_slices(count, size):
    """Random pictures (count, size, size) float32 and the masks of their brightest pixels."""
    images = np.random.default_rng(0).random((count, size, size), np.float32)
    return images, images > 0.75


def load_of(images, masks, *batches):
    return Load(jax.tree.map(jnp.asarray, pack(images, masks)), jnp.array(batches, jnp.int32))


def train_step_of(config, model, optimization, loss="bce", **options):
    augmentation = Augmentation(**config.augmentation)
    return steps.make_train_step(
        jax.random.key(1), model, optimization, create_loss(loss), augmentation, ONE_DEVICE, **options
    )


def test_a_resumed_run_equals_a_straight_one_bit_for_bit(tmp_path, make_config):
    changes = {"model.dropout_rate": 0.1, "model.batch_norm": True}
    straight, resumed = make_config(**changes, **{"train.epochs": 3}), make_config(**changes)
    train.train_and_evaluate(straight, tmp_path / "straight")
    train.train_and_evaluate(make_config(**changes, **{"train.epochs": 1}), tmp_path / "resumed")
    train.train_and_evaluate(resumed, tmp_path / "resumed")
    train.train_and_evaluate(straight, tmp_path / "resumed")
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
    table = Dataset(str(data_dir), config="phantom").table
    parts = splits.make_splits(table, **config.split)
    assert workdir.read_splits(trained) == {part: slice_ids.tolist() for part, slice_ids in parts.items()}
    saved = json.loads((trained / "splits.json").read_text())["overlaps"]
    assert not any(saved["families"].values())


@pytest.mark.parametrize("changes", [{}, LINKNET], ids=["unet", "linknet"])
def test_evaluation_does_not_depend_on_the_batch_size(make_config, changes):
    config = make_config(**changes)
    model, _, state = start_of(config)
    supply = DeviceSupply(pack(*some_slices(7, config.data.image_size)), ONE_DEVICE)
    step = steps.make_evaluation_step(model, create_loss("bce"))
    one, three, all_at_once = (
        steps.evaluate_slices(step, state, supply, ONE_DEVICE, batch_size=size) for size in (1, 3, 7)
    )
    assert one["slices"] == three["slices"] == all_at_once["slices"] == 7
    for other in (three, all_at_once):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert other["dice"] == pytest.approx(one["dice"], rel=1e-5)


def test_a_step_is_adam_on_the_mean_loss_of_its_batch(make_config):
    config = make_config(**{"train.loss": "bce"})
    model, optimization, state = start_of(config)
    images, masks = some_slices(6, 32)
    rows = [4, 1, 0]

    def mean_loss(params):
        logits = model.apply({"params": params}, jnp.rint(images[rows] * 65535)[..., None] / 65535)
        return optax.sigmoid_binary_cross_entropy(logits, masks[rows][..., None]).mean()

    loss, gradients = jax.value_and_grad(mean_loss)(state.params)
    # Adam's first step from zero moments: the bias corrections leave g / (|g| + eps).
    expected = jax.tree.map(
        lambda p, g: np.asarray(p) - config.optimizer.learning_rate * np.asarray(g) / (np.abs(g) + 1e-8),
        state.params,
        gradients,
    )
    after, sums = train_step_of(config, model, optimization)(state, load_of(images, masks, rows))
    assert sums.loss.shape == (1,)
    assert float(sums.loss[0]) / float(sums.slices[0]) == pytest.approx(float(loss), rel=1e-5)
    assert int(after.step) == 1

    def compare(ours, theirs, gradient):
        sure = np.abs(gradient) > 1e-6  # below, rounding decides about the sign
        np.testing.assert_allclose(np.asarray(ours)[sure], theirs[sure], rtol=1e-4, atol=1e-6)

    jax.tree.map(compare, after.params, expected, gradients)


def test_seeds_and_folds_share_a_compiled_program(make_config):
    config = make_config(**{"optimizer.schedule": "cosine", "augmentation.noise": 0.1, "model.dropout_rate": 0.1})

    def program(seed, slices, steps_per_epoch):
        model = create_model(**config.model)
        optimization = train_state.create_optimization(**config.optimizer, epochs=3, steps_per_epoch=steps_per_epoch)
        state = train_state.create_train_state(jax.random.key(seed), model, optimization, image_size=32)
        step = steps.make_train_step(
            jax.random.key(seed),
            model,
            optimization,
            create_loss("bce"),
            Augmentation(**config.augmentation),
            ONE_DEVICE,
        )
        supply = DeviceSupply(pack(*some_slices(slices, 32)), ONE_DEVICE)
        load = next(supply.loads(np.zeros((1, 4), np.int32), steps_per_call=1))
        return step.func.lower(*step.args, state, load).as_text()

    assert program(0, 50, 12) == program(1, 63, 15)
    assert program(0, 50, 12) != program(0, 70, 12)


@pytest.mark.parametrize(("steps_per_call", "lengths"), [(1, 1), (2, 1), (3, 2)])
def test_one_trace_per_step_function_and_nothing_travels_unasked(
    tmp_path, make_config, monkeypatch, steps_per_call, lengths
):
    config = make_config(**{"train.batch_size": 16, "train.steps_per_call": steps_per_call, "train.epochs": 3})
    made = []
    for name, original in (
        ("make_train_step", steps.make_train_step),
        ("make_evaluation_step", steps.make_evaluation_step),
    ):

        def make(*arguments, original=original, **options):
            made.append(original(*arguments, **options))
            return made[-1]

        monkeypatch.setattr(train, name, make)
    guards = []
    original_guard = jax.transfer_guard
    monkeypatch.setattr(jax, "transfer_guard", lambda level: guards.append(level) or original_guard(level))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "epoch_batches", lambda **options: np.arange(64).reshape(4, 16))
        train.train_and_evaluate(config, tmp_path)
    # Four batches in threes are a call of three and one of one: a program each. Two validation batches are one call.
    assert [getattr(step, "func", step)._cache_size() for step in made] == [lengths, 1]
    assert guards == ["disallow"] * 3


def test_the_transfer_guard_refuses_what_is_not_sent_explicitly(make_config):
    config = make_config()
    model, optimization, state = start_of(config)
    load = load_of(*some_slices(4, 32), [0, 1])
    with (
        jax.transfer_guard("disallow"),
        pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"),
    ):
        train_step_of(config, model, optimization)(state, load._replace(rows=np.array([[0, 1]], np.int32)))


def test_several_steps_a_call_do_what_single_steps_do(make_config):
    config = make_config(**{"model.dropout_rate": 0.1})
    model, optimization, state = start_of(config)
    images, masks = some_slices(6, config.data.image_size)
    batches = [[0, 1], [2, 3], [4, 5]]
    step = train_step_of(config, model, optimization)
    start, single, losses = jax.device_get(state.params), jax.tree.map(jnp.copy, state), []
    for batch in batches:
        single, sums = step(single, load_of(images, masks, batch))
        losses.append(float(sums.loss[0]))
    together, sums = step(state, load_of(images, masks, *batches))
    assert int(together.step) == int(single.step) == 3
    np.testing.assert_allclose(sums.loss, losses, rtol=1e-5)
    moved, apart = (
        sum(float(jnp.abs(one - other).sum()) for one, other in zip(*map(jax.tree.leaves, pair), strict=True))
        for pair in ((together.params, start), (together.params, single.params))
    )
    assert apart < 1e-3 * moved


def test_streaming_gives_the_parameters_that_device_memory_gives(tmp_path, make_config):
    found = {}
    for residency in ("device", "stream"):
        config = make_config(
            **{
                "model.dropout_rate": 0.1,
                "model.batch_norm": True,
                "data.residency": residency,
                "train.steps_per_call": 3,
                "train.epochs": 1,
                "train.batch_size": 16,
                "augmentation.rotation": 10.0,
            },
        )
        train.train_and_evaluate(config, tmp_path / residency)
        found[residency] = latest_state(tmp_path / residency, config)
    jax.tree.map(np.testing.assert_array_equal, found["device"], found["stream"])
    assert rows_of(tmp_path / "device") == rows_of(tmp_path / "stream")


def test_no_augmentation_is_the_plain_path():
    images, masks = (jnp.asarray(values)[..., None] for values in some_slices(4, 32))
    unchanged = augment(jax.random.key(0), images, masks, augmentation=NO_AUGMENTATION)
    assert unchanged[0] is images
    assert unchanged[1] is masks


def test_bfloat16_learns_what_float32_learns(tmp_path, make_config, trained):
    train.train_and_evaluate(make_config(**TRAINED, **{"model.dtype": "bfloat16"}), tmp_path)
    single, half = (np.mean([row["train_dice"] for row in rows_of(run)[-5:]]) for run in (trained, tmp_path))
    assert half > 0.4
    # Three seeds of float32 have a standard deviation of 0.065 here; this is twice that.
    assert abs(half - single) < 0.13
    parameters = latest_state(tmp_path, make_config(**TRAINED)).params
    assert {leaf.dtype for leaf in jax.tree.leaves(parameters)} == {np.dtype("float32")}


def test_the_learning_rate_falls_after_five_epochs_without_improvement_and_not_below_its_floor(make_config):
    config = make_config()
    optimization = train_state.create_optimization(**ADAM)
    state = start_of(config)[2]
    state = state._replace(plateau=optimization.plateau.init({}))
    rates = []
    for loss in [1.0, 0.9] + 16 * [0.95]:
        state = train_state.observe_validation_loss(state, optimization, loss)
        rates.append(1e-3 * float(state.plateau.scale))
    # Epoch 2 is the best; 3 to 7 are five without improvement.
    expected = 6 * [1e-3] + 5 * [1e-4] + 7 * [1e-5]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_a_lower_learning_rate_makes_smaller_steps(make_config):
    config = make_config()
    model, optimization, state = start_of(config)
    start = jax.device_get(state.params)
    load = load_of(*some_slices(4, 32), range(4))
    step = train_step_of(config, model, optimization)
    full, _ = step(jax.tree.map(jnp.copy, state), load)
    small, _ = step(state._replace(plateau=state.plateau._replace(scale=jnp.float32(0.1))), load)

    def compare(before, with_full, with_small):
        np.testing.assert_allclose(with_small - before, 0.1 * (with_full - before), rtol=0.01, atol=1e-6)

    jax.tree.map(compare, start, jax.device_get(full.params), jax.device_get(small.params))


def test_the_l2_penalty_pulls_kernels_to_zero_and_leaves_biases_and_norms_alone(make_config):
    config = make_config(**LINKNET)
    state = start_of(config)[2]
    optimization = train_state.create_optimization(**{**ADAM, "l2_penalty": 1e-4})
    nothing = jax.tree.map(jnp.zeros_like, state.params)
    updates, _ = optimization.optimizer.update(nothing, optimization.optimizer.init(state.params), state.params)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        parameter = state.params
        for key in path:
            parameter = parameter[key.key]
        if path[-1].key == "kernel":
            moved = np.asarray(parameter)[np.abs(parameter) > 1e-3]
            np.testing.assert_array_equal(np.sign(np.asarray(update)[np.abs(parameter) > 1e-3]), -np.sign(moved))
        else:
            np.testing.assert_array_equal(update, 0)


def test_a_loss_that_is_not_finite_stops_with_the_last_good_checkpoint(tmp_path, make_config, monkeypatch):
    config = make_config(**{"train.epochs": 1})
    train.train_and_evaluate(config, tmp_path / "run")
    before = rows_of(tmp_path / "run")
    monkeypatch.setattr(train, "create_loss", lambda name: lambda logits, masks: logits.sum((1, 2, 3)) * jnp.nan)
    config.train.epochs = 2
    with pytest.raises(InputError, match=r"loss .* is not finite: the last good checkpoint is that of epoch 1; lower"):
        train.train_and_evaluate(config, tmp_path / "run")
    assert rows_of(tmp_path / "run") == before
    assert int(latest_state(tmp_path / "run", config).step) == before[0]["step"]
    with pytest.raises(InputError, match="there is no checkpoint yet"):
        train.train_and_evaluate(config, tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.image_size": 40}, r"config\.data\.image_size is 40: set it to a multiple of 16"),
        ({"train.epochs": 0}, r"config\.train\.epochs is 0"),
        ({"train.batch_size": 0}, r"config\.train\.batch_size is 0"),
        ({"train.batch_size": 5000}, r"config\.train\.batch_size is 5000, more than the"),
        ({"optimizer.learning_rate": math.nan}, r"config\.optimizer\.learning_rate is nan"),
        ({"augmentation.noise": math.inf}, r"config\.augmentation\.noise is inf: set it to a number from 0 to 1\.0"),
        ({"optimizer.learning_rate": 0.0}, r"config\.optimizer\.learning_rate is 0"),
        ({"optimizer.plateau_patience": 0}, r"config\.optimizer\.plateau_patience is 0"),
        ({"train.steps_per_call": -1}, r"config\.train\.steps_per_call is -1"),
        ({"data.residency": "disk"}, r"config\.data\.residency is 'disk'"),
        ({"augmentation.flip": 2.0}, r"config\.augmentation\.flip is 2\.0: set it to a number from 0 to 1\.0"),
        ({"train.loss": "huber"}, r"config\.train\.loss is 'huber'"),
        ({"split.fold": 9}, r"config\.split\.fold is 9"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(tmp_path, make_config, changes, message):
    with pytest.raises(InputError, match=message):
        train.train_and_evaluate(make_config(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_workdir_of_another_run_is_refused(trained, make_config):
    before = (trained / "config.json").read_text()
    for changes, message in (
        ({"seed": 1}, r"has seed = 0, this command 1"),
        ({"train.batch_size": 4}, r"has train\.batch_size = 8, this command 4"),
        ({"train.epochs": 1}, r"has train\.epochs = 25, this command only 1"),
    ):
        with pytest.raises(InputError, match=message):
            train.train_and_evaluate(make_config(**{**TRAINED, **changes}), trained)
    assert (trained / "config.json").read_text() == before


def test_a_workdir_with_other_slices_is_refused(tmp_path, trained, make_config):
    config = make_config(**TRAINED)
    with pytest.raises(InputError, match=r"splits\.json lists other slices"):
        workdir.start_run(trained, config, None, {"train": np.array([1]), "validation": np.array([2])}, {})


def test_damaged_and_missing_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"config\.json is missing: name the --workdir of a run"):
        workdir.read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"seed": ')
    with pytest.raises(InputError, match=r"config\.json is damaged"):
        workdir.read_config(tmp_path)


CONFIGS = sorted(path.stem for path in (Path(__file__).parents[1] / "configs").glob("[a-z]*.py"))


@pytest.mark.filterwarnings("ignore:Protocol 'slice'")
@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_runs(tmp_path, make_config, name):
    config = importlib.import_module(f"configs.{name}").get_config()
    assert config.model.name in name or config.model.name == "unet"
    config.data.update(dataset="phantom", data_dir=make_config().data.data_dir, image_size=64)
    config.model.start_filters = 4
    config.train.epochs = 1
    config.optimizer.warmup_epochs = 0.0
    train.train_and_evaluate(config, tmp_path / "run")
    (row,) = rows_of(tmp_path / "run")
    assert math.isfinite(row["train_loss"])
    assert math.isfinite(row["validation_loss"])


def test_the_configs_are_the_published_recipes():
    unet, linknet = (importlib.import_module(f"configs.{name}").get_config() for name in ("unet", "linknet"))
    for config, batch_size, rate in ((unet, 8, 1e-4), (linknet, 10, 5e-4)):
        assert (config.train.batch_size, config.optimizer.learning_rate) == (batch_size, rate)
        assert (config.train.epochs, config.train.loss, config.data.image_size) == (30, "bce", 512)
        assert (config.optimizer.plateau_factor, config.optimizer.plateau_patience) == (0.1, 5)
        assert (config.optimizer.minimum_learning_rate, config.evaluation.threshold) == (1e-5, 0.5)
        assert config.split.protocol == "slice"
    assert (unet.model.start_filters, linknet.model.start_filters) == (16, 64)


def test_every_config_key_is_read():
    config = default.get_config()
    for section, function in (
        ("model", create_model),
        ("optimizer", train_state.create_optimization),
        ("split", splits.make_splits),
    ):
        parameters = inspect.signature(function).parameters.values()
        named = {p.name for p in parameters if p.kind == p.KEYWORD_ONLY}
        assert set(config[section]) == named - {"epochs", "steps_per_epoch"}
    package = Path(brainseg_jax.__file__).parent
    source = "".join(path.read_text() for path in package.glob("*.py"))
    for section in ("data", "train", "evaluation"):
        for key in config[section]:
            assert re.search(rf"(config|settings)(\.{section})?\.{key}\b", source), key
    fields = {field.name for field in dataclasses.fields(Augmentation)}
    assert set(config.augmentation) == fields
    assert set(config) == {"seed", "data", "augmentation", "split", "model", "train", "optimizer", "evaluation"}
    assert "config.seed" in source
