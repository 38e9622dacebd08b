"""Checks the results of this device: `python scripts/check_device.py --output=runs/checks`."""

from pathlib import Path

from absl import flags

from brainseg_jax import cli
from brainseg_jax.errors import InputError

OUTPUT = flags.DEFINE_string("output", None, "Folder for checks.json and README.md.", required=True)
TINY = flags.DEFINE_bool("tiny", False, "Small networks, to test that everything runs.")


def main() -> None:
    """Runs the checks, prints a line for each, and writes the table."""
    from brainseg_jax.studies import device_checks

    report = device_checks.run_checks(device_checks.SIZES["tiny" if TINY.value else "full"], Path(OUTPUT.value))
    print(f"written to {OUTPUT.value}")
    if failed := [f"{check['network']}, {check['name']}" for check in report["checks"] if check["passed"] is False]:
        raise InputError(
            f"{OUTPUT.value} has checks that failed ({'; '.join(failed)}): do not trust results of {report['device']} "
            "with these versions; try others, or a CPU (JAX_PLATFORMS=cpu)."
        )


if __name__ == "__main__":
    cli.run(main)
