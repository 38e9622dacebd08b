"""Copies runs to the results of the repository and redraws their charts."""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import ml_collections

from brainseg_jax import published
from brainseg_jax.errors import InputError
from brainseg_jax.evaluation import score_charts
from brainseg_jax.evaluation.scores import read_scores
from brainseg_jax.plots.learning_curves import CURVES, learning_curves, published_curves
from brainseg_jax.utils.files import read_json
from brainseg_jax.workdir.files import describe_run, read_config, read_metrics

# The saved files of a run, a cross-validation and an ensemble. The last one is copied last: it says that all are there.
RUN_FILES = (
    *("config.json", "splits.json", "environment.json", "metrics.jsonl"),
    *("per_slice_test.csv", "evaluation_test.json"),
)
FOLDS_FILES = (
    *("config.json", *(f"fold_{fold}/{name}" for fold in range(1, 6) for name in ("splits.json", "metrics.jsonl"))),
    *("per_slice_cv.csv", "evaluation_cv.json"),
)
ENSEMBLE_FILES = ("members.json", "config.json", "splits.json", "per_slice_test.csv", "evaluation_test.json")


def save_run(directory: Path, results: Path) -> None:
    """Copies a run, an ensemble or a cross-validation, without checkpoints and images, to `results`/<its name>.

    Redraws the chart of its scores and, for a run, its learning curves; those of a published recipe also over the
    published ones.

    Args:
      directory: the workdir of a cross-validation, or of a run or ensemble whose test split was scored.
      results: folder of all results; made if missing.

    Raises:
      InputError: a file is missing.
    """
    has_folds, is_ensemble = ((directory / name).exists() for name in ("evaluation_cv.json", "members.json"))
    names = ENSEMBLE_FILES if is_ensemble else FOLDS_FILES if has_folds else RUN_FILES
    for name in names:
        if not (directory / name).exists():
            raise InputError(
                f"{directory / name} is missing: train with scripts/train.py and score with scripts/evaluate.py "
                f"--workdir={directory} first, or cross-validate with scripts/cross_validate.py."
            )
    folder = results / directory.resolve().name
    copy_files(directory, folder, names)
    config, evaluation = read_config(folder), read_json(folder / names[-1])
    seeds = evaluation["seed"] if is_ensemble else ""
    title = describe_run(config, name=folder.name, all_folds=has_folds, seeds=seeds)
    if names == RUN_FILES:
        rows = read_metrics(folder, epochs=config.train.epochs)
        learning_curves(rows, folder / "learning_curves.png", title=title)
        if is_published_recipe(config):
            draw_published_curves(folder, folder / "published_curves.png")
    score_charts.score_overview(
        read_scores(folder / names[-2]),
        evaluation["calibration"],
        folder / "scores.png",
        title=title,
        classes=[*evaluation["by_class"]],
    )


def copy_files(source: Path, target: Path, names: Iterable[str]) -> None:
    """Copies files from folder to folder in the given order, so that the last one says that all are there."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)


def device_folder(results: Path, kind: str, device: str) -> Path:
    """Returns the folder of the measurements on a device: `kind` is "benchmark" or "checks", `device` JAX's name."""
    name = re.sub(r"\W+", "_", device.lower())
    return results / f"{kind}_{name}"


def is_published_recipe(config: ml_collections.ConfigDict) -> bool:
    """Returns whether network, start filters, batch size, loss and learning rate are those of a published run."""
    network = config.model.name
    return (
        config.model.start_filters == published.PUBLISHED_START_FILTERS.get(network)
        and config.train.batch_size == published.PUBLISHED_BATCH[network]
        and config.train.loss == published.PUBLISHED_LOSS
        and config.optimizer.learning_rate in published.PUBLISHED_LEARNING_RATES[network]
    )


def draw_published_curves(directory: Path, path: Path) -> None:
    """Draws the learning curves of a run over those of the published run of its network and learning rate.

    Args:
      directory: the workdir of a run, which may still be in training, or its folder in docs/results.
      path: PNG file to write; missing folders are made.

    Raises:
      InputError: there is no such published run, the directory holds no run, or no epoch is complete.
    """
    config = read_config(directory)
    network, rate, size = config.model.name, config.optimizer.learning_rate, config.data.image_size
    run = published.find_published_run(network, learning_rate=rate)
    if run is None:
        known = ", ".join(f"{one.network} at {one.learning_rate:g}" for one in published.published_runs())
        raise InputError(
            f"{directory / 'config.json'} has model.name = {network} and optimizer.learning_rate = {rate:g}, for which "
            f"no run was published: name the --workdir of a run of {known}."
        )
    rows = read_metrics(directory, epochs=config.train.epochs)
    if not rows:
        raise InputError(f"{directory / 'metrics.jsonl'} has no epoch yet: train with scripts/train.py first.")
    theirs = published.PUBLISHED_SIZE
    notes = (
        f"Ours: {size}×{size}, protocol {config.split.protocol}, batch {config.train.batch_size}; Dice of each slice, "
        "then the mean over the slices.",
        f"Published: {theirs}×{theirs}, random slices, batch {published.PUBLISHED_BATCH[network]}; "
        f"one Dice of all pixels of a batch, then the mean over batches. Test Dice {run.test_dice:.3f}.",
    )
    ours = {name: [row[name] for row in rows] for name in CURVES}
    title = describe_run(config, name=directory.resolve().name)
    published_curves(ours, run.curves, path, title=title, notes=notes)
