"""What several test files share: a small prepared dataset of phantom slices, and a run that was trained on it."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import jax
import ml_collections
import pytest

from brainseg_jax.config import flatten, get_config
from brainseg_jax.data.figshare_brain_tumor import archives, prepare
from brainseg_jax.data.phantom import generate
from brainseg_jax.utils import xla_setup
from tests import quick_compilation

# Before JAX starts; the quickstart in .ci/run compiles as users do.
os.environ["JAX_PLATFORMS"], os.environ["JAX_NUM_CPU_DEVICES"] = "cpu", "1"  # on a machine with GPUs too
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {quick_compilation.FLAGS}"
xla_setup.use_fast_convolutions()

REPOSITORY = Path(__file__).resolve().parents[1]
PATIENTS = 20
TRAINED = {
    "model.dropout_rate": 0.1,
    "model.start_filters": 8,
    "train.epochs": 25,
    "optimizer.learning_rate": 5e-3,
    "optimizer.plateau_patience": 25,
}


def pytest_collection_modifyitems(items):
    """Puts the longest files first, so that neither of two processes is left with one of them at the end."""
    first = ("test_real_slices", "training/test_loop", "training/test_strong_recipe", "training/")
    items.sort(key=lambda item: [name not in item.nodeid for name in first])


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """Many tests compile the same small networks: once is enough for all of pytest-xdist's processes."""
    folder = shared_folder(tmp_path_factory)
    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


@pytest.fixture(scope="session")
def phantom_archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom_archives")
    generate.write_archives(folder, patients=PATIENTS, seed=0, size=128)
    return folder


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory, phantom_archives):
    folder = tmp_path_factory.mktemp("tfds")
    source = archives.find_source(phantom_archives)
    prepare.build_dataset(source, manual_dir=phantom_archives, data_dir=folder, config="phantom", overwrite=False)
    return folder


@pytest.fixture(scope="session")
def make_config(data_dir):
    """A function that makes the configuration of a run that takes seconds, with the changes given."""

    def make(**changes: object) -> ml_collections.ConfigDict:
        config = get_config()
        config.data.dataset = "phantom"
        config.data.data_dir = str(data_dir)
        config.data.image_size = 32
        config.split.protocol = "family"
        config.model.start_filters = 4
        config.train.epochs = 2
        config.train.loss = "bce_dice"
        config.optimizer.learning_rate = 3e-3
        if "model" in changes:  # of another network, whose fields are others
            config.model = ml_collections.ConfigDict(changes.pop("model"))
        config.update_from_flattened_dict(changes)
        return config

    return make


@pytest.fixture(scope="session")
def trained(tmp_path_factory, make_config):
    """The workdir of a short run of a U-Net with dropout that learned something, shared by pytest-xdist's processes."""
    folder = shared_folder(tmp_path_factory)
    workdir = folder / "trained" / "run"
    with (folder / "trained.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not (workdir / "figures" / "learning_curves.png").exists():
            train_as_users_do(make_config(**TRAINED), workdir)
    return workdir


def train_as_users_do(config, workdir):
    """Trains in a process of its own that compiles as users do: many steps take longer if compiled quickly."""
    settings, defaults = (flatten(one.to_dict()) for one in (config, get_config()))
    options = [f"--config.{name}={value}" for name, value in settings.items() if value != defaults[name]]
    script, file = REPOSITORY / "scripts" / "train.py", REPOSITORY / "brainseg_jax" / "config.py"
    environment = {**os.environ, "XLA_FLAGS": os.environ["XLA_FLAGS"].replace(quick_compilation.FLAGS, "")}
    command = [sys.executable, script, f"--config={file}", f"--workdir={workdir}", *options]
    subprocess.run(command, env=environment, check=True)


def shared_folder(tmp_path_factory):
    """Returns the temporary folder of all of pytest-xdist's processes."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def figshare_slices():
    """The folder of real slices that FIGSHARE_SLICES names."""
    folder = os.environ.get("FIGSHARE_SLICES")
    if not folder:
        pytest.skip("FIGSHARE_SLICES does not name a folder of real slices")
    return Path(folder)


@pytest.fixture(scope="session")
def real_archives(tmp_path_factory, figshare_slices):
    """All real slices at hand in the layout in which figshare publishes them."""
    folder = tmp_path_factory.mktemp("real_archives")
    subprocess.run([sys.executable, figshare_slices / "make_archives.py", folder], check=True)
    return folder


@pytest.fixture(scope="session")
def run_script():
    """A function that runs a script of the repository from another folder and gives the finished process."""

    def run(name: str, *arguments: object, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(REPOSITORY / "scripts" / f"{name}.py"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)

    return run
