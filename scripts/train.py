"""Trains a network: `python scripts/train.py --config=configs/unet.py --workdir=runs/unet`."""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from brainseg_jax import cli
from brainseg_jax.errors import InputError
from brainseg_jax.utils.supervisor import supervise

CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Config file, for instance configs/unet.py; --config.SECTION.FIELD=VALUE changes a field of it, as "
    "brainseg_jax/config.py lists them.",
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; a run there is resumed.")
DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Only show settings, split, parameters and memory, and do one step; needs no --workdir."
)
CLUSTER = flags.DEFINE_string(
    "cluster", "", "For several processes: auto (SLURM, Open MPI, clouds) or HOST:PORT,PROCESSES,PROCESS."
)
flags.mark_flag_as_required("config")


def main() -> None:
    """Trains a network."""
    if DRY_RUN.value:
        from brainseg_jax.training.dry_run import dry_run

        print(dry_run(CONFIG.value))
        return
    if not WORKDIR.value:
        raise InputError("--workdir is missing: name a folder for the run.")
    supervise(CLUSTER.value)
    from brainseg_jax.training.loop import train_and_evaluate
    from brainseg_jax.utils.cluster import end_when_lost, initialize_distributed

    initialize_distributed(CLUSTER.value)
    with end_when_lost(CLUSTER.value):
        train_and_evaluate(CONFIG.value, Path(WORKDIR.value))


if __name__ == "__main__":
    cli.run(main)
