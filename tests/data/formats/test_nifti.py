"""NIfTI volumes are shown as usual however they are stored, and masks lie where their image does."""

import nibabel
import numpy as np
import pytest
from nibabel.testing import data_path

from brainseg_jax.data.formats import nifti
from brainseg_jax.data.image_files import read_slices
from brainseg_jax.errors import InputError

# Values say where a voxel lies: 100 for each step to the right, 10 to the front, 1 to the top.
SHAPE = (4, 3, 2)
VALUES = np.add.outer(np.add.outer(np.arange(4) * 100, np.arange(3) * 10), np.arange(2)).astype(np.float32)
SIDES = (0.5, 2.0, 3.0)  # mm to the right, front, top


def save(path, codes, *, dtype=np.float32):
    """Saves VALUES with its axes in the order and direction of `codes`, for instance "LPS"."""
    volume = nibabel.Nifti1Image(VALUES.astype(dtype), np.diag([*SIDES, 1]))
    orientation = nibabel.orientations.axcodes2ornt(codes)
    back = nibabel.orientations.ornt_transform(nibabel.orientations.io_orientation(volume.affine), orientation)
    nibabel.save(volume.as_reoriented(back), path)
    return path


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SPL", "AIR"])
@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_slices_are_upright_however_the_volume_is_stored(tmp_path, codes, ending):
    path = save(tmp_path / f"x.{ending}", codes)
    axial, coronal, sagittal = (read_slices(path, axis=axis) for axis in (2, 1, 0))
    # Rows run from front to back, columns from the patient's right to the left.
    np.testing.assert_array_equal(axial[1].image, [[321, 221, 121, 21], [311, 211, 111, 11], [301, 201, 101, 1]])
    np.testing.assert_array_equal(coronal[2].image, [[321, 221, 121, 21], [320, 220, 120, 20]])
    np.testing.assert_array_equal(sagittal[3].image, [[321, 311, 301], [320, 310, 300]])
    assert [len(slices) for slices in (axial, coronal, sagittal)] == [2, 3, 4]
    assert [slices[0].spacing_mm for slices in (axial, coronal, sagittal)] == [(2, 0.5), (3, 0.5), (3, 2)]


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SPL"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mask_lies_where_its_image_does(tmp_path, codes, axis):
    source = save(tmp_path / "x.nii.gz", codes, dtype=np.int16)
    masks = [slice_.image > 105 for slice_ in read_slices(source, axis=axis)]
    nifti.write_volume(tmp_path / "m.nii.gz", source, masks, axis=axis)
    mask, image = (nibabel.load(tmp_path / name) for name in ("m.nii.gz", "x.nii.gz"))
    assert mask.shape == image.shape
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(mask.affine, image.affine)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), np.asarray(image.dataobj) > 105)


def test_volumes_that_others_made():
    path = next(data_path.glob("anatomical.nii"))  # stored as left, front, top
    slices = read_slices(path)
    volume = nibabel.load(path).get_fdata()
    assert len(slices) == volume.shape[2]
    np.testing.assert_allclose(slices[7].image, volume[:, ::-1, 7].T, rtol=1e-6)
    assert slices[0].spacing_mm == (2, 2)
    for name, message in (
        ("example4d.nii.gz", r"has shape \(128, 96, 24, 2\): save one volume"),
        ("resampled_anat_moved.nii", "values that are not finite"),
    ):
        with pytest.raises(InputError, match=message):
            read_slices(data_path / name)


def test_damaged_and_coloured_volumes_are_refused(tmp_path):
    (tmp_path / "x.nii.gz").write_bytes(save(tmp_path / "y.nii.gz", "RAS").read_bytes()[:60])
    with pytest.raises(InputError, match=r"x\.nii\.gz is not a readable NIfTI image"):
        read_slices(tmp_path / "x.nii.gz")
    colours = np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), tmp_path / "c.nii")
    with pytest.raises(InputError, match=r"c\.nii holds values of type"):
        read_slices(tmp_path / "c.nii")
    header = nibabel.Nifti1Header()
    header.set_data_shape((30000, 30000, 30000))
    header.set_data_dtype(np.uint8)
    (tmp_path / "h.nii").write_bytes(header.binaryblock + bytes(4))
    with pytest.raises(InputError, match=r"h\.nii has more than 536870912 values"):
        read_slices(tmp_path / "h.nii")
