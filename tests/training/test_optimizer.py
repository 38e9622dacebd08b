"""The optimizer and the schedules: each number by hand or by NumPy, at single weights and single steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brainseg_jax.training.optimizer import create_optimizer
from brainseg_jax.training.state import TrainState, apply_gradients, current_learning_rate, observe_validation_loss
from tests.helpers import ADAM

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # Adam's, of Kingma and Ba

PARAMS = {
    "conv": {"kernel": np.array([[0.5, -2.0], [3.0, -0.25]], np.float32), "bias": np.array([0.7, -4.0], np.float32)},
    "norm": {"scale": np.array([1.5, -0.5], np.float32), "bias": np.array([2.0, 0.1], np.float32)},
}
NOTHING = jax.tree.map(np.zeros_like, PARAMS)


def start(*, steps_per_epoch=1, **changes):
    """(optimizer, state before the first step) for `PARAMS`, Adam's settings with the changes given."""
    optimizer = create_optimizer(**{**ADAM, **changes})
    plateau = optimizer.plateau.init({}) if optimizer.plateau else {}
    params = jax.tree.map(jnp.asarray, PARAMS)
    return optimizer, TrainState(
        step=jnp.int32(0),
        key_data=jax.random.key_data(jax.random.key(0)),
        steps_per_epoch=jnp.float32(steps_per_epoch),
        params=params,
        batch_stats={},
        opt_state=optimizer.transformation.init(params),
        plateau=plateau,
        ema={},
    )


def after(optimizer, state, gradients, *, ema_decay=0.0):
    """The state after a step of these gradients."""
    return apply_gradients(state, optimizer, gradients, {}, ema_decay=ema_decay)


def rate_at(optimizer, state, step):
    return current_learning_rate(state.replace(step=jnp.int32(step)), optimizer)


def moments(state):
    """Adam's first and second moment."""
    found = [node for node in jax.tree.leaves(state.opt_state, is_leaf=_has_moments) if _has_moments(node)]
    assert len(found) == 1
    return found[0].mu, found[0].nu


def _has_moments(node):
    return hasattr(node, "mu")


def assert_trees_close(ours, theirs, **tolerance):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, **tolerance), ours, theirs)


def test_the_l2_penaltys_gradient_is_that_of_the_squared_kernels_and_of_nothing_else():
    penalty = 1e-2
    optimizer, state = start(l2_penalty=penalty)
    # What joins the gradient shows in Adam's moments, from zero: (1 - β₁) g and (1 - β₂) g².
    squares = jax.grad(lambda kernel: penalty * (kernel**2).sum())(PARAMS["conv"]["kernel"])
    by_hand = {**NOTHING, "conv": {"kernel": 2 * penalty * PARAMS["conv"]["kernel"], "bias": np.zeros(2)}}
    np.testing.assert_allclose(by_hand["conv"]["kernel"], squares, rtol=1e-6)
    first, second = moments(after(optimizer, state, NOTHING))
    assert_trees_close(first, jax.tree.map(lambda g: (1 - BETA_1) * g, by_hand), rtol=1e-5)
    assert_trees_close(second, jax.tree.map(lambda g: (1 - BETA_2) * g**2, by_hand), rtol=1e-4)
    # It is added to the loss's own gradient.
    first, _ = moments(after(optimizer, state, jax.tree.map(lambda leaf: leaf + 0.3, NOTHING)))
    assert_trees_close(first, jax.tree.map(lambda g: (1 - BETA_1) * (g + 0.3), by_hand), rtol=1e-5)


def test_three_steps_are_adams_in_numpy():
    optimizer, state = start(learning_rate=0.1)
    rng = np.random.default_rng(0)
    expected = PARAMS
    first, second = NOTHING, NOTHING
    for step in (1, 2, 3):
        gradients = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), PARAMS)
        state = after(optimizer, state, gradients)
        first = jax.tree.map(lambda m, g: BETA_1 * m + (1 - BETA_1) * g, first, gradients)
        second = jax.tree.map(lambda v, g: BETA_2 * v + (1 - BETA_2) * g**2, second, gradients)
        expected = jax.tree.map(
            lambda w, m, v, step=step: w - 0.1 * (m / (1 - BETA_1**step)) / (np.sqrt(v / (1 - BETA_2**step)) + EPSILON),
            expected,
            first,
            second,
        )
    assert int(state.step) == 3
    assert_trees_close(state.params, expected, rtol=1e-4)


def test_weight_decay_takes_its_share_times_the_learning_rate_off_kernels_and_is_in_no_moment():
    rate, decay = 0.5, 0.1
    gradients = jax.tree.map(lambda leaf: np.sign(leaf) * np.float32(0.3), PARAMS)
    plain, with_decay = start(learning_rate=rate), start(learning_rate=rate, weight_decay=decay)
    one, other = after(*plain, gradients), after(*with_decay, gradients)
    taken = jax.tree.map(lambda before, now: np.asarray(before) - np.asarray(now), one.params, other.params)
    by_hand = {**NOTHING, "conv": {"kernel": rate * decay * PARAMS["conv"]["kernel"], "bias": np.zeros(2)}}
    assert_trees_close(taken, by_hand, rtol=1e-5, atol=1e-6)
    assert_trees_close(moments(other), moments(one), rtol=1e-6)
    # A step's own size is the learning rate, whatever the gradient: what is left after decay.
    assert_trees_close(one.params, jax.tree.map(lambda w: w - rate * np.sign(w), PARAMS), rtol=1e-4, atol=1e-5)


