"""How to add a network, as CONTRIBUTING.md says: its file, a line in `MODELS`, a config; it trains and predicts."""

import importlib.util
import json

import numpy as np
import pytest

from brainseg_jax.config import load_config
from brainseg_jax.evaluation.evaluate import evaluate
from brainseg_jax.inference.predictor import Predictor
from brainseg_jax.models import MODELS, Network
from brainseg_jax.training.loop import train_and_evaluate

NETWORK = '''
"""A network of two convolutions."""

from typing import ClassVar

from flax import linen as nn
from jax import Array

from brainseg_jax.models.layers import Network


class TwoLayers(Network):
    """A 3×3 convolution, a ReLU and another one."""

    title: ClassVar[str] = "Two layers"
    stride: ClassVar[int] = 1

    @nn.compact
    def compute_logits(self, images: Array, *, train: bool) -> Array:
        hidden = nn.relu(nn.Conv(self.start_filters, (3, 3), dtype=self.dtype)(images))
        return nn.Conv(1, (3, 3), dtype=self.dtype)(hidden)
'''
CONFIG = """
import ml_collections

from brainseg_jax.config import get_config as get_defaults


def get_config():
    config = get_defaults()
    config.model = ml_collections.ConfigDict({"name": "two_layers", "start_filters": 4, "dtype": "float32"})
    config.data.dataset = "phantom"
    config.data.image_size = 32
    config.split.protocol = "family"
    config.train.epochs = 1
    return config
"""


def test_a_new_network_is_a_file_a_line_and_a_config(tmp_path, monkeypatch, data_dir):
    (tmp_path / "two_layers.py").write_text(NETWORK)
    spec = importlib.util.spec_from_file_location("two_layers", tmp_path / "two_layers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(MODELS, "two_layers", module.TwoLayers)
    (tmp_path / "config.py").write_text(CONFIG)
    config = load_config(tmp_path / "config.py")
    config.data.data_dir = str(data_dir)

    train_and_evaluate(config, tmp_path / "run")
    evaluate(tmp_path / "run", split="test", output=tmp_path / "run", examples=0)
    assert json.loads((tmp_path / "run" / "evaluation_test.json").read_text())["network"] == "two_layers"
    (mask,) = Predictor.from_workdir(tmp_path / "run").masks([np.zeros((40, 50))])
    assert mask.shape == (40, 50)


def test_a_network_without_title_or_stride_is_refused_when_it_is_defined():
    with pytest.raises(TypeError, match="Untitled has no title: every network says its title and its stride"):

        class Untitled(Network):
            pass


def test_every_network_has_what_the_others_rely_on():
    for name, network in MODELS.items():
        assert network.title, name
        assert network.stride >= 1
        assert network(start_filters=2).start_filters == 2
