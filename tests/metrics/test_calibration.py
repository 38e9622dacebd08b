"""Calibration: counts by hand, joined parts equal the whole, and a known error is found."""

import numpy as np
import pytest

from brainseg_jax.metrics.calibration import BINS, Calibration


def test_pixels_fall_into_the_bin_of_their_probability():
    probabilities = np.array([[0.0, 0.01, 0.52], [0.54, 0.999, 1.0]])
    found = Calibration.empty().add(probabilities, np.array([[0, 0, 1], [0, 1, 1]])).describe()
    assert {index: count for index, count in enumerate(found["pixels"]) if count} == {0: 2, 10: 2, BINS - 1: 2}
    assert found["mean_probability"][0] == pytest.approx(0.005)
    assert found["mean_probability"][10] == pytest.approx(0.53)
    assert [found["tumour_share"][index] for index in (0, 1, 10, BINS - 1)] == [0.0, None, 0.5, 1.0]
    assert found["expected_error"] == pytest.approx((2 * 0.005 + 2 * 0.03 + 2 * 0.0005) / 6)
    assert found["expected_error_uncertain"] == pytest.approx(0.03)


def test_joined_parts_and_parsed_descriptions_are_the_whole():
    rng = np.random.default_rng(0)
    probabilities, masks = rng.random((2, 30, 30)), rng.random((2, 30, 30)) < 0.3
    one, other = (Calibration.empty().add(*pair) for pair in zip(probabilities, masks, strict=True))
    whole = Calibration.empty().add(probabilities.ravel()[None], masks.ravel()[None])
    np.testing.assert_allclose(one.join(other), whole)
    np.testing.assert_allclose(Calibration.parse(whole.describe()), whole)


def test_overconfidence_is_measured():
    rng = np.random.default_rng(0)
    probabilities = rng.uniform(0.1, 0.9, (400, 400))
    honest = Calibration.empty().add(probabilities, rng.random((400, 400)) < probabilities)
    lower = Calibration.empty().add(probabilities, rng.random((400, 400)) < probabilities - 0.1)
    assert honest.describe()["expected_error"] < 0.01
    assert lower.describe()["expected_error"] == pytest.approx(0.1, abs=0.01)
