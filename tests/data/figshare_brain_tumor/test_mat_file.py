"""`.mat` files: a round trip, MATLAB's layout, and what is refused."""

import io

import h5py
import numpy as np
import pytest

from brainseg_jax.data.figshare_brain_tumor import mat_file
from brainseg_jax.data.figshare_brain_tumor.mat_file import RawSlice
from brainseg_jax.errors import InputError


def make_slice(**changes):
    rng = np.random.default_rng(0)
    mask = np.zeros((6, 4), np.uint8)
    mask[1:3, 2] = 1
    settings = {"slice_id": 7, "patient_id": "MR040240B", "label": 2, "mask": mask, "is_phantom": False}
    settings["image"] = rng.integers(-5, 3000, (6, 4)).astype(np.int16)
    return RawSlice(**{**settings, **changes})


def altered(field, value):
    """The bytes of a good file in which one field of cjdata is another; None removes it."""
    data = mat_file.write_slice(make_slice())
    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+") as file:
        del file["cjdata"][field]
        if value is not None:
            file["cjdata"][field] = value
    return buffer.getvalue()


@pytest.mark.parametrize("is_phantom", [False, True])
def test_a_slice_comes_back_as_it_was_written(is_phantom):
    slice_ = make_slice(is_phantom=is_phantom)
    back = mat_file.read_slice(mat_file.write_slice(slice_), slice_id=7, name="7.mat")
    np.testing.assert_array_equal(back.image, slice_.image)
    np.testing.assert_array_equal(back.mask, slice_.mask)
    assert (back.image.dtype, back.mask.dtype) == (np.int16, np.uint8)
    assert (back.slice_id, back.patient_id, back.label, back.is_phantom) == (7, "MR040240B", 2, is_phantom)


def test_files_have_matlabs_header_and_hold_the_transpose():
    data = mat_file.write_slice(make_slice())
    assert data.startswith(b"MATLAB 7.3 MAT-file")
    assert data[124:128] == b"\x00\x02IM"
    assert data[512:516] == b"\x89HDF"
    with h5py.File(io.BytesIO(data)) as file:
        np.testing.assert_array_equal(file["cjdata/image"][()], make_slice().image.T)
        assert file["cjdata/PID"].shape == (9, 1)


def test_the_same_slice_gives_the_same_bytes():
    assert mat_file.write_slice(make_slice()) == mat_file.write_slice(make_slice())


def test_blanks_and_nuls_around_a_patient_id_are_stripped():
    codes = np.array([[ord(character)] for character in " 100360\0\0"], np.uint16)
    assert mat_file.read_slice(altered("PID", codes), slice_id=7, name="7.mat").patient_id == "100360"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("label", None, "no field cjdata/label"),
        ("label", np.array([[4.0]]), "cjdata/label is .*4.*, not 1, 2 or 3"),
        ("label", np.array([1.0, 2.0]), "cjdata/label"),
        ("label", np.array([[np.nan]]), "cjdata/label"),
        ("PID", None, "no field cjdata/PID"),
        ("PID", np.array([[32], [0]], np.uint16), "cjdata/PID is empty"),
        ("PID", np.array([[1.5]]), "cjdata/PID has dtype float64"),
        ("image", None, "no field cjdata/image"),
        ("image", np.ones((4, 6)), "cjdata/image has dtype float64"),
        ("image", np.ones((4, 6), np.int16), "cjdata/image has one value everywhere"),
        ("image", np.ones((4, 6, 3), np.int16), r"cjdata/image has .* shape \(4, 6, 3\)"),
        ("tumorMask", None, "no field cjdata/tumorMask"),
        ("tumorMask", np.zeros((4, 6), np.uint8), "cjdata/tumorMask is empty"),
        ("tumorMask", np.full((4, 6), 2, np.uint8), "cjdata/tumorMask has values other than 0 and 1"),
        ("tumorMask", np.ones((6, 4), np.uint8), r"cjdata/tumorMask has .* shape \(6, 4\)"),
        ("tumorMask", np.ones((4, 6)), "cjdata/tumorMask has dtype float64"),
    ],
)
def test_a_bad_field_is_named_with_its_file(field, value, message):
    with pytest.raises(InputError, match=f"(?s)here/7.mat.*{message}"):
        mat_file.read_slice(altered(field, value), slice_id=7, name="here/7.mat")


@pytest.mark.parametrize("data", [b"", b"no HDF5 at all", mat_file.write_slice(make_slice())[:2000]])
def test_truncated_and_foreign_files_are_refused(data):
    with pytest.raises(InputError, match=r"7\.mat is not a MATLAB v7\.3 \(HDF5\) file, or it is cut short"):
        mat_file.read_slice(data, slice_id=7, name="7.mat")


def test_reading_an_image_needs_no_label_and_accepts_other_dtypes():
    image = np.linspace(0, 1, 24).reshape(4, 6)
    np.testing.assert_array_equal(mat_file.read_image(altered("image", image), name="7.mat"), image.T)
    with pytest.raises(InputError, match="cjdata/image"):
        mat_file.read_image(altered("image", np.full((4, 6), np.nan)), name="7.mat")


def test_folds_come_back_and_other_values_are_refused():
    folds = np.array([1, 5, 3, 2, 4, 4])
    np.testing.assert_array_equal(mat_file.read_folds(mat_file.write_folds(folds), name="cvind.mat"), folds)
    for wrong in (np.array([0, 1]), np.array([6]), np.array([1.5])):
        with pytest.raises(InputError, match=r"cvind\.mat: field cvind has values other than the folds 1 to 5"):
            mat_file.read_folds(mat_file.write_folds(wrong), name="cvind.mat")
