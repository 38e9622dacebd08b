"""Keeps the results of runs: `python scripts/save_results.py --workdir=runs/unet_128_slice,runs/unet_128_family`."""

from pathlib import Path

from absl import flags

from brainseg_jax import cli

WORKDIRS = flags.DEFINE_list("workdir", [], "Folders of the runs to keep, separated by commas; none only redraws.")
REPRODUCED = flags.DEFINE_string("reproduced", None, "The --out of scripts/reproduce.py, all of whose results to keep.")
REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> None:
    """Copies the runs to docs/results and writes the tables of docs/results/README.md and README.md anew."""
    from brainseg_jax.studies.reproduction import merge
    from brainseg_jax.studies.results import (
        devices_table,
        peers_table,
        provenance_table,
        put_table,
        read_evaluations,
        reproduced_table,
        results_table,
        save_run,
    )

    folder, page = REPOSITORY / "docs" / "results", REPOSITORY / "README.md"
    for workdir in WORKDIRS.value:
        save_run(Path(workdir), folder)
    if REPRODUCED.value:
        print(f"kept: {', '.join(merge.merge(Path(REPRODUCED.value), folder)) or 'nothing whole yet'}")
    evaluations = read_evaluations(folder)
    tables = (results_table(evaluations, link=""), provenance_table(evaluations))
    put_table(folder / "README.md", "\n\n".join(tables))
    put_table(folder / "README.md", peers_table(folder), name="peers")
    put_table(page, results_table(evaluations, link="docs/results/"))
    put_table(page, reproduced_table(evaluations), name="reproduced")
    put_table(page, devices_table(folder), name="devices")
    print(f"{len(evaluations)} runs in {folder}")


if __name__ == "__main__":
    cli.run(main)
