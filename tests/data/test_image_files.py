"""Pictures are read as a person sees them."""

import numpy as np
import pytest
from PIL import Image

from brainseg_jax.data.image_files import read_image
from brainseg_jax.errors import InputError


def test_sixteen_bits_keep_their_levels(tmp_path):
    deep = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png"), deep)


def test_a_photograph_is_turned_as_its_exif_data_say(tmp_path):
    image = np.zeros((40, 60), np.uint8)
    image[:20] = 200  # the upper half
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(image).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    upright = read_image(tmp_path / "turned.jpg")
    assert upright.shape == (60, 40)
    assert upright[:, 25:].min() > 150
    assert upright[:, :15].max() < 50


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_black_and_not_its_hidden_colour(tmp_path, mode):
    colours = np.full((8, 8, 4), 255, np.uint8)  # white, but the left half shows nothing of it
    colours[:, :4, 3] = 0
    image = Image.fromarray(colours)
    if mode == "P":
        image = image.quantize()
    image.convert(mode).save(tmp_path / "clear.png")
    grey = read_image(tmp_path / "clear.png")
    assert grey[:, :4].max() == 0
    assert grey[:, 4:].min() == 255


def test_palettes_and_cmyk_become_grey(tmp_path):
    ramp = Image.fromarray(np.tile(np.arange(0, 256, 16, np.uint8), (16, 1)))
    ramp.convert("P").save(tmp_path / "palette.png")
    ramp.convert("RGB").convert("CMYK").save(tmp_path / "print.jpg", quality=100)
    for name in ("palette.png", "print.jpg"):
        np.testing.assert_allclose(read_image(tmp_path / name).astype(float), np.asarray(ramp), atol=6)


def test_several_frames_and_what_is_no_image_are_refused(tmp_path):
    frames = [Image.fromarray(np.full((8, 8), level, np.uint8)) for level in (0, 200)]
    frames[0].save(tmp_path / "film.png", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=r"film\.png has 2 frames: save each as a file of its own"):
        read_image(tmp_path / "film.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(InputError, match=r"broken\.png is not a readable PNG or JPEG"):
        read_image(tmp_path / "broken.png")
    (tmp_path / "broken.mat").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"broken\.mat is not a MATLAB"):
        read_image(tmp_path / "broken.mat")


def test_a_picture_above_pillows_limit_is_refused_in_a_sentence(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match=r"large\.png is not a readable .* \(Image size \(4096 pixels\)"):
        read_image(tmp_path / "large.png")
