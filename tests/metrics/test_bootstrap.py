"""Intervals: they cover the truth as often as they say, when the slices of a family resemble each other."""

import math

import numpy as np
import pytest

from brainseg_jax.metrics import bootstrap
from brainseg_jax.metrics.bootstrap import bootstrap_mean, patient_weights


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 1000)


def simulate(rng, families):
    """Values of families of 1 to 20 slices: mean 0.7, a spread of 0.2 between families and of 0.1 within."""
    sizes = rng.integers(1, 21, families)
    names = np.repeat(np.arange(families), sizes)
    return 0.7 + 0.2 * rng.normal(size=families)[names] + 0.1 * rng.normal(size=len(names)), names


@pytest.mark.parametrize("families", [9, 32])
def test_intervals_cover_the_truth_95_times_in_100(families):
    rng = np.random.default_rng(1)
    covered = naive = 0
    for trial in range(200):
        values, names = simulate(rng, families)
        low, high = bootstrap_mean(values, names, seed=trial)
        covered += low <= 0.7 <= high
        if trial < 40:
            low, high = bootstrap_mean(values, np.arange(len(values)), seed=trial)
            naive += low <= 0.7 <= high
    assert 0.90 <= covered / 200 <= 0.99  # the standard error of the count is 0.015
    assert naive / 40 < 0.7  # slices drawn one by one: far too sure


def test_one_value_a_family_gives_the_textbooks_interval():
    values = np.random.default_rng(0).normal(size=200)
    low, high = bootstrap_mean(values, np.arange(200))
    error = 1.97 * values.std(ddof=1) / math.sqrt(200)
    assert low == pytest.approx(values.mean() - error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + error, abs=0.15 * error)


def test_the_same_seed_gives_the_same_interval_whatever_the_order():
    values, names = simulate(np.random.default_rng(2), 12)
    order = np.random.default_rng(3).permutation(len(values))
    assert bootstrap_mean(values, names) == pytest.approx(bootstrap_mean(values[order], names[order]))
    assert bootstrap_mean(values, names) != bootstrap_mean(values, names, seed=1)


def test_a_few_families_say_nothing_about_others():
    assert all(math.isnan(end) for end in bootstrap_mean(np.array([0.1, 0.9]), ["a", "a"]))
    assert all(math.isnan(end) for end in bootstrap_mean(np.arange(8.0), list("aabbccdd")))
    assert not any(math.isnan(end) for end in bootstrap_mean(np.arange(10.0), list("aabbccddee")))
    assert all(math.isnan(end) for end in bootstrap_mean(np.array([]), []))


def test_patient_weights_give_the_mean_of_the_patients_means():
    values, patients = np.array([0.0, 0.3, 0.6, 1.0]), ["a", "a", "a", "b"]
    assert np.average(values, weights=patient_weights(patients)) == pytest.approx((0.3 + 1.0) / 2)
