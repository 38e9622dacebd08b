"""The ingredients of the strong recipe: each does what its name says, and all together resume bit for bit."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brainseg_jax.data.dataset import Dataset
from brainseg_jax.errors import InputError
from brainseg_jax.evaluation import evaluate
from brainseg_jax.inference.postprocessing import tune_postprocessing
from brainseg_jax.inference.predictor import Predictor, predict_slices, restore_variables
from brainseg_jax.training import loop
from brainseg_jax.training.loop import Checkpoints, observe_validation_loss, train_and_evaluate
from brainseg_jax.training.optimizer import create_optimizer
from brainseg_jax.training.state import apply_gradients
from brainseg_jax.utils.files import write_json
from brainseg_jax.workdir.files import read_config, read_splits
from tests.helpers import ADAM, load_recipe, rows_of, setup_of, some_slices, step_batches_of


@pytest.fixture(scope="module")
def strong(data_dir):
    """The strong recipe on a network that takes seconds."""
    config = load_recipe("unet_strong")
    config.data.update(dataset="phantom", data_dir=str(data_dir), image_size=32)
    config.model.start_filters = 4
    config.train.update(epochs=3, batch_size=8)
    config.optimizer.update(learning_rate=0.01, warmup_epochs=1.0)
    return config


@pytest.fixture(scope="module")
def strong_run(tmp_path_factory, strong):
    directory = tmp_path_factory.mktemp("strong") / "run"
    train_and_evaluate(strong, directory)
    return directory


def test_a_strong_run_that_was_killed_goes_on_bit_for_bit(tmp_path, strong, strong_run, monkeypatch):
    observe = observe_validation_loss

    def die(state, *arguments):
        if int(state.step) > rows_of(strong_run)[0]["step"]:
            raise KeyboardInterrupt  # in the second epoch
        return observe(state, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "observe_validation_loss", die)
        with pytest.raises(KeyboardInterrupt):
            train_and_evaluate(strong, tmp_path / "run")
    assert len(rows_of(tmp_path / "run")) == 1
    train_and_evaluate(strong, tmp_path / "run")
    states = []
    for directory in (strong_run, tmp_path / "run"):
        with Checkpoints(directory / "checkpoints") as checkpoints:
            states.append(checkpoints.restore(checkpoints.latest_epoch(), vars(setup_of(strong).state)))
    jax.tree.map(np.testing.assert_array_equal, *states)
    assert rows_of(strong_run) == rows_of(tmp_path / "run")


def test_the_learning_rate_rises_and_falls_along_half_a_cosine(strong_run):
    # Rates at the start of each epoch: 0 before the first step, the highest after one epoch, half-way down after two.
    rates = [row["learning_rate"] for row in rows_of(strong_run)]
    np.testing.assert_allclose(rates, [0.0, 0.01, (0.01 + 1e-6) / 2], rtol=1e-3, atol=1e-9)


def test_more_epochs_of_a_cosine_need_another_workdir(strong, strong_run):
    longer = strong.copy_and_resolve_references()
    longer.train.epochs = 4
    with pytest.raises(InputError, match=r"train\.epochs = 3, this command 4: under optimizer\.schedule = 'cosine'"):
        train_and_evaluate(longer, strong_run)


def test_the_average_of_the_weights_is_what_numpy_says(make_config):
    training = setup_of(make_config(**{"model.batch_norm": True, "train.ema_decay": 0.3}))
    state = training.state
    expected = jax.device_get({"params": state.params, "batch_stats": state.batch_stats})
    for number in range(4):
        state, _ = training.train_step(state, step_batches_of(*some_slices(4, 32), range(4)))
        decay = min(0.3, (1 + number) / (10 + number))  # 0.1, 0.18, 0.25, 0.3
        new = jax.device_get({"params": state.params, "batch_stats": state.batch_stats})
        expected = jax.tree.map(lambda old, now, decay=decay: decay * old + (1 - decay) * now, expected, new)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6), expected, state.ema)
    assert state.variables is state.ema
    plain = setup_of(make_config()).state
    assert plain.ema == {}
    assert plain.variables["params"] is plain.params


def test_weight_decay_shrinks_kernels_only_and_by_the_learning_rate(make_config):
    state = setup_of(make_config(**{"model.batch_norm": True})).state
    optimizer = create_optimizer(**{**ADAM, "learning_rate": 0.5, "weight_decay": 0.1})
    state = state.replace(opt_state=optimizer.transformation.init(state.params))
    nothing = jax.tree.map(jnp.zeros_like, state.params)
    after = apply_gradients(state, optimizer, nothing, state.batch_stats, ema_decay=0.0)
    kernels = 0
    for (path, parameter), decayed in zip(
        jax.tree_util.tree_leaves_with_path(state.params), jax.tree.leaves(after.params), strict=True
    ):
        shrinks = path[-1].key == "kernel"
        kernels += shrinks
        np.testing.assert_allclose(decayed, (1 - 0.5 * 0.1 * shrinks) * parameter, rtol=1e-5)
    assert kernels == 23


def test_mirrored_predictions_are_the_mean_of_both_ways(tmp_path, strong, strong_run):
    image = np.random.default_rng(0).integers(0, 255, (32, 32)).astype(np.int16)
    mirrored = Predictor.from_workdir(strong_run)
    with pytest.raises(InputError, match=r"postprocessing\.json was tuned with tta_flip = True, not False: give"):
        Predictor.from_workdir(strong_run, tta_flip=False)
    plain = Predictor.from_workdir(strong_run, tta_flip=False, threshold=0.5, min_component_fraction=0.0)
    one, other = (plain.probabilities([one])[0] for one in (image, image[:, ::-1]))
    np.testing.assert_allclose(mirrored.probabilities([image])[0], (one + other[:, ::-1]) / 2, atol=1e-5)
    assert np.abs(one - other[:, ::-1]).max() > 1e-3


def test_the_decision_is_chosen_on_validation_and_used(strong, strong_run, tmp_path):
    predictor = Predictor.from_workdir(strong_run)
    dataset = Dataset(strong.data.data_dir, config="phantom")
    slice_ids = np.array(read_splits(strong_run)["validation"])
    pairs = [(found, record.mask) for record, found in predict_slices(predictor, dataset, slice_ids)]
    tuned, dice = tune_postprocessing(pairs)
    assert predictor.postprocessing == tuned
    summary = evaluate.evaluate(strong_run, split="validation", output=tmp_path)
    assert summary["dice"] == pytest.approx(dice, abs=1e-5)
    assert (summary["threshold"], summary["min_component_fraction"]) == (
        tuned.threshold,
        tuned.min_component_fraction,
    )
    (strong_run / "postprocessing.json").rename(tmp_path / "postprocessing.json")
    with pytest.raises(InputError, match=r"postprocessing\.json is missing or of another epoch"):
        evaluate.evaluate(strong_run, split="test", output=tmp_path)
    (tmp_path / "postprocessing.json").rename(strong_run / "postprocessing.json")


def test_a_run_starts_with_the_weights_of_another(tmp_path, strong, strong_run):
    start, _ = restore_variables(strong_run, strong)
    config = strong.copy_and_resolve_references()
    config.train.update(init_from=str(strong_run), epochs=1)
    config.optimizer.update(learning_rate=1e-9, minimum_learning_rate=0.0, warmup_epochs=0.0)
    train_and_evaluate(config, tmp_path / "run")
    end, _ = restore_variables(tmp_path / "run", config)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6), end["params"], start["params"])


def test_a_start_from_a_run_that_knows_the_patients_is_refused(tmp_path, strong, strong_run):
    config = strong.copy_and_resolve_references()
    config.train.init_from = str(strong_run)
    config.split.fold = 2
    with pytest.raises(InputError, match=r"init_from is .*run, which knows family \w+ and \d+ others of this"):
        train_and_evaluate(config, tmp_path / "run")
    # A run that started from one that knows them knows them too; slices that it was taught are never tested.
    middle = tmp_path / "middle"
    shutil.copytree(strong_run, middle, ignore=shutil.ignore_patterns("checkpoints"))
    settings = read_config(middle).to_dict()
    settings["data"]["dataset"], settings["train"]["init_from"] = "figshare", str(strong_run)
    write_json(middle / "config.json", settings)
    config.train.init_from = str(middle)
    with pytest.raises(InputError, match=r"init_from is .*/run, which knows family"):
        train_and_evaluate(config, tmp_path / "run")
    config.split.protocol, config.split.fold = "slice", 1
    with pytest.warns(UserWarning, match="several splits"), pytest.raises(InputError, match=r"which knows slice \d+"):
        train_and_evaluate(config, tmp_path / "run")
    config.split.protocol, config.split.fold = "family", 1
    config.train.init_from = str(strong_run)
    config.model.start_filters = 8
    with pytest.raises(InputError, match=r"has model\.start_filters = 4, this command 8: start from a run of the same"):
        train_and_evaluate(config, tmp_path / "run")
    settings["model"] = dict(load_recipe("linknet").model)  # which lacks fields of U-Net
    settings["data"]["image_size"] = 64  # LinkNet's stride
    write_json(middle / "config.json", settings)
    config.train.init_from = str(middle)
    with pytest.raises(
        InputError, match=r"has model\.name = 'linknet', this command 'unet': start from a run of the same"
    ):
        train_and_evaluate(config, tmp_path / "run")
    config.train.init_from = str(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"nowhere is no folder and no name of weights"):
        train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"optimizer.schedule": "linear"},
            r"config\.optimizer\.schedule is 'linear': set it to one of plateau, cosine",
        ),
        ({"optimizer.warmup_epochs": 3.0}, r"config\.optimizer\.warmup_epochs is 3\.0: set it to 0 or more, fewer"),
        ({"train.ema_decay": 1.0}, r"config\.train\.ema_decay is 1\.0: set it to a number in \[0, 1\)"),
        ({"evaluation.threshold": 1.0}, r"config\.evaluation\.threshold is 1\.0"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(tmp_path, strong, changes, message):
    config = strong.copy_and_resolve_references()
    config.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=message):
        train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_older_runs_config_is_read_with_the_defaults_of_newer_fields(tmp_path, trained):
    settings = read_config(trained).to_dict()
    del settings["train"]["ema_decay"], settings["evaluation"]["tta_flip"]
    write_json(tmp_path / "config.json", settings)
    assert read_config(tmp_path) == read_config(trained)
    settings["data"]["attention"] = True
    write_json(tmp_path / "config.json", settings)
    with pytest.raises(InputError, match=r"has data\.attention, which this version does not know: update"):
        read_config(tmp_path)
