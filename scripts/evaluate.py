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
    from brainseg_jax.data.splits import SPLITS
    from brainseg_jax.evaluation import evaluate
    from brainseg_jax.evaluation.summary import describe

    folders = [Path(name) for name in WORKDIR.value]
    output, split = Path(OUTPUT.value or folders[0]), SPLIT.value
    if len(folders) == 1:
        summary = evaluate.evaluate(
            folders[0],
            split=split,
            data_dir=DATA_DIR.value,
            output=output,
            examples=EXAMPLES.value,
            **POSTPROCESSING(),
        )
    else:
        if not OUTPUT.value:
            raise InputError("--output is missing: name a folder for the results of the ensemble of several --workdir.")
        if split not in SPLITS or DATA_DIR.value:
            raise InputError(
                f"--split is {split!r} and --data_dir {DATA_DIR.value!r}: an ensemble is scored on a part of its own "
                f"dataset; set --split to one of {', '.join(SPLITS)} and leave --data_dir out."
            )
        if given := [name for name, value in POSTPROCESSING().items() if value is not None]:
            raise InputError(f"--{given[0]} is for a single run: an ensemble tunes its own; leave it out.")
        summary = evaluate.evaluate_ensemble(folders, split=split, output=output, examples=EXAMPLES.value)
    print(f"{split}: {describe(summary)}; written to {output}")


if __name__ == "__main__":
    cli.run(main)
