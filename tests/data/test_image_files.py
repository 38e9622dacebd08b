"""Pictures are read as a person sees them."""

import sys

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from brainseg_jax.data.image_files import format_of, read_image, stem_of
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


def test_colours_of_sixteen_bits_keep_their_levels(tmp_path):
    ramp = np.arange(64, dtype=np.uint16).reshape(8, 8) * 3  # below the upper byte for the most part
    colours = np.stack([ramp * 4, ramp * 2, ramp], -1)
    (tmp_path / "colour.png").write_bytes(imagecodecs.png_encode(colours))
    expected = (0.299 * 4 + 0.587 * 2 + 0.114) * ramp
    np.testing.assert_allclose(read_image(tmp_path / "colour.png"), expected, rtol=1e-5)
    clear = np.stack([ramp, np.where(ramp < 50, 0, 65535).astype(np.uint16)], -1)
    (tmp_path / "grey.png").write_bytes(imagecodecs.png_encode(clear))
    np.testing.assert_allclose(read_image(tmp_path / "grey.png"), np.where(ramp < 50, 0, ramp), rtol=1e-5)


def test_formats_by_name_and_by_first_bytes(tmp_path):
    names = {"a.NII.GZ": "NIfTI", "b.nii": "NIfTI", "c.TIF": "TIFF", "d.ima": "DICOM", "e.txt": None, "f": None}
    for name, format_ in names.items():
        (tmp_path / name).write_bytes(b"")
        assert format_of(tmp_path / name) == format_, name
    (tmp_path / "1.2.840.77").write_bytes(bytes(128) + b"DICM")
    assert format_of(tmp_path / "1.2.840.77") == "DICOM"
    stems = {"a.b.nii.gz": "a.b", "x.nii": "x", "1.2.840.77": "1.2.840.77", "y.PNG": "y", ".png": ""}
    assert {name: stem_of(tmp_path / name) for name in stems} == stems


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    (tmp_path / "x.nii").write_bytes(b"")
    with pytest.raises(InputError, match=r"x\.nii: .*needs nibabel, .* `pip install 'brainseg_jax\[formats\]'`"):
        read_image(tmp_path / "x.nii")
