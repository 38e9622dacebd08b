"""`.mat` files: a round trip, MATLAB's layout, and what is refused."""

import contextlib
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


def changed(change):
    """The bytes of a good file after `change(cjdata)`."""
    buffer = io.BytesIO(mat_file.write_slice(make_slice(image=np.arange(70 * 70, dtype=np.int16).reshape(70, 70))))
    with h5py.File(buffer, "r+") as file:
        change(file["cjdata"])
    return buffer.getvalue()


def lose_a_chunk(group):
    image = group["image"][()]
    del group["image"]
    group.create_dataset("image", image.shape, image.dtype, chunks=(35, 35))[:35] = image[:35]


def link_outside(group):
    del group["image"]
    group["image"] = h5py.ExternalLink("/etc/passwd", "/x")


def link_inside(group):
    group["other"] = group["image"]
    del group["image"]
    group["image"] = h5py.SoftLink("/cjdata/other")


def store_outside(group):
    del group["image"]
    group.create_dataset("image", (4, 4), np.int16, external=[("/etc/passwd", 0, 32)])


def declare_too_much(group):
    del group["image"]
    group.create_dataset("image", (300_000, 300_000), np.int16, chunks=(100, 100))


def refer(group):
    del group["image"]
    group.create_dataset("image", (4, 4), h5py.ref_dtype)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lose_a_chunk, "lacks a part of its values"),
        (link_outside, "is a link to another place"),
        (link_inside, "is a link to another place"),
        (store_outside, "has its values in other files"),
        (declare_too_much, r"has shape \(300000, 300000\), more than 67108864 values"),
        (refer, "has dtype object, not numbers"),
    ],
)
def test_what_is_not_in_the_file_itself_is_refused(change, message):
    data = changed(change)
    for read in (
        lambda: mat_file.read_image(data, name="7.mat"),
        lambda: mat_file.read_slice(data, slice_id=7, name="7.mat"),
    ):
        with pytest.raises(InputError, match=rf"7\.mat: field cjdata/image {message}"):
            read()


@pytest.mark.parametrize("seed", range(3))
def test_damaged_bytes_give_a_slice_or_one_sentence(seed):
    data, rng = mat_file.write_slice(make_slice()), np.random.default_rng(seed)
    for _ in range(100):
        damaged = bytearray(data)
        for place in rng.integers(512, len(data), 4):
            damaged[place] = rng.integers(256)
        with contextlib.suppress(InputError):
            assert mat_file.read_slice(bytes(damaged), slice_id=7, name="7.mat").image.dtype == np.int16
