"""The networks: shapes, parameter counts by hand, every skip connection, precision."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from brainseg_jax.errors import InputError
from brainseg_jax.models import create_model, layers, pooling


def make(name, start_filters, **changes):
    return create_model({"name": name, "start_filters": start_filters, **changes})


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def conv(inputs, outputs, side, *, bias=True):
    return side * side * inputs * outputs + (outputs if bias else 0)


def unet_parameters(filters):
    """U-Net's parameters from its description, every convolution with a bias."""
    widths = [filters * 2**level for level in range(5)]
    total = conv(1, widths[0], 3) + conv(widths[0], widths[0], 3)
    for narrow, wide in itertools.pairwise(widths):
        total += conv(narrow, wide, 3) + conv(wide, wide, 3)  # down
        total += conv(wide, narrow, 2) + conv(2 * narrow, narrow, 3) + conv(narrow, narrow, 3)  # up
    return total + conv(filters, 1, 1)


def linknet_parameters(filters):
    """LinkNet's parameters from its description, with scale and offset of batch norm, without redundant biases."""

    def normed(inputs, outputs, side):
        return conv(inputs, outputs, side, bias=False) + 2 * outputs

    widths = [filters * 2**stage for stage in range(4)]
    total = normed(1, filters, 7)
    for inputs, outputs in zip([filters, *widths], widths, strict=False):
        total += normed(inputs, outputs, 3) + 3 * normed(outputs, outputs, 3) + conv(inputs, outputs, 1)
    for inputs, outputs in zip(widths, [filters, *widths], strict=False):
        narrow = inputs // 4
        total += normed(inputs, narrow, 1) + normed(narrow, narrow, 3) + normed(narrow, outputs, 1)
    half = filters // 2
    return total + normed(filters, half, 3) + normed(half, half, 3) + normed(half, 1, 2)


@pytest.mark.parametrize(
    ("name", "filters", "by_hand"),
    [
        ("unet", 16, unet_parameters(16)),
        ("unet", 5, unet_parameters(5)),
        ("linknet", 64, linknet_parameters(64)),
        ("linknet", 16, linknet_parameters(16)),
    ],
)
def test_parameter_counts(name, filters, by_hand):
    model = make(name, filters)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 1)))
    assert count(variables["params"]) == by_hand


def test_parameter_counts_of_the_published_networks():
    assert unet_parameters(16) == 1_940_817
    # The published 11,535,267 has a bias in every convolution; 4,961 of them stand right before a batch norm.
    assert linknet_parameters(64) == 11_535_267 - 4_961


@pytest.mark.parametrize("name", ["unet", "linknet"])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (128, 64), (192, 128)])
@pytest.mark.parametrize("filters", [3, 8])
def test_output_shapes(name, height, width, filters):
    model = make(name, filters)
    images = jnp.zeros((2, height, width, 1))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    logits = jax.eval_shape(model.apply, variables, images)
    assert logits.shape == (2, height, width, 1)
    assert logits.dtype == jnp.float32


@pytest.mark.parametrize(("name", "stride"), [("unet", 16), ("linknet", 64)])
def test_sides_must_be_multiples_of_the_stride(name, stride):
    model = make(name, 4)
    assert model.stride == stride
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, stride, 2 * stride, 1)))
    for shape in ((1, stride + 8, stride, 1), (1, stride, stride // 2, 1), (1, 0, stride, 1), (stride, stride, 1)):
        with pytest.raises(ValueError, match=rf"multiples of {stride}|\(B, H, W, C\)"):
            jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))


def ablated(variables, path):
    """The variables with the kernel rows at `path` that read the skip connection set to zero."""
    kernel = variables["params"]
    for name in path:
        kernel = kernel[name]
    half = kernel.shape[2] // 2
    changed = jax.tree.map(lambda leaf: leaf, variables)  # a new tree of the same leaves
    node = changed["params"]
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = kernel.at[:, :, :half].set(0.0)
    return changed


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_every_skip_connection_of_unet_matters(level):
    model = make("unet", 4)
    images = jax.random.uniform(jax.random.key(1), (1, 32, 32, 1))
    variables = model.init(jax.random.key(0), images)
    full = model.apply(variables, images)
    without = model.apply(ablated(variables, [f"up_{level}", "conv_1", "kernel"]), images)
    assert np.abs(full - without).max() > 1e-3

    # The same kernels read the feature map of that level down, not another one: its own gradient passes there even
    # when the way through the levels below is cut.
    def through_skip(images):
        cut = jax.tree.map(lambda leaf: leaf, variables)
        cut["params"][f"up_conv_{level}"]["kernel"] *= 0.0
        return model.apply(cut, images).sum()

    assert np.abs(jax.grad(through_skip)(images)).max() > 0


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_every_skip_connection_of_linknet_matters(stage):
    model = make("linknet", 8)
    images = jax.random.uniform(jax.random.key(1), (2, 64, 64, 1))
    variables = model.init(jax.random.key(0), images)

    def logits(images):
        # The decoder below this stage gives zeros: what is left of the deeper network is the skip connection alone.
        cut = jax.tree.map(lambda leaf: leaf, variables)
        norm = cut["params"][f"decoder_{stage + 1}"]["conv_2"]["norm"]
        norm["scale"], norm["bias"] = norm["scale"] * 0.0, norm["bias"] * 0.0
        return model.apply(cut, images)

    assert np.abs(jax.grad(lambda images: (logits(images) ** 2).sum())(images)).max() > 0
    assert np.abs(logits(images) - logits(images[::-1])).max() > 0


