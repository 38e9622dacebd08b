"""Commands on a full disk and in read-only folders: one sentence, exit code 1, and the same command goes on afterwards.

`python -m pytest tests/nightly/disks.py`: each disk is a small tmpfs, so that root is refused too. Mounting needs root.
"""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.conftest import REPOSITORY
from tests.helpers import rows_of
from tests.quick_compilation import FLAGS

TINY = {"train.epochs": 3, "data.image_size": 16, "model.start_filters": 1}
ENVIRONMENT = {**os.environ, "XLA_FLAGS": FLAGS, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY)}


def mount(folder, options):
    """Mounts a tmpfs, or changes the options of one."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this process may not mount a tmpfs, which takes root and the right to mount")


@pytest.fixture
def disk(tmp_path):
    """A function that mounts a tmpfs at a path below tmp_path with options, or changes its options."""
    mounted = []

    def at(name, options):
        folder = tmp_path / name
        if folder in mounted:
            subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)
        else:
            mount(folder, options)
            mounted.append(folder)
        return folder

    yield at
    for folder in reversed(mounted):
        subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(cache):
    def run_script(name, *arguments):
        command = [sys.executable, REPOSITORY / "scripts" / f"{name}.py", *arguments]
        environment = ENVIRONMENT | {"XDG_CACHE_HOME": str(cache)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)

    return run_script


def train_arguments(data_dir, workdir):
    settings = {**TINY, "data.data_dir": data_dir}.items()
    config = f"--config={REPOSITORY}/configs/quickstart.py"
    return [config, *(f"--config.{name}={value}" for name, value in settings), f"--workdir={workdir}"]


def assert_told(finished, *words):
    assert finished.returncode == 1, finished.stderr
    *warnings, last = finished.stderr.splitlines()
    assert all(line.startswith("warning: ") for line in warnings), finished.stderr
    assert last.startswith("error: ")
    for word in words:
        assert word in last


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data_dir, cache):
    workdir = tmp_path_factory.mktemp("whole") / "run"
    command = [sys.executable, REPOSITORY / "scripts" / "train.py", *train_arguments(data_dir, workdir)]
    subprocess.run(command, env=ENVIRONMENT | {"XDG_CACHE_HOME": str(cache)}, check=True)
    return workdir


# Room for the files before the first checkpoint only, for half a checkpoint, for one, for nearly two.
@pytest.mark.parametrize("share", [0.1, 0.6, 1.2, 1.7])
def test_a_training_on_a_full_disk_goes_on_when_there_is_room(disk, run, data_dir, whole, share):
    checkpoint = size_of(max(whole.joinpath("checkpoints").iterdir(), key=lambda path: int(path.name)))
    others = size_of(whole) - size_of(whole / "checkpoints")
    place = disk("disk", f"size={int(others * min(share, 1) + checkpoint * share)}")
    assert_told(run("train", *train_arguments(data_dir, place / "run")), str(place), "No space left on device")
    disk("disk", "size=50m")
    again = run("train", *train_arguments(data_dir, place / "run"))
    assert (again.returncode, again.stderr) == (0, "")
    assert rows_of(place / "run") == rows_of(whole)
    assert not [*place.rglob("*unfinished*"), *place.rglob("*-tmp*")]


def test_a_checkpoint_folder_that_cannot_be_written_is_told_at_once(disk, run, data_dir, tmp_path):
    folder = disk("run/checkpoints", "size=1m,ro")
    assert_told(run("train", *train_arguments(data_dir, tmp_path / "run")), str(folder), "Read-only file system")


def test_read_only_folders_to_write_to(disk, run, data_dir, whole, tmp_path):
    place = disk("disk", "size=1m")
    (place / "run").mkdir()
    disk("disk", "ro")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "x.png")
    for name, arguments in (
        ("train", train_arguments(data_dir, place / "run")),
        ("predict", [f"--input={tmp_path}/x.png", f"--weights={whole}", f"--output={place}"]),
        ("evaluate", [f"--workdir={whole}", f"--output={place}/out", "--examples=0"]),
        ("prepare_data", ["--phantom=10", f"--data_dir={place}"]),
    ):
        assert_told(run(name, *arguments), str(place), "Read-only file system")


def test_a_read_only_dataset_is_all_that_reading_needs(disk, run, data_dir, whole, tmp_path):
    place = disk("disk", "size=50m")
    shutil.copytree(data_dir, place / "data")
    disk("disk", "ro")
    trained = run("train", *train_arguments(place / "data", tmp_path / "run"))
    assert (trained.returncode, trained.stderr) == (0, "")
    assert rows_of(tmp_path / "run") == rows_of(whole)


def test_masks_on_a_full_disk(disk, run, whole, tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (200, 200), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{number}.png")
    place = disk("disk", "size=200k")
    arguments = [f"--input={tmp_path}/in", f"--weights={whole}", f"--output={place}/out", "--probabilities"]
    assert_told(run("predict", *arguments), str(place), "No space left on device")
    for path in (place / "out").glob("*.png"):  # each is whole
        Image.open(path).load()
    disk("disk", "size=50m")
    assert run("predict", *arguments).returncode == 0
    assert len([*(place / "out").glob("*_mask.png")]) == 8


@pytest.mark.parametrize("size", ["6m", "30m"])  # too little for the phantom archives, and for the dataset
def test_a_dataset_on_a_full_disk(disk, run, size):
    place = disk("disk", f"size={size}")
    assert_told(run("prepare_data", "--phantom=10", f"--data_dir={place}"), str(place), "No space left on device")
    assert not [*place.iterdir()]
    disk("disk", "size=200m")
    assert run("prepare_data", "--phantom=10", f"--data_dir={place}").returncode == 0
    assert [path.name for path in place.iterdir()] == ["figshare_brain_tumor"]


def size_of(folder):
    """Bytes of a folder as a tmpfs counts them, in pages of 4 KiB."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*"))
