"""Masks of files: what is taken, what is written, and what is left alone."""

import csv

import numpy as np
import pytest
from PIL import Image

from brainseg_jax.errors import InputError
from brainseg_jax.inference.postprocessing import Postprocessing
from brainseg_jax.inference.predict_files import find_images, predict_files


class Brightness:
    """Stands for a network: the probability is the brightness of a pixel, 0 to 255."""

    postprocessing = Postprocessing(0.5, 0.0)

    def probabilities(self, images):
        return [(image / 255).astype(np.float32) for image in images]


def save(path, *, top=2, left=3, height=4, width=5, bright=204):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.zeros((20, 30), np.uint8)
    image[top : top + height, left : left + width] = bright
    Image.fromarray(image).save(path)
    return path


def names_of(inputs, output):
    return [path.name for path in find_images([str(one) for one in inputs], output=output)]


def test_files_folders_patterns_and_several_of_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("in/b.png", "in/a.png", "odd [1] name.png", "more/c.jpg", "more/cvind.mat", "more/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save(tmp_path / name) if name.endswith("g") else (tmp_path / name).write_text("no image")
    out = tmp_path / "out"
    assert names_of([tmp_path / "in"], out) == ["a.png", "b.png"]
    assert names_of([tmp_path / "in" / "*.png", tmp_path / "in" / "b.png"], out) == ["a.png", "b.png"]
    assert names_of([tmp_path / "odd [1] name.png"], out) == ["odd [1] name.png"]
    assert names_of(["~/more"], out) == ["c.jpg"]
    for inputs, message in (
        ([tmp_path / "none*.png"], r"--input=.*none\*\.png names no image: give a file, a folder"),
        ([tmp_path / "in", tmp_path / "nowhere"], r"--input=.*nowhere names no image"),
        ([tmp_path / "more" / "notes.txt"], r"notes\.txt has the suffix '\.txt'"),
    ):
        with pytest.raises(InputError, match=message):
            names_of(inputs, out)
    save(tmp_path / "more" / "a.png")
    with pytest.raises(InputError, match=r"in/a\.png and .*more/a\.png would both give a_mask\.png: rename"):
        names_of([tmp_path / "in", tmp_path / "more"], out)


def test_the_table_measures_each_mask(tmp_path):
    save(tmp_path / "in" / "square.png")
    save(tmp_path / "in" / "empty.png", bright=100)
    paths = find_images([str(tmp_path / "in")], output=tmp_path / "out")
    assert list(predict_files(Brightness(), paths, tmp_path / "out")) == [(path, "") for path in paths]
    with (tmp_path / "out" / "predictions.csv").open() as file:
        empty, square = csv.DictReader(file)
    assert square["file"].endswith("square.png")
    assert (square["mask"], square["tumour_pixels"]) == ("square_mask.png", "20")
    # 4 rows and 5 columns: the far corners are 3 and 4 apart, the middle is at 2 + 1.5 and 3 + 2.
    expected = {"tumour_share": 20 / 600, "largest_diameter_pixels": 5, "mean_probability": 0.8}
    expected |= {"centroid_row": 3.5, "centroid_column": 5}
    assert {name: float(square[name]) for name in expected} == pytest.approx(expected, rel=1e-5)
    assert (empty["tumour_pixels"], empty["largest_diameter_pixels"], empty["centroid_row"]) == ("0", "", "")
    mask = np.asarray(Image.open(tmp_path / "out" / "square_mask.png"))
    assert (mask == 255).sum() == 20


def test_a_damaged_image_is_told_and_the_others_are_done(tmp_path):
    save(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    (tmp_path / "in" / "broken.mat").write_bytes(b"broken")
    paths = [tmp_path / "in" / name for name in ("broken.png", "good.png")]
    (_, reason), (_, good) = predict_files(Brightness(), paths, tmp_path / "out")
    assert "broken.png is not a readable PNG or JPEG" in reason
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
    assert "1 masks and overlays" in finished.stdout
    assert "error: 1 of 2 images could not be read:" in finished.stderr
    assert "broken.png is not a readable" in finished.stderr
    assert "trained on synthetic slices" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert (tmp_path / "out" / "good_mask.png").exists()
