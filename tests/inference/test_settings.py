"""Settings of a run reach its masks: percentile, threshold and the smallest component."""

import csv
import json
import shutil

import numpy as np
import pytest
from scipy import ndimage

from brainseg_jax.data.dataset import Dataset
from brainseg_jax.evaluation import evaluate
from brainseg_jax.inference.postprocessing import Postprocessing
from brainseg_jax.inference.predictor import Predictor, predict_slices
from brainseg_jax.workdir.files import read_splits


@pytest.fixture
def with_settings(tmp_path, trained):
    """A function that gives the workdir of the trained run with other settings in its config.json."""

    def change(**changes):
        workdir = tmp_path / "run"
        shutil.copytree(trained, workdir)
        config = json.loads((workdir / "config.json").read_text())
        for name, value in changes.items():
            section, field = name.split("__")
            config[section][field] = value
        (workdir / "config.json").write_text(json.dumps(config))
        return workdir

    return change


def test_predictions_cut_grey_levels_at_the_runs_percentile(trained, with_settings):
    image = np.random.default_rng(0).normal(500, 100, (64, 64))
    image[3, 5] = 1e5  # would leave the rest dark
    cutting = Predictor.from_workdir(with_settings(data__intensity_percentile=2.0))
    plain = Predictor.from_workdir(trained)
    by_hand = image.clip(*np.percentile(image, [2, 98]))
    (cut,) = cutting.probabilities([image])
    np.testing.assert_allclose(cut, plain.probabilities([by_hand])[0], atol=1e-4)
    assert np.abs(cut - plain.probabilities([image])[0]).max() > 0.01


def test_scores_are_those_of_the_runs_threshold_and_smallest_component(with_settings, tmp_path, data_dir):
    workdir = with_settings(evaluation__threshold=0.15, evaluation__min_component_fraction=0.01)
    predictor = Predictor.from_workdir(workdir)
    assert predictor.postprocessing == Postprocessing(0.15, 0.01)
    evaluate.evaluate(workdir, split="validation", output=tmp_path / "out", examples=0)
    rows = list(csv.DictReader((tmp_path / "out" / "per_slice_validation.csv").open()))
    found = np.array([int(row["predicted_pixels"]) for row in rows])
    dataset = Dataset(str(data_dir), config="phantom")
    predicted = predict_slices(predictor, dataset, np.array(read_splits(workdir)["validation"]))
    expected, with_all, at_one_half = [], [], []
    for _, probabilities in predicted:
        parts, count = ndimage.label(probabilities > 0.15, np.ones((3, 3)))
        sizes = [(parts == part).sum() for part in range(1, count + 1)]
        expected.append(sum(size for size in sizes if size >= 0.01 * probabilities.size))
        with_all.append(sum(sizes))
        at_one_half.append((probabilities > 0.5).sum())
    np.testing.assert_array_equal(found, expected)
    assert with_all != expected  # or the sizes would prove nothing
    assert sum(with_all) > 1.05 * sum(at_one_half)
