"""From the dataset to packed slices: scaling, resizing to the network's size and back, packing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brainseg_jax.data.dataset import Dataset
from brainseg_jax.data.packing import IMAGE_LEVELS, load_slices, pack, unpack
from brainseg_jax.data.preprocessing import resize_to_model, resize_to_original, scale_image
from brainseg_jax.errors import InputError


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


def test_percentiles_keep_one_bright_pixel_and_a_burnt_in_letter_from_darkening_an_image():
    image = np.random.default_rng(0).integers(0, 1000, (128, 128)).astype(np.int32)
    with_pixel, with_letter = image.copy(), image.copy()
    with_pixel[3, 5] = 65535
    with_letter[2:10, 2:10] = 65535  # 0.4 % of the pixels
    plain = scale_image(image, percentile=0.5)
    for changed in (with_pixel, with_letter):
        same = changed == image
        np.testing.assert_allclose(scale_image(changed, percentile=0.5)[same], plain[same], atol=0.01)
        assert scale_image(changed)[same].max() < 0.02  # from the smallest to the largest grey level


def test_percentiles_are_those_of_numpy_and_values_beyond_are_clipped():
    image = np.arange(1001, dtype=np.int16).reshape(7, 143)
    expected = ((image - 10.0) / 980.0).clip(0, 1)
    np.testing.assert_allclose(scale_image(image, percentile=1.0), expected, atol=1e-6)
    nearly_empty = np.zeros((64, 64), np.int16)
    nearly_empty[0, :4] = 50  # fewer pixels than the percentile clips, but still visible
    np.testing.assert_array_equal(scale_image(nearly_empty, percentile=0.5), nearly_empty / 50)


@pytest.mark.parametrize(("height", "width"), [(128, 128), (100, 60), (30, 90), (33, 47), (512, 512)])
def test_resizing_and_back_keeps_positions(height, width):
    image = blob(height, width, row=0.3, column=0.6, radius=min(height, width) / 5)
    small = resize_to_model(image, size=64)
    assert small.shape == (64, 64)
    back = resize_to_original(small, shape=(height, width))
    assert back.shape == (height, width)
    np.testing.assert_allclose(middle_of(back), middle_of(image), atol=0.01)
    assert np.abs(back - image).mean() < 0.02


def test_an_image_of_the_networks_size_is_not_changed():
    image = np.random.default_rng(0).random((64, 64), np.float32)
    np.testing.assert_array_equal(resize_to_model(image, size=64), image)
    np.testing.assert_array_equal(resize_to_original(image, shape=(64, 64)), image)


def test_shrinking_averages_and_does_not_skip_pixels():
    stripes = np.tile(np.array([0.0, 1.0], np.float32), (64, 32))
    np.testing.assert_allclose(resize_to_model(stripes, size=16)[:, 1:-1], 0.5, atol=0.01)


def test_packed_slices_are_the_datasets_in_their_order(data_dir):
    dataset = Dataset(str(data_dir), config="phantom")
    chosen = dataset.metadata.slice_ids[[5, 2, 9]]
    slices = load_slices(dataset, chosen, image_size=128)  # their own size: nothing is resized
    assert (slices.images.dtype, slices.images.shape) == (np.uint16, (3, 128, 128))
    assert (slices.masks.dtype, slices.masks.shape) == (np.uint8, (3, 128, 16))
    assert slices.nbytes == 3 * 128 * 128 * (2 + 1 / 8)
    images, masks = unpack(jax.tree.map(jnp.asarray, slices))
    assert images.shape == masks.shape == (3, 128, 128, 1)
    assert images.dtype == masks.dtype == jnp.float32
    for row, sample in enumerate(dataset.read(chosen)):
        np.testing.assert_array_equal(masks[row, ..., 0], sample.mask)
        assert np.abs(images[row, ..., 0] - scale_image(sample.image)).max() <= 0.51 / IMAGE_LEVELS


def test_slices_load_where_the_system_cannot_reserve_disk_space(data_dir, monkeypatch):
    dataset = Dataset(str(data_dir), config="phantom")
    expected = load_slices(dataset, dataset.metadata.slice_ids[:2], image_size=64)
    monkeypatch.delattr("os.posix_fallocate", raising=False)  # as on macOS
    slices = load_slices(dataset, dataset.metadata.slice_ids[:2], image_size=64)
    jax.tree.map(np.testing.assert_array_equal, slices, expected)


def test_a_full_temporary_folder_is_named_with_the_space_needed(data_dir, monkeypatch):
    def reserve(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", reserve, raising=False)
    dataset = Dataset(str(data_dir), config="phantom")
    with pytest.raises(InputError, match=r"no room for the slices \(No space left.*set TMPDIR"):
        load_slices(dataset, dataset.metadata.slice_ids[:2], image_size=64)


def test_packing_keeps_every_grey_level_of_a_slice_that_has_thousands():
    # The widest range that int16 has, 4,096 levels of it, two of them neighbours: what 8 bits would merge 16 to 1.
    levels = np.unique(np.random.default_rng(0).choice(np.arange(-32768, 32768), 4094, replace=False))
    levels = np.concatenate([levels, [levels[-1] - 1, -32768]])[:4096].astype(np.int16)
    image = levels.reshape(64, 64)
    packed = pack(scale_image(image), np.zeros((64, 64), bool))
    assert len(np.unique(packed.images)) == len(np.unique(image)) > 4000
    eight_bits = np.rint(scale_image(image) * 255).astype(np.uint8)
    assert len(np.unique(eight_bits)) == 256


@pytest.mark.parametrize(("before", "after"), [(512, 128), (97, 128), (33, 64), (512, 80)])
def test_resizing_is_jaxs_antialiased_linear_one(before, after):
    image = np.random.default_rng(0).random((before, before), np.float32)
    expected = jax.image.resize(image, (after, after), "linear", antialias=True)
    np.testing.assert_allclose(resize_to_model(image, size=after), expected, atol=2e-6)


def test_masks_keep_their_share_of_the_image_when_shrunk(data_dir):
    dataset = Dataset(str(data_dir), config="phantom")
    small = load_slices(dataset, dataset.metadata.slice_ids, image_size=64)
    own = np.array([sample.mask.mean() for sample in dataset.read(dataset.metadata.slice_ids)])
    shares = np.unpackbits(small.masks, axis=-1).mean((1, 2))
    assert abs(shares.mean() / own.mean() - 1) < 0.02


def test_an_unknown_slice_is_refused(data_dir):
    with pytest.raises(InputError, match="has no slice 999999"):
        list(Dataset(str(data_dir), config="phantom").read([999999]))


def test_another_dataset_in_the_folder_is_named(data_dir, tmp_path):
    with pytest.raises(InputError, match=r"but it holds phantom: set config\.data\.dataset to phantom, or run `python"):
        Dataset(str(data_dir), config="figshare")
    with pytest.raises(InputError, match=r"holds no \S+: run `python scripts"):
        Dataset(str(tmp_path), config="figshare")
