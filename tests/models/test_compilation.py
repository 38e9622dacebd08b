"""With which options the steps are compiled."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from flax import linen as nn

from brainseg_jax.config import get_config
from brainseg_jax.data.loaders import DeviceLoader
from brainseg_jax.models import LinkNet, Network, UNet, compilation
from brainseg_jax.models.compilation import DETERMINISTIC, ONEDNN, compiler_options
from brainseg_jax.studies.benchmark.ours import random_slices
from brainseg_jax.training.setup import make_steps, setup_training


class OneLayer(Network):
    """A single convolution to the logits."""

    title = "One layer"
    stride = 1
    side: int = 1
    outputs: int = 1
    repeated: bool = False

    @nn.compact
    def compute_logits(self, images, *, train):
        layer = nn.remat(nn.Conv) if self.repeated else nn.Conv
        hidden = jnp.concatenate([images, images], axis=-1)
        return layer(self.outputs, (self.side, self.side), dtype=self.dtype)(hidden)[..., :1]


@pytest.fixture
def with_onednn(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(compilation, "has_onednn", lambda: True)


@pytest.mark.parametrize(
    ("dtype", "size", "batch", "expected"),
    [
        (jnp.float32, 64, {}, {ONEDNN: True}),
        (jnp.float32, 256, {}, {ONEDNN: True}),
        (jnp.float32, 320, {}, {}),
        (jnp.float32, 256, {"batch_size": 10}, {}),
        (jnp.float32, 128, {"batch_size": 32}, {ONEDNN: True}),
        (jnp.float32, 512, {"batch_size": 2}, {ONEDNN: True}),
        (jnp.bfloat16, 320, {"batch_size": 10}, {ONEDNN: True}),
    ],
)
@pytest.mark.parametrize("network", [UNet, LinkNet])
def test_onednn_computes_convolutions_where_it_is_faster(with_onednn, network, dtype, size, batch, expected):
    assert compiler_options(network(start_filters=16, dtype=dtype), image_size=size, **batch) == expected


def test_onednn_is_left_out_of_loops_and_where_the_user_decides(with_onednn, monkeypatch):
    assert compiler_options(UNet(), image_size=32, steps_per_call=1) == {ONEDNN: True}
    assert compiler_options(UNet(), image_size=32, steps_per_call=2) == {}
    monkeypatch.setenv("XLA_FLAGS", f"--{ONEDNN}=false")
    assert compiler_options(UNet(), image_size=32) == {}


@pytest.mark.parametrize("repeated", [False, True])
def test_onednn_is_turned_off_for_a_layer_whose_gradient_it_computes_wrongly(with_onednn, repeated):
    assert compiler_options(OneLayer(repeated=repeated), image_size=32) == {ONEDNN: False}
    assert compiler_options(OneLayer(repeated=repeated, dtype=jnp.bfloat16), image_size=32) == {ONEDNN: True}
    assert compiler_options(OneLayer(repeated=repeated, side=3), image_size=32) == {ONEDNN: True}
    assert compiler_options(OneLayer(repeated=repeated, outputs=2), image_size=32) == {ONEDNN: True}


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (compilation.sys, "platform", "darwin"),
        (compilation.platform, "machine", lambda: "arm64"),
        (compilation.jaxlib, "__version__", "0.10.2"),
        (compilation.jaxlib, "__version__", "0.13.0"),
        (compilation.jax, "default_backend", lambda: "gpu"),
        (compilation.Path, "read_text", lambda path: "flags : avx2 avx512f"),
    ],
)
def test_onednn_is_used_only_where_it_was_measured(monkeypatch, module, name, value):
    monkeypatch.setattr(compilation.sys, "platform", "linux")
    monkeypatch.setattr(compilation.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(compilation.jaxlib, "__version__", "0.12.0.1")
    monkeypatch.setattr(compilation.jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(compilation.Path, "read_text", lambda path: "flags : avx512f avx512_bf16")
    has_onednn = compilation.has_onednn.__wrapped__  # without its cache
    assert has_onednn()
    monkeypatch.setattr(module, name, value)
    assert not has_onednn()


def test_a_fixed_order_on_a_gpu_is_asked_for():
    assert compiler_options(UNet(), image_size=512, deterministic=True) == {DETERMINISTIC: True}


@pytest.mark.skipif(not compilation.has_onednn(), reason="needs jaxlib 0.12 and a CPU with bfloat16 instructions")
@pytest.mark.parametrize(("network", "size"), [("unet", 32), ("linknet", 128)])
def test_steps_with_onednn_learn_the_same(network, size, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS")  # in which the tests do without
    config = get_config()
    config.model = ml_collections.ConfigDict({"name": network, "start_filters": 8})
    config.data.image_size, config.train.batch_size = size, 8  # few values in batch norm magnify rounding
    training = setup_training(config, steps_per_epoch=1)
    rows = np.arange(8, dtype=np.int32)[None]
    (batches,) = DeviceLoader(random_slices(8, size), training.mesh).iterate(rows, steps_per_call=1)
    programs, results = {}, {}
    for used in (True, False):
        monkeypatch.setattr(compilation, "has_onednn", lambda used=used: used)
        step, _ = make_steps(config, training.model, training.optimizer)
        compiled = step.lower(training.state, batches).compile()
        programs[used] = compiled.as_text()
        state, metrics = compiled(jax.tree.map(jnp.copy, training.state), batches)
        again, _ = compiled(jax.tree.map(jnp.copy, training.state), batches)
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), jax.device_get(again))
        results[used] = jax.tree.leaves((metrics, state.opt_state))  # Adam's moments are the gradients, scaled
    assert "__onednn$convolution" in programs[True]
    assert "__onednn$convolution" not in programs[False]
    for with_it, without in zip(results[True], results[False], strict=True):
        np.testing.assert_allclose(with_it, without, rtol=1e-3, atol=1e-3 * float(np.abs(without).max()))
