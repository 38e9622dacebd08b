"""Runs all folds: `python scripts/cross_validate.py --config=configs/unet_strong.py --workdir=runs/unet_strong_cv`."""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from brainseg_jax import cli

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, for instance configs/unet_strong.py; --config.SECTION.FIELD=VALUE changes a field."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the folds; an earlier call there is resumed.", required=True)
REPORT = flags.DEFINE_bool("report", False, "Write report.html too, the page of scripts/report.py.")
flags.mark_flag_as_required("config")


def main() -> None:
    """Trains and scores the folds and prints the scores of all slices."""
    from brainseg_jax.evaluation.report.run import report_run
    from brainseg_jax.evaluation.summary import describe
    from brainseg_jax.studies import cross_validation

    summary = cross_validation.cross_validate(CONFIG.value, Path(WORKDIR.value))
    print(f"five folds: {describe(summary)}; written to {WORKDIR.value}")
    if REPORT.value:
        print(f"report: {report_run(Path(WORKDIR.value), split='cv')}")


if __name__ == "__main__":
    cli.run(main)
