"""From own files to the prepared dataset: equal level by level, with the classes of the table, whole or not at all."""

import numpy as np
import pytest
from PIL import Image

from brainseg_jax.data.dataset import Dataset
from brainseg_jax.data.metadata import describe_metadata
from brainseg_jax.data.own_slices.builder import build_dataset
from brainseg_jax.data.own_slices.table import read_source
from brainseg_jax.data.splits import make_splits
from brainseg_jax.errors import InputError
from tests.data.own_slices.files import CLASSES, write_files

COLUMNS = {
    "class": lambda slice_, fold: CLASSES[slice_.label],
    "fold": lambda slice_, fold: fold,
    "spacing": lambda slice_, fold: 0.9 if slice_.label == 1 else "",
}


def build(files, data_dir, **options):
    source = read_source(files / "table.csv", images=files / "images", masks=files / "masks", seed=0)
    return build_dataset(source, data_dir=data_dir, table=files / "table.csv", **{"overwrite": False, **options})


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    rows, pairs = write_files(folder, **COLUMNS)
    build(folder, folder / "tfds")
    return folder, rows, pairs


def test_every_slice_is_there_level_by_level_with_the_names_of_its_table(own):
    folder, rows, pairs = own
    dataset = Dataset(str(folder / "tfds"), config="folder")
    metadata = dataset.metadata
    assert metadata.slice_ids.tolist() == [*range(1, len(rows) + 1)]
    assert metadata.label_names == ("a, b", "größer", "type B")
    assert [metadata.label_names[label - 1] for label in metadata.labels] == [row["class"] for row in rows]
    assert list(metadata.patient_ids) == list(metadata.families) == [row["patient"] for row in rows]
    assert metadata.folds.tolist() == [row["fold"] for row in rows]
    for sample, (image, mask), row in zip(dataset.read(metadata.slice_ids), pairs, rows, strict=True):
        np.testing.assert_array_equal(sample.image, image)
        np.testing.assert_array_equal(sample.mask, mask)
        assert sample.spacing_mm == pytest.approx(0.9) if row["spacing"] else np.isnan(sample.spacing_mm)
    head, *lines = describe_metadata(metadata).splitlines()
    assert head.split() == ["fold", "slices", "a,", "b", "größer", "type", "B", "ids", "families"]
    assert lines[-1].split()[1] == str(len(rows))


def test_the_given_folds_are_the_test_splits_and_patients_are_families(own):
    folder, rows, _ = own
    metadata = Dataset(str(folder / "tfds"), config="folder").metadata
    assert any(patient.endswith("B") for patient in metadata.patient_ids)  # a visit in figshare's ids, a person here
    for protocol in ("official", "family"):
        splits = make_splits(metadata, protocol=protocol, fold=2, seed=0, validation_share=0.2)
        assert splits["test"].tolist() == [number for number, row in enumerate(rows, start=1) if row["fold"] == 2]


def test_the_same_files_are_kept_and_others_replace_them_only_on_demand(own, tmp_path):
    folder, _, _ = own
    place = build(folder, folder / "tfds")
    stamps = {path: path.stat().st_mtime_ns for path in place.iterdir()}
    write_files(tmp_path, seed=5)  # of one class: the names stored in the old build are others
    with pytest.raises(InputError, match=r"built from another source.*--overwrite"):
        build(tmp_path, folder / "tfds")
    assert build(folder, folder / "tfds") == place
    assert {path: path.stat().st_mtime_ns for path in place.iterdir()} == stamps
    build(tmp_path, tmp_path / "tfds")
    build(folder, tmp_path / "tfds", overwrite=True)
    assert Dataset(str(tmp_path / "tfds"), config="folder").metadata.label_names == ("a, b", "größer", "type B")


def test_a_file_that_is_damaged_after_the_check_leaves_no_half_dataset(tmp_path):
    rows, _ = write_files(tmp_path)
    source = read_source(tmp_path / "table.csv", images=tmp_path / "images", masks=tmp_path / "masks", seed=0)
    assert set(source.slices[0].read()[1].flat) == {0}
    Image.new("L", (8, 8)).save(tmp_path / "images" / rows[-1]["image"])
    with pytest.raises(InputError, match="is constant"):
        build_dataset(source, data_dir=tmp_path / "tfds", table=tmp_path / "table.csv", overwrite=False)
    assert not list((tmp_path / "tfds").rglob("*.array_record*"))
    with pytest.raises(InputError, match=r"holds no own_slices/folder.*--images=DIR --masks=DIR --table=CSV"):
        Dataset(str(tmp_path / "tfds"), config="folder")
