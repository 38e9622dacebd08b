"""Saves the results of runs: `python scripts/save_results.py --workdir=runs/unet_128_slice,runs/unet_128_family`."""

from pathlib import Path

from absl import flags

from brainseg_jax import cli

WORKDIRS = flags.DEFINE_list("workdir", [], "Folders of the runs to save, separated by commas; none: only the tables.")
REPRODUCED = flags.DEFINE_string(
    "reproduced", None, "The --out of scripts/reproduce.py, all of whose results are saved."
)
REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> None:
    """Copies the runs to docs/results, rewrites the tables there and in README.md, draws the chart of the speeds."""
    from brainseg_jax.studies.reproduction.results import merge
    from brainseg_jax.studies.results.save import save_run
    from brainseg_jax.studies.results.speed_chart import draw_speeds
    from brainseg_jax.studies.results.tables import write_tables

    folder = REPOSITORY / "docs" / "results"
    for workdir in WORKDIRS.value:
        save_run(Path(workdir), folder)
    if REPRODUCED.value:
        print(f"saved: {', '.join(merge(Path(REPRODUCED.value), folder)) or 'no result is complete yet'}")
    write_tables(folder, REPOSITORY / "README.md")
    draw_speeds(folder)
    print(f"the tables of {folder} and README.md and {folder / 'speed.png'} are written")


if __name__ == "__main__":
    cli.run(main)
