"""Writes a page about a scored run, with its slices: `python scripts/report.py --workdir=runs/unet`."""

from pathlib import Path

from absl import flags

from brainseg_jax import cli

WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the scores: a run, a cross-validation, or the --output of evaluate.py.", required=True
)
SPLIT = flags.DEFINE_string(
    "split", None, "train, validation, test, all or cv; if not given, cv where the folder has it, else test."
)
OUTPUT = flags.DEFINE_string(
    "output", None, "HTML file, or folder of report.html; if not given, the folder of the scores."
)
WEIGHTS = flags.DEFINE_list(
    "weights", [], "The networks that were scored, as evaluate.py takes them, where the folder does not hold them."
)
DATA_DIR = flags.DEFINE_string("data_dir", "", "The prepared dataset, if it is not where the evaluation had it.")
MAX_SLICES = flags.DEFINE_integer(
    "max_slices", 200, "The most slices with images: the worst, the middle and the best; 0 for none.", lower_bound=0
)


def main() -> None:
    """Writes the report and prints its path."""
    from brainseg_jax.evaluation.report.run import report_run
    from brainseg_jax.workdir.weights import find_weights

    directory = Path(WORKDIR.value)
    path = report_run(
        directory,
        split=SPLIT.value or ("cv" if (directory / "per_slice_cv.csv").exists() else "test"),
        output=Path(OUTPUT.value) if OUTPUT.value else None,
        weights=[find_weights(name) for name in WEIGHTS.value],
        data_dir=DATA_DIR.value,
        max_slices=MAX_SLICES.value,
    )
    print(f"report written to {path} ({path.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    cli.run(main)
