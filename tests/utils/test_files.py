"""Files that are written whole or not at all."""

import numpy as np
import pytest
from PIL import Image

from brainseg_jax.utils.files import write_bytes, write_png
from tests.helpers import files_of_at_most


def test_a_full_disk_leaves_the_old_file_and_names_it(tmp_path):
    path = tmp_path / "scores.csv"
    write_bytes(path, b"old")
    with files_of_at_most(100), pytest.raises(OSError, match="File too large") as raised:
        write_bytes(path, bytes(1000))
    assert raised.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["scores.csv"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_picture_comes_back_with_all_its_levels(tmp_path, dtype):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (7, 5), dtype)
    write_png(tmp_path / "mask.png", pixels)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "mask.png")), pixels)
