"""Which files are taken from files, folders and patterns."""

import pytest

from brainseg_jax.errors import InputError
from brainseg_jax.inference.find_images import find_images
from tests.inference.test_predict_files import save


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
        ([tmp_path / "in", tmp_path / "nowhere"], r"--input=.*nowhere does not exist"),
        ([tmp_path / "more" / "notes.txt"], r"notes\.txt has the suffix '\.txt' and is no DICOM file"),
    ):
        with pytest.raises(InputError, match=message):
            names_of(inputs, out)
    save(tmp_path / "more" / "a.png")
    with pytest.raises(InputError, match=r"in/a\.png and .*more/a\.png would both give a_mask\.png: rename"):
        names_of([tmp_path / "in", tmp_path / "more"], out)
