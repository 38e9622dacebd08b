"""Weights that travel: what is written comes back, and damage is named."""

import json
import lzma
import re
import struct
import tracemalloc

import jax
import numpy as np
import pytest
from PIL import Image

from brainseg_jax.errors import InputError
from brainseg_jax.inference.predictor import Predictor
from brainseg_jax.workdir import weights


@pytest.fixture(scope="module")
def saved(tmp_path_factory, trained):
    """The trained network as a folder that travels."""
    folder = tmp_path_factory.mktemp("saved") / "weights"
    Predictor.from_workdir(trained, threshold=0.3, min_component_fraction=0.001, tta_flip=True).save_pretrained(folder)
    return folder


def test_a_saved_network_predicts_what_its_run_predicts(saved, trained):
    image = np.random.default_rng(0).random((50, 70))
    run = Predictor.from_workdir(trained, threshold=0.3, min_component_fraction=0.001, tta_flip=True)
    opened = Predictor.from_pretrained(saved)
    np.testing.assert_array_equal(opened.probabilities([image])[0], run.probabilities([image])[0])
    assert (opened.postprocessing, opened.epoch, opened.tta_flip) == (run.postprocessing, run.epoch, True)


def test_the_folder_names_no_path_and_says_who_was_trained_on(saved, trained):
    assert {path.name for path in saved.iterdir()} == {
        "config.json",
        "environment.json",
        "model.safetensors",
        "splits.json",
    }
    config = json.loads((saved / "config.json").read_text())
    assert config["data"]["data_dir"] == config["train"]["init_from"] == ""
    assert (saved / "splits.json").read_bytes() == (trained / "splits.json").read_bytes()


def test_half_the_bytes_change_a_probability_by_less_than_a_hundredth(tmp_path, saved):
    full = Predictor.from_pretrained(saved)
    full.save_pretrained(tmp_path / "half", dtype="float16")
    sizes = [(folder / weights.FILE).stat().st_size for folder in (tmp_path / "half", saved)]
    assert sizes[0] < 0.6 * sizes[1]
    image = np.random.default_rng(0).random((64, 64))
    half = Predictor.from_pretrained(tmp_path / "half").probabilities([image])[0]
    np.testing.assert_allclose(half, full.probabilities([image])[0], atol=0.01)
    with pytest.raises(InputError, match="is 'int8': set it to one of float32, float16, int6"):
        full.save_pretrained(tmp_path / "int8", dtype="int8")
    assert not (tmp_path / "int8").exists()


def test_six_bits_a_kernel_come_back_as_they_were_rounded(tmp_path, saved):
    full = Predictor.from_pretrained(saved)
    full.save_pretrained(tmp_path / "six", dtype="int6")
    assert not (tmp_path / "six" / weights.FILE).exists()
    opened = Predictor.from_pretrained(tmp_path / "six")
    assert opened.epoch == full.epoch
    for (path, array), found in zip(
        jax.tree.leaves_with_path(full.variables), jax.tree.leaves(opened.variables), strict=True
    ):
        rounded = array
        if array.ndim == 4:  # a kernel (height, width, input, output): 63 values for each output channel
            scales = np.abs(array).max(axis=(0, 1, 2)) / 31
            rounded = np.round(array / scales) * scales
            assert np.abs(found - array).max() > 0
        np.testing.assert_allclose(found, rounded, rtol=1e-5, atol=1e-7, err_msg=str(path))
    image = np.random.default_rng(0).random((64, 64))
    six, all_bits = (one.probabilities([image])[0] for one in (opened, full))
    assert np.abs(six - all_bits).mean() < 0.05
    # It can be saved again, in full or in six bits, which do not become coarser.
    opened.save_pretrained(tmp_path / "again", dtype="int6")
    again = Predictor.from_pretrained(tmp_path / "again").variables
    for first, second in zip(jax.tree.leaves(opened.variables), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-6)