def test_linknet_adds_nothing_at_the_stem():
    model = make("linknet", 8)
    images = jax.random.uniform(jax.random.key(1), (1, 64, 64, 1))
    variables = model.init(jax.random.key(0), images)
    cut = jax.tree.map(lambda leaf: leaf, variables)
    norm = cut["params"]["decoder_1"]["conv_2"]["norm"]
    norm["scale"], norm["bias"] = norm["scale"] * 0.0, norm["bias"] * 0.0
    gradient = jax.grad(lambda images: (model.apply(cut, images) ** 2).sum())(images)
    assert np.abs(gradient).max() == 0


@pytest.mark.parametrize("window", [2, 3])
@pytest.mark.parametrize("values", [4, 10**6])  # many ties, and none
def test_max_pool_equals_the_textbook(window, values):
    inputs = jax.random.randint(jax.random.key(0), (2, 8, 12, 3), 0, values).astype(jnp.float32)
    expected, textbook = jax.vjp(lambda x: nn.max_pool(x, (window, window), (2, 2), "SAME"), inputs)
    outputs, ours = jax.vjp(lambda x: pooling.max_pool(x, window), inputs)
    np.testing.assert_array_equal(outputs, expected)
    np.testing.assert_array_equal(pooling.max_pool(inputs, window), expected)
    weights = jax.random.normal(jax.random.key(1), expected.shape)
    np.testing.assert_allclose(ours(weights)[0], textbook(weights)[0], atol=1e-6)


def test_transposed_convolutions_equal_the_textbook():
    inputs = jax.random.normal(jax.random.key(0), (2, 3, 5, 4))

    small = layers.UpConv2x2(6)
    variables = small.init(jax.random.key(1), inputs)
    variables["params"]["bias"] = jnp.arange(6.0)
    kernel = variables["params"]["kernel"].transpose(1, 2, 0, 3)
    expected = jax.lax.conv_transpose(inputs, kernel[::-1, ::-1], (2, 2), "VALID") + jnp.arange(6.0)
    np.testing.assert_allclose(small.apply(variables, inputs), expected, rtol=1e-5, atol=1e-5)

    large = layers.UpConv3x3(6)
    variables = large.init(jax.random.key(1), inputs)
    expected = jax.lax.conv_transpose(inputs, variables["params"]["kernel"], (2, 2), "SAME")
    np.testing.assert_allclose(large.apply(variables, inputs), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("sides", [(1, 1), (2, 2), (1, 3)])
def test_convolution_to_tiny_maps_equals_the_textbook(stride, sides):
    inputs = jax.random.normal(jax.random.key(0), (3, *(stride * side for side in sides), 5))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 5, 7))
    layout = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    expected = jax.lax.conv_general_dilated(inputs, kernel, (stride, stride), "SAME", **layout)
    assert expected.shape[1:3] == sides
    convolution = functools.partial(layers.convolution, window_strides=(stride, stride), padding="SAME", **layout)
    assert "conv_general_dilated" not in str(jax.make_jaxpr(convolution)(inputs, kernel))
    np.testing.assert_allclose(convolution(inputs, kernel), expected, rtol=1e-5, atol=1e-5)


def test_the_gradient_of_depth_to_space_is_the_inverse_rearrangement():
    blocks = jnp.arange(2.0 * 3 * 5 * 8).reshape(2, 3, 5, 8)
    pixels, pull = jax.vjp(layers.depth_to_space, blocks)
    np.testing.assert_array_equal(pixels[0, 0, :2, 0], blocks[0, 0, 0, [0, 2]])  # a row, channels of 2 features
    np.testing.assert_array_equal(pixels[0, 1, :2, 0], blocks[0, 0, 0, [4, 6]])
    np.testing.assert_array_equal(pull(pixels)[0], blocks)


def test_initial_kernels_are_he_normal():
    params = make("unet", 16).init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)))["params"]
    kernel = params["bottom"]["conv_2"]["kernel"]  # 3×3×256×256
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / (9 * 256)), rel=0.02)
    kernel = params["up_conv_4"]["kernel"]  # 256 inputs to each output value
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / 256), rel=0.02)


@pytest.mark.parametrize("name", ["unet", "linknet"])
def test_bfloat16_computes_close_to_float32_with_float32_parameters(name):
    images = jax.random.uniform(jax.random.key(1), (2, 64, 64, 1))
    full, half = make(name, 8), make(name, 8, dtype="bfloat16")
    variables = half.init(jax.random.key(0), images)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    exact, rounded = full.apply(variables, images), half.apply(variables, images)
    assert rounded.dtype == jnp.float32
    difference = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    assert 0 < difference < 0.05


