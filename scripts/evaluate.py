"""Scores a trained network: `python scripts/evaluate.py --workdir=runs/unet --split=test`."""

from pathlib import Path

from absl import flags

from brainseg_jax import cli

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
SPLIT = flags.DEFINE_string("split", "test", "train, validation, test or all.")
DATA_DIR = flags.DEFINE_string("data_dir", "", "Another prepared dataset to score, with --split=all.")
OUTPUT = flags.DEFINE_string("output", None, "Folder for the results; the workdir if not given.")


def main() -> None:
    """Evaluates and prints the scores."""
    from brainseg_jax import evaluate

    output = Path(OUTPUT.value or WORKDIR.value)
    summary = evaluate.evaluate(Path(WORKDIR.value), split=SPLIT.value, data_dir=DATA_DIR.value, output=output)
    classes = ", ".join(f"{name} {dice:.3f}" for name, dice in summary["dice_by_class"].items() if dice is not None)
    print(
        f"{SPLIT.value}: mean Dice {summary['dice']:.3f} (median {summary['dice_median']:.3f}; {classes}; "
        f"{summary['share_missed']:.1%} missed) on {summary['slices']} slices of {summary['families']} families, "
        f"protocol {summary['protocol']!r}; written to {output}"
    )


if __name__ == "__main__":
    cli.run(main)
