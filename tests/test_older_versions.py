"""This version reads the runs and weights of every released one, and computes the same with them."""

import shutil
import sys

import numpy as np
import pytest

from brainseg_jax.evaluation.comparison import compare_scores
from brainseg_jax.evaluation.report.run import report_run
from brainseg_jax.evaluation.scores import read_scores
from brainseg_jax.inference.predictor import Predictor
from brainseg_jax.training.loop import train_and_evaluate
from brainseg_jax.utils.files import read_json
from brainseg_jax.workdir.files import read_config, read_metrics
from tests.conftest import REPOSITORY
from tests.fixtures.make import draw_image

FIXTURES = REPOSITORY / "tests" / "fixtures"
KEPT = sorted(path.parent for path in FIXTURES.glob("*/*/probabilities.npy"))


@pytest.fixture(params=KEPT, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def kept(request):
    return request.param


@pytest.fixture
def run(kept, tmp_path):
    shutil.unpack_archive(kept / "run.tar.xz", tmp_path / "run")
    return tmp_path / "run"


def test_fixtures_are_there_and_small():
    assert {folder.parent.name for folder in KEPT} >= {"0.1.0"}
    for version in {folder.parent for folder in KEPT}:
        assert sum(path.stat().st_size for path in version.rglob("*") if path.is_file()) < 700_000


def test_runs_and_weights_give_the_same_probabilities(kept, run):
    expected = np.load(kept / "probabilities.npy")
    assert expected.std() > 0.01  # otherwise they would say nothing about the weights
    for folder in (run, kept / "weights"):
        (found,) = Predictor.from_pretrained(folder).probabilities([draw_image()])
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_training_goes_on(run, data_dir):
    config = read_config(run)
    config.data.data_dir = str(data_dir)
    before = read_metrics(run, epochs=sys.maxsize)
    config.train.epochs = len(before) + 1
    train_and_evaluate(config, run)
    after = read_metrics(run, epochs=sys.maxsize)
    assert after[:-1] == before
    assert after[-1]["epoch"] == len(before) + 1
    # A training that had begun anew would be where the first epoch was.
    assert after[-1]["train_loss"] < before[-1]["train_loss"] < before[0]["train_loss"]


def test_scores_are_compared_and_reported(run, tmp_path):
    scores = read_scores(run / "per_slice_test.csv")
    comparison = compare_scores(scores, scores)
    assert comparison["slices"] == len(scores) == read_json(run / "evaluation_test.json")["slices"]
    assert comparison["dice"]["difference"] == 0
    page = report_run(run, output=tmp_path / "report.html", max_slices=0).read_text()
    assert f"{comparison['dice']['first']:.3f}" in page