def test_batch_norm_in_unet_takes_the_place_of_the_biases_and_follows_every_convolution():
    plain, normed = make("unet", 5), make("unet", 5, batch_norm=True)
    shapes = [jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 1))) for model in (plain, normed)]
    channels = sum(2 * 5 * 2**level * (2 if level < 4 else 1) for level in range(5))  # of all 3×3 convolutions
    assert count(shapes[1]["params"]) == unet_parameters(5) - channels + 2 * channels
    assert count(shapes[1]["batch_stats"]) == 2 * channels
    images = jax.random.uniform(jax.random.key(1), (4, 32, 32, 1))
    variables = normed.init(jax.random.key(0), images)
    brighter, _ = normed.apply(variables, 3 * images, train=True, mutable=["batch_stats"])
    logits, updated = normed.apply(variables, images, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(brighter, logits, atol=0.05 * np.abs(logits).max())  # the batch's own scale is taken out
    assert np.abs(updated["batch_stats"]["down_1"]["norm_1"]["mean"]).max() > 0
    assert np.abs(normed.apply(variables, 3 * images) - normed.apply(variables, images)).max() > 0.1


@pytest.mark.parametrize("name", ["unet", "linknet"])
def test_the_prior_moves_the_first_logits_to_its_odds(name):
    images = jax.random.uniform(jax.random.key(1), (4, 64, 64, 1))
    logits = []
    for prior in (0.5, 0.01):
        model = make(name, 4, prior=prior)
        variables = model.init(jax.random.key(0), images)
        logits.append(model.apply(variables, images, train=True, mutable=["batch_stats"])[0])
    np.testing.assert_allclose(logits[1] - logits[0], np.log(0.01 / 0.99), rtol=1e-4)


def test_dropout_is_random_in_training_only():
    model = make("unet", 4, dropout_rate=0.5)
    images = jax.random.uniform(jax.random.key(1), (1, 16, 16, 1))
    variables = model.init(jax.random.key(0), images)
    first, second = (
        model.apply(variables, images, train=True, rngs={"dropout": jax.random.key(key)}) for key in (1, 2)
    )
    assert np.abs(first - second).max() > 0
    np.testing.assert_array_equal(model.apply(variables, images), model.apply(variables, images))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "vnet"}, "config.model.name"),
        ({"start_filters": 0}, "config.model.start_filters"),
        ({"dtype": "float16"}, "config.model.dtype"),
        ({"dropout_rate": 1.0}, "config.model.dropout_rate"),
        ({"name": "linknet", "dropout_rate": 0.2}, "config.model.dropout_rate is no field of LinkNet: leave it out"),
        (
            {"filters": 8},
            "config.model.filters is no field of U-Net: leave it out; the fields of unet are",
        ),
        ({"prior": 0.0}, "config.model.prior"),
        ({"start_filters": "4"}, "config.model.start_filters is '4': set it to a value like its default, 16"),
        ({"start_filters": True}, "config.model.start_filters is True"),
        ({"batch_norm": 1}, "config.model.batch_norm is 1: set it to a value like its default, False"),
        ({"name": []}, r"config.model.name is \[\]"),
    ],
)
def test_bad_settings_are_refused_by_name(changes, field):
    with pytest.raises(InputError, match=field):
        create_model({"name": "unet", "start_filters": 4, **changes})


def test_relu_and_its_gradient_are_those_of_jax():
    inputs = jnp.array([-2.0, -0.0, 0.0, 1e-30, 3.0, jnp.inf, -jnp.inf])
    outputs, pull = jax.vjp(layers.relu, inputs)
    expected, expected_pull = jax.vjp(nn.relu, inputs)
    np.testing.assert_array_equal(outputs, expected)
    factors = jnp.arange(1.0, 8.0)
    np.testing.assert_array_equal(pull(factors)[0], expected_pull(factors)[0])
    assert jnp.isnan(layers.relu(jnp.array([jnp.nan])))  # a training that breaks is seen


def test_a_convolution_to_one_channel_and_its_gradients_are_those_of_jax():
    inputs = jax.random.normal(jax.random.key(0), (3, 4, 5, 6))
    kernel, factors = jax.random.normal(jax.random.key(1), (1, 1, 6, 1)), jnp.arange(60.0).reshape(3, 4, 5, 1)
    layout = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    expected, expected_pull = jax.vjp(
        lambda *of: jax.lax.conv_general_dilated(*of, (1, 1), "SAME", **layout), inputs, kernel
    )
    outputs, pull = jax.vjp(lambda *of: layers.to_one_channel(*of, (1, 1), "SAME", **layout), inputs, kernel)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
    for ours, other in zip(pull(factors), expected_pull(factors), strict=True):
        assert ours.shape == other.shape
        np.testing.assert_allclose(ours, other, rtol=1e-4, atol=1e-3)
