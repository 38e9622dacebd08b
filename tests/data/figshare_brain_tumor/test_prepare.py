"""From archives to the TFDS dataset: equal bit for bit, and a build is replaced only on demand."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile

import numpy as np
import psutil
import pytest
import tensorflow_datasets as tfds

from brainseg_jax.data import tfds_build
from brainseg_jax.data.dataset import Dataset
from brainseg_jax.data.dataset_info import LABELS
from brainseg_jax.data.figshare_brain_tumor import Builder, archives, mat_file, prepare
from brainseg_jax.data.phantom import generate
from brainseg_jax.errors import InputError
from tests.conftest import REPOSITORY
from tests.helpers import files_of_at_most


@pytest.fixture(scope="module")
def small_archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    generate.write_archives(folder, patients=10, seed=1, size=64)
    return folder


def build(folder, data_dir, *, config="phantom", overwrite=False):
    source = archives.find_source(folder)
    return prepare.build_dataset(source, manual_dir=folder, data_dir=data_dir, config=config, overwrite=overwrite)


def as_published(folder, into, *, keep=lambda slice_, fold: True, **changes):
    """Writes the phantom slices of `folder` as unmarked files, which the config `figshare` accepts."""
    into.mkdir(parents=True)
    source = archives.find_source(folder)
    for slice_ in archives.read_slices(source.slices):
        if keep(slice_, source.fold_of(slice_.slice_id)):
            real = mat_file.RawSlice(**{**vars(slice_), "is_phantom": False, **changes})
            (into / f"{slice_.slice_id}.mat").write_bytes(mat_file.write_slice(real))
    shutil.copy(folder / "cvind.mat", into)
    return into


def test_the_name_is_registered_with_both_configs():
    assert tfds.builder_cls("figshare_brain_tumor") is Builder
    assert list(Builder.builder_configs) == ["figshare", "phantom"]
    assert Builder(data_dir="nowhere").builder_config.name == "figshare"


def test_the_dataset_holds_every_slice_bit_for_bit_in_its_fold(phantom_archives, data_dir):
    builder = Builder(config="phantom", data_dir=data_dir)
    source = archives.find_source(phantom_archives)
    rows = {}
    for fold in range(1, 6):
        for row in builder.as_data_source(f"fold_{fold}"):
            assert row["fold"] == fold
            rows[int(row["slice_id"])] = row
    assert sorted(rows) == [entry.slice_id for entry in source.slices]
    for slice_ in archives.read_slices(source.slices):
        row = rows[slice_.slice_id]
        np.testing.assert_array_equal(row["image"], slice_.image)
        np.testing.assert_array_equal(row["mask"], slice_.mask)
        assert (row["image"].dtype, row["mask"].dtype) == (np.int16, np.uint8)
        assert row["patient_id"] == slice_.patient_id.encode()
        assert LABELS[row["label"]] == LABELS[slice_.label - 1]
        assert row["fold"] == source.fold_of(slice_.slice_id)
        assert np.isnan(row["pixel_spacing_mm"])  # known for 512×512 alone


def test_images_of_512_pixels_have_the_published_spacing(tmp_path, small_archives):
    large = np.kron(np.arange(64, dtype=np.int16).reshape(8, 8), np.ones((64, 64), np.int16))
    folder = as_published(
        small_archives,
        tmp_path / "in",
        keep=lambda slice_, _: slice_.slice_id < 40,
        image=large,
        mask=(large % 2).astype(np.uint8),
    )
    build(folder, tmp_path / "out", config="figshare")
    (name,) = Builder(config="figshare", data_dir=tmp_path / "out").info.splits
    row = Builder(config="figshare", data_dir=tmp_path / "out").as_data_source(name)[0]
    assert row["pixel_spacing_mm"] == np.float32(0.49)


def test_a_missing_fold_is_no_error(tmp_path, small_archives):
    folder = as_published(small_archives, tmp_path / "part", keep=lambda _, fold: fold != 3)
    build(folder, tmp_path / "out", config="figshare")
    table = Dataset(str(tmp_path / "out"), config="figshare").metadata
    assert set(table.folds.tolist()) == {1, 2, 4, 5}
    assert len(table.slice_ids) == len(list(folder.glob("*.mat"))) - 1


def test_phantom_and_real_slices_have_configs_of_their_own(tmp_path, small_archives):
    with pytest.raises(InputError, match="is a phantom slice, which the builder config figshare does not take"):
        build(small_archives, tmp_path / "out", config="figshare")
    real = as_published(small_archives, tmp_path / "real", keep=lambda slice_, _: slice_.slice_id < 40)
    with pytest.raises(InputError, match="is not a phantom slice, which the builder config phantom does not take"):
        build(real, tmp_path / "out", config="phantom")
    assert not list((tmp_path / "out").rglob("*.array_record*"))


def test_the_same_source_is_kept_and_another_refused_until_overwrite(tmp_path, small_archives):
    part = tmp_path / "part"
    shutil.copytree(small_archives, part)
    removed = sorted(part.glob("*.zip"))[0]
    with zipfile.ZipFile(removed) as archive:
        missing = len(archive.namelist())
    removed.unlink()

    folder = build(small_archives, tmp_path / "out")
    stamps = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    whole = len(Dataset(str(tmp_path / "out"), config="phantom").metadata.slice_ids)
    assert build(small_archives, tmp_path / "out") == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == stamps

    with pytest.raises(InputError, match=r"built from another source.*--overwrite"):
        build(part, tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == stamps
    build(part, tmp_path / "out", overwrite=True)
    assert len(Dataset(str(tmp_path / "out"), config="phantom").metadata.slice_ids) == whole - missing


def test_a_bad_slice_leaves_no_half_dataset_and_keeps_the_previous_one(tmp_path, small_archives):
    folder = build(small_archives, tmp_path / "out")
    bad = tmp_path / "bad"
    shutil.copytree(small_archives, bad)
    (pack,) = bad.glob("*_2299-3064.zip")
    with zipfile.ZipFile(pack, "a") as archive:
        archive.writestr("3064.mat", b"not a matlab file")
    with pytest.raises(InputError, match=r"3064\.mat is not a MATLAB"):
        build(bad, tmp_path / "out", overwrite=True)
    assert not list((tmp_path / "out").glob("unfinished*"))
    source = json.loads((folder / tfds_build.SOURCE_FILE).read_text())
    assert source["fingerprint"] == archives.find_source(small_archives).fingerprint


def test_leftovers_of_a_killed_build_are_removed(tmp_path, small_archives):
    unfinished = tmp_path / "out" / "unfinished_phantom"
    (unfinished / "figshare_brain_tumor" / "phantom" / "1.0.0").mkdir(parents=True)
    folder = build(small_archives, tmp_path / "out")
    assert not unfinished.exists()
    assert (folder / tfds_build.SOURCE_FILE).exists()


def test_a_missing_dataset_is_refused_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(InputError, match=r"prepare_data\.py --data_dir=.*--phantom"):
        Dataset(str(tmp_path), config="phantom")
    with pytest.raises(InputError, match=r"config\.data\.dataset is 'brats'"):
        Dataset(str(tmp_path), config="brats")


def test_nothing_stays_of_a_killed_build_nor_in_the_temporary_folder(small_archives, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    folder = build(small_archives, tmp_path / "data")
    (tmp_path / "data" / "unfinished_phantom" / "part").mkdir(parents=True)
    assert build(small_archives, tmp_path / "data") == folder  # which is whole and stays
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["figshare_brain_tumor"]
    assert not [*(tmp_path / "temporary").iterdir()]


def test_a_full_disk_is_told_and_leaves_nothing(small_archives, tmp_path):
    message = r"The dataset could not be written to .*data \(File too large\): make room or rights there"
    with files_of_at_most(20_000), pytest.raises(InputError, match=message):
        build(small_archives, tmp_path / "data")
    assert not [*(tmp_path / "data").iterdir()]


def test_readers_end_when_the_program_that_started_them_is_killed(small_archives, tmp_path):
    program = f"""
import os, signal, psutil
from brainseg_jax.data.figshare_brain_tumor import archives, prepare
if __name__ == "__main__":
    read = archives.read_slices
    def and_die(files, *, readers):
        for one in psutil.Process().children():
            print(one.pid, flush=True)
        list(read(files, readers=readers))
        os.kill(os.getpid(), signal.SIGKILL)
    archives.read_slices = and_die
    from pathlib import Path
    folder = Path({str(small_archives)!r})
    source = archives.find_source(folder)
    data = Path({str(tmp_path / "data")!r})
    prepare.build_dataset(source, manual_dir=folder, data_dir=data, config="phantom", overwrite=False)
"""
    (tmp_path / "program.py").write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, tmp_path / "program.py"]
    killed = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    readers = [int(line) for line in killed.stdout.split() if line.isdigit()]
    assert readers
    deadline = time.monotonic() + 10
    while left := [one for one in readers if psutil.pid_exists(one)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
