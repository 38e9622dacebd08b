"""Dropout: every level of U-Net drops the share that its rate says, in training only, and makes up for it."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from brainseg_jax.models import UNet
from brainseg_jax.models.unet import DoubleConv


def test_a_level_drops_its_share_between_its_convolutions_and_makes_up_for_it():
    rate = 0.2
    level = DoubleConv(8, dropout_rate=rate)
    # The first convolution gives ones; the second passes its middle pixel on.
    middle = np.zeros((3, 3, 8, 8), np.float32)
    middle[1, 1] = np.eye(8)
    first = {"kernel": np.zeros((3, 3, 1, 8), np.float32), "bias": np.ones(8, np.float32)}
    params = {"conv_1": first, "conv_2": {"kernel": middle, "bias": np.zeros(8, np.float32)}}
    apply = jax.jit(
        lambda key: level.apply({"params": params}, jnp.zeros((4, 32, 32, 1)), train=True, rngs={"dropout": key})
    )
    values = np.asarray(apply(jax.random.key(0)))
    kept = values != 0
    np.testing.assert_allclose(values[kept], 1 / (1 - rate), rtol=1e-5)  # the mean stays 1
    # Four standard deviations of a binomial of 32768.
    assert abs(1 - kept.mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / kept.size)
    assert 0 < kept[0, 0, 0].mean() < 1  # value by value, not pixel by pixel or slice by slice
    assert len({slice_.tobytes() for slice_ in kept}) == 4


def test_all_nine_levels_drop_in_training_and_none_when_masks_are_made():
    model = UNet(start_filters=2, dropout_rate=0.2)
    images = jnp.zeros((1, 16, 16, 1))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    for train in (True, False):
        found = []

        def look(call, arguments, settings, context, found=found):
            if isinstance(context.module, nn.Dropout):
                found.append((context.module.rate, context.module.deterministic))
            return call(*arguments, **settings)

        def apply(variables, images, train=train):
            return model.apply(variables, images, train=train, rngs={"dropout": jax.random.key(0)})

        with nn.intercept_methods(look):
            jax.eval_shape(apply, variables, images)
        assert found == 9 * [(0.2, not train)]  # four down, the bottom, four up
