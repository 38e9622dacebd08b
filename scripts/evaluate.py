"""Scores trained networks: `python scripts/evaluate.py --workdir=runs/unet --split=test`."""

from pathlib import Path

from absl import flags

from brainseg_jax import cli
from brainseg_jax.errors import InputError

WORKDIR = flags.DEFINE_list(
    "workdir",
    None,
    "Folder of the run, or weights as predict.py takes them; several, separated by commas, are scored as an ensemble.",
    required=True,
)
flags.DEFINE_alias("weights", "workdir")
SPLIT = flags.DEFINE_string("split", "test", "train, validation, test or all.")
DATA_DIR = flags.DEFINE_string(
    "data_dir", "", "The prepared dataset, if it is not where the run had it, or another one, with --split=all."
)
OUTPUT = flags.DEFINE_string("output", None, "Folder for the results; if not given, the run's.")
EXAMPLES = flags.DEFINE_integer(
    "examples", 4, "Slices in each figure of examples; 0 for no such figures.", lower_bound=0
)
SAVE_MASKS = flags.DEFINE_bool("save_masks", False, "Write the predicted masks too, in masks_<split>/.")
REPORT = flags.DEFINE_bool("report", False, "Write report.html too, the page of scripts/report.py.")
POSTPROCESSING = cli.define_postprocessing_flags()


def main() -> None:
    """Evaluates and prints the scores."""
    from brainseg_jax.evaluation.evaluate import evaluate
    from brainseg_jax.evaluation.report.run import report_run
    from brainseg_jax.evaluation.seen_slices import warn_of_seen
    from brainseg_jax.evaluation.summary import describe
    from brainseg_jax.workdir.weights import find_weights, has_weights

    if not OUTPUT.value and (len(WORKDIR.value) > 1 or has_weights(find_weights(WORKDIR.value[0]))):
        raise InputError("--output is missing: name a folder for the scores of an ensemble or of weights.")
    runs = [find_weights(name) for name in WORKDIR.value]
    output, split = Path(OUTPUT.value or runs[0]), SPLIT.value
    options = {
        "data_dir": DATA_DIR.value,
        "examples": EXAMPLES.value,
        "save_masks": SAVE_MASKS.value,
        **POSTPROCESSING(),
    }
    summary = evaluate(runs, split=split, output=output, **options)
    if warning := warn_of_seen(summary):
        print(f"warning: {warning}")
    print(f"{split}: {describe(summary)}; written to {output}")
    if REPORT.value:
        print(f"report: {report_run(output, split=split, weights=runs, data_dir=DATA_DIR.value)}")


if __name__ == "__main__":
    cli.run(main)
