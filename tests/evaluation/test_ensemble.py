"""Ensembles: means of the members' probabilities; all members need the same splits."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from brainseg_jax.errors import InputError
from brainseg_jax.evaluation import evaluate
from brainseg_jax.inference.ensemble import Ensemble
from brainseg_jax.inference.predictor import Predictor
from brainseg_jax.training.loop import train_and_evaluate
from brainseg_jax.workdir.files import read_splits
from tests.conftest import TRAINED


@pytest.fixture(scope="module")
def other(tmp_path_factory, make_config):
    directory = tmp_path_factory.mktemp("other") / "run"
    train_and_evaluate(make_config(**{**TRAINED, "train.epochs": 1, "seed": 1}), directory)
    return directory


def test_probabilities_are_the_mean_of_the_members(trained, other):
    images = list(np.random.default_rng(0).integers(0, 255, (3, 40, 40)).astype(np.int16))
    both = Ensemble.from_workdirs([trained, other]).probabilities(images)
    for found, one, two in zip(
        both,
        Predictor.from_workdir(trained).probabilities(images),
        Predictor.from_workdir(other).probabilities(images),
        strict=True,
    ):
        np.testing.assert_allclose(found, (one + two) / 2, atol=1e-6)
        assert np.abs(one - two).max() > 1e-3


def test_an_ensemble_of_one_run_scores_as_the_run(trained, tmp_path):
    alone = evaluate.evaluate(trained, split="test", output=tmp_path / "alone", examples=0)
    twice = evaluate.evaluate([trained, trained], split="test", output=tmp_path / "twice", examples=0)
    with pytest.raises(InputError, match="--threshold is for a single run"):
        evaluate.evaluate([trained, trained], split="test", output=tmp_path / "none", threshold=0.4)
    assert twice["dice"] == alone["dice"]
    assert (twice["seed"], twice["members"]) == ("0, 0", ["run", "run"])
    assert json.loads((tmp_path / "twice" / "members.json").read_text()) == ["run", "run"]
    assert read_splits(tmp_path / "twice") == read_splits(trained)


def test_predict_takes_an_ensemble_and_a_threshold(trained, other, tmp_path, run_script):
    image = np.random.default_rng(0).integers(0, 255, (40, 40)).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "x.png")
    options = [f"--weights={trained},{other}", f"--input={tmp_path}/x.png", f"--output={tmp_path}/out"]
    finished = run_script("predict", *options, "--threshold=0.3", "--probabilities")
    assert finished.returncode == 0, finished.stderr
    (expected,) = Ensemble.from_workdirs([trained, other]).probabilities([image])
    written = np.asarray(Image.open(tmp_path / "out" / "x_probabilities.png")) / 65535
    np.testing.assert_allclose(written, expected, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "x_mask.png")) > 0, expected > 0.3)


def test_members_with_other_slices_are_refused(trained, other, tmp_path):
    shutil.copytree(other, tmp_path / "run")
    found = json.loads((tmp_path / "run" / "splits.json").read_text())
    found["splits"]["test"].append(found["splits"]["train"].pop())
    (tmp_path / "run" / "splits.json").write_text(json.dumps(found))
    with pytest.raises(InputError, match=r"splits\.json lists other slices than that of"):
        Ensemble.from_workdirs([trained, tmp_path / "run"])
