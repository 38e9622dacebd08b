"""Draws the learning curves of a run over the published ones."""

from pathlib import Path

import ml_collections

from brainseg_jax.errors import InputError
from brainseg_jax.plots.learning_curves import CURVES, published_curves
from brainseg_jax.published import (
    PUBLISHED_BATCH,
    PUBLISHED_LEARNING_RATES,
    PUBLISHED_LOSS,
    PUBLISHED_SIZE,
    PUBLISHED_START_FILTERS,
    find_published_run,
    published_runs,
)
from brainseg_jax.workdir.files import describe_run, read_config, read_metrics


def is_published_recipe(config: ml_collections.ConfigDict) -> bool:
    """Returns whether network, start filters, batch size, loss and learning rate are those of a published run."""
    network = config.model.name
    return (
        config.model.start_filters == PUBLISHED_START_FILTERS[network]
        and config.train.batch_size == PUBLISHED_BATCH[network]
        and config.train.loss == PUBLISHED_LOSS
        and config.optimizer.learning_rate in PUBLISHED_LEARNING_RATES[network]
    )


def draw_published_curves(directory: Path, path: Path) -> None:
    """Draws the learning curves of a run over those of the published run of its network and learning rate.

    Args:
      directory: the workdir of a run, which may be under way, or its folder among the results.
      path: PNG file to write; missing folders are made.

    Raises:
      InputError: there is no such published run, the directory holds no run, or no epoch is over.
    """
    config = read_config(directory)
    network, rate, size = config.model.name, config.optimizer.learning_rate, config.data.image_size
    published = find_published_run(network, learning_rate=rate)
    if published is None:
        known = ", ".join(f"{run.network} at {run.learning_rate:g}" for run in published_runs())
        raise InputError(
            f"{directory / 'config.json'} has model.name = {network} and optimizer.learning_rate = {rate:g}, of which "
            f"there is no published run: name the --workdir of a run of {known}."
        )
    rows = read_metrics(directory, epochs=config.train.epochs)
    if not rows:
        raise InputError(f"{directory / 'metrics.jsonl'} has no epoch yet: train with scripts/train.py first.")
    notes = (
        f"Ours: {size}×{size}, protocol {config.split.protocol}, batch {config.train.batch_size}; Dice of each slice, "
        "then the mean over the slices.",
        f"Published: {PUBLISHED_SIZE}×{PUBLISHED_SIZE}, random slices, batch {PUBLISHED_BATCH[network]}; "
        f"one Dice of all pixels of a batch, then the mean over batches. Test Dice {published.test_dice:.3f}.",
    )
    ours = {name: [row[name] for row in rows] for name in CURVES}
    published_curves(
        ours, published.curves, path, title=describe_run(config, name=directory.resolve().name), notes=notes
    )
