"""Saves the results of jobs as small files, from which another machine can resume, and sums them up."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brainseg_jax.errors import InputError
from brainseg_jax.studies.reproduction.jobs import Job
from brainseg_jax.studies.results.save import RUN_FILES, copy_files, device_folder, save_run
from brainseg_jax.utils import markdown
from brainseg_jax.utils.files import read_json
from brainseg_jax.workdir.files import read_metrics

ABLATION_FILES = ("README.md", "ablation.json")
VARIANT_FILES = tuple(name.replace("_test", "_validation") for name in RUN_FILES)
# A job with this result consists of runs in folders of their own (folds, variants). Maps the pattern of the last file
# of such a folder, which says that all are there, to all of its files.
PARTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "evaluation_cv.json": {f"*/{RUN_FILES[-1]}": RUN_FILES},
    "ablation.json": {f"*/{VARIANT_FILES[-1]}": VARIANT_FILES, ABLATION_FILES[-1]: ABLATION_FILES},
}
TARGET_DICE = 0.70  # of validation; the summary says how long a run takes to reach it
MERGEABLE = "full, figshare"  # miniatures and runs on phantoms do not count as results


def save_job(job: Job, workdir: Path, results: Path) -> None:
    """Copies the result of a job, and its finished folds or variants, from its workdir to the folder of all results."""
    copy_parts(job, workdir, results / job.name, overwrite=True)
    # An ablation is saved by its parts; checks and benchmark write to the results themselves.
    if job.result.startswith("evaluation_") and (workdir / job.result).exists():
        save_run(workdir, results)


def copy_parts(job: Job, source: Path, target: Path, *, overwrite: bool) -> None:
    """Copies the finished folds or variants of a job; without `overwrite`, only those that `target` lacks."""
    for pattern, names in PARTS.get(job.result, {}).items():
        for path in sorted(source.glob(pattern)):
            folder = target / path.parent.relative_to(source)
            if overwrite or not (folder / path.name).exists():
                copy_files(path.parent, folder, names)


def summary_table(jobs: Sequence[Job], progress: Mapping[str, Mapping[str, Any]], results: Path) -> str:
    """Returns a Markdown table with a row per job: its state, result, the published Dice, and minutes over all calls.

    Args:
      jobs: the jobs.
      progress: see `runner.Runner`.
      results: folder of all results.
    """
    rows = []
    for job in jobs:
        entry = progress.get(job.name, {"outcome": "not yet", "seconds": 0.0, "reason": ""})
        state = entry["outcome"] + (f": {entry['reason']}" if entry["reason"] else "")
        published = f"{job.published:.3f}" if job.published else "–"
        result = _describe_result(job.result, results / job.name)
        rows.append((job.stage, job.name, state, result, published, f"{entry['seconds'] / 60:.1f}"))
    return markdown.table(("Stage", "Job", "State", "Result", "Published", "Minutes"), rows)


def _describe_result(result: str, folder: Path) -> str:
    """Returns one line about a job's folder of results; `result` is the file that completes it."""
    if not (folder / result).exists():
        dice = [f"{read_json(path)['dice']:.3f}" for path in sorted(folder.glob("fold_*/evaluation_test.json"))]
        return f"{len(dice)} of 5 folds: {', '.join(dice)}" if dice else "–"
    content = read_json(folder / result)
    if result == "checks.json":
        passed = [check["passed"] for check in content["checks"]]
        return f"{passed.count(True)} passed, {passed.count(False)} failed, {passed.count(None)} not possible here"
    if result == "benchmark.json":
        rows = [row for row in content["rows"] if row["batch"] == "recipe"]
        return "ours / PyTorch: " + ", ".join(f"{row['model']} {row['mode']} {row['ratio']:.2f}" for row in rows)
    if result == "ablation.json":
        variants = content["variants"].items()
        return "validation Dice: " + ", ".join(f"{name} {row['dice']:.3f}" for name, row in variants)
    ends = content["intervals"]["dice"]
    interval = f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else ""
    rows = read_metrics(folder, epochs=content["epochs"])  # none for folds and ensembles
    speed = f"; {describe_speed(rows)}" if rows else ""
    return f"Dice **{content['dice']:.3f}**{interval}, {content['slices']} slices{speed}"


def describe_speed(rows: Sequence[Mapping[str, float]]) -> str:
    """Returns how long a run took to a validation Dice of `TARGET_DICE`, by the rows of its metrics.jsonl."""
    seconds = 0.0
    for row in rows:
        if row["seconds_since_start"] < seconds:
            break  # another process resumed the run here
        seconds = row["seconds_since_start"]
        if row["validation_dice"] >= TARGET_DICE:
            reached = f"{seconds:.0f} s after the process started (epoch {row['epoch']:.0f})"
            return f"validation Dice {TARGET_DICE:.2f} {reached}"
    return f"validation Dice at most {max(row['validation_dice'] for row in rows):.3f}"


def merge(reproduction: Path, target: Path) -> list[str]:
    """Copies all complete results of a reproduction to the results of the repository.

    Args:
      reproduction: the `--out` of scripts/reproduce.py.
      target: folder of all results, docs/results.

    Returns:
      The names of the folders that were written.

    Raises:
      InputError: there is no reproduction, or it is a miniature.
    """
    results = reproduction / "results"
    plan = results / "plan.txt"
    if not plan.exists():
        raise InputError(f"{plan} is missing: name the --out of scripts/reproduce.py.")
    if plan.read_text().strip() != MERGEABLE:
        raise InputError(
            f"{plan} says {plan.read_text().strip()}: only full runs on real slices are results; name another."
        )
    names = []
    for folder in sorted(path for path in results.iterdir() if path.is_dir()):
        output = target / folder.name
        if any((folder / name).exists() for name in ("evaluation_test.json", "evaluation_cv.json")):
            save_run(folder, target)
        elif (folder / "ablation.json").exists():
            copy_files(folder, output, ABLATION_FILES)
        elif measured := [folder / name for name in ("checks.json", "benchmark.json") if (folder / name).exists()]:
            output = device_folder(target, folder.name, read_json(measured[0])["device"])
            copy_files(folder, output, [path.name for path in folder.iterdir()])
        else:
            continue
        names.append(output.name)
    (target / "reproduction").mkdir(parents=True, exist_ok=True)
    summary = (results / "summary.md").read_text()
    (target / "reproduction" / "README.md").write_text(f"# Results of scripts/reproduce.py\n\n{summary}")
    return names
