"""Draws U-Net and LinkNet from their code: `python scripts/draw_networks.py --output=docs/figures`."""

from pathlib import Path

from absl import flags

from brainseg_jax import cli

OUTPUT = flags.DEFINE_string("output", "docs/figures", "Folder for unet.png and linknet.png.")
IMAGE_SIZE = flags.DEFINE_integer("image_size", 512, "Side of the images, a multiple of 64.", lower_bound=64)


def main() -> None:
    """Draws both networks."""
    from brainseg_jax.errors import InputError
    from brainseg_jax.models import LinkNet, UNet
    from brainseg_jax.plots.network_diagram import draw_network

    if IMAGE_SIZE.value % LinkNet.stride:
        raise InputError(f"--image_size is {IMAGE_SIZE.value}: set it to a multiple of {LinkNet.stride}.")
    output = Path(OUTPUT.value)
    draw_network(UNet(), output / "unet.png", image_size=IMAGE_SIZE.value, title="U-Net")
    draw_network(LinkNet(), output / "linknet.png", image_size=IMAGE_SIZE.value, title="LinkNet")


if __name__ == "__main__":
    cli.run(main)
