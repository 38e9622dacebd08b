"""The public API: its names, that each can be had, and that the package itself stays light."""

import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
from PIL import Image

import brainseg_jax
from tests.conftest import REPOSITORY

NAMES = {
    "MODELS",
    "Dataset",
    "Ensemble",
    "InputError",
    "Predictor",
    "create_model",
    "evaluate",
    "get_config",
    "load_config",
    "train_and_evaluate",
}


def test_the_public_names_are_these_and_each_can_be_imported():
    assert set(brainseg_jax.__all__) == NAMES
    assert set(dir(brainseg_jax)) == NAMES | {"__version__"}
    for name in NAMES:
        assert getattr(brainseg_jax, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'train'"):
        _ = brainseg_jax.train


def test_the_version_is_that_of_the_installed_package():
    assert brainseg_jax.__version__ == metadata.version("brainseg_jax")


def test_importing_the_package_does_not_start_jax():
    # What scripts settle about XLA must come before JAX is imported.
    code = "import sys, brainseg_jax, brainseg_jax.utils.xla_setup; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=REPOSITORY).returncode == 0


def test_every_folder_of_the_package_is_importable_without_side_effects():
    for path in sorted((REPOSITORY / "brainseg_jax").rglob("__init__.py")):
        if path.parent.name not in ("brainseg_jax", "models", "figshare_brain_tumor"):
            lines = [line for line in path.read_text().splitlines() if line]
            assert len(lines) <= 1, f"{path} holds code"


def test_a_trained_network_gives_masks_in_three_lines(trained, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70), np.uint8)).save(tmp_path / "slice.png")
    predictor = brainseg_jax.Predictor.from_workdir(trained)
    (mask,) = predictor.masks([np.asarray(Image.open(tmp_path / "slice.png"))])
    assert mask.shape == (50, 70)
    assert mask.dtype == bool
