"""The published numbers: the curves agree with what other sources say about the published runs."""

import importlib

import numpy as np
import pytest

from brainseg_jax import published
from brainseg_jax.published import find_published_run, published_runs


def test_there_is_a_curve_of_every_published_recipe():
    runs = {(run.network, run.learning_rate): run for run in published_runs()}
    assert len(runs) == len(published_runs())
    assert set(runs) == {
        (network, rate) for network, rates in published.PUBLISHED_LEARNING_RATES.items() for rate in rates
    }
    for (network, _), run in runs.items():
        assert run.test_dice == published.PUBLISHED_DICE[network]
        assert ("train_loss" in run.curves) == ("train_dice" in run.curves) == (network == "unet")
        for name, values in run.curves.items():
            assert len(values) == 30
            assert np.all(np.isfinite(values))
            assert min(values) >= 0
            assert "dice" not in name or max(values) <= 1


@pytest.mark.parametrize(
    ("network", "rate", "epoch", "loss"),
    [("unet", 5e-4, 10, 0.02857), ("unet", 1e-4, 12, 0.02718), ("linknet", 5e-4, 30, 0.082)],
)
def test_the_best_epoch_of_each_run_is_the_one_that_is_told_of(network, rate, epoch, loss):
    run = find_published_run(network, learning_rate=rate)
    losses = run.curves["validation_loss"]
    assert int(np.argmin(losses)) + 1 == epoch
    assert min(losses) == pytest.approx(loss, abs=5e-4)


def test_the_learning_rate_of_unet_fell_when_the_log_says():
    rates = find_published_run("unet", learning_rate=5e-4).curves["learning_rate"]
    assert rates == [5e-4] * 15 + [5e-5] * 5 + [1e-5] * 10
    assert find_published_run("unet", learning_rate=1e-4).curves["learning_rate"] == [1e-4] * 11 + [1e-5] * 19


def test_another_recipe_has_no_published_run():
    assert find_published_run("unet", learning_rate=3e-3) is None
    assert find_published_run("linknet", learning_rate=1e-4) is None


@pytest.mark.parametrize("name", ["unet", "unet_low_rate", "linknet"])
def test_the_configs_have_the_published_numbers(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    assert config.model.start_filters == published.PUBLISHED_START_FILTERS[config.model.name]
    assert config.train.batch_size == published.PUBLISHED_BATCH[config.model.name]
    assert config.train.loss == published.PUBLISHED_LOSS
    assert config.optimizer.learning_rate in published.PUBLISHED_LEARNING_RATES[config.model.name]
    assert config.data.image_size == published.PUBLISHED_SIZE
