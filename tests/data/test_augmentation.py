"""Augmentation: image and mask move together, each change does what its name says, and bad strengths are refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brainseg_jax.config import get_config
from brainseg_jax.data.augmentation import Augmentation, augment
from brainseg_jax.errors import InputError

NOTHING = Augmentation(**get_config().augmentation)
WARPS = {"flip": 0.5, "rotation": 25.0, "scale": 0.2, "shift": 0.08, "elastic": 0.02}


def changed(images, masks, key=0, **strengths):
    augmentation = dataclasses.replace(NOTHING, **strengths)
    apply = jax.jit(lambda key: augment(key, images, masks, augmentation=augmentation))
    return [np.asarray(values) for values in apply(jax.random.key(key))]


def discs(count=6, side=64):
    """Bright discs off the centre, (B, S, S, 1), and their masks."""
    rows, columns = np.mgrid[:side, :side]
    mask = (np.hypot(rows - 0.4 * side, columns - 0.6 * side) < 0.15 * side).astype(np.float32)
    masks = jnp.asarray(np.tile(mask, (count, 1, 1))[..., None])
    return masks * 0.9 + 0.05, masks


@pytest.mark.parametrize("name", WARPS)
def test_image_and_mask_move_together(name):
    images, masks = discs()
    moved, moved_masks = changed(images, masks, **{name: WARPS[name]})
    assert (moved_masks != masks).any()
    assert set(np.unique(moved_masks)) == {0.0, 1.0}
    from_image = moved > 0.5
    shared = (from_image & (moved_masks > 0)).sum()
    assert 2 * shared / (from_image.sum() + moved_masks.sum()) > 0.98


def test_flip_with_probability_one_mirrors_left_and_right():
    images = jnp.asarray(np.random.default_rng(0).random((3, 16, 16, 1), np.float32))
    masks = (images > 0.5).astype(jnp.float32)
    flipped, flipped_masks = changed(images, masks, flip=1.0)
    np.testing.assert_allclose(flipped, images[:, :, ::-1], atol=1e-5)
    np.testing.assert_array_equal(flipped_masks, masks[:, :, ::-1])


def test_rotation_turns_about_the_middle_and_keeps_the_area():
    images, masks = discs(40)
    _, turned = changed(images, masks, rotation=180.0)
    areas = turned.sum((1, 2, 3))
    np.testing.assert_allclose(areas, float(masks[0].sum()), rtol=0.05)
    rows, columns = np.mgrid[:64, :64] - 31.5
    distances = [np.hypot((mask[..., 0] * rows).sum(), (mask[..., 0] * columns).sum()) / mask.sum() for mask in turned]
    np.testing.assert_allclose(distances, np.hypot(0.4 * 64 - 31.5, 0.6 * 64 - 31.5), atol=0.3)
    middles = {
        (round((mask[..., 0] * rows).sum() / mask.sum()) > 0, (mask[..., 0] * columns).sum() > 0) for mask in turned
    }
    assert len(middles) == 4  # discs in all four quarters


def test_scale_and_shift_stay_within_their_strength():
    images, masks = discs(60)
    areas = changed(images, masks, scale=0.2)[1].sum((1, 2, 3)) / float(masks[0].sum())
    assert areas.min() > 0.8**2 - 0.03
    assert areas.max() < 1.2**2 + 0.03
    assert areas.max() - areas.min() > 0.5
    _, moved = changed(images, masks, shift=0.1)
    rows = (moved[..., 0] * np.arange(64)[:, None]).sum((1, 2)) / moved.sum((1, 2, 3))
    assert np.abs(rows - rows.mean()).max() < 0.1 * 64 + 1
    assert np.ptp(rows) > 0.1 * 64


@pytest.mark.parametrize("name", ["gamma", "contrast", "bias", "blur", "low_resolution", "noise"])
def test_intensities_change_slice_by_slice_and_masks_do_not(name):
    images, masks = discs()
    other, other_masks = changed(images, masks, **{name: 0.02 if name == "blur" else 0.2})
    np.testing.assert_array_equal(other_masks, masks)
    assert other.min() >= 0
    assert other.max() <= 1
    assert len({image.tobytes() for image in other}) == len(images)


def test_contrast_keeps_the_mean():
    images = jnp.full((4, 16, 16, 1), 0.4).at[:, :8].set(0.6)
    other, _ = changed(images, images, contrast=0.5)
    np.testing.assert_allclose(other.mean((1, 2, 3)), 0.5, atol=1e-5)
    assert np.ptp(other[:, 0, 0, 0]) > 0.02


def test_blur_is_a_gaussian_of_at_most_its_strength_and_keeps_the_sum():
    points = np.zeros((40, 65, 65, 1), np.float32)
    points[:, 32, 32] = 1.0
    blurred, _ = changed(jnp.asarray(points), jnp.asarray(points), blur=0.02)
    np.testing.assert_allclose(blurred.sum((1, 2, 3)), 1.0, rtol=1e-4)
    offsets = np.arange(65) - 32
    deviations = np.sqrt((blurred[..., 0].sum(2) * offsets**2).sum(1))
    assert deviations.max() < 0.02 * 65
    assert deviations.max() > 0.8 * 0.02 * 65
    assert deviations.min() < 0.3
    np.testing.assert_allclose(blurred, blurred.transpose(0, 2, 1, 3), atol=1e-6)


def test_bias_is_smooth_and_has_no_preferred_direction():
    flat = jnp.full((200, 64, 64, 1), 0.2)
    changed_, _ = changed(flat, flat, bias=0.2)
    logarithms = np.log(changed_ / 0.2)
    assert abs(logarithms.mean()) < 0.02
    assert 0.1 < logarithms.std() < 0.25
    assert np.abs(np.diff(logarithms, axis=1)).max() < 0.06


def test_low_resolution_keeps_straight_lines_and_loses_at_most_its_share_of_the_rows():
    rows, columns = np.mgrid[:64, :64] / 63
    plane = jnp.asarray(np.tile(0.2 + 0.3 * rows + 0.4 * columns, (30, 1, 1))[..., None], jnp.float32)
    other, _ = changed(plane, plane, low_resolution=0.5)
    # The nearest row is up to half a row away from the position that is assumed for it.
    np.testing.assert_allclose(other[:, 2:-2, 2:-2], plane[:, 2:-2, 2:-2], atol=0.5 / 63 * 0.7 + 1e-6)
    noise = jnp.asarray(np.random.default_rng(0).random((30, 64, 64, 1), np.float32))
    coarse, _ = changed(noise, noise, low_resolution=0.5)
    # Every row is a mixture of rows that were kept, so their number is the rank.
    kept = np.linalg.matrix_rank(coarse[..., 0], tol=1e-3)
    assert kept.min() >= 32
    assert kept.min() < 40
    assert kept.max() > 55


@pytest.mark.parametrize("name", ["rotation", "scale", "shift", "elastic", "gamma", "noise", "low_resolution"])
def test_each_change_happens_to_its_share_of_the_slices(name):
    images = jnp.asarray(np.random.default_rng(0).uniform(0.2, 0.8, (200, 16, 16, 1)), jnp.float32)
    other, _ = changed(images, images, probability=0.3, **{name: 0.2 if name != "rotation" else 90.0})
    touched = (np.abs(other - images) > 1e-5).any((1, 2, 3))
    assert 0.2 < touched.mean() < 0.4  # three standard deviations either way


def test_changes_happen_independently_of_each_other():
    images = jnp.full((400, 16, 16, 1), 0.2).at[:, :8].set(0.6)
    other, _ = changed(images, images, probability=0.5, gamma=0.2, noise=0.1)
    spread = other[:, 1:7, 1:7, 0].std((1, 2)) > 1e-6  # noise
    level = np.abs(other[..., 0].mean((1, 2)) - 0.4) > 0.01  # gamma, except for exponents near 1
    shares = [np.mean(level[spread == one]) for one in (True, False)]
    assert abs(shares[0] - shares[1]) < 0.15


def test_the_same_key_gives_the_same_changes():
    images, masks = discs()
    strengths = {**WARPS, "gamma": 0.2, "noise": 0.05}
    one, again, other = (changed(images, masks, key=key, **strengths)[0] for key in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_strengths_out_of_range_are_refused():
    for name, value in (
        ("flip", 1.5),
        ("probability", 1.5),
        ("low_resolution", 1.0),
        ("rotation", -1.0),
        ("scale", 1.0),
        ("noise", float("nan")),
    ):
        with pytest.raises(InputError, match=rf"config\.augmentation\.{name} is"):
            dataclasses.replace(NOTHING, **{name: value})
