"""Keeps the results of runs: `python scripts/save_results.py --workdir=runs/unet_128_slice,runs/unet_128_family`."""

from pathlib import Path

from absl import flags

from brainseg_jax import cli

WORKDIRS = flags.DEFINE_list("workdir", [], "Folders of the runs to keep, separated by commas; none only redraws.")
REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> None:
    """Copies the runs to docs/results and writes the tables of docs/results/README.md and README.md anew."""
    from brainseg_jax import results

    folder = REPOSITORY / "docs" / "results"
    for workdir in WORKDIRS.value:
        results.save_run(Path(workdir), folder)
    evaluations = results.read_evaluations(folder)
    tables = (results.results_table(evaluations, link=""), results.provenance_table(evaluations))
    results.put_table(folder / "README.md", "\n\n".join(tables))
    results.put_table(REPOSITORY / "README.md", results.results_table(evaluations, link="docs/results/"))
    print(f"{len(evaluations)} runs in {folder}")


if __name__ == "__main__":
    cli.run(main)
