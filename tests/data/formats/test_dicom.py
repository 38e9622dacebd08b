"""DICOM files are read with their true values, and segmentations refer to them."""

import contextlib
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, generate_uid

from brainseg_jax.data.formats import dicom, dicom_frames
from brainseg_jax.data.image_files import read_slices
from brainseg_jax.errors import InputError

FILES = Path(get_testdata_file("MR_small.dcm")).parent
NOT_BY_GDCM = ("JPEG-lossy.dcm", "JPGExtended.dcm", "JPEG2000-embedded-sequence-delimiter.dcm")  # 12 bits, and damaged


def is_jpeg(path):
    """Whether a file of pydicom's has pixels in JPEG, JPEG-LS or JPEG 2000 that GDCM decodes too."""
    with contextlib.suppress(Exception):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        return dicom_frames.is_available(dataset.file_meta.TransferSyntaxUID) and "Rows" in dataset
    return False


def changed(path, **values):
    """Writes pydicom's small MR image with other values of its elements."""
    dataset = pydicom.dcmread(get_testdata_file("MR_small.dcm"))
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset.save_as(path)
    return path


def enhanced(path, levels):
    """Writes an enhanced MR image whose frames have grey levels and slopes of their own."""
    dataset = pydicom.dcmread(get_testdata_file("MR_small.dcm"))
    del dataset.PixelSpacing, dataset.SliceThickness
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.NumberOfFrames = len(levels)
    dataset.PixelData = np.repeat(np.int16(levels), 64 * 64).tobytes()
    frames = []
    for number in range(len(levels)):
        transformation, position, groups = Dataset(), Dataset(), Dataset()
        transformation.RescaleSlope, transformation.RescaleIntercept = 2 + number, -100
        transformation.RescaleType = "US"
        position.ImagePositionPatient = [0.0, 0.0, float(number)]
        groups.PixelValueTransformationSequence = Sequence([transformation])
        groups.PlanePositionSequence = Sequence([position])
        frames.append(groups)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.5, 2.0], 1.0
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([orientation])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    dataset.save_as(path)
    return path


def test_compressed_files_have_the_pixels_of_the_plain_one():
    (plain,) = read_slices(Path(get_testdata_file("MR_small.dcm")))
    assert plain.image.shape == (64, 64)
    assert (plain.image.min(), plain.image.max()) == (127, 2145)  # as pydicom's documentation of the file says
    assert plain.spacing_mm == (0.3125, 0.3125)
    for kind in ("RLE", "jp2klossless", "jpeg_ls_lossless", "bigendian", "implicit", "expb", "padded"):
        (other,) = read_slices(Path(get_testdata_file(f"MR_small_{kind}.dcm")))
        np.testing.assert_array_equal(other.image, plain.image, err_msg=kind)


@pytest.mark.parametrize(
    "compressed", sorted(path.name for path in FILES.glob("*.dcm") if path.name not in NOT_BY_GDCM and is_jpeg(path))
)
def test_compressed_pixels_are_those_that_gdcm_decodes(compressed):
    plain = pydicom.dcmread(FILES / compressed)
    plain.pixel_array_options(decoding_plugin="gdcm")
    ours = pydicom.dcmread(FILES / compressed)
    dicom_frames.choose_decoder(ours)
    np.testing.assert_array_equal(ours.pixel_array, plain.pixel_array)


def test_twelve_bits_are_read_which_gdcm_does_not_read():
    (slice_,) = read_slices(FILES / "JPGExtended.dcm")
    assert slice_.image.shape == (1024, 256)
    assert slice_.image.max() > 255


@pytest.mark.parametrize("kind", ["jp2klossless", "jpeg_ls_lossless"])
@pytest.mark.parametrize("damage", ["Rows", "Columns", "PixelData"])
def test_compressed_pixels_of_another_size_do_not_end_the_program(tmp_path, kind, damage):
    """GDCM calls abort() there."""
    dataset = pydicom.dcmread(get_testdata_file(f"MR_small_{kind}.dcm"))
    if damage == "PixelData":
        place = dataset.PixelData.find(b"\xff\xf7" if "ls" in kind else b"\xff\x51")
        dataset.PixelData = dataset.PixelData[: place + 4] + bytes(12) + dataset.PixelData[place + 16 :]
    else:
        setattr(dataset, damage, 65535)
    dataset.save_as(tmp_path / "x.dcm")
    with pytest.raises(InputError, match=r"x\.dcm is not a readable DICOM image \(.*its compressed pixels have rows"):
        read_slices(tmp_path / "x.dcm")


