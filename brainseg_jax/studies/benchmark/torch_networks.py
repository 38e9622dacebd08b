"""The same two networks in PyTorch, layer for layer, as the reference of the benchmark.

Written as a PyTorch user would write them, with PyTorch's own layers; images and feature maps are NCHW.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class DoubleConv(nn.Sequential):
    """Two 3×3 convolutions, each followed by a ReLU: (B, C, H, W) to (B, features, H, W)."""

    def __init__(self, channels: int, features: int) -> None:  # noqa: D107
        super().__init__(
            nn.Conv2d(channels, features, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(features, features, 3, padding=1),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """`brainseg_jax.models.unet.UNet`: images (B, 1, H, W) in [0, 1] to logits (B, 1, H, W)."""

    def __init__(self, start_filters: int) -> None:  # noqa: D107
        super().__init__()
        widths = [start_filters * 2**level for level in range(5)]
        inputs = [1, *widths[:-2]]
        self.down = nn.ModuleList(DoubleConv(*pair) for pair in zip(inputs, widths[:-1], strict=True))
        self.bottom = DoubleConv(widths[3], widths[4])
        self.up_conv = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in widths[3::-1])
        self.up = nn.ModuleList(DoubleConv(2 * width, width) for width in widths[3::-1])
        self.logits = nn.Conv2d(start_filters, 1, 1)

    def forward(self, hidden: Tensor) -> Tensor:  # noqa: D102
        skips = []
        for block in self.down:
            hidden = block(hidden)
            skips.append(hidden)
            hidden = functional.max_pool2d(hidden, 2)
        hidden = self.bottom(hidden)
        for up_conv, block in zip(self.up_conv, self.up, strict=True):
            hidden = block(torch.cat([skips.pop(), up_conv(hidden)], 1))
        return self.logits(hidden)


class ConvNorm(nn.Sequential):
    """A convolution without bias, batch norm and an optional ReLU."""

    def __init__(self, channels: int, features: int, kernel_size: int = 3, stride: int = 1, relu: bool = True) -> None:  # noqa: D107
        super().__init__(
            nn.Conv2d(channels, features, kernel_size, stride, padding=kernel_size // 2, bias=False),
            nn.BatchNorm2d(features),
            *([nn.ReLU(inplace=True)] if relu else []),
        )


class UpConvNorm(nn.Sequential):
    """A 3×3 transposed convolution that doubles both sides, batch norm and a ReLU."""

    def __init__(self, channels: int, features: int) -> None:  # noqa: D107
        super().__init__(
            nn.ConvTranspose2d(channels, features, 3, stride=2, padding=1, output_padding=1, bias=False),
            nn.BatchNorm2d(features),
            nn.ReLU(inplace=True),
        )


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut, ReLU after the addition."""

    def __init__(self, channels: int, features: int, stride: int = 1) -> None:  # noqa: D107
        super().__init__()
        self.convs = nn.Sequential(
            ConvNorm(channels, features, stride=stride), ConvNorm(features, features, relu=False)
        )
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(channels, features, 1, stride)

    def forward(self, inputs: Tensor) -> Tensor:  # noqa: D102
        return functional.relu(self.convs(inputs) + self.shortcut(inputs))


class DecoderBlock(nn.Sequential):
    """1×1 to a quarter of the channels, 3×3 transposed (doubles both sides), 1×1 to `features` channels."""

    def __init__(self, channels: int, features: int) -> None:  # noqa: D107
        narrow = max(channels // 4, 1)
        super().__init__(ConvNorm(channels, narrow, 1), UpConvNorm(narrow, narrow), ConvNorm(narrow, features, 1))


class LinkNet(nn.Module):
    """`brainseg_jax.models.linknet.LinkNet`: images (B, 1, H, W) in [0, 1] to logits (B, 1, H, W)."""

    def __init__(self, start_filters: int) -> None:  # noqa: D107
        super().__init__()
        widths = [start_filters * 2**stage for stage in range(4)]
        inputs = [start_filters, *widths[:-1]]
        self.stem = ConvNorm(1, start_filters, 7, 2)
        self.encoders = nn.ModuleList(
            nn.Sequential(ResidualBlock(channels, width, 2), ResidualBlock(width, width))
            for channels, width in zip(inputs, widths, strict=True)
        )
        self.decoders = nn.ModuleList(
            DecoderBlock(width, channels) for channels, width in zip(inputs[::-1], widths[::-1], strict=True)
        )
        narrow = max(start_filters // 2, 1)
        self.end = nn.Sequential(
            UpConvNorm(start_filters, narrow),
            ConvNorm(narrow, narrow),
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
