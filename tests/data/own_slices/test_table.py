"""The table and its files: what is read, and that all problems are named at once."""

import numpy as np
import pytest
from PIL import Image

from brainseg_jax.data.own_slices import table
from brainseg_jax.data.own_slices.table import read_source
from brainseg_jax.errors import InputError
from tests.data.own_slices.files import write_table

GREY = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1300  # up to 61,100
MASK = np.zeros((6, 8), np.uint8)
MASK[2:4, 3:5] = 1


@pytest.fixture
def folder(tmp_path):
    """A folder with two good slices of two patients."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for name in "ab":
        Image.fromarray(GREY).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(255 * MASK).save(tmp_path / "masks" / f"{name}.png")
    return tmp_path


def row(name, **cells):
    return {"image": f"{name}.png", "mask": f"{name}.png", "patient": name, **cells}


def read(folder, *rows):
    if rows:
        write_table(folder / "table.csv", rows)
    return read_source(folder / "table.csv", images=folder / "images", masks=folder / "masks", seed=0)


def test_a_table_gives_slices_levels_and_masks(folder):
    Image.fromarray(7 * MASK).save(folder / "masks" / "b.png")
    rows = [row("a", fold="3", spacing="0.7"), row("b", fold="1", spacing=" ")]
    first, second = read(folder, *({**one, "class": name} for one, name in zip(rows, "xy", strict=True))).slices
    assert (first.slice_id, first.patient_id, first.label, first.fold, first.spacing_mm) == (1, "a", "x", 3, 0.7)
    assert (second.slice_id, second.label, second.fold) == (2, "y", 1)
    assert np.isnan(second.spacing_mm)
    for one in (first, second):
        image, mask = one.read()
        assert (image.dtype, mask.dtype) == (np.float32, np.uint8)
        np.testing.assert_array_equal(image, GREY)  # 16 bits keep every level
        np.testing.assert_array_equal(mask, MASK)


def test_a_slice_without_a_mask_or_with_an_empty_one_has_no_tumour(folder):
    Image.fromarray(0 * MASK).save(folder / "masks" / "b.png")
    source = read(folder, {**row("a"), "mask": ""}, row("b"))
    for one in source.slices:
        np.testing.assert_array_equal(one.read()[1], np.zeros((6, 8)))
        assert one.label == "tumour"
    assert {one.fold for one in source.slices} == {1, 2}


def test_a_table_as_a_spreadsheet_saves_it(folder):
    (folder / "table.csv").write_text("\ufeffpatient,image,age,mask\r\n7,a.png,50,a.png\r\n,,,\r\n", encoding="utf-8")
    with pytest.warns(UserWarning, match="not used: age"):
        (only,) = read(folder).slices
    assert only.patient_id == "7"


def test_the_checksum_follows_what_is_stored(folder):
    rows = row("a"), row("b")
    before = read(folder, *rows).fingerprint
    assert read(folder, *rows).fingerprint == before
    assert read(folder, row("a", spacing="1"), row("b", spacing="1")).fingerprint != before
    Image.fromarray(np.roll(255 * MASK, 1, axis=0)).save(folder / "masks" / "b.png")
    assert read(folder, *rows).fingerprint != before


def test_all_problems_are_named_at_once(folder, monkeypatch):
    images, masks = folder / "images", folder / "masks"
    Image.fromarray(np.full((6, 8), 5, np.uint16)).save(images / "constant.png")
    Image.fromarray(np.full((6, 8), np.nan, np.float32)).save(images / "nan.tiff")
    (images / "nan.tiff").rename(images / "nan.png")
    (images / "broken.png").write_bytes(b"no image")
    Image.fromarray(MASK.T).save(masks / "turned.png")
    Image.fromarray((GREY // 20000).astype(np.uint8)).save(masks / "four.png")
    Image.fromarray(np.ones((6, 8), np.uint8)).save(masks / "full.png")
    good = {"mask": "a.png", "patient": "p", "fold": "1", "spacing": "1", "class": "c"}
    bad = [
        ({"image": "gone.png", "mask": "gone.png"}, ("images/gone.png is missing", "masks/gone.png is missing")),
        ({"image": "constant.png"}, ("constant.png is constant: all its pixels are 5",)),
        ({"image": "nan.png"}, ("nan.png",)),
        ({"image": "broken.png"}, ("broken.png is not a readable",)),
        ({"image": ""}, ("slice 5 (no image): image is empty",)),
        ({"image": "a.png", "mask": "turned.png"}, ("different sizes, 6×8 and 8×6",)),
        ({"image": "./a.png"}, ("slice 6 has the same image",)),
        ({"image": "b.png", "mask": "four.png"}, ("four.png is not a mask: its values are 0, 1, 2, 3",)),
        ({"image": "b.png", "mask": "full.png"}, ("slice 8 has the same image", "its values are 1, not 0 and one")),
        ({"image": "b.png", "patient": " "}, ("slice 8 has the same image", "patient is empty")),
        ({"image": "b.png", "fold": "6"}, ("slice 8 has the same", "fold is 6, not one of 1, 2", "in fold 6 here and")),
        ({"image": "b.png", "fold": "2"}, ("slice 8 has the same", "patient p is in fold 2 here and in fold 1 before")),
        ({"image": "b.png", "fold": "", "class": ""}, ("slice 8 has the same", "fold is empty", "class is empty")),
        ({"image": "b.png", "spacing": "-1"}, ("slice 8 has the same", "spacing is -1, not a positive")),
        ({"image": "b.png", "spacing": "wide"}, ("slice 8 has the same", "spacing is wide, not a positive")),
    ]
    write_table(folder / "table.csv", [{**good, **cells} for cells, _ in bad])
    with pytest.raises(InputError) as caught:
        read(folder)
    expected = [problem for _, problems in bad for problem in problems]
    head, *shown, last = str(caught.value).splitlines()
    assert f"table.csv has {len(expected)} problems; mend them" in head
    assert (len(shown), last) == (20, f"  … and {len(expected) - 20} more")
    monkeypatch.setattr(table, "SHOWN", 99)
    with pytest.raises(InputError) as caught:
        read(folder)
    for number, (_, problems) in enumerate(bad, start=1):
        of_slice = "\n".join(line for line in str(caught.value).splitlines() if f"slice {number} (" in line)
        of_slice += "\n".join(line for line in str(caught.value).splitlines() if f"slice {number}: " in line)
        for problem in problems:
            assert problem in of_slice


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,patient\na.png,1\n", r"no column mask; its columns are image, patient"),
        ("image;mask;patient\na.png;;1\n", r"no column image, mask, patient; its columns are image;mask;patient"),
        ("image,mask,patient\n", "has no row"),
        ("", "no column image"),
        ("image,mask,patient\na.png,1\n", "has 3 columns and row 1 has 2 cells"),
        ("image,mask,patient,patient\na.png,,1,2\n", "has the column patient twice"),
        ("image,mask,patient\na.png,\0,1\n", "cannot be read .it has characters of value 0"),
        (f"image,mask,patient\na.png,{300 * 'x'},1\n", "x is missing"),
        (f"image,mask,patient,fold\na.png,,1,{300 * '1'}\n", "fold is 1{100}, not one of 1, 2, 3, 4, 5"),
        ('image,mask,"patient\na.png,,1\n', r"its columns are image, mask, patient a\.png,,1: separate"),
    ],
)
def test_a_table_of_another_form_is_refused(folder, text, message):
    (folder / "table.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read(folder)


def test_folders_and_files_that_are_not_there_are_named(folder):
    with pytest.raises(InputError, match=r"--masks is nowhere, which is not a folder"):
        read_source(folder / "table.csv", images=folder, masks=type(folder)("nowhere"), seed=0)
    with pytest.raises(InputError, match=r"--table is .*table\.csv, which cannot be read"):
        read(folder)
    (folder / "table.csv").write_bytes(b"image,mask,patient\n\xff.png,,1\n")
    with pytest.raises(InputError, match="name a CSV file in UTF-8"):
        read(folder)
