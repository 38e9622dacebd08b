"""Masks for new images: any size and kind of file, in their place, and the same whatever else is in the batch."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from brainseg_jax.data.figshare_brain_tumor import mat_file
from brainseg_jax.data.figshare_brain_tumor.mat_file import RawSlice
from brainseg_jax.errors import InputError
from brainseg_jax.inference.find_images import find_images
from brainseg_jax.inference.predict_files import predict_files
from brainseg_jax.inference.predictor import Predictor
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def predictor(trained):
    return Predictor.from_workdir(trained)


@pytest.fixture
def finds_bright_pixels(predictor, monkeypatch):
    """The predictor with its network replaced by the image itself: probability is brightness."""
    monkeypatch.setattr(predictor, "_predict", lambda variables, images: images)
    return predictor


def with_square(height, width, top, left, side, *, dtype=np.uint8, bright=200):
    image = np.full((height, width), 10, dtype)
    image[top : top + side, left : left + side] = bright
    return image


def write_mat(path, image):
    mask = (image > 100).astype(np.uint8)
    slice_ = RawSlice(1, "1", 1, image.astype(np.int16), mask, is_phantom=True)
    path.write_bytes(mat_file.write_slice(slice_))


def test_masks_come_out_upright_in_their_place_and_at_the_images_size(tmp_path, finds_bright_pixels):
    image = with_square(150, 90, 20, 50, 30)
    Image.fromarray(image).save(tmp_path / "grey.png")
    Image.fromarray(np.stack([image] * 3, -1)).save(tmp_path / "colour.jpg", quality=95)
    Image.fromarray(with_square(150, 90, 20, 50, 30, dtype=np.uint16, bright=40000)).save(tmp_path / "deep.png")
    write_mat(tmp_path / "slice.mat", image)
    paths = find_images([str(tmp_path / "*.*")], output=tmp_path / "out")
    assert all(not reason for _, reason in predict_files(finds_bright_pixels, paths, tmp_path / "out"))
    masks = sorted((tmp_path / "out").glob("*_mask.png"))
    assert [path.name for path in masks] == ["colour_mask.png", "deep_mask.png", "grey_mask.png", "slice_mask.png"]
    truth = image == 200
    for path in masks:
        mask = np.asarray(Image.open(path))
        assert mask.shape == (150, 90)
        assert set(np.unique(mask)) == {0, 255}
        found = mask == 255
        assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.85
        overlay = np.asarray(Image.open(path.with_name(path.name.replace("_mask", "_overlay"))))
        assert overlay.shape == (150, 90, 3)


def test_a_image_gets_the_same_mask_alone_and_in_a_batch(predictor):
    rng = np.random.default_rng(0)
    images = [rng.random((40 + 7 * index, 60)) for index in range(5)]
    together = predictor.probabilities(images)
    for image, probabilities in zip(images, together, strict=True):
        assert probabilities.shape == image.shape
        assert probabilities.min() >= 0
        assert probabilities.max() <= 1
        np.testing.assert_allclose(predictor.probabilities([image])[0], probabilities, atol=1e-5)


def test_a_batch_that_does_not_fit_into_memory_is_halved(trained, monkeypatch):
    predictor = Predictor.from_workdir(trained)
    images = [np.random.default_rng(index).random((32, 32)) for index in range(9)]
    together, predict, sizes = predictor.probabilities(images), predictor._predict, []

    def with_room_for(count):
        def run(variables, batch):
            sizes.append(len(batch))
            if len(batch) > count:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
            return predict(variables, batch)

        return run

    monkeypatch.setattr(predictor, "_predict", with_room_for(4))
    np.testing.assert_allclose(predictor.probabilities(images), together, atol=1e-5)
    assert sizes == [16, 8, 4, 4, 4]  # the last of nine takes the program of the four before
    monkeypatch.setattr(predictor, "_predict", with_room_for(0))
    with pytest.raises(InputError, match=r"does not suffice for one image of 32×32: .* set JAX_PLATFORMS=cpu"):
        predictor.probabilities(images)


def test_brightness_and_contrast_of_the_file_do_not_matter(predictor):
    image = np.random.default_rng(0).random((64, 64))
    np.testing.assert_allclose(
        predictor.probabilities([image])[0], predictor.probabilities([1000 * image - 300])[0], atol=1e-4
    )


# Runs a program and prints the most memory that it, and nothing before it, took.
MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_number_of_files(tmp_path, trained):
    rng = np.random.default_rng(0)
    folders = {}
    for count in (20, 300):
        folders[count] = tmp_path / str(count)
        folders[count].mkdir()
        for number in range(count):
            image = rng.integers(0, 255, (256, 200 + number % 20), np.uint8)
            Image.fromarray(image).save(folders[count] / f"{number}.png", compress_level=0)
    taken = {}
    for count, folder in folders.items():
        command = [str(REPOSITORY / "scripts" / "predict.py"), f"--workdir={trained}", f"--input={folder}/*.png"]
        command = [sys.executable, "-c", MEASURE, sys.executable, *command, f"--output={folder}/masks"]
        finished = subprocess.run(command, capture_output=True, text=True, check=True)
        assert len(list((folder / "masks").glob("*_mask.png"))) == count
        taken[count] = int(finished.stdout)
    assert taken[300] < 1.2 * taken[20]
