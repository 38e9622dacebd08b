"""The compiled step: what it computes, how often it is compiled, and what its optimizer does."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from brainseg_jax.data.augmentation import augment
from brainseg_jax.data.loaders import DeviceLoader
from brainseg_jax.data.packing import pack
from brainseg_jax.training import loop, setup
from brainseg_jax.training.loop import train_and_evaluate
from brainseg_jax.training.optimizer import create_optimizer
from brainseg_jax.training.state import TrainState, observe_validation_loss
from brainseg_jax.training.step import evaluate_slices, make_evaluation_step, make_train_step
from tests.helpers import ADAM, LINKNET, NO_AUGMENTATION, ONE_DEVICE, setup_of, some_slices, step_batches_of


@pytest.mark.parametrize("changes", [{}, LINKNET], ids=["unet", "linknet"])
def test_evaluation_does_not_depend_on_the_batch_size(make_config, changes):
    config = make_config(**changes)
    training = setup_of(config)
    loader = DeviceLoader(pack(*some_slices(7, config.data.image_size)), ONE_DEVICE)
    one, three, all_at_once = (
        evaluate_slices(training.evaluation_step, training.state, loader, ONE_DEVICE, batch_size=size)
        for size in (1, 3, 7)
    )
    assert one["slices"] == three["slices"] == all_at_once["slices"] == 7
    for other in (three, all_at_once):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert other["dice"] == pytest.approx(one["dice"], rel=1e-5)


def test_a_step_is_adam_on_the_mean_loss_of_its_batch(make_config):
    config = make_config(**{"train.loss": "bce"})
    training = setup_of(config)
    state = training.state
    images, masks = some_slices(6, 32)
    rows = [4, 1, 0]

    def mean_loss(params):
        logits = training.model.apply({"params": params}, jnp.rint(images[rows] * 65535)[..., None] / 65535)
        return optax.sigmoid_binary_cross_entropy(logits, masks[rows][..., None]).mean()

    loss, gradients = jax.jit(jax.value_and_grad(mean_loss))(state.params)
    # Adam's first step from zero moments: the bias corrections leave g / (|g| + eps).
    expected = jax.tree.map(
        lambda p, g: np.asarray(p) - config.optimizer.learning_rate * np.asarray(g) / (np.abs(g) + 1e-8),
        state.params,
        gradients,
    )
    after, sums = training.train_step(state, step_batches_of(images, masks, rows))
    assert sums.loss.shape == (1,)
    assert float(sums.loss[0]) / float(sums.slices[0]) == pytest.approx(float(loss), rel=1e-5)
    squares = [np.sum(np.asarray(leaf, np.float64) ** 2) for leaf in jax.tree.leaves(gradients)]
    assert float(sums.gradient_norm[0]) / float(sums.slices[0]) == pytest.approx(np.sqrt(sum(squares)), rel=1e-4)
    assert int(after.step) == 1

    def compare(ours, theirs, gradient):
        sure = np.abs(gradient) > 1e-6  # below, rounding decides about the sign
        np.testing.assert_allclose(np.asarray(ours)[sure], theirs[sure], rtol=1e-4, atol=1e-6)

    jax.tree.map(compare, after.params, expected, gradients)


def test_seeds_and_folds_share_a_compiled_program(make_config):
    config = make_config(**{"optimizer.schedule": "cosine", "augmentation.noise": 0.1, "model.dropout_rate": 0.1})

    def program(seed, slices, steps_per_epoch):
        config.seed, config.train.epochs = seed, 3
        training = setup_of(config, steps_per_epoch=steps_per_epoch)
        loader = DeviceLoader(pack(*some_slices(slices, 32)), ONE_DEVICE)
        step_batches = next(loader.iterate(np.zeros((1, 4), np.int32), steps_per_call=1))
        return training.train_step.lower(training.state, step_batches).as_text()

    assert program(0, 50, 12) == program(1, 63, 15)
    assert program(0, 50, 12) != program(0, 70, 12)


@pytest.mark.parametrize(("steps_per_call", "lengths"), [(1, 1), (2, 1), (3, 2)])
def test_one_trace_per_step_function_and_nothing_travels_unasked(
    tmp_path, make_config, monkeypatch, steps_per_call, lengths
):
    config = make_config(**{"train.batch_size": 16, "train.steps_per_call": steps_per_call, "train.epochs": 3})
    made = []
    for name, original in (
        ("make_train_step", make_train_step),
        ("make_evaluation_step", make_evaluation_step),
    ):

        def make(*arguments, original=original, **options):
            made.append(original(*arguments, **options))
            return made[-1]

        monkeypatch.setattr(setup, name, make)
    guards = []
    original_guard = jax.transfer_guard
    monkeypatch.setattr(jax, "transfer_guard", lambda level: guards.append(level) or original_guard(level))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "epoch_batches", lambda **options: np.arange(64).reshape(4, 16))
        train_and_evaluate(config, tmp_path)
    # Four batches in threes are a call of three and one of one: a program each. Two validation batches are one call.
    assert [step._cache_size() for step in made] == [lengths, 1]
    assert guards == ["disallow"] * 3


def test_the_transfer_guard_refuses_what_is_not_sent_explicitly(make_config):
    config = make_config()
    training = setup_of(config)
    state = training.state
    step_batches = step_batches_of(*some_slices(4, 32), [0, 1])
    with (
        jax.transfer_guard("disallow"),
        pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"),
    ):
        training.train_step(state, step_batches._replace(rows=np.array([[0, 1]], np.int32)))


def test_several_steps_a_call_do_what_single_steps_do(make_config):
    config = make_config(**{"model.dropout_rate": 0.1})
    training = setup_of(config)
    state = training.state
    images, masks = some_slices(6, config.data.image_size)
    batches = [[0, 1], [2, 3], [4, 5]]
    step = training.train_step
    start, single, losses = jax.device_get(state.params), jax.tree.map(jnp.copy, state), []
    for batch in batches:
        single, sums = step(single, step_batches_of(images, masks, batch))
        losses.append(float(sums.loss[0]))
    together, sums = step(state, step_batches_of(images, masks, *batches))
    assert int(together.step) == int(single.step) == 3
    np.testing.assert_allclose(sums.loss, losses, rtol=1e-5)
    moved, apart = (
        sum(float(jnp.abs(one - other).sum()) for one, other in zip(*map(jax.tree.leaves, pair), strict=True))
        for pair in ((together.params, start), (together.params, single.params))
    )
    assert apart < 1e-3 * moved


def test_no_augmentation_is_the_plain_path():
    images, masks = (jnp.asarray(values)[..., None] for values in some_slices(4, 32))
    unchanged = augment(jax.random.key(0), images, masks, augmentation=NO_AUGMENTATION)
    assert unchanged[0] is images
    assert unchanged[1] is masks


def test_the_learning_rate_falls_after_five_epochs_without_improvement_and_not_below_its_floor(make_config):
    config = make_config()
    optimizer = create_optimizer(**ADAM)
    state = setup_of(config).state
    state = state.replace(plateau=optimizer.plateau.init({}))
    rates = []
    for loss in [1.0, 0.9] + 16 * [0.95]:
        state = observe_validation_loss(state, optimizer, loss)
        rates.append(1e-3 * float(state.plateau.scale))
    # Epoch 2 is the best; 3 to 7 are five without improvement.
    expected = 6 * [1e-3] + 5 * [1e-4] + 7 * [1e-5]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("rtol", "atol", "improves"),  # the smallest improvement on a loss of 0.03
    [(0.0, 1e-4, 1.01e-4), (1e-4, 0.0, 3.03e-6), (1e-2, 1e-4, 4.04e-4)],
)
def test_a_smaller_improvement_than_the_settings_ask_for_is_none(rtol, atol, improves):
    optimizer = create_optimizer(**{**ADAM, "plateau_rtol": rtol, "plateau_atol": atol})
    for improvement, falls in ((improves, False), (0.98 * improves, True)):
        state = TrainState(*[{}] * 6, plateau=optimizer.plateau.init({}), ema={})
        for loss in [0.03, *5 * [0.03 - improvement]]:
            state = observe_validation_loss(state, optimizer, loss)
        assert (float(state.plateau.scale) < 1) == falls


def test_a_lower_learning_rate_makes_smaller_steps(make_config):
    config = make_config()
    training = setup_of(config)
    state = training.state
    start = jax.device_get(state.params)
    step_batches = step_batches_of(*some_slices(4, 32), range(4))
    step = training.train_step
    full, _ = step(jax.tree.map(jnp.copy, state), step_batches)
    small, _ = step(state.replace(plateau=state.plateau._replace(scale=jnp.float32(0.1))), step_batches)

    def compare(before, with_full, with_small):
        np.testing.assert_allclose(with_small - before, 0.1 * (with_full - before), rtol=0.01, atol=1e-6)

    jax.tree.map(compare, start, jax.device_get(full.params), jax.device_get(small.params))


def test_the_l2_penalty_pulls_kernels_to_zero_and_leaves_biases_and_norms_alone(make_config):
    config = make_config(**LINKNET)
    state = setup_of(config).state
    optimizer = create_optimizer(**{**ADAM, "l2_penalty": 1e-4})
    nothing = jax.tree.map(jnp.zeros_like, state.params)
    updates, _ = optimizer.transformation.update(nothing, optimizer.transformation.init(state.params), state.params)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        parameter = state.params
        for key in path:
            parameter = parameter[key.key]
        if path[-1].key == "kernel":
            moved = np.asarray(parameter)[np.abs(parameter) > 1e-3]
            np.testing.assert_array_equal(np.sign(np.asarray(update)[np.abs(parameter) > 1e-3]), -np.sign(moved))
        else:
            np.testing.assert_array_equal(update, 0)
