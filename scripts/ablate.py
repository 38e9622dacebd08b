"""Runs an ablation: `python scripts/ablate.py --config=configs/unet_strong.py --workdir=runs/ablation`."""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from brainseg_jax import cli
from brainseg_jax.errors import InputError

CONFIG = config_flags.DEFINE_config_file("config", None, "The recipe, for instance configs/unet_strong.py.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the runs; an earlier call there is resumed.", required=True)
VARIANTS = flags.DEFINE_list(
    "variants", [], "Which variants are trained besides the recipe; all but the sweeps if not given."
)
flags.mark_flag_as_required("config")


def main() -> None:
    """Trains and scores the variants."""
    from brainseg_jax.studies import ablation

    if unknown := sorted(set(VARIANTS.value) - ablation.VARIANTS.keys()):
        raise InputError(f"--variants names {unknown[0]}: choose from {', '.join(ablation.VARIANTS)}.")
    directory = Path(WORKDIR.value)
    names = VARIANTS.value or [name for name in ablation.VARIANTS if name not in ablation.SWEEPS]
    ablation.ablate(CONFIG.value, directory, names)
    print((directory / "README.md").read_text())


if __name__ == "__main__":
    cli.run(main)
