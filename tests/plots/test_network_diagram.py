"""Diagrams of networks: small, reproducible files that follow the code."""

from pathlib import Path

import pytest
from flax import linen as nn
from jax import Array
from PIL import Image

from brainseg_jax.models import LinkNet, UNet
from brainseg_jax.plots.network_diagram import draw_network
from tests.plots.test_network_graph import Small


def test_a_skip_connection_within_the_encoder_is_refused(tmp_path: Path) -> None:
    class Residual(nn.Module):
        @nn.compact
        def __call__(self, images: Array) -> Array:
            first = nn.Conv(4, (3, 3), name="first")(images)
            second = nn.Conv(4, (3, 3), name="second")(first)
            return nn.Conv(1, (1, 1), (2, 2), name="third")(first + second)

    with pytest.raises(ValueError, match="first → third"):
        draw_network(Residual(), tmp_path / "a.png", image_size=8, title="a")


class ShallowUNet(UNet):
    """A U-Net of two levels."""

    levels = 2


@pytest.mark.parametrize("model", [UNet(start_filters=2), ShallowUNet(), LinkNet(start_filters=4), Small("none")])
def test_drawings_are_small_files_with_the_same_bytes_each_time(model: nn.Module, tmp_path: Path) -> None:
    first, second = tmp_path / "folder" / "first.png", tmp_path / "second.png"
    for path in (first, second):
        draw_network(model, path, image_size=64, title="A network")
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size < 500_000
    with Image.open(first) as image:
        assert image.format == "PNG"
        assert image.width >= 900


def test_a_changed_network_changes_its_drawing(tmp_path: Path) -> None:
    models = {"two": UNet(start_filters=2), "four": UNet(start_filters=4), "shallow": ShallowUNet(start_filters=2)}
    for name, model in models.items():
        draw_network(model, tmp_path / name, image_size=64, title="U-Net")
    assert len({(tmp_path / name).read_bytes() for name in models}) == 3
