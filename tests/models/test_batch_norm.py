"""Batch norm against flax's, differentiated by JAX: values, running statistics and all gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from flax import linen as nn

from brainseg_jax.models.batch_norm import BatchNorm


def make_inputs(dtype, shape=(3, 6, 5, 4)):
    rng = np.random.default_rng(0)
    inputs = rng.normal(2.0, 3.0, shape).astype(np.float32)
    weights = {"scale": rng.uniform(0.5, 2.0, shape[-1]), "bias": rng.normal(size=shape[-1])}
    statistics = {"mean": rng.normal(size=shape[-1]), "var": rng.uniform(0.5, 2.0, shape[-1])}
    variables = {"params": weights, "batch_stats": statistics}
    return jnp.asarray(inputs, dtype), jax.tree.map(jnp.float32, variables), rng.normal(size=shape).astype(np.float32)


def apply(module, dtype, *, train):
    """Values, running statistics and gradients of a random sum over the outputs."""
    inputs, variables, factors = make_inputs(dtype)

    def total(inputs, params):
        outputs, updated = module.apply(
            {"params": params, "batch_stats": variables["batch_stats"]}, inputs, mutable=["batch_stats"]
        )
        assert outputs.dtype == dtype
        return (outputs.astype(jnp.float32) * factors).sum(), (outputs, updated)

    gradients, (outputs, updated) = jax.grad(total, argnums=(0, 1), has_aux=True)(inputs, variables["params"])
    return {"outputs": outputs, "updated": updated if train else variables["batch_stats"], "gradients": gradients}


class FlaxBatchNorm(nn.Module):
    """flax's, and `jax.nn.relu` behind it."""

    train: bool
    relu: bool
    dtype: Any

    @nn.compact
    def __call__(self, inputs):
        norm = nn.BatchNorm(not self.train, momentum=0.9, epsilon=1e-5, dtype=self.dtype)
        outputs = nn.share_scope(self, norm) or norm(inputs)
        return nn.relu(outputs) if self.relu else outputs


@pytest.mark.parametrize(("train", "relu"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
def test_values_and_gradients_are_those_of_flax(dtype, tolerance, train, relu):
    ours = apply(BatchNorm(train, relu=relu, dtype=dtype), dtype, train=train)
    flax = apply(FlaxBatchNorm(train, relu, dtype), dtype, train=train)
    assert jax.tree.structure(ours) == jax.tree.structure(flax)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(flax), strict=True):
        one, other = np.asarray(one, np.float32), np.asarray(other, np.float32)
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * np.abs(other).max())


def test_gradients_follow_from_differences():
    inputs, variables, factors = make_inputs(jnp.float32, (2, 3, 2, 2))

    def total(inputs, params):
        outputs, _ = BatchNorm(True).apply(
            {"params": params, "batch_stats": variables["batch_stats"]}, inputs, mutable=["batch_stats"]
        )
        return (outputs * factors).sum()

    jax.test_util.check_grads(total, (inputs, variables["params"]), order=1, modes=["rev"], atol=2e-2, rtol=2e-2)


def test_a_constant_map_and_the_first_variables():
    module = BatchNorm(True, offset=-2.0)
    inputs = jnp.full((2, 4, 4, 3), 7.0)
    variables = module.init(jax.random.key(0), inputs)
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], np.zeros(3))  # making them takes no step
    np.testing.assert_array_equal(variables["batch_stats"]["var"], np.ones(3))
    outputs, updated = module.apply(variables, inputs, mutable=["batch_stats"])
    np.testing.assert_allclose(outputs, -2.0, atol=1e-3)  # no variance: the offset alone, and no NaN
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.7, rtol=1e-6)
    np.testing.assert_allclose(updated["batch_stats"]["var"], 0.9, rtol=1e-5)
    gradient = jax.grad(lambda inputs: module.apply(variables, inputs, mutable=["batch_stats"])[0].sum())(inputs)
    assert np.isfinite(gradient).all()
