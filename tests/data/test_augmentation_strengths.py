"""Augmentation in numbers: each strength is the bound or the standard deviation that its field's comment gives it.

After a warp, an image whose values are the coordinates of its pixels shows where each pixel was taken from.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brainseg_jax.config import get_config
from brainseg_jax.data.augmentation import BIAS_KNOTS, ELASTIC_KNOTS, Augmentation, augment

NOTHING = Augmentation(**get_config().augmentation)


def changed(values, **strengths):
    """(N, S, S) values after augmentation, each with its own random changes, the same in every call."""
    images = jnp.asarray(values, jnp.float32)[..., None]
    augmentation = dataclasses.replace(NOTHING, **strengths)
    apply = jax.jit(lambda images: augment(jax.random.key(3), images, images, augmentation=augmentation)[0])
    return np.asarray(apply(images))[..., 0]


def sources(count, side, **strengths):
    """The source of each pixel, (count, side, side, 2) rows and columns; wrong for sources beyond the edge."""
    grid = np.mgrid[:side, :side] / (side - 1)
    found = [changed(np.tile(axis, (count, 1, 1)), **strengths) * (side - 1) for axis in grid]
    return np.stack(found, axis=-1)


@pytest.mark.parametrize(("probability", "fewest", "most"), [(0.0, 0, 0), (0.25, 205, 295), (1.0, 1000, 1000)])
def test_a_flip_happens_to_its_share_of_the_slices(probability, fewest, most):
    images = np.random.default_rng(0).random((1000, 8, 8))
    # Without the tiny shift there would be no warp at probability 0.
    other = changed(images, flip=probability, shift=1e-6)
    flipped = np.abs(other - images[:, :, ::-1]).max((1, 2)) < 1e-3
    same = np.abs(other - images).max((1, 2)) < 1e-3
    assert (flipped ^ same).all()
    # Of 1000 a quarter is 250, with a standard deviation of sqrt(1000 · 1/4 · 3/4) = 13.7: 45 are more than three.
    assert fewest <= flipped.sum() <= most


def test_the_flip_ignores_the_probability_of_the_other_changes():
    images = np.random.default_rng(0).random((20, 8, 8))
    np.testing.assert_allclose(changed(images, flip=1.0, probability=0.0), images[:, :, ::-1], atol=1e-5)


def test_rotation_is_up_to_its_degrees_either_way():
    middle = sources(300, 65, rotation=20.0)[:, 31:34, 31:34]
    down = middle[:, 2, 1] - middle[:, 0, 1]  # between the sources of two pixels that are two rows apart
    angles = np.rad2deg(np.arctan2(down[:, 1], down[:, 0]))
    np.testing.assert_allclose(np.hypot(*down.T), 2.0, atol=1e-3)  # nothing grows
    np.testing.assert_allclose(middle[:, 1, 1], 32.0, atol=1e-3)  # about the middle
    assert 19 < angles.max() <= 20.01
    assert -20.01 <= angles.min() < -19
    assert abs(angles.mean()) < 2  # three standard deviations of the mean, 20/√3/√300


def test_scale_makes_sides_longer_and_shorter_by_up_to_its_share():
    middle = sources(300, 65, scale=0.2)[:, 31:34, 31:34]
    rows, columns = (2 / (middle[:, 2, 2, axis] - middle[:, 0, 0, axis]) for axis in (0, 1))
    np.testing.assert_allclose(rows, columns, rtol=1e-3)
    np.testing.assert_allclose(middle[:, 1, 1], 32.0, atol=1e-3)
    assert 1.19 < rows.max() < 1.2001
    assert 0.7999 < rows.min() < 0.81
    assert abs(rows.mean() - 1) < 0.02  # three standard deviations of the mean, 0.2/√3/√300


def test_shift_is_up_to_its_share_of_the_side_in_either_direction():
    shifts = sources(300, 65, shift=0.1)[:, 32, 32] - 32
    np.testing.assert_array_less(np.abs(shifts), 0.1 * 65 + 1e-3)
    np.testing.assert_array_less(0.95 * 0.1 * 65, shifts.max(0))
    np.testing.assert_array_less(shifts.min(0), -0.95 * 0.1 * 65)
    np.testing.assert_array_less(np.abs(shifts.mean(0)), 0.65)  # three standard deviations of the mean
    assert abs(np.corrcoef(shifts.T)[0, 1]) < 0.2  # rows and columns apart


def test_elastic_displacements_have_its_standard_deviation_and_are_smooth():
    side = 13 * ELASTIC_KNOTS
    displaced = sources(100, side, elastic=0.02) - np.stack(np.mgrid[:side, :side], axis=-1)
    knots = displaced[
        :, 19:-13:13, 19:-13:13
    ]  # an interpolation meets its knots; sources of those at the edge may lie beyond it
    # 1800 normal draws: the standard deviation of their standard deviation is 1.7 %.
    assert knots.std() == pytest.approx(0.02 * side, rel=0.06)
    assert abs(knots.mean()) < 4 * 0.02 * side / np.sqrt(knots.size)
    steps = np.diff(displaced[:, 19:-19, 19:-19], axis=1)
    assert steps.std() < 3 * 0.02 * side / 13  # between knots 13 pixels apart


def flat(count, side, value=0.5):
    return np.full((count, side, side), value)


def test_the_logarithm_of_gamma_has_its_standard_deviation():
    exponents = np.log(changed(flat(2000, 8), gamma=0.2)[:, 0, 0]) / np.log(0.5)
    # Four standard deviations: of a standard deviation 0.2/√(2·2000), of a mean 0.2/√2000.
    assert np.log(exponents).std() == pytest.approx(0.2, abs=0.0127)
    assert abs(np.log(exponents).mean()) < 0.018


def test_contrast_multiplies_distances_from_the_mean_by_up_to_its_share_more_or_less():
    images = flat(500, 8, 0.4)
    images[:, :4] = 0.6
    other = changed(images, contrast=0.3)
    factors = (other[:, 0, 0] - other[:, 7, 0]) / 0.2
    assert 1.29 < factors.max() < 1.3001
    assert 0.6999 < factors.min() < 0.71
    assert abs(factors.mean() - 1) < 0.031  # four standard deviations of the mean, 0.3/√3/√500


def test_the_logarithm_of_the_bias_has_its_standard_deviation():
    side = 21 * BIAS_KNOTS
    logarithms = np.log(changed(flat(200, side, 0.2), bias=0.2) / 0.2)
    knots = logarithms[:, 10::21, 10::21]  # an interpolation meets its knots
    assert knots.std() == pytest.approx(0.2, abs=4 * 0.2 / np.sqrt(2 * knots.size))
    assert abs(knots.mean()) < 4 * 0.2 / np.sqrt(knots.size)


def test_blur_is_up_to_its_share_of_the_side_for_sides_of_any_length():
    for side in (33, 65):
        points = np.zeros((200, side, side))
        points[:, side // 2, side // 2] = 1.0
        offsets = np.arange(side) - side // 2
        variances = (changed(points, blur=0.02).sum(2) * offsets**2).sum(1)
        # Sampled and cut at 2.5 standard deviations, a Gaussian keeps 0.90 of its variance or more.
        assert 0.85 * 0.02 * side < np.sqrt(variances.max()) < 1.01 * 0.02 * side


def test_noise_is_normal_with_a_standard_deviation_of_up_to_its_strength():
    noise = changed(flat(300, 32), noise=0.1) - 0.5
    levels = noise.std((1, 2))
    # 1024 pixels a slice: a standard deviation is known to 2.2 %.
    assert 0.095 < levels.max() < 0.108
    assert levels.min() < 0.003
    assert abs(levels.mean() - 0.05) < 0.0067  # four standard deviations of the mean, 0.1/√12/√300
    standard = noise / levels[:, None, None]
    assert np.abs(standard.mean((1, 2))).max() < 4.5 / 32
    assert (np.abs(standard) < 1).mean() == pytest.approx(0.6827, abs=0.01)


def test_low_resolution_loses_up_to_its_share_of_rows_and_columns_alike():
    noise = np.random.default_rng(0).random((60, 64, 64))
    coarse = changed(noise, low_resolution=0.75)
    kept = np.linalg.matrix_rank(coarse, tol=1e-3)  # rows and columns are mixtures of those kept
    assert 16 <= kept.min() < 20
    assert kept.max() > 55


@pytest.mark.parametrize(("name", "strength"), [("contrast", 0.5), ("bias", 0.2), ("blur", 0.02)])
def test_each_change_happens_with_the_probability_given(name, strength):
    images = np.random.default_rng(0).uniform(0.2, 0.8, (400, 32, 32))
    touched = (np.abs(changed(images, probability=0.3, **{name: strength}) - images) > 1e-4).any((1, 2))
    # Four standard deviations of a binomial, 0.023; of blurs, the third below a fifth of a pixel changes nothing.
    expected = 0.3 * (1 - 0.2 / (0.02 * 32)) if name == "blur" else 0.3
    assert abs(touched.mean() - expected) < 0.1
