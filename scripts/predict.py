"""Predicts masks of slices: `python scripts/predict.py --input='slices/*.png' --output=masks`."""

from pathlib import Path

from absl import flags

from brainseg_jax import cli

WEIGHTS = flags.DEFINE_string(
    "weights", None, "A workdir, a folder with model.safetensors, or a name in the package; its default if not given."
)
flags.DEFINE_alias("workdir", "weights")
INPUT = flags.DEFINE_string("input", None, "A path or a quoted pattern: .mat, PNG or JPEG files.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "Folder for the masks and overlays.", required=True)
POSTPROCESSING = cli.define_postprocessing_flags()


def main() -> None:
    """Predicts the masks and counts them."""
    from brainseg_jax.inference.predict_files import find_images, predict_files
    from brainseg_jax.inference.predictor import Predictor
    from brainseg_jax.workdir.weights import DEFAULT

    paths = find_images(INPUT.value)
    predictor = Predictor.from_pretrained(WEIGHTS.value or DEFAULT, **POSTPROCESSING())
    written = sum(1 for _ in predict_files(predictor, paths, Path(OUTPUT.value)))
    print(f"{written} masks and overlays in {OUTPUT.value}")


if __name__ == "__main__":
    cli.run(main)