@pytest.mark.parametrize("spacing", [[-1, -1], [0, 1], [1, 0]])
def test_a_distance_that_is_none_is_not_known(tmp_path, spacing):
    assert read_slices(changed(tmp_path / "x.dcm", PixelSpacing=spacing))[0].spacing_mm is None


def test_rescaled_values_and_white_as_the_lowest_one(tmp_path):
    plain = read_slices(Path(get_testdata_file("MR_small.dcm")))[0].image.astype(float)
    rescaled = read_slices(changed(tmp_path / "a.dcm", RescaleSlope="-0.5", RescaleIntercept="3"))[0].image
    np.testing.assert_allclose(rescaled, 3 - plain / 2)
    white = read_slices(changed(tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1"))[0].image
    np.testing.assert_array_equal(white, plain.max() - plain)


def test_frames_have_values_of_their_own_and_the_shared_spacing(tmp_path):
    slices = read_slices(enhanced(tmp_path / "frames.dcm", [10, 20, 30]))
    assert [slice_.number for slice_ in slices] == [1, 2, 3]
    assert [float(slice_.image.max()) for slice_ in slices] == [10 * 2 - 100, 20 * 3 - 100, 30 * 4 - 100]
    assert [slice_.spacing_mm for slice_ in slices] == [(0.5, 2)] * 3


def test_colours_become_grey():
    (first, second) = read_slices(Path(get_testdata_file("SC_rgb_rle_2frame.dcm")))
    pixels = pydicom.dcmread(get_testdata_file("SC_rgb_rle_2frame.dcm")).pixel_array
    for slice_, colours in zip((first, second), pixels, strict=True):
        red, green, blue = np.moveaxis(colours.astype(float), -1, 0)
        np.testing.assert_allclose(slice_.image, 0.299 * red + 0.587 * green + 0.114 * blue, atol=1e-3)


@pytest.mark.parametrize(("levels", "frames"), [(None, 1), ([10, 20, 30], 3)])
def test_a_segmentation_has_the_masks_and_refers_to_its_source(tmp_path, levels, frames):
    source = changed(tmp_path / "x.dcm") if levels is None else enhanced(tmp_path / "x.dcm", levels)
    masks = np.zeros((frames, 64, 64), bool)
    for number in range(frames):
        masks[number, 10 + number : 20, 30:33] = True
    dicom.write_segmentation(tmp_path / "x_mask.dcm", source, masks)
    segmentation = highdicom.seg.segread(tmp_path / "x_mask.dcm")
    assert segmentation.segmentation_type == highdicom.seg.SegmentationTypeValues.BINARY
    uid = pydicom.dcmread(source).SOPInstanceUID
    if frames == 1:
        read = segmentation.get_pixels_by_source_instance([uid], combine_segments=True)
    else:
        read = segmentation.get_pixels_by_source_frame(uid, [*range(1, frames + 1)], combine_segments=True)
    np.testing.assert_array_equal(read.astype(bool), masks)


def test_an_empty_mask_is_written_too(tmp_path):
    dicom.write_segmentation(tmp_path / "m.dcm", changed(tmp_path / "x.dcm"), [np.zeros((64, 64), bool)])
    assert not pydicom.dcmread(tmp_path / "m.dcm").pixel_array.any()


def test_what_is_no_image_is_named(tmp_path):
    for name, message in (
        ("liver_1frame.dcm", "is a DICOM segmentation and no image"),
        ("rtstruct.dcm", "holds no DICOM image"),
        ("MR_truncated.dcm", "is not a readable DICOM image"),
        ("badVR.dcm", "is not a readable DICOM image"),
    ):
        with pytest.raises(InputError, match=rf"{name} {message}"):
            read_slices(Path(get_testdata_file(name)))
    (tmp_path / "text.dcm").write_text("no DICOM at all " * 20)
    with pytest.raises(InputError, match=r"text\.dcm"):
        read_slices(tmp_path / "text.dcm")
    huge = changed(tmp_path / "huge.dcm", NumberOfFrames=200_000)
    with pytest.raises(InputError, match=r"huge\.dcm has more than 536870912 values"):
        read_slices(huge)
    path = Path(get_testdata_file("rtdose.dcm"))
    with pytest.raises(InputError, match=r"no DICOM segmentation: it has several frames"):
        dicom.write_segmentation(tmp_path / "m.dcm", path, [np.zeros((10, 10), bool)] * 15)
