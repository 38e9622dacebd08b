"""Scores a trained network: `python scripts/evaluate.py --workdir=runs/unet --split=test`."""

from pathlib import Path

from absl import flags

from brainseg_jax import cli
from brainseg_jax.errors import InputError

WORKDIR = flags.DEFINE_list(
    "workdir", None, "Folder of the run; several, separated by commas, are scored as an ensemble.", required=True
)
SPLIT = flags.DEFINE_string("split", "test", "train, validation, test or all.")
DATA_DIR = flags.DEFINE_string("data_dir", "", "Another prepared dataset to score, with --split=all.")
OUTPUT = flags.DEFINE_string("output", None, "Folder for the results; the workdir if not given.")
EXAMPLES = flags.DEFINE_integer(
    "examples", 4, "Slices in each figure of examples; 0 for no such figures.", lower_bound=0
)
POSTPROCESSING = cli.define_postprocessing_flags()


def main() -> None:
    """Evaluates and prints the scores."""
    from brainseg_jax.evaluation.evaluate import evaluate
    from brainseg_jax.evaluation.summary import describe

    runs = [Path(name) for name in WORKDIR.value]
    if len(runs) > 1 and not OUTPUT.value:
        raise InputError("--output is missing: name a folder for the results of the ensemble of several --workdir.")
    output, split = Path(OUTPUT.value or runs[0]), SPLIT.value
    options = {"data_dir": DATA_DIR.value, "examples": EXAMPLES.value, **POSTPROCESSING()}
    summary = evaluate(runs, split=split, output=output, **options)
    print(f"{split}: {describe(summary)}; written to {output}")


if __name__ == "__main__":
    cli.run(main)
