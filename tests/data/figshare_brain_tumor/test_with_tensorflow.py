"""What needs the [tf] extra: TFDS's own test case, `tfds build`, `tfds.load`. .ci/run runs it."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from brainseg_jax.data.dataset import Dataset
from brainseg_jax.data.figshare_brain_tumor import Builder, archives
from brainseg_jax.data.phantom import generate
from brainseg_jax.errors import InputError
from tests.conftest import REPOSITORY

tf = pytest.importorskip("tensorflow", reason="needs the [tf] extra")
FOLDER = REPOSITORY / "brainseg_jax" / "data" / "figshare_brain_tumor"


@pytest.fixture(scope="module")
def archives_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archives")
    generate.write_archives(folder, patients=10, seed=2, size=64)
    return folder


@pytest.fixture(scope="module", autouse=True)
def example_data(archives_folder):
    FigshareBrainTumorTest.EXAMPLE_DIR = archives_folder
    FigshareBrainTumorTest.dummy_data = archives_folder
    source = archives.find_source(archives_folder)
    counts = {f"fold_{fold}": 0 for fold in range(1, 6)}
    for entry in source.slices:
        counts[f"fold_{source.fold_of(entry.slice_id)}"] += 1
    FigshareBrainTumorTest.SPLITS = counts


class FigshareBrainTumorTest(tfds.testing.DatasetBuilderTestCase):
    """TFDS's own checks of a builder, on phantom slices."""

    DATASET_CLASS = Builder
    BUILDER_CONFIG_NAMES_TO_TEST = ["phantom"]  # noqa: RUF012 (TFDS declares it as a plain attribute)
    EXAMPLE_DIR = "set by example_data"
    SPLITS = {"fold_1": 1}  # noqa: RUF012
    SKIP_CHECKSUMS = True  # the builder downloads nothing; prepare_data.py does, with MD5s


@pytest.fixture(scope="module")
def built(tmp_path_factory, archives_folder):
    data_dir = tmp_path_factory.mktemp("tfds")
    command = [sys.executable, "-m", "tensorflow_datasets.scripts.cli.main", "build", "--config=phantom"]
    command += [f"--manual_dir={archives_folder}", f"--data_dir={data_dir}"]
    finished = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return data_dir


def test_tfds_build_and_load_give_every_slice(built, archives_folder):
    source = archives.find_source(archives_folder)
    loaded = tfds.load("figshare_brain_tumor/phantom", data_dir=built)
    rows = {int(row["slice_id"]): row for fold in loaded.values() for row in fold.as_numpy_iterator()}
    assert sorted(rows) == [entry.slice_id for entry in source.slices]
    for slice_ in archives.read_slices(source.slices):
        np.testing.assert_array_equal(rows[slice_.slice_id]["image"], slice_.image)
        np.testing.assert_array_equal(rows[slice_.slice_id]["mask"], slice_.mask)


def test_training_names_the_command_for_the_form_that_it_reads(built):
    with pytest.raises(InputError, match=r"tfrecord form.*prepare_data\.py .*--overwrite"):
        Dataset(str(built), config="phantom")
