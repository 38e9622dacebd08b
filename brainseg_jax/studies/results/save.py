"""Copies runs to the results of the repository and redraws their charts."""

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from brainseg_jax.errors import InputError
from brainseg_jax.evaluation import score_charts
from brainseg_jax.evaluation.scores import read_scores
from brainseg_jax.plots.learning_curves import learning_curves
from brainseg_jax.studies.results.published_curves import draw_published_curves, is_published_recipe
from brainseg_jax.workdir.files import describe_run, read_config, read_metrics

# Saved files of a run and of a cross-validation; the last one is copied last and says that all are there.
RUN_FILES = (
    "config.json",
    "splits.json",
    "environment.json",
    "metrics.jsonl",
    "per_slice_test.csv",
    "evaluation_test.json",
)
FOLDS_FILES = (
    "config.json",
    *(f"fold_{fold}/{name}" for fold in range(1, 6) for name in ("splits.json", "metrics.jsonl")),
    "per_slice_cv.csv",
    "evaluation_cv.json",
)
# Of an ensemble: its settings and slices are those of its first member.
ENSEMBLE_FILES = ("members.json", "config.json", "splits.json", "per_slice_test.csv", "evaluation_test.json")


def save_run(directory: Path, results: Path) -> None:
    """Copies a run, an ensemble or a cross-validation, without checkpoints and images, to `results`/<its name>.

    Redraws the chart of its scores and, for a run, its learning curves, for a published recipe also over the published
    ones.

    Args:
      directory: the workdir of a run whose test split scripts/evaluate.py scored, or of a cross-validation.
      results: folder of all results; made if missing.

    Raises:
      InputError: a file is missing.
    """
    has_folds, is_ensemble = ((directory / name).exists() for name in ("evaluation_cv.json", "members.json"))
    names = ENSEMBLE_FILES if is_ensemble else FOLDS_FILES if has_folds else RUN_FILES
    split = "cv" if has_folds else "test"
    for name in names:
        if not (directory / name).exists():
            raise InputError(
                f"{directory / name} is missing: train with scripts/train.py and score with scripts/evaluate.py "
                f"--workdir={directory} first, or cross-validate with scripts/cross_validate.py."
            )
    folder = results / directory.resolve().name
    copy_files(directory, folder, names)
    config = read_config(folder)
    evaluation = json.loads((folder / f"evaluation_{split}.json").read_text())
    seeds = evaluation["seed"] if is_ensemble else ""
    title = describe_run(config, name=folder.name, all_folds=has_folds, seeds=seeds)
    if names == RUN_FILES:
        rows = read_metrics(folder, epochs=config.train.epochs)
        learning_curves(rows, folder / "learning_curves.png", title=title)
        if is_published_recipe(config):
            draw_published_curves(folder, folder / "published_curves.png")
    scores = read_scores(folder / f"per_slice_{split}.csv")
    score_charts.score_overview(scores, evaluation["calibration"], folder / "scores.png", title=title)


def copy_files(source: Path, target: Path, names: Iterable[str]) -> None:
    """Copies files from folder to folder in their order, so that the last one says that all are there."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)


def device_folder(results: Path, kind: str, device: str) -> Path:
    """Returns the folder of the measurements on a device: `kind` is "benchmark" or "checks", `device` JAX's name."""
    name = re.sub(r"\W+", "_", device.lower())
    return results / f"{kind}_{name}"
