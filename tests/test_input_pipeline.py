"""From the dataset to batches: scaling, resizing there and back, and an order that follows from seed and epoch."""

import numpy as np
import pytest

from brainseg_jax.errors import InputError
from brainseg_jax.input_pipeline import (
    PICTURE_LEVELS,
    Dataset,
    epoch_batches,
    from_network_size,
    load_slices,
    padded_batches,
    scale_image,
    take_batch,
    to_network_size,
)


def middle_of(values):
    """Centre of mass in shares of height and width."""
    rows, columns = values.sum(1), values.sum(0)
    return np.array([(np.arange(len(sums)) + 0.5) @ sums / sums.sum() / len(sums) for sums in (rows, columns)])


def blob(height, width, *, row, column, radius):
    """A smooth spot at (row, column), given in shares of height and width."""
    down, across = np.mgrid[:height, :width] + 0.5
    distance = np.hypot(down - row * height, across - column * width)
    return np.clip(1.5 - distance / radius, 0, 1).astype(np.float32)


def test_scaling_takes_the_whole_range_of_int16_without_overflow():
    scaled = scale_image(np.array([[-32768, 32767, 0]], np.int16))
    np.testing.assert_allclose(scaled, [[0, 1, 32768 / 65535]], rtol=1e-6)
    np.testing.assert_array_equal(scale_image(np.full((2, 2), 7, np.int16)), np.zeros((2, 2)))


@pytest.mark.parametrize(("height", "width"), [(128, 128), (100, 60), (30, 90), (33, 47), (512, 512)])
def test_resizing_there_and_back_leaves_things_in_their_place(height, width):
    image = blob(height, width, row=0.3, column=0.6, radius=min(height, width) / 5)
    small = to_network_size(image, size=64)
    assert small.shape == (64, 64)
    back = from_network_size(small, shape=(height, width))
    assert back.shape == (height, width)
    np.testing.assert_allclose(middle_of(back), middle_of(image), atol=0.01)
    assert np.abs(back - image).mean() < 0.02


def test_a_picture_of_the_networks_size_passes_unchanged():
    image = np.random.default_rng(0).random((64, 64), np.float32)
    np.testing.assert_array_equal(to_network_size(image, size=64), image)
    np.testing.assert_array_equal(from_network_size(image, shape=(64, 64)), image)


def test_shrinking_averages_and_does_not_skip_pixels():
    stripes = np.tile(np.array([0.0, 1.0], np.float32), (64, 32))
    np.testing.assert_allclose(to_network_size(stripes, size=16)[:, 1:-1], 0.5, atol=0.01)


def test_slices_on_the_device_are_the_datasets_in_their_order(data_dir):
    dataset = Dataset(str(data_dir), config="phantom")
    chosen = dataset.table.slice_ids[[5, 2, 9]]
    slices = load_slices(dataset, chosen, image_size=128)  # their own size: nothing is resized
    assert slices.images.dtype == np.uint16
    assert slices.masks.dtype == bool
    for row, record in enumerate(dataset.read(chosen)):
        np.testing.assert_array_equal(slices.masks[row], record.mask == 1)
        stored = np.asarray(slices.images[row]) / PICTURE_LEVELS
        assert np.abs(stored - scale_image(record.image)).max() <= 0.51 / PICTURE_LEVELS
    images, masks = take_batch(slices, np.array([2, 0]))
    assert images.shape == masks.shape == (2, 128, 128, 1)
    np.testing.assert_array_equal(masks[0, ..., 0], slices.masks[2])
    stored = np.asarray(slices.images[0], np.float32) / PICTURE_LEVELS
    np.testing.assert_allclose(images[1, ..., 0], stored, rtol=1e-6)


def test_masks_keep_their_share_of_the_picture_when_shrunk(data_dir):
    dataset = Dataset(str(data_dir), config="phantom")
    small = load_slices(dataset, dataset.table.slice_ids, image_size=64)
    own = np.array([record.mask.mean() for record in dataset.read(dataset.table.slice_ids)])
    shares = np.asarray(small.masks).mean((1, 2))
    assert abs(shares.mean() / own.mean() - 1) < 0.02


def test_an_unknown_slice_is_refused(data_dir):
    with pytest.raises(InputError, match="has no slice 999999"):
        list(Dataset(str(data_dir), config="phantom").read([999999]))


def test_an_epoch_takes_every_slice_at_most_once_and_leaves_less_than_a_batch():
    batches = epoch_batches(seed=0, epoch=3, slices=103, batch_size=8)
    assert batches.shape == (12, 8)
    assert len(set(batches.ravel().tolist())) == 96
    assert batches.min() >= 0
    assert batches.max() < 103


def test_the_order_follows_from_seed_and_epoch_alone():
    def order(seed, epoch):
        return epoch_batches(seed=seed, epoch=epoch, slices=64, batch_size=8)

    np.testing.assert_array_equal(order(0, 1), order(0, 1))
    assert (order(0, 1) != order(0, 2)).any()
    assert (order(0, 1) != order(1, 1)).any()
    assert (order(0, 1) != order(1, 0)).any()


@pytest.mark.parametrize(("slices", "batch_size"), [(7, 3), (6, 3), (2, 8)])
def test_padded_batches_weigh_every_slice_once(slices, batch_size):
    weighed = np.zeros(slices)
    for rows, weights in padded_batches(slices, batch_size):
        assert rows.shape == weights.shape == (batch_size,)
        np.add.at(weighed, rows, weights)
    np.testing.assert_array_equal(weighed, 1)
