"""The same two networks in PyTorch, layer for layer, as the reference of the benchmark.

Written as a PyTorch user would write them, with PyTorch's own layers; images and feature maps are NCHW.
"""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional


def double_conv(channels: int, features: int) -> nn.Sequential:
    """Returns two 3×3 convolutions, each followed by a ReLU: (B, C, H, W) to (B, features, H, W)."""
    first, second = (nn.Conv2d(inputs, features, 3, padding=1) for inputs in (channels, features))
    return nn.Sequential(first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True))


def conv_norm(channels: int, features: int, size: int = 3, stride: int = 1, *, up: bool = False) -> nn.Sequential:
    """Returns a convolution without bias, transposed and doubling both sides if `up`, batch norm and a ReLU."""
    conv: nn.Module
    if up:
        conv = nn.ConvTranspose2d(channels, features, size, stride=2, padding=1, output_padding=1, bias=False)
    else:
        conv = nn.Conv2d(channels, features, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(features), nn.ReLU(inplace=True))


class UNet(nn.Module):
    """`brainseg_jax.models.unet.UNet`: images (B, 1, H, W) in [0, 1] to logits (B, 1, H, W)."""

    def __init__(self, start_filters: int) -> None:  # noqa: D107
        super().__init__()
        widths = [start_filters * 2**level for level in range(5)]
        self.down = nn.ModuleList(double_conv(*pair) for pair in itertools.pairwise([1, *widths]))
        self.up_conv = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in widths[3::-1])
        self.up = nn.ModuleList(double_conv(2 * width, width) for width in widths[3::-1])
        self.logits = nn.Conv2d(start_filters, 1, 1)

    def forward(self, hidden: Tensor) -> Tensor:  # noqa: D102
        skips: list[Tensor] = []
        for block in self.down:
            hidden = block(functional.max_pool2d(hidden, 2) if skips else hidden)
            skips.append(hidden)
        hidden = skips.pop()
        for up_conv, block in zip(self.up_conv, self.up, strict=True):
            hidden = block(torch.cat([skips.pop(), up_conv(hidden)], 1))
        return self.logits(hidden)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut, ReLU after the addition."""

    def __init__(self, channels: int, features: int, stride: int = 1) -> None:  # noqa: D107
        super().__init__()
        self.convs = nn.Sequential(
            conv_norm(channels, features, 3, stride),
            nn.Conv2d(features, features, 3, padding=1, bias=False),
            nn.BatchNorm2d(features),
        )
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(channels, features, 1, stride)

    def forward(self, inputs: Tensor) -> Tensor:  # noqa: D102
        return functional.relu(self.convs(inputs) + self.shortcut(inputs))


def decoder_block(channels: int, features: int) -> nn.Sequential:
    """Returns 1×1 to a quarter of the channels, 3×3 transposed (doubles both sides), 1×1 to `features` channels."""
    narrow = max(channels // 4, 1)
    layers = conv_norm(channels, narrow, 1), conv_norm(narrow, narrow, up=True), conv_norm(narrow, features, 1)
    return nn.Sequential(*layers)


class LinkNet(nn.Module):
    """`brainseg_jax.models.linknet.LinkNet`: images (B, 1, H, W) in [0, 1] to logits (B, 1, H, W)."""

    def __init__(self, start_filters: int) -> None:  # noqa: D107
        super().__init__()
        pairs = list(itertools.pairwise([start_filters, *(start_filters * 2**stage for stage in range(4))]))
        self.stem = conv_norm(1, start_filters, 7, 2)
        self.encoders = nn.ModuleList(
            nn.Sequential(ResidualBlock(channels, width, 2), ResidualBlock(width, width)) for channels, width in pairs
        )
        self.decoders = nn.ModuleList(decoder_block(width, channels) for channels, width in reversed(pairs))
        narrow = max(start_filters // 2, 1)
        self.end = nn.Sequential(
            conv_norm(start_filters, narrow, up=True),
            conv_norm(narrow, narrow),
            nn.ConvTranspose2d(narrow, 1, 2, stride=2, bias=False),
            nn.BatchNorm2d(1),
        )

    def forward(self, hidden: Tensor) -> Tensor:  # noqa: D102
        hidden = functional.max_pool2d(self.stem(hidden), 3, stride=2, padding=1)
        skips = []
        for encoder in self.encoders:
            hidden = encoder(hidden)
            skips.append(hidden)
        hidden = self.decoders[0](skips.pop())
        for decoder in self.decoders[1:]:
            hidden = decoder(hidden + skips.pop())
        return self.end(hidden)


NETWORKS: dict[str, type[UNet] | type[LinkNet]] = {"unet": UNet, "linknet": LinkNet}
