"""Exports trained weights: `python scripts/export.py --workdir=runs/unet --output=weights/unet --formats=onnx`."""

from pathlib import Path

from absl import flags

from brainseg_jax import cli

WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "A run whose test split was scored, a folder that this script wrote, or a name of weights in the package.",
    required=True,
)
flags.DEFINE_alias("weights", "workdir")
OUTPUT = flags.DEFINE_string("output", None, "New folder for the weights.", required=True)
FORMATS = flags.DEFINE_list("formats", [], "What to write beside the weights: onnx, stablehlo or onnx,stablehlo.")
DTYPE = flags.DEFINE_string(
    "dtype",
    "float32",
    "Of the weights: float32; float16, half the size; int6, whole numbers of six bits, a sixth of it.",
)


def main() -> None:
    """Writes the weights with their config and card, and compares each further form with the network."""
    import jax

    # A GPU rounds the factors of convolutions; on a CPU the forms must agree with the network to the last digits.
    jax.config.update("jax_platforms", "cpu")

    from brainseg_jax.evaluation.evaluation_file import read_evaluation
    from brainseg_jax.evaluation.model_card import model_card
    from brainseg_jax.inference.export.forms import check_forms, export_network
    from brainseg_jax.inference.predictor import Predictor
    from brainseg_jax.workdir.weights import find_weights, has_weights

    check_forms(FORMATS.value)
    source, output = find_weights(WORKDIR.value), Path(OUTPUT.value)
    predictor = Predictor.from_workdir(source)
    if has_weights(source) and (source / "README.md").exists():
        card = (source / "README.md").read_text()
    else:
        evaluation = read_evaluation(source / "evaluation_test.json")
        card = model_card(output.name, predictor.config, evaluation, predictor.postprocessing)
    comparisons = export_network(predictor, output, card=card, forms=FORMATS.value, dtype=DTYPE.value)
    print(f"weights, config and card in {output}")
    for one in comparisons:
        masks = f"masks differ at {one.pixels} pixels" if one.pixels else "masks are equal"
        print(
            f"{one.file}: on {one.slices} phantom slices probabilities differ by at most {one.difference:.1e}, {masks}"
        )


if __name__ == "__main__":
    cli.run(main)