def test_weight_decay_follows_the_learning_rate_of_the_step():
    optimizer, state = start(
        learning_rate=0.5, weight_decay=0.1, schedule="cosine", epochs=10, minimum_learning_rate=0.0
    )
    # Half-way of ten epochs of one step half a cosine is at one half.
    halfway = after(optimizer, state.replace(step=jnp.int32(5)), NOTHING)
    kernel = PARAMS["conv"]["kernel"]
    np.testing.assert_allclose(halfway.params["conv"]["kernel"], (1 - 0.25 * 0.1) * kernel, rtol=1e-5)


@pytest.mark.parametrize("ema_decay", [0.15, 0.9])
def test_the_average_forgets_the_first_steps_faster_than_its_decay(ema_decay):
    optimizer, state = start(learning_rate=1.0)
    state = state.replace(ema=jax.tree.map(jnp.asarray, {"params": PARAMS, "batch_stats": {}}))
    expected = PARAMS
    for step in range(3):
        state = after(optimizer, state, jax.tree.map(np.ones_like, PARAMS), ema_decay=ema_decay)
        decay = min(ema_decay, [1 / 10, 2 / 11, 3 / 12][step])
        # Equal gradients make Adam's steps those of its learning rate.
        now = jax.tree.map(lambda w, step=step: w - (step + 1), PARAMS)
        expected = jax.tree.map(lambda old, new, decay=decay: decay * old + (1 - decay) * new, expected, now)
        assert_trees_close(state.ema["params"], expected, rtol=1e-4, atol=1e-5)


def test_warm_up_is_a_straight_line_and_what_follows_half_a_cosine_to_the_minimum():
    optimizer, state = start(
        learning_rate=0.02,
        schedule="cosine",
        warmup_epochs=2.0,
        epochs=10,
        steps_per_epoch=5,
        minimum_learning_rate=0.001,
    )
    assert optimizer.plateau is None
    # Warm-up takes ten steps, the fall the forty behind it; a quarter of it is at (1 + cos 45°)/2.
    middle, quarter = (0.02 + 0.001) / 2, 0.001 + 0.019 * (1 + np.sqrt(0.5)) / 2
    by_hand = {0: 0.0, 1: 0.002, 5: 0.01, 10: 0.02, 20: quarter, 30: middle, 50: 0.001, 60: 0.001}
    for step, rate in by_hand.items():
        assert rate_at(optimizer, state, step) == pytest.approx(rate, rel=1e-4, abs=1e-9)


def test_without_warm_up_a_cosine_starts_at_its_highest():
    optimizer, state = start(learning_rate=0.02, schedule="cosine", epochs=4, minimum_learning_rate=0.0)
    found = [rate_at(optimizer, state, step) for step in range(5)]
    cosines = [1, np.sqrt(0.5), 0, -np.sqrt(0.5), -1]
    np.testing.assert_allclose(found, [0.02 * (1 + cosine) / 2 for cosine in cosines], atol=1e-8)


@pytest.mark.parametrize("schedule", ["plateau", "cosine"])
def test_a_step_is_as_long_as_its_learning_rate_says(schedule):
    optimizer, state = start(learning_rate=0.02, schedule=schedule, epochs=4, minimum_learning_rate=1e-3)
    if schedule == "plateau":
        state = state.replace(plateau=state.plateau._replace(scale=jnp.float32(0.3)))
        rate = 0.3 * 0.02
    else:
        state, rate = state.replace(step=jnp.int32(2)), (0.02 + 1e-3) / 2
    assert rate_at(optimizer, state, int(state.step)) == pytest.approx(rate, rel=1e-5)
    moved = after(optimizer, state, jax.tree.map(np.ones_like, PARAMS))
    # Adam's bias correction counts its own steps, of which this is the first.
    assert_trees_close(moved.params, jax.tree.map(lambda w: w - rate, PARAMS), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("factor", "patience", "minimum", "rates"),  # the first epoch is the best
    [
        (0.5, 2, 1e-4, [1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4, 2.5e-4, 1.25e-4, 1.25e-4, 1e-4, 1e-4]),
        (0.2, 3, 1e-9, [1e-3, 1e-3, 1e-3, 2e-4, 2e-4, 2e-4, 4e-5, 4e-5, 4e-5, 8e-6]),
        (0.1, 1, 1.0, [1e-3] * 10),  # a minimum above the highest holds it there
    ],
)
def test_a_plateau_multiplies_by_its_factor_after_its_patience_down_to_the_minimum(factor, patience, minimum, rates):
    optimizer, state = start(plateau_factor=factor, plateau_patience=patience, minimum_learning_rate=minimum)
    found = []
    for loss in (0.5, *9 * [0.6]):
        state = observe_validation_loss(state, optimizer, loss)
        found.append(rate_at(optimizer, state, 0))
    np.testing.assert_allclose(found, rates, rtol=1e-5)
