"""Orientation and colours, held against Pillow."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from brainseg_jax.data.formats.grey_levels import to_grey, turn_upright

IMAGE = np.arange(6, dtype=np.uint8).reshape(2, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_those_of_pillow(orientation):
    picture = Image.fromarray(IMAGE)
    picture.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(turn_upright(IMAGE, orientation), np.asarray(ImageOps.exif_transpose(picture)))


def test_grey_with_opacity_lies_over_black():
    pixels = np.array([[[40000, 65535], [40000, 0]]], np.uint16)
    np.testing.assert_allclose(to_grey(pixels, has_alpha=True), [[40000, 0]])
    assert to_grey(pixels[..., :1]).dtype == np.uint16
