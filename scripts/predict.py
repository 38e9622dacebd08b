"""Predicts masks of slices: `python scripts/predict.py --input='slices/*.png' --output=masks`."""

import sys
from pathlib import Path

from absl import flags

from brainseg_jax import cli
from brainseg_jax.errors import InputError

WEIGHTS = flags.DEFINE_string(
    "weights", None, "A workdir, a folder with model.safetensors, or a name in the package; its default if not given."
)
flags.DEFINE_alias("workdir", "weights")
INPUT = flags.DEFINE_multi_string(
    "input",
    None,
    "A file, a folder or a quoted pattern: .mat, PNG or JPEG files. May be given several times.",
    required=True,
)
OUTPUT = flags.DEFINE_string("output", None, "Folder for the masks, the overlays and predictions.csv.", required=True)
POSTPROCESSING = cli.define_postprocessing_flags()


def main() -> None:
    """Predicts the masks, counts them and lists what could not be read."""
    from tqdm import tqdm

    from brainseg_jax.inference.predict_files import find_images, predict_files
    from brainseg_jax.inference.predictor import Predictor
    from brainseg_jax.workdir.weights import DEFAULT

    output = Path(OUTPUT.value).expanduser()
    paths = find_images(INPUT.value, output=output)
    predictor = Predictor.from_pretrained(WEIGHTS.value or DEFAULT, **POSTPROCESSING())
    if predictor.config.data.dataset == "phantom":
        message = "this network was trained on synthetic slices (phantoms): its masks of real ones mean nothing"
        print(f"warning: {message}", file=sys.stderr)
    outcomes = tqdm(predict_files(predictor, paths, output), total=len(paths), unit="image", disable=None)
    failures = [reason for _, reason in outcomes if reason]
    print(f"{len(paths) - len(failures)} masks and overlays in {output}")
    if failures:
        raise InputError("\n  ".join([f"{len(failures)} of {len(paths)} images could not be read:", *failures]))


if __name__ == "__main__":
    cli.run(main)
