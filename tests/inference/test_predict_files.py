"""Masks of files: what is taken, what is written, and what is left alone."""

import csv
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image
from pydicom.data import get_testdata_file

from brainseg_jax.errors import InputError
from brainseg_jax.inference.find_images import find_images
from brainseg_jax.inference.postprocessing import Postprocessing
from brainseg_jax.inference.predict_files import predict_files
from tests.helpers import files_of_at_most

KINDS = ("mask", "overlay", "probabilities")


class Brightness:
    """Stands for a network: the probability is the brightness of a pixel, 0 to 255."""

    postprocessing = Postprocessing(0.5, 0.0)

    def probabilities(self, images):
        return [(image / 255).astype(np.float32) for image in images]


def read_table(folder):
    with (folder / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def save(path, *, top=2, left=3, height=4, width=5, bright=204):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.zeros((20, 30), np.uint8)
    image[top : top + height, left : left + width] = bright
    Image.fromarray(image).save(path)
    return path


def test_the_table_measures_each_mask(tmp_path):
    save(tmp_path / "in" / "square.png")
    save(tmp_path / "in" / "empty.png", bright=100)
    paths = find_images([str(tmp_path / "in")], output=tmp_path / "out")
    assert list(predict_files(Brightness(), paths, tmp_path / "out", weights="mine")) == [(path, "") for path in paths]
    empty, square = read_table(tmp_path / "out")
    assert (empty["weights"], empty["threshold"], empty["min_component_fraction"]) == ("mine", "0.5", "0")
    assert square["file"].endswith("square.png")
    assert (square["mask"], square["tumour_pixels"]) == ("square_mask.png", "20")
    # 4 rows and 5 columns: the far corners are 3 and 4 apart, the middle is at 2 + 1.5 and 3 + 2.
    expected = {"tumour_share": 20 / 600, "largest_diameter_pixels": 5, "mean_probability": 0.8}
    expected |= {"centroid_row": 3.5, "centroid_column": 5}
    assert {name: float(square[name]) for name in expected} == pytest.approx(expected, rel=1e-5)
    assert (empty["tumour_pixels"], empty["largest_diameter_pixels"], empty["centroid_row"]) == ("0", "", "")
    mask = np.asarray(Image.open(tmp_path / "out" / "square_mask.png"))
    assert (mask == 255).sum() == 20


def test_a_volume_gives_a_mask_of_its_shape_and_pictures_of_its_slices(tmp_path):
    values = np.zeros((6, 5, 4), np.float32)
    values[1:3, 2:5, 1] = 204  # 2 voxels to the right, 3 to the front
    nibabel.save(nibabel.Nifti1Image(values, np.diag([0.5, 2, 1, 1])), tmp_path / "brain.nii.gz")
    out = tmp_path / "out"
    assert list(predict_files(Brightness(), [tmp_path / "brain.nii.gz"], out, probabilities=True)) == [
        (tmp_path / "brain.nii.gz", "")
    ]
    mask, probabilities = (nibabel.load(out / f"brain_{name}.nii.gz") for name in ("mask", "probabilities"))
    np.testing.assert_array_equal(np.asarray(mask.dataobj), values > 0)
    np.testing.assert_allclose(np.asarray(probabilities.dataobj), values / 255)
    slices = [f"brain_{number:03d}_{kind}.png" for number in (1, 2, 3, 4) for kind in KINDS]
    volumes = ["brain_mask.nii.gz", "brain_probabilities.nii.gz", "predictions.csv"]
    assert sorted(path.name for path in out.iterdir()) == sorted([*slices, *volumes])
    second = read_table(out)[1]
    assert (second["slice"], second["tumour_pixels"], second["tumour_mm2"]) == ("2", "6", "6")  # 0.5 mm x 2 mm each
    # Rows are 2 mm apart and columns 0.5 mm: ends are 2 rows and 1 column apart.
    assert float(second["largest_diameter_mm"]) == pytest.approx((4**2 + 0.5**2) ** 0.5, rel=1e-5)
    deep = np.asarray(Image.open(out / "brain_002_probabilities.png"))
    assert deep.max() == round(0.8 * 65535)


def test_pages_and_frames_have_numbers(tmp_path):
    pages = np.zeros((20, 8, 8), np.uint8)  # more than a batch
    pages[:, 2, 2] = 204
    pages[7] = 0
    tifffile.imwrite(tmp_path / "film.tif", pages, photometric="minisblack")
    Image.fromarray(pages[0]).save(tmp_path / "one.png")
    paths = [tmp_path / "film.tif", tmp_path / "one.png"]
    assert list(predict_files(Brightness(), paths, tmp_path / "out")) == [(path, "") for path in paths]
    rows = read_table(tmp_path / "out")
    assert [row["slice"] for row in rows] == [*map(str, range(1, 21)), ""]
    assert [row["tumour_pixels"] for row in rows] == ["1"] * 7 + ["0"] + ["1"] * 13
    assert (tmp_path / "out" / "film_020_mask.png").exists()


def test_a_dicom_file_gets_a_segmentation_and_spacing(tmp_path):
    source = tmp_path / "IM0001"  # as scanners name them
    source.write_bytes(Path(get_testdata_file("MR_small.dcm")).read_bytes())
    paths = find_images([str(tmp_path)], output=tmp_path / "out")
    assert list(predict_files(Brightness(), paths, tmp_path / "out")) == [(source, "")]
    pixels = pydicom.dcmread(tmp_path / "out" / "IM0001_mask.dcm").pixel_array
    mask = np.asarray(Image.open(tmp_path / "out" / "IM0001_mask.png")) > 0
    np.testing.assert_array_equal(pixels > 0, mask)
    (row,) = read_table(tmp_path / "out")
    assert mask.any()
    assert float(row["tumour_mm2"]) == pytest.approx(mask.sum() * 0.3125**2, rel=1e-5)


def test_a_damaged_image_is_told_and_the_others_are_done(tmp_path):
    save(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    (tmp_path / "in" / "broken.mat").write_bytes(b"broken")
    paths = [tmp_path / "in" / name for name in ("broken.png", "good.png")]
    (_, reason), (_, good) = predict_files(Brightness(), paths, tmp_path / "out")
    assert "broken.png is not a readable PNG or JPEG image" in reason
    assert not good
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "good_mask.png",
        "good_overlay.png",
        "predictions.csv",
    ]
    ((_, reason),) = predict_files(Brightness(), [tmp_path / "in" / "broken.mat"], tmp_path / "out")
    assert "broken.mat is not a MATLAB" in reason


def test_files_of_the_user_are_not_written_over_and_own_ones_are(tmp_path):
    source, out = save(tmp_path / "in" / "x.png"), tmp_path / "out"
    mine = save(out / "x_mask.png", bright=7)
    before = mine.read_bytes()
    with pytest.raises(InputError, match=r"x_mask\.png is there and not listed in .*predictions\.csv: name another"):
        list(predict_files(Brightness(), [source], out))
    assert mine.read_bytes() == before
    assert [path.name for path in out.iterdir()] == ["x_mask.png"]
    mine.unlink()
    for bright in (204, 100):  # the second call writes over what the first one wrote
        list(predict_files(Brightness(), [save(source, bright=bright)], out))
        assert np.asarray(Image.open(mine)).any() == (bright == 204)
    other = save(tmp_path / "in" / "y.png")
    list(predict_files(Brightness(), [other], out))
    assert len((out / "predictions.csv").read_text().splitlines()) == 3  # rows of earlier calls stay
    (out / "predictions.csv").write_text("my,table\n")
    with pytest.raises(InputError, match=r"predictions\.csv is there and not of this program"):
        list(predict_files(Brightness(), [other], out))


def test_a_table_of_an_earlier_version_is_carried_on(tmp_path):
    first, second = save(tmp_path / "in" / "x.png"), save(tmp_path / "in" / "y.png")
    list(predict_files(Brightness(), [first], tmp_path / "out"))
    table = tmp_path / "out" / "predictions.csv"
    lines = [line.rsplit(",", 3)[0] for line in table.read_text().splitlines()]  # without weights and thresholds
    table.write_text("\n".join(lines) + "\n")
    assert list(predict_files(Brightness(), [second], tmp_path / "out")) == [(second, "")]
    before, after = read_table(tmp_path / "out")
    assert (before["mask"], before["tumour_pixels"], before["threshold"]) == ("x_mask.png", "20", "")
    assert (after["mask"], after["tumour_pixels"], after["threshold"]) == ("y_mask.png", "20", "0.5")


def test_masks_of_another_image_of_the_same_name_are_not_written_over(tmp_path):
    first, second = save(tmp_path / "a" / "x.png"), save(tmp_path / "b" / "x.png")
    list(predict_files(Brightness(), [first], tmp_path / "out"))
    with pytest.raises(InputError, match=r"x_mask\.png is of .*a/x\.png and not of .*b/x\.png: name another"):
        list(predict_files(Brightness(), [second], tmp_path / "out"))
    save(tmp_path / "out" / "y_001_mask.png")  # the user's own
    tifffile.imwrite(tmp_path / "y.tif", np.zeros((2, 8, 8), np.uint8), photometric="minisblack")
    with pytest.raises(InputError, match=r"y_001_mask\.png is there and not listed"):
        list(predict_files(Brightness(), [tmp_path / "y.tif"], tmp_path / "out"))


def test_a_full_disk_ends_the_work_and_leaves_no_half_file(tmp_path):
    paths = [save(tmp_path / "in" / f"{name}.png") for name in "abc"]
    out, done = tmp_path / "out", []
    predicted = predict_files(Brightness(), paths, out)
    done.append(next(predicted))
    room = (out / "predictions.csv").stat().st_size + 30  # for half a row
    with files_of_at_most(room), pytest.raises(InputError, match=r"cannot be written \(File too large\): free space"):
        done += predicted
    assert done == [(paths[0], "")]
    assert sorted(path.name for path in out.iterdir()) == ["a_mask.png", "a_overlay.png", "predictions.csv"]
    assert [row["mask"] for row in read_table(out)] == ["a_mask.png"]
    assert list(predict_files(Brightness(), paths, out)) == [(path, "") for path in paths]
    assert [row["mask"] for row in read_table(out)] == ["a_mask.png", "b_mask.png", "c_mask.png"]


@pytest.mark.parametrize("left", [1, 20, -1])
def test_half_a_row_of_a_killed_process_is_no_row(tmp_path, left):
    paths = [save(tmp_path / "in" / f"{name}.png") for name in "ab"]
    list(predict_files(Brightness(), paths, tmp_path / "out"))
    table = tmp_path / "out" / "predictions.csv"
    whole = table.read_text()
    *first, last = whole.splitlines(keepends=True)
    table.write_text("".join(first) + last[:left])
    for name in ("b_mask.png", "b_overlay.png"):  # which follow the row
        (tmp_path / "out" / name).unlink()
    list(predict_files(Brightness(), [save(tmp_path / "c.png")], tmp_path / "out"))
    assert [row["mask"] for row in read_table(tmp_path / "out")] == ["a_mask.png", "c_mask.png"]
    list(predict_files(Brightness(), paths, tmp_path / "out"))
    assert sorted(table.read_text().splitlines()[:1] + whole.splitlines()[1:]) == sorted(
        line for line in table.read_text().splitlines() if "/c.png" not in line
    )


def test_an_output_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(InputError, match=r"file/out cannot be made \(Not a directory\): name another --output"):
        list(predict_files(Brightness(), [save(tmp_path / "x.png")], tmp_path / "file" / "out"))


def test_an_output_inside_the_input_is_not_read_the_next_time(tmp_path):
    save(tmp_path / "x.png")
    for _ in range(2):
        paths = find_images([str(tmp_path)], output=tmp_path)
        assert [path.name for path in paths] == ["x.png"]
        list(predict_files(Brightness(), paths, tmp_path))
    paths = find_images([str(tmp_path / "**" / "*.png")], output=tmp_path)
    assert [path.name for path in paths] == ["x.png"]


def test_predict_lists_what_it_could_not_read_and_ends_with_1(tmp_path, trained, run_script):
    save(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "broken.png").write_bytes(b"broken")
    finished = run_script("predict", f"--weights={trained}", f"--input={tmp_path}/in", f"--output={tmp_path}/out")
    assert finished.returncode == 1
    assert "1 of 2 files done" in finished.stdout
    assert "error: 1 of 2 files could not be done:" in finished.stderr
    assert "broken.png is not a readable" in finished.stderr
    assert "trained on synthetic slices" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert (tmp_path / "out" / "good_mask.png").exists()
    assert "Not for the care of patients" in finished.stdout
    assert read_table(tmp_path / "out")[0]["weights"] == str(trained)
    assert "report.html" not in finished.stdout
    (tmp_path / "out" / "report.html").write_text("of an earlier call")
    again = run_script("predict", f"--weights={trained}", f"--input={tmp_path}/in/good.png", f"--output={tmp_path}/out")
    assert "report.html is of an earlier call: add --report" in again.stdout
