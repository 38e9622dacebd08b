"""A job: commands that make one result, and which of their files are kept."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brainseg_jax.studies.results import RUN_FILES, copy_files, save_run

# Of a variant of an ablation: what its table is made from.
VARIANT_FILES = tuple(name.replace("_test", "_validation") for name in RUN_FILES)
ABLATION_FILES = ("ablation.json", "README.md")
TARGET_DICE = 0.70  # of validation; how long it takes to get there is told of every run


@dataclass(frozen=True)
class ResultKind:
    """What a job leaves.

    Attributes:
      marker: the file that is there when the job has ended.
      part_files: what is kept of each of its parts (folds, variants), each in a folder of its own.
      keep: copies what there is, from the job's workdir to the folder of all results.
      describe: one line about the job's folder of results.
    """

    marker: str
    part_files: tuple[str, ...]
    keep: Callable[[Path, Path], None]
    describe: Callable[[Path], str]


@dataclass(frozen=True)
class Job:
    """Commands that make one result.

    Attributes:
      name: of the result's folder.
      kind: what it leaves.
      commands: one after the other, each a script of the repository and its flags.
      least_seconds: with less time than this it is not started.
      needs: "gpu" or "torch", where it cannot do without.
      members: jobs whose checkpoints it reads.
      restarts: whether it cannot be gone on with, so that what a stopped one left is removed first.
      environment: variables of the commands.
      published: the Dice that others report for it.
    """

    name: str
    kind: ResultKind
    commands: tuple[tuple[str, ...], ...]
    least_seconds: float
    needs: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    restarts: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    published: float | None = None


def restore_parts(job: Job, workdir: Path, folder: Path) -> None:
    """Gives parts whose results are kept back to a workdir that lacks them, as that of another machine does."""
    for source, name in _parts(job.kind, folder):
        if not (workdir / name / job.kind.part_files[-1]).exists():
            copy_files(source, workdir / name, job.kind.part_files)
    for name in ABLATION_FILES:
        if job.kind is ABLATION and (folder / name).exists() and not (workdir / name).exists():
            copy_files(folder, workdir, (name,))


def _parts(kind: ResultKind, folder: Path) -> Iterator[tuple[Path, str]]:
    """The parts that have ended, by name."""
    if kind.part_files:
        for path in sorted(folder.glob(f"*/{kind.part_files[-1]}")):
            yield path.parent, path.parent.name


def _keep_run(workdir: Path, folder: Path) -> None:
    if (workdir / "evaluation_test.json").exists():
        save_run(workdir, folder)


def _keep_folds(workdir: Path, folder: Path) -> None:
    for source, name in _parts(FOLDS, workdir):
        copy_files(source, folder / workdir.name / name, FOLDS.part_files)
    if (workdir / "evaluation_cv.json").exists():
        save_run(workdir, folder)


def _keep_ablation(workdir: Path, folder: Path) -> None:
    for source, name in _parts(ABLATION, workdir):
        copy_files(source, folder / workdir.name / name, ABLATION.part_files)
    if (workdir / "README.md").exists():
        copy_files(workdir, folder / workdir.name, ABLATION_FILES)


def _keep_nothing(workdir: Path, folder: Path) -> None:
    """The command itself writes to the folder of the results."""


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _describe_run(folder: Path) -> str:
    found = _read(folder / "evaluation_test.json")
    if not (folder / "metrics.jsonl").exists():
        return _describe_dice(found)  # an ensemble
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return f"{_describe_dice(found)}; {describe_speed(rows)}"


def describe_speed(rows: list[dict[str, float]]) -> str:
    """How long a run took to a validation Dice of `TARGET_DICE`, from the rows of its metrics.jsonl."""
    before = 0.0
    for row in rows:
        if row["seconds_since_start"] < before:
            break  # the process was another one from here on
        before = row["seconds_since_start"]
        if row["validation_dice"] >= TARGET_DICE:
            return (
                f"validation Dice {TARGET_DICE:.2f} {before:.0f} s after the process started (epoch {row['epoch']:.0f})"
            )
    return f"validation Dice at most {max(row['validation_dice'] for row in rows):.3f}"


def _describe_folds(folder: Path) -> str:
    if (folder / "evaluation_cv.json").exists():
        return _describe_dice(_read(folder / "evaluation_cv.json"))
    parts = [_read(source / "evaluation_test.json")["dice"] for source, _ in _parts(FOLDS, folder)]
    return f"{len(parts)} of 5 folds" + (f": {', '.join(f'{dice:.3f}' for dice in parts)}" if parts else "")


def _describe_dice(found: Mapping[str, Any]) -> str:
    interval = found["intervals"]["dice"]
    around = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    return f"Dice **{found['dice']:.3f}**{around}, {found['slices']} slices"


def _describe_ablation(folder: Path) -> str:
    if not (folder / "ablation.json").exists():
        return "no variant yet"
    variants = _read(folder / "ablation.json")["variants"]
    return "validation Dice: " + ", ".join(f"{name} {row['dice']:.3f}" for name, row in variants.items())


def _describe_checks(folder: Path) -> str:
    checks = _read(folder / "checks.json")["checks"]
    passed = [check["passed"] for check in checks]
    return f"{passed.count(True)} passed, {passed.count(False)} failed, {passed.count(None)} not possible here"


def _describe_benchmark(folder: Path) -> str:
    rows = [row for row in _read(folder / "benchmark.json")["rows"] if row["batch"] == "recipe"]
    return "ours / PyTorch: " + ", ".join(f"{row['model']} {row['mode']} {row['ratio']:.2f}" for row in rows)


RUN = ResultKind("evaluation_test.json", (), _keep_run, _describe_run)
FOLDS = ResultKind("evaluation_cv.json", RUN_FILES, _keep_folds, _describe_folds)
ABLATION = ResultKind("ablation.json", VARIANT_FILES, _keep_ablation, _describe_ablation)
CHECKS = ResultKind("checks.json", (), _keep_nothing, _describe_checks)
BENCHMARK = ResultKind("benchmark.json", (), _keep_nothing, _describe_benchmark)
