"""Each form of a network gives the masks of the network, where neither this package nor Flax can be imported."""

import itertools
import json
import subprocess
import sys

import jax
import ml_collections
import numpy as np
import pytest
from PIL import Image

from brainseg_jax.config import get_config
from brainseg_jax.data.phantom.generate import phantom_slices
from brainseg_jax.data.preprocessing import resize_to_model, scale_image
from brainseg_jax.errors import InputError
from brainseg_jax.inference.export import forms, run_model
from brainseg_jax.inference.postprocessing import Postprocessing
from brainseg_jax.inference.predictor import Predictor
from tests.helpers import LINKNET
from tests.inference.export.test_to_onnx import random_network

BLOCKED = {
    "model.onnx": ("brainseg_jax", "flax", "jax", "scipy", "PIL"),
    "model.stablehlo": ("brainseg_jax", "flax", "PIL"),
}
ALONE = """
import sys
sys.modules.update(dict.fromkeys({blocked}))  # importing them fails
sys.path.insert(0, {folder!r})
import numpy as np
import run_model
images = list(np.load("images.npz").values())
model = run_model.HERE / {model!r}
np.savez("probabilities.npz", *run_model.probabilities(images, model=model))
np.savez("masks.npz", *run_model.masks(images, model=model))
"""


@pytest.fixture(scope="module")
def images():
    """Phantom slices of several shapes and ranges."""
    first, second, third = (one.image for one, _ in itertools.islice(phantom_slices(patients=10, size=128), 3))
    return [first[:, 20:], second[5:90] / 7.0, third.astype(np.uint8)]


