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
    """Copies the runs to docs/results and rewrites the tables of docs/results/README.md and README.md."""
    from brainseg_jax.studies.reproduction.results import merge
    from brainseg_jax.studies.results import tables
    from brainseg_jax.studies.results.page import put_table
    from brainseg_jax.studies.results.save import save_run

    folder, page = REPOSITORY / "docs" / "results", REPOSITORY / "README.md"
    for workdir in WORKDIRS.value:
        save_run(Path(workdir), folder)
    if REPRODUCED.value:
        print(f"saved: {', '.join(merge(Path(REPRODUCED.value), folder)) or 'no result is complete yet'}")
    evaluations = tables.read_evaluations(folder)
    runs = (tables.results_table(evaluations, link=""), tables.provenance_table(evaluations))
    put_table(folder / "README.md", "\n\n".join(runs))
    put_table(folder / "README.md", tables.peers_table(folder), name="peers")
    put_table(page, tables.results_table(evaluations, link="docs/results/"))
    put_table(page, tables.reproduced_table(evaluations), name="reproduced")
    put_table(page, tables.devices_table(folder), name="devices")
    print(f"{len(evaluations)} runs in {folder}")


if __name__ == "__main__":
    cli.run(main)
