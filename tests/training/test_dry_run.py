"""A dry run tells what a training would do, by the same step, and leaves nothing."""

import json
import re

import jax
import jax.numpy as jnp
import pytest

from brainseg_jax.errors import InputError
from brainseg_jax.models import create_model
from brainseg_jax.training.dry_run import dry_run


def test_a_dry_run_tells_all_and_writes_nothing(make_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = make_config(**{"train.batch_size": 4})
    text = dry_run(config)
    assert "batch_size: 4" in text
    assert "train and test share 0 ids and 0 families" in text
    variables = create_model(config.model).init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)))
    count = sum(leaf.size for leaf in jax.tree.leaves(variables))
    assert re.search(rf"^parameters +{count:,}$", text, re.MULTILINE)
    taken, arguments = map(int, re.search(r"takes (\d+) MiB on a device, .* take (\d+) MiB", text).groups())
    assert taken > arguments >= 0
    # Before any step probabilities are near one half: cross-entropy near log 2, and Dice loss between 0 and 1.
    assert 0.6 < float(re.search(r"first step: (\d\.\d+)", text)[1]) < 2
    assert not list(tmp_path.iterdir())


def test_what_training_refuses_a_dry_run_refuses_too(make_config):
    with pytest.raises(InputError, match="batch_size is 10000, more than the"):
        dry_run(make_config(**{"train.batch_size": 10000}))
    with pytest.raises(InputError, match=r"config\.seed is -1: set it to 0 or more"):
        dry_run(make_config(seed=-1))


def test_the_script_needs_no_workdir_for_it(make_config, run_script, tmp_path):
    config = json.loads(make_config().to_json())
    options = [f"--config.data.{name}={config['data'][name]}" for name in ("dataset", "data_dir", "image_size")]
    options += ["--config.split.protocol=family", "--config.model.start_filters=4"]
    configs = f"{__file__.rsplit('/', 3)[0]}/configs"
    finished = run_script("train", f"--config={configs}/unet.py", "--dry_run", *options, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "Nothing was written." in finished.stdout
    refused = run_script("train", f"--config={configs}/unet.py", *options, cwd=tmp_path)
    assert (refused.returncode, refused.stderr) == (1, "error: --workdir is missing: name a folder for the run.\n")
    assert not list(tmp_path.iterdir())
