"""Overlap of masks: cases counted by hand, and NumPy's sets on random ones."""

import numpy as np
import pytest

from brainseg_jax.metrics.overlap import (
    count_overlap,
    intersection_over_union,
)
from brainseg_jax.metrics.overlap import (
    dice as dice_of,
)
from brainseg_jax.metrics.overlap import (
    precision as precision_of,
)
from brainseg_jax.metrics.overlap import (
    recall as recall_of,
)


def pair(predicted, true):
    return np.array([predicted], bool), np.array([true], bool)


@pytest.mark.parametrize(
    ("predicted", "true", "dice", "iou", "precision", "recall"),
    [
        ([[1, 1], [0, 0]], [[1, 1], [0, 0]], 1.0, 1.0, 1, 1),  # equal
        ([[1, 1], [0, 0]], [[0, 0], [1, 1]], 0.0, 0.0, 0, 0),  # disjoint
        ([[1, 1], [0, 0]], [[1, 0], [1, 0]], 0.5, 1 / 3, 1 / 2, 1 / 2),  # 2·1 / (2 + 2), 1 / 3
        ([[1, 0], [0, 0]], [[1, 1], [1, 0]], 0.5, 1 / 3, 1, 1 / 3),  # 2·1 / (1 + 3), 1 / 3
        ([[1, 1], [1, 1]], [[1, 0], [0, 0]], 0.4, 0.25, 1 / 4, 1),  # 2·1 / (4 + 1), 1 / 4
        ([[0, 0], [0, 0]], [[0, 0], [0, 0]], 1.0, 1.0, 1, 1),  # both empty: nothing to find, nothing found
        ([[0, 0], [0, 0]], [[1, 0], [0, 0]], 0.0, 0.0, 0, 0),  # missed
        ([[1, 0], [0, 0]], [[0, 0], [0, 0]], 0.0, 0.0, 0, 0),  # found where nothing is
    ],
)
def test_overlap_by_hand(predicted, true, dice, iou, precision, recall):
    overlap = count_overlap(*pair(predicted, true))
    assert dice_of(overlap)[0] == pytest.approx(dice)
    assert intersection_over_union(overlap)[0] == pytest.approx(iou)
    assert precision_of(overlap)[0] == pytest.approx(precision)
    assert recall_of(overlap)[0] == pytest.approx(recall)


def test_each_slice_of_a_batch_counts_for_itself():
    rng = np.random.default_rng(0)
    predicted, true = rng.random((2, 5, 32, 32, 1)) < 0.3
    overlap = count_overlap(predicted, true.astype(np.uint8))
    dice, iou = dice_of(overlap), intersection_over_union(overlap)
    assert dice.shape == iou.shape == (5,)
    for row in range(5):
        one, other = set(np.flatnonzero(predicted[row])), set(np.flatnonzero(true[row]))
        assert dice[row] == pytest.approx(2 * len(one & other) / (len(one) + len(other)))
        assert iou[row] == pytest.approx(len(one & other) / len(one | other))


def test_counts_of_half_precision_masks_are_exact():
    # 512² pixels are far beyond the integers that float16 and bfloat16 can count to.
    full = np.ones((1, 512, 512), np.float16)
    overlap = count_overlap(full, full)
    assert overlap.shared[0] == overlap.predicted[0] == overlap.true[0] == 512 * 512


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 2, 2\) and \(1, 2, 2, 1\)"):
        count_overlap(np.ones((1, 2, 2)), np.ones((1, 2, 2, 1)))
