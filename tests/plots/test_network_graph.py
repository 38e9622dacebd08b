"""Graphs of networks: blocks, parameters and connections equal those derived by hand."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from jax import Array

from brainseg_jax.models import LinkNet, UNet
from brainseg_jax.plots.network_graph import Edge, NetworkGraph, trace_network


def total_parameters(model: nn.Module, *, image_size: int) -> int:
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, image_size, image_size, 1)))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def double_conv(inputs: int, features: int) -> int:
    """Two 3×3 convolutions with biases."""
    return 9 * inputs * features + features + 9 * features * features + features


def residual(inputs: int, features: int) -> int:
    """Two 3×3 convolutions with norm (scale and shift); a 1×1 shortcut with bias where the block halves the sides."""
    return 9 * inputs * features + 9 * features**2 + 4 * features


def decoder(inputs: int, features: int) -> int:
    """1×1, 3×3 and 1×1 convolutions with norm, a quarter of the channels between them."""
    narrow = inputs // 4
    return inputs * narrow + 9 * narrow**2 + narrow * features + 4 * narrow + 2 * features


def as_table(network: NetworkGraph) -> dict[str, tuple[tuple[int, int, int], int]]:
    return {block.name: (block.shape, block.parameters) for block in network.blocks}


@pytest.mark.parametrize("filters", [4, 16])
def test_unet_has_the_blocks_that_its_definition_gives(filters: int) -> None:
    f = filters
    network = trace_network(UNet(start_filters=f), image_size=64)
    assert as_table(network) == {
        "input": ((64, 64, 1), 0),
        "down_1": ((64, 64, f), double_conv(1, f)),
        "down_2": ((32, 32, 2 * f), double_conv(f, 2 * f)),
        "down_3": ((16, 16, 4 * f), double_conv(2 * f, 4 * f)),
        "down_4": ((8, 8, 8 * f), double_conv(4 * f, 8 * f)),
        "bottom": ((4, 4, 16 * f), double_conv(8 * f, 16 * f)),
        "up_conv_4": ((8, 8, 8 * f), 4 * 16 * f * 8 * f + 8 * f),
        "up_4": ((8, 8, 8 * f), double_conv(16 * f, 8 * f)),
        "up_conv_3": ((16, 16, 4 * f), 4 * 8 * f * 4 * f + 4 * f),
        "up_3": ((16, 16, 4 * f), double_conv(8 * f, 4 * f)),
        "up_conv_2": ((32, 32, 2 * f), 4 * 4 * f * 2 * f + 2 * f),
        "up_2": ((32, 32, 2 * f), double_conv(4 * f, 2 * f)),
        "up_conv_1": ((64, 64, f), 4 * 2 * f * f + f),
        "up_1": ((64, 64, f), double_conv(2 * f, f)),
        "logits": ((64, 64, 1), f + 1),
    }
    assert network.parameters == total_parameters(UNet(start_filters=f), image_size=64)


def test_linknet_has_the_blocks_that_its_definition_gives() -> None:
    f = 8
    network = trace_network(LinkNet(start_filters=f), image_size=128)
    assert as_table(network) == {
        "input": ((128, 128, 1), 0),
        "stem": ((64, 64, f), 49 * f + 2 * f),
        "encoder_1_1": ((16, 16, f), residual(f, f) + f * f + f),
        "encoder_1_2": ((16, 16, f), residual(f, f)),
        "encoder_2_1": ((8, 8, 2 * f), residual(f, 2 * f) + f * 2 * f + 2 * f),
        "encoder_2_2": ((8, 8, 2 * f), residual(2 * f, 2 * f)),
        "encoder_3_1": ((4, 4, 4 * f), residual(2 * f, 4 * f) + 2 * f * 4 * f + 4 * f),
        "encoder_3_2": ((4, 4, 4 * f), residual(4 * f, 4 * f)),
        "encoder_4_1": ((2, 2, 8 * f), residual(4 * f, 8 * f) + 4 * f * 8 * f + 8 * f),
        "encoder_4_2": ((2, 2, 8 * f), residual(8 * f, 8 * f)),
        "decoder_4": ((4, 4, 4 * f), decoder(8 * f, 4 * f)),
        "decoder_3": ((8, 8, 2 * f), decoder(4 * f, 2 * f)),
        "decoder_2": ((16, 16, f), decoder(2 * f, f)),
        "decoder_1": ((32, 32, f), decoder(f, f)),
        "end_1": ((64, 64, f // 2), 9 * f * f // 2 + f),
        "end_2": ((64, 64, f // 2), 9 * f // 2 * f // 2 + f),
        "logits": ((128, 128, 1), 4 * f // 2),
        "norm": ((128, 128, 1), 2),
    }
    assert network.parameters == total_parameters(LinkNet(start_filters=f), image_size=128)


def test_unet_concatenates_each_level_down_with_the_level_up_of_its_size() -> None:
    network = trace_network(UNet(start_filters=2), image_size=32)
    assert set(network.skips) == {Edge(f"down_{level}", f"up_{level}", ("concatenate",)) for level in (1, 2, 3, 4)}
    pooled = {(edge.source, edge.target) for edge in network.edges if "max pool" in edge.operations}
    assert pooled == {("down_1", "down_2"), ("down_2", "down_3"), ("down_3", "down_4"), ("down_4", "bottom")}


def test_linknet_adds_each_encoder_to_what_enters_the_next_decoder() -> None:
    network = trace_network(LinkNet(start_filters=4), image_size=64)
    assert set(network.skips) == {Edge(f"encoder_{stage}_2", f"decoder_{stage}", ("add",)) for stage in (1, 2, 3)}
    pooled = {(edge.source, edge.target) for edge in network.edges if "max pool" in edge.operations}
    assert pooled == {("stem", "encoder_1_1")}


class Small(nn.Module):
    """An encoder and a decoder of one stage; `way` says how the skip connection enters."""

    way: str

    @nn.compact
    def __call__(self, images: Array) -> Array:
        first = nn.Conv(4, (3, 3), name="first")(images)
        low = nn.Conv(4, (3, 3), name="low")(nn.max_pool(first, (2, 2), strides=(2, 2)))
        up = nn.ConvTranspose(4, (2, 2), (2, 2), name="up")(low)
        if self.way == "add":
            up = up + first
        elif self.way == "concatenate":
            up = jnp.concatenate([first, up], axis=-1)
        elif self.way == "multiply":
            up = up * first
        elif self.way == "broadcast":
            up = up + first.mean(axis=(1, 2), keepdims=True)
        elif self.way == "own parameter":
            up = up * self.param("scale", nn.initializers.ones, (4,))
        last = nn.Conv(1, (1, 1), name="last")
        return last(up) + last(first) if self.way == "twice" else last(up)


@pytest.mark.parametrize("way", ["add", "concatenate"])
def test_the_trace_tells_how_a_skip_connection_enters(way: str) -> None:
    assert trace_network(Small(way), image_size=8).skips == (Edge("first", "last", (way,)),)


def test_without_skip_connection_there_is_none() -> None:
    network = trace_network(Small("none"), image_size=8)
    assert network.skips == ()
    assert [(edge.source, edge.target, edge.operations) for edge in network.edges] == [
        ("input", "first", ()),
        ("first", "low", ("max pool",)),
        ("low", "up", ()),
        ("up", "last", ()),
    ]


@pytest.mark.parametrize(
    ("way", "message"),
    [("multiply", "meet in mul"), ("broadcast", "meet in add"), ("own parameter", "parameters"), ("twice", "twice")],
)
def test_networks_that_a_diagram_would_misrepresent_are_refused(way: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trace_network(Small(way), image_size=8)
