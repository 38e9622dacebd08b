"""Distances of outlines: cases measured by hand, and every pair of outline pixels of random masks by brute force."""

import math

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from brainseg_jax.metrics.surface_distance import compare_surfaces


def square(top, left, side, *, size=40):
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_equal_masks_have_no_distance():
    assert compare_surfaces(square(5, 5, 10), square(5, 5, 10), spacing_mm=0.49) == (0.0, 0.0, 1.0)


def test_two_pixels_are_as_far_apart_as_their_centres():
    # 3 rows and 4 columns: 5 pixels of 0.5 mm, for both directions and every percentile.
    found = compare_surfaces(square(10, 10, 1), square(13, 14, 1), spacing_mm=0.5)
    assert found == pytest.approx((2.5, 2.5, 0.0))
    assert compare_surfaces(square(10, 10, 1), square(13, 14, 1), spacing_mm=0.4).nsd == 1.0  # 2 mm: within


def test_a_square_in_a_square_by_hand():
    # The outline of 3×3 is 8 pixels, each 1 from the outline of the 5×5 around it. That has 16: 12 are 1 from the inner
    # one, the 4 corners √2.
    found = compare_surfaces(square(11, 11, 3), square(10, 10, 5), spacing_mm=1.0, tolerance_mm=1.2)
    assert found.assd_mm == pytest.approx((8 + 12 + 4 * math.sqrt(2)) / 24)
    assert found.nsd == pytest.approx(20 / 24)
    assert found.hd95_mm == pytest.approx(math.sqrt(2))  # a quarter of the outer outline


def test_a_mask_at_the_images_edge_has_an_outline_there():
    # A whole image against its left half: its right edge is 2 columns from the outline of the half.
    full, half = np.ones((4, 4), bool), np.zeros((4, 4), bool)
    half[:, :2] = True
    found = compare_surfaces(half, full, spacing_mm=1.0)
    assert found.hd95_mm == pytest.approx(2.0)


def test_random_masks_equal_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(10):
        predicted, true = rng.random((2, 20, 30)) < 0.4

        def outline(mask):
            padded = np.pad(mask, 1)
            inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
            return np.argwhere(mask & ~inner)

        distances = 0.49 * cdist(outline(predicted), outline(true))
        one, other = distances.min(1), distances.min(0)
        both = np.concatenate([one, other])
        expected = max(np.percentile(one, 95), np.percentile(other, 95)), both.mean(), (both <= 0.6).mean()
        assert compare_surfaces(predicted, true, spacing_mm=0.49, tolerance_mm=0.6) == pytest.approx(expected)


def test_empty_predictions_count_as_the_worst():
    empty, some = np.zeros((30, 40), bool), np.zeros((30, 40), bool)
    some[3:5, 3:5] = True
    worst = compare_surfaces(empty, some, spacing_mm=0.5)
    assert worst == pytest.approx((25.0, 25.0, 0.0))  # half of the diagonal of 30×40
    assert compare_surfaces(some, empty, spacing_mm=0.5) == worst
    assert compare_surfaces(empty, empty, spacing_mm=0.5) == (0.0, 0.0, 1.0)


def test_an_unknown_spacing_gives_no_millimetres():
    assert all(math.isnan(value) for value in compare_surfaces(square(1, 1, 3), square(2, 2, 3), spacing_mm=math.nan))


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(40, 40\) and \(20, 20\)"):
        compare_surfaces(square(1, 1, 3), square(1, 1, 3, size=20), spacing_mm=1.0)
