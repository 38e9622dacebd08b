"""Folders, links to nothing, pipes, sockets and devices where files should be: none is waited for, each is named."""

import os
import shutil
import socket

import numpy as np
import pytest
from PIL import Image

from brainseg_jax.data.dataset import Dataset
from brainseg_jax.data.figshare_brain_tumor import archives
from brainseg_jax.data.image_files import read_slices
from brainseg_jax.data.own_slices.table import read_source
from brainseg_jax.errors import InputError
from brainseg_jax.inference.find_images import find_images


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as listener:  # its file stays
        listener.bind(str(path))


KINDS = {
    "folder": lambda path: path.mkdir(),
    "link to nothing": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "pipe": os.mkfifo,
    "socket": make_socket,
    "device": lambda path: path.symlink_to("/dev/null"),
}


@pytest.fixture(params=KINDS)
def make(request, tmp_path, monkeypatch):
    """A function that makes one of them under a name; the names of sockets must be short."""
    monkeypatch.chdir(tmp_path)
    return lambda name: KINDS[request.param](tmp_path.joinpath(name).relative_to(tmp_path))


def test_images(make, tmp_path):
    (tmp_path / "in").mkdir()
    make("in/x.png")
    for given in (tmp_path / "in" / "x.png", tmp_path / "in", tmp_path / "in" / "*"):
        with pytest.raises(InputError, match=r"--input=.* names no image"):
            find_images([str(given)], output=tmp_path / "out")
    with pytest.raises(InputError, match=r"x\.png (is missing|is no file but)"):
        read_slices(tmp_path / "in" / "x.png")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "in" / "good.png")
    assert find_images([str(tmp_path / "in")], output=tmp_path / "out") == [tmp_path / "in" / "good.png"]


@pytest.mark.parametrize("name", ["brainTumorDataPublic_1-766.zip", "17.mat", "cvind.mat"])
def test_archives(make, tmp_path, name):
    make(name)
    with pytest.raises(InputError, match=rf"{name} is no file but a folder, a pipe or a link to nothing: remove it"):
        archives.find_source(tmp_path)


def test_tables_and_the_images_that_they_name(make, tmp_path):
    make("table.csv")
    make("x.png")
    with pytest.raises(InputError, match=r"--table is .*table\.csv, which cannot be read"):
        read_source(tmp_path / "table.csv", images=tmp_path, masks=tmp_path, seed=0)
    (tmp_path / "good.csv").write_text("image,mask,patient\nx.png,,one\n")
    with pytest.raises(InputError, match=r"(?s)good\.csv has 1 problems; mend them.*x\.png is"):
        read_source(tmp_path / "good.csv", images=tmp_path, masks=tmp_path, seed=0)


def test_a_dataset_that_is_deleted_while_it_is_read(tmp_path, data_dir):
    shutil.copytree(data_dir, tmp_path / "data")
    dataset = Dataset(str(tmp_path / "data"), config="phantom")
    samples = dataset.read(dataset.metadata.slice_ids)
    next(samples)
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(InputError, match=r"The dataset phantom was moved, deleted or damaged .*No such file.*: run"):
        list(samples)
