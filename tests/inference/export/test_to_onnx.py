"""ONNX Runtime computes from the translated graph what JAX computes from the function."""

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from flax import linen as nn

from brainseg_jax.errors import InputError
from brainseg_jax.inference.export.to_onnx import to_onnx
from brainseg_jax.inference.predictor import make_predict_step
from brainseg_jax.models import create_model

RNG = np.random.default_rng(0)
KERNEL = RNG.standard_normal((3, 3, 2, 3)).astype(np.float32)
# Functions of images (B, 8, 6, 2).
FUNCTIONS = {
    "bright places and their mirror image": lambda x: jnp.concatenate([x, x[:, ::-1, ::-1]], axis=-1),
    "every third row, a window, a column": lambda x: x[:, 1::3, :1] + x[:, 2:5, 3:4] + x[:, 0:3, 1][:, :, None],
    "slices by lax": lambda x: jax.lax.slice_in_dim(jax.lax.rev(x, (1,)), 1, 8, 2, axis=1),
    "padding": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 3), (0, 0)), constant_values=-2.0),
    "a value repeated over the batch": lambda x: jnp.concatenate([x, jnp.broadcast_to(KERNEL[0, 0, :, 0], x.shape)], 1),
    "values repeated over rows": lambda x: (
        jnp.broadcast_to(x[:, :1], x.shape).reshape(-1, 48, 2) - x.reshape(-1, 48, 2)
    ),
    "arithmetic": lambda x: jnp.tanh(2 - x) / jnp.exp(x) * jnp.maximum(x, 0.25) + abs(jnp.minimum(x, 0.5) - x),
    "the order of axes": lambda x: x.transpose(0, 3, 2, 1),
    "a convolution with strides and gaps": lambda x: jax.lax.conv_general_dilated(
        x, KERNEL, (2, 1), ((0, 1), (2, 0)), rhs_dilation=(1, 2), dimension_numbers=("NHWC", "HWIO", "NHWC")
    ),
    "a convolution of channels apart": lambda x: jax.lax.conv_general_dilated(
        x, KERNEL[:, :, :1, :2], (1, 1), "SAME", feature_group_count=2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    ),
    "a transposed convolution": lambda x: jax.lax.conv_transpose(x, KERNEL, (2, 2), "SAME"),
    "pooling": lambda x: nn.max_pool(x, (3, 2), (2, 2), padding=((1, 0), (0, 0))),
    "a product of the channels": lambda x: x @ KERNEL[0, 0],
    "a product along rows": lambda x: jnp.einsum("bhwc,hk->bkwc", x, KERNEL[:, :, 0].reshape(-1, 1)[:8]),
    "attention": lambda x: jnp.einsum("bhwc,bgwc->bhg", x, x),
}


def random_network(settings, size):
    """A network all of whose parameters and statistics are random, in sizes that keep its values near 1."""
    model = create_model(settings)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 1)))
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            return (rng.standard_normal(leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))).astype(np.float32)
        low, high = (0.7, 1.3) if path[-1].key in ("scale", "var") else (-0.1, 0.1)
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    return model, jax.tree_util.tree_map_with_path(draw, shapes)


def largest_difference(function, shape):
    session = onnxruntime.InferenceSession(to_onnx(function, shape))
    images = RNG.random((3, *shape), np.float32)
    expected = np.asarray(jax.jit(function)(images))
    (found,) = session.run(None, {"images": images})
    (of_first,) = session.run(None, {"images": images[:1]})
    assert found.shape == expected.shape
    assert expected.std() > 0.01
    np.testing.assert_allclose(of_first, found[:1], atol=1e-6)
    return np.abs(found - expected).max()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_operation_is_that_of_jax(name):
    assert largest_difference(FUNCTIONS[name], (8, 6, 2)) < 1e-5


@pytest.mark.parametrize(
    ("settings", "size", "tta_flip"),
    [
        ({"name": "unet", "start_filters": 4}, 32, False),
        ({"name": "unet", "start_filters": 4, "batch_norm": True, "dropout_rate": 0.1}, 48, True),
        ({"name": "linknet", "start_filters": 4}, 64, False),
        ({"name": "linknet", "start_filters": 4}, 128, True),
    ],
)
def test_a_network_gives_the_same_probabilities(settings, size, tta_flip):
    model, variables = random_network(settings, size)
    predict = make_predict_step(model, tta_flip=tta_flip)
    assert largest_difference(lambda images: predict(variables, images), (size, size, 1)) < 1e-5


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda x: jnp.sort(x, axis=1), "sort"),
        (
            lambda x: jax.lax.conv_general_dilated(
                x, KERNEL, (2, 2), ((0, 0), (0, 0)), lhs_dilation=(2, 2), dimension_numbers=("NHWC", "HWIO", "NHWC")
            ),
            "conv_general_dilated",
        ),
    ],
)
def test_an_operation_without_a_rule_is_refused_by_name(function, named):
    with pytest.raises(InputError, match=f"uses JAX's {named} in a form"):
        to_onnx(function, (8, 6, 2))
