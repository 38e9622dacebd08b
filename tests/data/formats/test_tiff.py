"""TIFF files of every kind are read as a person sees them."""

import contextlib
import struct

import numpy as np
import pytest
import tifffile

from brainseg_jax.data.image_files import read_image, read_slices
from brainseg_jax.errors import InputError

RAMP = np.arange(12 * 10).reshape(12, 10)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float16", "float32", "float64"])
def test_grey_levels_are_kept(tmp_path, dtype):
    levels = (RAMP * 250 if "16" in dtype and "float" not in dtype else RAMP).astype(dtype)
    tifffile.imwrite(tmp_path / "x.tif", levels)
    np.testing.assert_array_equal(read_image(tmp_path / "x.tif"), levels)


def test_compressed_pages_and_smaller_copies(tmp_path):
    pages = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]]).astype(np.uint16)
    with tifffile.TiffWriter(tmp_path / "x.tiff") as file:
        for page in pages:
            file.write(page, compression="lzw", contiguous=False)
        file.write(pages[0, ::2, ::2], subfiletype=1)
    slices = read_slices(tmp_path / "x.tiff")
    assert [slice_.number for slice_ in slices] == [1, 2, 3]
    for slice_, page in zip(slices, pages, strict=True):
        np.testing.assert_array_equal(slice_.image, page)
    with pytest.raises(InputError, match=r"x\.tiff has 3 slices: save each"):
        read_image(tmp_path / "x.tiff")


def test_white_as_the_lowest_value_and_orientation(tmp_path):
    tifffile.imwrite(tmp_path / "w.tif", RAMP.astype(np.uint8), photometric="miniswhite")
    np.testing.assert_array_equal(read_image(tmp_path / "w.tif"), RAMP.max() - RAMP)
    tifffile.imwrite(tmp_path / "o.tif", RAMP.astype(np.uint8), extratags=[(274, "H", 1, 6, True)])
    # 6: row 0 of the file is the right side of the image, column 0 its top.
    np.testing.assert_array_equal(read_image(tmp_path / "o.tif"), np.rot90(RAMP, -1))


def test_colours_opacity_palettes_and_planes(tmp_path):
    colours = np.stack([RAMP * 500, RAMP * 300, RAMP * 100], -1).astype(np.uint16)
    luminance = (0.299 * 500 + 0.587 * 300 + 0.114 * 100) * RAMP
    tifffile.imwrite(tmp_path / "c.tif", colours, photometric="rgb")
    np.testing.assert_allclose(read_image(tmp_path / "c.tif"), luminance, rtol=1e-5)
    planes = np.moveaxis(colours, -1, 0)
    tifffile.imwrite(tmp_path / "p.tif", planes, photometric="rgb", planarconfig="separate")
    np.testing.assert_allclose(read_image(tmp_path / "p.tif"), luminance, rtol=1e-5)
    clear = np.concatenate([colours, np.full((12, 10, 1), 65535, np.uint16)], -1)
    clear[:, :5, 3] = 0
    tifffile.imwrite(tmp_path / "a.tif", clear, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_allclose(read_image(tmp_path / "a.tif"), luminance * (np.arange(10) >= 5), rtol=1e-5)
    palette = np.zeros((3, 256), np.uint16)
    palette[:, :120] = np.arange(120)[::-1] * 500
    tifffile.imwrite(tmp_path / "l.tif", RAMP.astype(np.uint8), photometric="palette", colormap=palette)
    np.testing.assert_allclose(read_image(tmp_path / "l.tif"), (119 - RAMP) * 500, rtol=1e-5)
    ink = np.zeros((12, 10, 4), np.uint8)
    ink[..., 3] = RAMP
    tifffile.imwrite(tmp_path / "k.tif", ink, photometric="separated")
    np.testing.assert_allclose(read_image(tmp_path / "k.tif"), 1 - RAMP / 255, rtol=1e-5)


def test_damaged_files_and_values_that_are_not_finite(tmp_path):
    tifffile.imwrite(tmp_path / "n.tif", np.where(RAMP == 7, np.nan, RAMP).astype(np.float32))
    with pytest.raises(InputError, match=r"n\.tif has values that are not finite"):
        read_image(tmp_path / "n.tif")
    (tmp_path / "b.tif").write_bytes((tmp_path / "n.tif").read_bytes()[:300])
    with pytest.raises(InputError, match=r"b\.tif is not a readable TIFF image"):
        read_image(tmp_path / "b.tif")


def test_a_chain_of_pages_that_leads_back_to_itself_has_an_end(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", RAMP.astype(np.uint8))
    content = bytearray((tmp_path / "x.tif").read_bytes())
    (first,), (entries,) = struct.unpack("<I", content[4:8]), struct.unpack("<H", content[8:10])
    place = first + 2 + 12 * entries  # where the next page would be named
    for following in (first, place - 12):  # the page itself, and what is no page and leads nowhere
        content[place : place + 4] = struct.pack("<I", following)
        (tmp_path / "x.tif").write_bytes(content)
        with contextlib.suppress(InputError):
            assert all(slice_.image.shape == RAMP.shape for slice_ in read_slices(tmp_path / "x.tif"))


def test_a_part_that_is_said_to_be_longer_than_the_file_is_not_waited_for(tmp_path):
    """The library would reserve 4 GiB for it."""
    tifffile.imwrite(tmp_path / "x.tif", RAMP.astype(np.uint8))
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        place = file.pages[0].tags["StripByteCounts"].valueoffset
    content = bytearray((tmp_path / "x.tif").read_bytes())
    content[place : place + 4] = b"\xff" * 4
    (tmp_path / "x.tif").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.tif is not a readable TIFF image \(a part of it is longer than the file"):
        read_image(tmp_path / "x.tif")
