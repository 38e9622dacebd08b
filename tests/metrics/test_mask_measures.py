"""Measures of masks, by hand and by brute force."""

import itertools
import math

import numpy as np
import pytest

from brainseg_jax.metrics.mask_measures import centroid, largest_diameter


def test_the_diameter_is_the_largest_distance_of_all_pairs():
    rng = np.random.default_rng(0)
    for share in (0.03, 0.1, 0.5):
        mask = rng.random((13, 17)) < share
        pairs = itertools.combinations(np.argwhere(mask), 2)
        assert largest_diameter(mask) == pytest.approx(max(math.dist(*pair) for pair in pairs))
        pairs = itertools.combinations(np.argwhere(mask) * (3.0, 0.5), 2)
        assert largest_diameter(mask, spacing=(3.0, 0.5)) == pytest.approx(max(math.dist(*pair) for pair in pairs))


def test_one_pixel_and_none():
    mask = np.zeros((5, 6), bool)
    assert math.isnan(largest_diameter(mask))
    assert all(map(math.isnan, centroid(mask)))
    mask[2, 4] = True
    assert largest_diameter(mask) == 0
    assert math.isnan(largest_diameter(mask, spacing=(math.nan, math.nan)))
    assert centroid(mask) == (2, 4)
