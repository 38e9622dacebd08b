"""From probabilities to masks: thresholds, components, and the choice of both by counting all masks again."""

import numpy as np
import pytest
from scipy import ndimage

from brainseg_jax.errors import InputError
from brainseg_jax.inference.postprocessing import (
    MIN_COMPONENT_FRACTIONS,
    THRESHOLDS,
    Postprocessing,
    tune_postprocessing,
)


def test_small_components_are_left_out_and_corners_join():
    probabilities = np.zeros((10, 10), np.float32)
    probabilities[0, 0] = 0.9  # alone: 1 % of the image
    probabilities[4, 4] = probabilities[5, 5] = probabilities[6, 6] = 0.9  # joined at corners: 3 %
    assert Postprocessing(0.5, 0.0).mask(probabilities).sum() == 4
    assert Postprocessing(0.5, 0.01).mask(probabilities).sum() == 4  # not smaller than 1 %
    kept = Postprocessing(0.5, 0.02).mask(probabilities)
    assert kept.dtype == bool
    assert kept.sum() == 3
    assert not kept[0, 0]
    assert not Postprocessing(0.5, 0.04).mask(probabilities).any()
    assert not Postprocessing(0.95, 0.02).mask(probabilities).any()


def smooth_cases(count=12, side=64):
    rng = np.random.default_rng(0)
    for _ in range(count):
        field = ndimage.gaussian_filter(rng.normal(size=(side, side)), 3)
        probabilities = 1 / (1 + np.exp(-20 * (field - 0.05)))
        yield probabilities, ndimage.gaussian_filter(field + 0.02 * rng.normal(size=field.shape), 1) > 0.09


def test_the_choice_is_the_best_of_all_masks():
    cases = list(smooth_cases())

    def mean_dice(decision):
        dice = []
        for probabilities, truth in cases:
            mask = decision.mask(probabilities)
            dice.append(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
        return np.mean(dice)

    means = {
        decision: mean_dice(decision)
        for decision in (
            Postprocessing(threshold, smallest) for threshold in THRESHOLDS for smallest in MIN_COMPONENT_FRACTIONS
        )
    }
    chosen, dice = tune_postprocessing(cases)
    assert dice == pytest.approx(max(means.values()))
    assert means[chosen] == pytest.approx(dice)
    assert chosen != Postprocessing(0.5, 0.0)  # or the test would prove little
    assert dice > means[Postprocessing(0.5, 0.0)] + 0.01


def test_of_equals_one_half_and_the_min_component_fraction():
    truth = np.zeros((20, 20), bool)
    truth[5:15, 5:15] = True
    assert tune_postprocessing([(truth.astype(np.float32), truth)]) == (Postprocessing(0.5, 0.0), 1.0)


def test_a_slice_without_tumour_counts_with_one_where_nothing_is_marked_and_else_with_zero():
    truth, certain = np.zeros((2, 20, 20), bool), np.full((20, 20), 0.15)
    truth[0, 5:15, 5:15] = True
    certain[5:15, 5:15] = 0.95
    alarm = np.zeros((20, 20))
    alarm[0, 0] = 0.65
    chosen, dice = tune_postprocessing([(certain, truth[0]), (alarm, truth[1])])
    assert chosen == Postprocessing(0.7, 0.0)  # the lowest threshold next to one half without the alarm
    assert dice == 1.0
    alarm[0, :] = 0.99  # an alarm that nothing removes: 5 % of the image
    assert tune_postprocessing([(certain, truth[0]), (alarm, truth[1])]) == (Postprocessing(0.5, 0.0), 0.5)


@pytest.mark.parametrize(("values", "field"), [((0.0, 0.0), "threshold"), ((0.5, 1.0), "min_component_fraction")])
def test_bad_values_are_refused_by_name(values, field):
    with pytest.raises(InputError, match=rf"config\.evaluation\.{field} is"):
        Postprocessing(*values)
