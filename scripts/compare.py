"""Compares two runs slice by slice: `python scripts/compare.py runs/first runs/second`."""

from pathlib import Path

from absl import flags

from brainseg_jax import cli

SPLIT = flags.DEFINE_string("split", None, "Which per_slice_<split>.csv: test, cv, …; cv if both have it, else test.")
OUTPUT = flags.DEFINE_string("output", None, "Folder for the table, comparison.json and most_different.png, if given.")
SHOWN = 8  # slices on which the runs differ most


def main(*arguments: str) -> None:
    """Prints the differences, second minus first, and the slices with the largest."""
    from brainseg_jax.evaluation import comparison
    from brainseg_jax.evaluation.scores import read_scores
    from brainseg_jax.utils.files import write_json
    from brainseg_jax.workdir.weights import has_network

    folders = Path(arguments[0]), Path(arguments[1])
    has_cv = all((folder / "per_slice_cv.csv").exists() for folder in folders)
    split = SPLIT.value or ("cv" if has_cv else "test")
    first, second = (read_scores(folder / f"per_slice_{split}.csv") for folder in folders)
    result, names = comparison.compare_scores(first, second), comparison.short_names(*folders)
    table = comparison.comparison_table(result, names=names)
    pairs = [pair for pair in comparison.pair_scores(first, second) if pair[0].tumour_pixels]  # the others have no Dice
    pairs = sorted(pairs, key=lambda pair: -abs(pair[1].dice - pair[0].dice))[:SHOWN]
    print(f"{table}\n\nSlices on which they differ most (Dice of the first, of the second):")
    for one, other in pairs:
        print(f"  {one.slice_id:>5}  {one.label:<11} {one.dice:.3f}  {other.dice:.3f}")
    if OUTPUT.value:
        output = Path(OUTPUT.value)
        output.mkdir(parents=True, exist_ok=True)
        write_json(output / "comparison.json", result)
        title = f"# {names[0]} and {names[1]}, {result['slices']} slices of {result['families']} families"
        (output / "README.md").write_text(f"{title}\n\n{table}\n")
        print(f"written to {output}")
        if all(map(has_network, folders)):
            comparison.draw_differences(folders, pairs, output / "most_different.png")
        else:  # for instance those in docs/results
            print("no picture of the slices on which they differ: a folder holds no network")


if __name__ == "__main__":
    cli.run(main, arguments=("DIR_A", "DIR_B"))
