"""Draws learning curves over the published ones: `python scripts/draw_published_curves.py --workdir=runs/unet`."""

from pathlib import Path

from absl import flags

from brainseg_jax import cli

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run, which may be under way.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "PNG file; WORKDIR/figures/published_curves.png if not given.")


def main() -> None:
    """Draws the run over the published run of its network and learning rate."""
    from brainseg_jax.studies.results.save import draw_published_curves

    workdir = Path(WORKDIR.value)
    output = Path(OUTPUT.value) if OUTPUT.value else workdir / "figures" / "published_curves.png"
    draw_published_curves(workdir, output)
    print(f"written to {output}")


if __name__ == "__main__":
    cli.run(main)
