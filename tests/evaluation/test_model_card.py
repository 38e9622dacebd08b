"""The card of exported weights says what evaluation_test.json says."""

import json
import re
import shutil

import pytest

from brainseg_jax.config import get_config
from brainseg_jax.evaluation.evaluate import evaluate
from brainseg_jax.evaluation.model_card import model_card
from brainseg_jax.inference.postprocessing import Postprocessing
from brainseg_jax.inference.predictor import Predictor


@pytest.fixture(scope="module")
def scored(tmp_path_factory, trained):
    """A copy of the trained run whose test split is scored."""
    workdir = tmp_path_factory.mktemp("scored") / "run"
    shutil.copytree(trained, workdir)
    evaluate(workdir, split="test", output=workdir, examples=0)
    return workdir


def test_export_writes_weights_config_card_and_forms(tmp_path, scored, run_script):
    arguments = (f"--output={tmp_path / 'small'}", "--dtype=float16", "--formats=onnx")
    finished = run_script("export", f"--workdir={scored}", *arguments)
    assert finished.returncode == 0, finished.stderr
    pattern = r"model\.onnx: on 4 phantom slices probabilities differ by at most \d\.\de-0[678], masks are equal"
    assert re.search(pattern, finished.stdout)
    assert [path.name for path in tmp_path.iterdir()] == ["small"]
    assert (tmp_path / "small" / "run_model.py").exists()
    card = (tmp_path / "small" / "README.md").read_text()
    scores = json.loads((scored / "evaluation_test.json").read_text())
    assert card.startswith("---\nlicense:")
    assert f"| all | {scores['slices']} | {scores['families']} | {scores['dice']:.3f}" in card
    assert all(f"| {label} | {of_class['slices']} |" in card for label, of_class in scores["by_class"].items())
    assert "trained on synthetic slices" in card
    assert Predictor.from_pretrained(tmp_path / "small").epoch == scores["checkpoint_epoch"]
    again = run_script("export", f"--weights={tmp_path / 'small'}", f"--output={tmp_path / 'again'}")
    assert again.returncode == 0, again.stderr
    assert not (tmp_path / "again" / "run_model.py").exists()
    kept, _, running = card.partition("\n## Without brainseg_jax\n")
    assert (tmp_path / "again" / "README.md").read_text() == kept
    assert "`model.onnx`" in running


def test_a_run_that_was_not_scored_is_not_exported(tmp_path, trained, run_script):
    workdir = shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation_*"))
    finished = run_script("export", f"--workdir={workdir}", f"--output={tmp_path / 'small'}")
    assert finished.returncode == 1
    assert "evaluation_test.json is missing" in finished.stderr
    assert not (tmp_path / "small").exists()


def test_an_interval_stands_beside_its_number():
    scores = {"slices": 4, "families": 2, "dice": 0.7361, "share_missed": 0.25}
    intervals = {"dice": [0.6639, 0.8151], "share_missed": None}  # None where there are too few families
    evaluation = {
        **scores,
        "intervals": {**intervals, "by_class": {"glioma": intervals}},
        "by_class": {"glioma": scores},
        "checkpoint_epoch": 3,
        "trained_on": "figshare",
        "dataset": "figshare",
        "protocol": "family",
        "trained_with": {"commit": "abc"},
        "commit": "def",
    }
    config = get_config()
    config.model = {"name": "linknet", "start_filters": 64}
    card = model_card("small", config, evaluation, Postprocessing(0.4, 0.001))
    assert "\ntags: [mri, brain-tumor, jax, flax, linknet]\n" in card
    for label in ("all", "glioma"):
        assert f"| {label} | 4 | 2 | 0.736 (0.664 to 0.815) | 25.0% |" in card
    assert "above 0.4; components below 0.10% of" in card
    assert "phantoms" not in card
    assert "Every slice of its dataset has a tumour, of one of" in card


def test_a_class_without_a_tumour_has_a_dash_and_own_slices_have_no_claims_about_figshare():
    none = {"slices": 0, "families": 0, "dice": None, "share_missed": None}
    intervals = {"dice": None, "share_missed": None}
    evaluation = {
        **none,
        "intervals": {**intervals, "by_class": {"none": intervals}},
        "by_class": {"none": none},
        "checkpoint_epoch": 3,
        "trained_on": "folder",
        "dataset": "folder",
        "protocol": "family",
        "trained_with": {"commit": "abc"},
        "commit": "def",
    }
    card = model_card("small", get_config(), evaluation, Postprocessing(0.4, 0.001))
    assert "| none | 0 | 0 | – | – |" in card
    assert "It was trained on slices of" in card
    assert "liomas" not in card