def copy_with(saved, folder, change):
    folder.mkdir()
    for path in saved.iterdir():
        content = path.read_bytes()
        (folder / path.name).write_bytes(change(content) if path.name.startswith(weights.FILE) else content)
    return folder


def flip_a_bit(content):
    (head,) = struct.unpack("<Q", content[:8])
    place = 8 + head + (len(content) - 8 - head) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    "change",
    [
        *(flip_a_bit, lambda content: content[:-5], lambda content: b"", lambda content: b"{}" * 50),
        lambda content: flip_a_bit(content).replace(b'"sha256"', b'"sha257"'),  # no checksum tells of the bit
        lambda content: content.replace(b'"F32"', b'"F3\\n"', 1),
        lambda content: re.sub(rb'"epoch":"\d', b'"epoch":"x', content),
    ],
)
def test_damaged_weights_are_refused(tmp_path, saved, change):
    with pytest.raises(InputError, match=r"model\.safetensors is damaged .*: copy it again"):
        Predictor.from_pretrained(copy_with(saved, tmp_path / "damaged", change))


@pytest.mark.parametrize(
    "change",
    [
        *(lambda content: content[:-5], lambda content: b"", lambda content: content[:40] + b"x" + content[41:]),
        # Whole and of the right checksums, but a few bytes that would become many.
        lambda content: lzma.compress(bytes(1 << 27), preset=0),
        lambda content: lzma.compress(lzma.decompress(content).replace(b'"sha256":"', b'"sha256":"0')),
        lambda content: lzma.compress(lzma.decompress(content).replace(b"/scales", b"/skales", 1)),
    ],
)
def test_damaged_weights_in_six_bits_are_refused_before_they_fill_the_memory(tmp_path, saved, change):
    Predictor.from_pretrained(saved).save_pretrained(tmp_path / "six", dtype="int6")
    folder = copy_with(tmp_path / "six", tmp_path / "damaged", change)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"model\.safetensors\.xz is damaged .*: copy it again"):
        Predictor.from_pretrained(folder)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_weights_in_both_forms_are_refused(tmp_path, saved):
    Predictor.from_pretrained(saved).save_pretrained(tmp_path / "six", dtype="int6")
    (tmp_path / "six" / weights.FILE).write_bytes((saved / weights.FILE).read_bytes())
    with pytest.raises(InputError, match=r"has model\.safetensors and model\.safetensors\.xz: remove the one"):
        Predictor.from_pretrained(tmp_path / "six")


def test_weights_of_another_network_are_refused(tmp_path, saved):
    folder = copy_with(saved, tmp_path / "other", lambda content: content)
    config = json.loads((folder / "config.json").read_text())
    config["model"]["start_filters"] *= 2
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"model\.safetensors does not fit config\.json beside it"):
        Predictor.from_pretrained(folder)


def test_nothing_is_written_over(tmp_path, saved):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="mine is there already: name a new folder"):
        Predictor.from_pretrained(saved).save_pretrained(tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_an_unknown_name_lists_what_there_is(monkeypatch, tmp_path, saved):
    (tmp_path / "small").symlink_to(saved)
    monkeypatch.setattr(weights, "PACKAGED", tmp_path)
    assert weights.find_weights("small") == tmp_path / "small"
    assert weights.find_weights(saved) == saved
    with pytest.raises(
        InputError, match=r"large is no folder and no name of weights in the package: .* one of small\."
    ):
        weights.find_weights("large")
    with pytest.raises(InputError, match=r"^x{200} is no folder"):  # what a damaged config.json may name
        weights.find_weights("x" * 5000)


def test_predict_takes_a_folder_of_weights(tmp_path, saved, run_script):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60), np.uint8)).save(tmp_path / "slice.png")
    finished = run_script(
        "predict", f"--weights={saved}", f"--input={tmp_path / 'slice.png'}", f"--output={tmp_path}/out"
    )
    assert finished.returncode == 0, finished.stderr
    assert np.asarray(Image.open(tmp_path / "out" / "slice_mask.png")).shape == (40, 60)
