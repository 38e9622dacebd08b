"""Exports trained weights: `python scripts/export.py --workdir=runs/unet --output=weights/unet`."""

from pathlib import Path

from absl import flags

from brainseg_jax import cli

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run whose test split was scored.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "New folder for the weights.", required=True)
DTYPE = flags.DEFINE_string("dtype", "float32", "Of the weights: float32, or float16, which halves the file.")


def main() -> None:
    """Writes the weights with their config and card."""
    from brainseg_jax.evaluation.model_card import model_card
    from brainseg_jax.inference.predictor import Predictor
    from brainseg_jax.utils.files import read_json, write_text

    workdir, output = Path(WORKDIR.value), Path(OUTPUT.value)
    predictor = Predictor.from_workdir(workdir)
    evaluation = read_json(workdir / "evaluation_test.json")
    card = model_card(output.name, predictor.config, evaluation, predictor.postprocessing)
    predictor.save_pretrained(output, dtype=DTYPE.value)
    write_text(output / "README.md", card)
    print(f"weights, config and card in {output}")


if __name__ == "__main__":
    cli.run(main)
