"""Predicts masks of slices: `python scripts/predict.py --workdir=runs/unet --input='slices/*.png' --output=masks`."""

from pathlib import Path

from absl import flags

from brainseg_jax import cli

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
INPUT = flags.DEFINE_string("input", None, "A path or a quoted pattern: .mat, PNG or JPEG files.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "Folder for the masks and overlays.", required=True)
POSTPROCESSING = cli.define_postprocessing_flags()


def main() -> None:
    """Predicts the masks and counts them."""
    from brainseg_jax.inference.predict_files import find_images, predict_files
    from brainseg_jax.inference.predictor import Predictor

    paths = find_images(INPUT.value)
    predictor = Predictor.from_workdir(WORKDIR.value, **POSTPROCESSING())
    written = sum(1 for _ in predict_files(predictor, paths, Path(OUTPUT.value)))
    print(f"{written} masks and overlays in {OUTPUT.value}")


if __name__ == "__main__":
    cli.run(main)