def random_predictor(*, tta_flip=False, min_component_fraction=0.0, **changes):
    """A network of random weights."""
    config = get_config()
    config.update_from_flattened_dict({"data.image_size": 32, "model.start_filters": 4})
    if "model" in changes:
        config.model = ml_collections.ConfigDict(changes.pop("model"))
    config.update_from_flattened_dict(changes)
    _, variables = random_network(dict(config.model), config.data.image_size)
    postprocessing = Postprocessing(0.5, min_component_fraction)
    return Predictor(config, {"batch_stats": {}, **variables}, postprocessing, tta_flip=tta_flip)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, images):
    """A network with smallest component, flip and percentile, its folder with all forms, and how they compare."""
    changes = {"data.intensity_percentile": 1.0, "model.batch_norm": True}
    predictor = random_predictor(tta_flip=True, min_component_fraction=0.004, **changes)
    # A threshold as far from all probabilities as can be, so that rounding turns no pixel.
    values = np.sort(np.concatenate([of_image.ravel() for of_image in predictor.probabilities(images)]))
    middle = values[len(values) * 4 // 10 : len(values) * 8 // 10]
    threshold = float(middle[np.diff(middle).argmax() :][:2].mean())
    predictor.postprocessing = predictor.postprocessing.with_changes(threshold, None)
    folder = tmp_path_factory.mktemp("exported") / "weights"
    comparisons = forms.export_network(predictor, folder, card="# Card\n", forms=list(forms.FORMS), dtype="float16")
    return Predictor.from_pretrained(folder), folder, comparisons


@pytest.mark.parametrize("model", BLOCKED)
def test_a_form_gives_the_masks_without_this_package(exported, images, tmp_path, model):
    predictor, folder, _ = exported
    np.savez(tmp_path / "images.npz", *images)
    code = ALONE.format(blocked=BLOCKED[model], folder=str(folder), model=model)
    finished = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    found = [np.load(tmp_path / f"{name}.npz").values() for name in ("probabilities", "masks")]
    expected = [predictor.probabilities(images), predictor.masks(images)]
    for of_probabilities, of_mask, probabilities, mask in zip(*found, *expected, strict=True):
        np.testing.assert_allclose(of_probabilities, probabilities, atol=1e-5)
        np.testing.assert_array_equal(of_mask, mask)
    assert all(mask.any() and not mask.all() for mask in expected[1])


def test_the_forms_are_compared_with_the_network(exported):
    _, folder, comparisons = exported
    assert [one.file for one in comparisons] == ["model.onnx", "model.stablehlo"]
    assert all(one.difference < 1e-5 and one.pixels == 0 and one.slices == 4 for one in comparisons)
    assert "`model.onnx` or `model.stablehlo`" in (folder / "README.md").read_text()


def test_no_path_of_this_machine_is_in_a_form(exported):
    for name in forms.FORMS.values():
        content = (exported[1] / name).read_bytes()
        assert not any(path in content for path in (b".py", b"/brainseg_jax/", str(sys.prefix).encode()))


def test_stablehlo_takes_any_batch_on_cpu_and_gpu(exported):
    _, folder, _ = exported
    read = jax.export.deserialize(bytearray((folder / "model.stablehlo").read_bytes()))
    assert read.platforms == ("cpu", "cuda")
    assert str(read.in_avals[0].str_short()) == "float32[batch,32,32,1]"
    (one,), two = read.call(np.ones((1, 32, 32, 1), np.float32)), read.call(np.ones((2, 32, 32, 1), np.float32))
    np.testing.assert_allclose(two, np.stack([one, one]), atol=1e-6)


@pytest.mark.parametrize("changes", [{"model.dtype": "bfloat16"}, LINKNET])
def test_stablehlo_holds_both_networks_and_computes_in_float32(tmp_path, changes):
    predictor = random_predictor(**changes)
    (comparison,) = forms.export_network(predictor, tmp_path / "new", card="", forms=["stablehlo"])
    assert comparison.difference < 1e-5
    kept = json.loads((tmp_path / "new" / "config.json").read_text())["model"]
    assert kept["dtype"] == predictor.config.model.dtype


def test_a_form_that_differs_leaves_nothing(exported, tmp_path, monkeypatch):
    predictor = exported[0]
    other = jax.tree.map(lambda leaf: 1.1 * leaf, predictor.variables)
    wrong = Predictor(predictor.config, other, predictor.postprocessing, tta_flip=True)
    content = forms.convert(wrong, "stablehlo")
    monkeypatch.setattr(forms, "convert", lambda network, form: content)
    with pytest.raises(InputError, match=r"model\.stablehlo gives probabilities that differ .* nothing was written"):
        forms.export_network(predictor, tmp_path / "new", card="", forms=["stablehlo"])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_refused(exported, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="is there already: name a new folder"):
        forms.export_network(exported[0], tmp_path, card="")
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_a_missing_package_or_form_is_one_sentence(monkeypatch):
    with pytest.raises(InputError, match="names torchscript: choose from onnx, stablehlo"):
        forms.check_forms(["torchscript"])
    monkeypatch.setattr(forms.importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else name)
    with pytest.raises(InputError, match=r"onnxruntime is not installed: run `pip install 'brainseg_jax\[onnx\]'`"):
        forms.check_forms(["onnx"])
    forms.check_forms(["stablehlo"])


def test_the_runner_scales_and_resizes_as_the_package_does(images):
    for size in (16, 100, 128, 300):
        for image in images:
            scaled = scale_image(image, percentile=1.0)
            np.testing.assert_array_equal(run_model._scale(image, 1.0), scaled)
            square = resize_to_model(scaled, size=max(scaled.shape))
            np.testing.assert_allclose(
                run_model._resize(square, size), resize_to_model(scaled, size=size), rtol=2e-7, atol=1e-8
            )


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.004, 0.02])
def test_the_runner_removes_the_components_that_the_package_removes(fraction):
    for seed, density in enumerate((0.1, 0.3, 0.5, 0.9)):
        values = np.random.default_rng(seed).random((50, 41))
        expected = Postprocessing(1 - density, fraction).mask(values)
        np.testing.assert_array_equal(run_model._without_small(values > 1 - density, fraction * values.size), expected)


def test_the_runner_writes_masks_beside_slices_and_over_nothing(exported, images, tmp_path):
    predictor, folder, _ = exported
    levels = images[2]
    Image.fromarray(levels).save(tmp_path / "slice.png")
    np.save(tmp_path / "other.npy", levels)
    command = [sys.executable, folder / "run_model.py", "slice.png", "other.npy"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    (mask,) = predictor.masks([levels])
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "slice_mask.png")), mask * np.uint8(255))
    np.testing.assert_array_equal(np.load(tmp_path / "other_mask.npy"), mask)
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert again.stderr == "error: slice_mask.png is there already: move it away first.\n"
