"""Both networks against their description in NumPy: every layer written as a sum over the taps of its kernel.

Nothing here calls the networks' own layers. Maps are (B, H, W, C); a convolution is padded to keep its side, or half of
it; if the padding is odd, the extra pixel is at the end, as with XLA's "SAME".
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brainseg_jax.models import LinkNet, UNet

EPSILON, MOMENTUM = 1e-5, 0.9  # of batch norm


@dataclasses.dataclass
class Norms:
    """Batch norm with running statistics or, where it trains, the batch's; and what the running ones become."""

    train: bool
    updated: dict = dataclasses.field(default_factory=dict)

    def __call__(self, path, params, statistics, values):
        mean, variance = statistics["mean"], statistics["var"]
        if self.train:
            batch_mean, batch_variance = values.mean((0, 1, 2)), values.var((0, 1, 2))
            self.updated[path] = [
                MOMENTUM * old + (1 - MOMENTUM) * new for old, new in ((mean, batch_mean), (variance, batch_variance))
            ]
            mean, variance = batch_mean, batch_variance
        return (values - mean) / np.sqrt(variance + EPSILON) * params["scale"] + params["bias"]


def relu(values):
    return np.maximum(values, 0)


def windows(values, side, stride, *, beyond):
    """For each tap of a window: (row of the tap, column, the pixels below it for all places of the window)."""
    outputs = [length // stride for length in values.shape[1:3]]
    margins = [(0, 0), (0, 0), (0, 0), (0, 0)]
    for axis, (length, output) in enumerate(zip(values.shape[1:3], outputs, strict=True), start=1):
        total = max((output - 1) * stride + side - length, 0)
        margins[axis] = (total // 2, total - total // 2)
    padded = np.pad(values, margins, constant_values=beyond)
    for row in range(side):
        for column in range(side):
            rows = slice(row, row + (outputs[0] - 1) * stride + 1, stride)
            columns = slice(column, column + (outputs[1] - 1) * stride + 1, stride)
            yield row, column, padded[:, rows, columns]


def conv(params, values, stride=1):
    """A convolution with a kernel (rows, columns, in, out) and a bias where there is one."""
    kernel = params["kernel"]
    taps = windows(values, kernel.shape[0], stride, beyond=0.0)
    return sum(below @ kernel[row, column] for row, column, below in taps) + params.get("bias", 0.0)


def pool(values, side):
    """The largest value of each window, with stride 2."""
    return np.max([below for _, _, below in windows(values, side, 2, beyond=-np.inf)], axis=0)


def up_conv_3x3(params, values):
    """Each pixel (i, j) adds to the 3×3 pixels from (2i, 2j) on, with the kernel's last tap first; no bias.

    What falls behind the last row and column is cut. This is `flax.linen.ConvTranspose` with stride 2 and its kernel
    as it is stored.
    """
    kernel = params["kernel"]
    batch, height, width, _ = values.shape
    outputs = np.zeros((batch, 2 * height + 1, 2 * width + 1, kernel.shape[-1]))
    for row in range(3):
        for column in range(3):
            down, right = 2 - row, 2 - column
            outputs[:, down : down + 2 * height : 2, right : right + 2 * width : 2] += values @ kernel[row, column]
    return outputs[:, :-1, :-1]


def up_conv_2x2(params, values):
    """Each pixel (i, j) alone makes the 2×2 pixels from (2i, 2j) on; kernel (in, rows, columns, out)."""
    kernel = params["kernel"]
    batch, height, width, _ = values.shape
    outputs = np.zeros((batch, 2 * height, 2 * width, kernel.shape[-1]))
    for row in range(2):
        for column in range(2):
            outputs[:, row::2, column::2] = values @ kernel[:, row, column]
    return outputs + params.get("bias", 0.0)


def numpy_linknet(variables, images, norm):
    """LinkNet: stem, four stages of two residual blocks, decoders whose outputs are added to the stages, the end."""
    params, statistics = variables["params"], variables["batch_stats"]

    def normed(path, layer, values, *arguments):
        ours, theirs = params, statistics
        for name in path.split("/"):
            ours, theirs = ours[name], theirs[name]
        convolution = ours if path == "logits" else ours["conv"]
        return norm(path, ours["norm"], theirs["norm"], layer(convolution, values, *arguments))

    def residual(name, values, stride):
        hidden = relu(normed(f"{name}/conv_1", conv, values, stride))
        hidden = normed(f"{name}/conv_2", conv, hidden)
        shortcut = conv(params[name]["shortcut"], values, stride) if stride == 2 else values
        return relu(hidden + shortcut)

    def decoder(name, values):
        hidden = relu(normed(f"{name}/conv_1", conv, values))
        hidden = relu(normed(f"{name}/up_conv", up_conv_3x3, hidden))
        return relu(normed(f"{name}/conv_2", conv, hidden))

    hidden = pool(relu(normed("stem", conv, images, 2)), 3)
    stages = {}
    for stage in (1, 2, 3, 4):
        hidden = residual(f"encoder_{stage}_2", residual(f"encoder_{stage}_1", hidden, 2), 1)
        stages[stage] = hidden
    for stage in (4, 3, 2):
        hidden = decoder(f"decoder_{stage}", hidden) + stages[stage - 1]
    hidden = decoder("decoder_1", hidden)
    hidden = relu(normed("end_1", up_conv_3x3, hidden))
    hidden = relu(normed("end_2", conv, hidden))
    logits = up_conv_2x2(params["logits"], hidden)
    return norm("norm", params["norm"], statistics["norm"], logits)


def numpy_unet(variables, images, norm):
    """U-Net: two convolutions a level, a pooling after each of four, the same way up with the levels concatenated."""
    params, statistics = variables["params"], variables.get("batch_stats", {})

    def double(name, values):
        for number in (1, 2):
            values = conv(params[name][f"conv_{number}"], values)
            if statistics:
                layer = f"norm_{number}"
                values = norm(f"{name}/{layer}", params[name][layer], statistics[name][layer], values)
            values = relu(values)
        return values

    levels, hidden = {}, images
    for level in (1, 2, 3, 4):
        levels[level] = double(f"down_{level}", hidden)
        hidden = pool(levels[level], 2)
    hidden = double("bottom", hidden)
    for level in (4, 3, 2, 1):
        hidden = up_conv_2x2(params[f"up_conv_{level}"], hidden)
        hidden = double(f"up_{level}", np.concatenate([levels[level], hidden], axis=-1))
    return conv(params["logits"], hidden)


def random_variables(model, shape):
    """Variables of a network in float64: kernels as large as He's, everything else such that nothing cancels."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        if name == "kernel":
            return rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape)
        if name in ("scale", "var"):
            return rng.uniform(0.5, 1.5, leaf.shape)
        return rng.normal(0, 0.3, leaf.shape)

    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))
    return jax.tree.map_with_path(draw, shapes)


NETWORKS = {
    "unet": (UNet(start_filters=4), numpy_unet, (2, 32, 48, 1)),
    "unet_with_batch_norm": (UNet(start_filters=4, batch_norm=True), numpy_unet, (2, 32, 48, 1)),
    "linknet": (LinkNet(start_filters=4), numpy_linknet, (2, 64, 128, 1)),
}


def assert_close(ours, theirs, *, share):
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.1 * np.abs(theirs).mean()  # or one value would do
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=share * np.abs(theirs).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_those_of_the_description_in_numpy(name):
    model, description, shape = NETWORKS[name]
    variables = random_variables(model, shape)
    images = np.random.default_rng(1).random(shape)
    ours = jax.jit(model.apply)(jax.tree.map(np.float32, variables), np.float32(images))
    assert_close(ours, description(variables, images, Norms(train=False)), share=1e-4)


@pytest.mark.parametrize("name", ["unet_with_batch_norm", "linknet"])
def test_in_training_batch_norm_takes_the_batchs_statistics_and_a_tenth_of_them_joins_the_running_ones(name):
    model, description, shape = NETWORKS[name]
    shape = (4, *shape[1:])  # the deepest maps of LinkNet have one pixel a slice
    variables = random_variables(model, shape)
    images = np.random.default_rng(1).random(shape)
    train = jax.jit(lambda variables, images: model.apply(variables, images, train=True, mutable=["batch_stats"]))
    ours, updated = train(jax.tree.map(np.float32, variables), np.float32(images))
    norms = Norms(train=True)
    assert_close(ours, description(variables, images, norms), share=1e-3)
    assert 2 * len(norms.updated) == len(jax.tree.leaves(updated))
    for path, expected in norms.updated.items():
        found = updated["batch_stats"]
        for part in path.split("/"):
            found = found[part]
        found = found.get("norm", found)
        for ours, theirs in zip((found["mean"], found["var"]), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
