"""Scores a trained network: `python scripts/evaluate.py --workdir=runs/unet --split=test`."""

from pathlib import Path

from absl import flags

from brainseg_jax import cli

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
SPLIT = flags.DEFINE_string("split", "test", "train, validation, test or all.")
DATA_DIR = flags.DEFINE_string("data_dir", "", "Another prepared dataset to score, with --split=all.")
OUTPUT = flags.DEFINE_string("output", None, "Folder for the results; the workdir if not given.")
EXAMPLES = flags.DEFINE_integer(
    "examples", 4, "Slices in each figure of examples; 0 for no such figures.", lower_bound=0
)


def main() -> None:
    """Evaluates and prints the scores."""
    from brainseg_jax import evaluate, scores

    output = Path(OUTPUT.value or WORKDIR.value)
    summary = evaluate.evaluate(
        Path(WORKDIR.value), split=SPLIT.value, data_dir=DATA_DIR.value, output=output, examples=EXAMPLES.value
    )
    print(f"{SPLIT.value}: {scores.describe(summary)}; written to {output}")


if __name__ == "__main__":
    cli.run(main)
