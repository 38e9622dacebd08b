"""The losses against the same sums in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brainseg_jax.errors import InputError
from brainseg_jax.training.losses import LOSSES, create_loss


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.normal(0, 3, (3, 8, 8, 1)).astype(np.float32), (rng.random((3, 8, 8, 1)) < 0.2).astype(np.float32)


def numpy_losses(logits, masks):
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    chosen = np.where(masks == 1, probabilities, 1 - probabilities)
    cross_entropy = -np.log(chosen).mean((1, 2, 3))
    shared, total = (probabilities * masks).sum((1, 2, 3)), (probabilities + masks).sum((1, 2, 3))
    return cross_entropy, 1 - (2 * shared + 1) / (total + 1)


def test_losses_equal_numpy(batch):
    cross_entropy, soft_dice = numpy_losses(*batch)
    np.testing.assert_allclose(create_loss("bce")(*batch), cross_entropy, rtol=1e-5)
    np.testing.assert_allclose(create_loss("dice")(*batch), soft_dice, rtol=1e-5)
    np.testing.assert_allclose(create_loss("bce_dice")(*batch), cross_entropy + soft_dice, rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_sure_and_right_costs_nothing_and_sure_and_wrong_much(name, batch):
    _, masks = batch
    right = 30.0 * (2 * masks - 1)
    loss = create_loss(name)
    assert np.all(loss(right, masks) < 1e-5)
    assert np.all(loss(-right, masks) > 0.9)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_stay_finite_at_the_ends_and_on_empty_masks(name):
    empty = jnp.zeros((2, 4, 4, 1))
    for logit in (-200.0, 0.0, 200.0):
        value, gradient = jax.value_and_grad(lambda x: create_loss(name)(x, empty).sum())(empty + logit)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", LOSSES)
def test_bfloat16_logits_are_reduced_in_float32(name):
    logits = jnp.full((1, 256, 256, 1), -2.0, jnp.bfloat16)
    masks = jnp.zeros_like(logits).at[:, :64].set(1)
    loss = create_loss(name)
    assert loss(logits, masks).dtype == jnp.float32
    np.testing.assert_allclose(loss(logits, masks), loss(logits.astype(jnp.float32), masks), rtol=1e-6)


def test_an_unknown_loss_is_refused_by_name():
    with pytest.raises(InputError, match=r"config\.train\.loss is 'focal'.*bce, dice, bce_dice"):
        create_loss("focal")
