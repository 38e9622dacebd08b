"""The card of exported weights says what evaluation_test.json says."""

import json
import shutil

import pytest

from brainseg_jax.evaluation.evaluate import evaluate
from brainseg_jax.inference.predictor import Predictor


@pytest.fixture(scope="module")
def scored(tmp_path_factory, trained):
    """A copy of the trained run whose test split is scored."""
    workdir = tmp_path_factory.mktemp("scored") / "run"
    shutil.copytree(trained, workdir)
    evaluate(workdir, split="test", output=workdir, examples=0)
    return workdir


def test_export_writes_weights_config_and_card(tmp_path, scored, run_script):
    finished = run_script("export", f"--workdir={scored}", f"--output={tmp_path / 'small'}", "--dtype=float16")
    assert finished.returncode == 0, finished.stderr
    card = (tmp_path / "small" / "README.md").read_text()
    scores = json.loads((scored / "evaluation_test.json").read_text())
    assert card.startswith("---\nlicense:")
    low, high = scores["intervals"]["dice"]
    row = f"| all | {scores['slices']} | {scores['families']} | {scores['dice']:.3f} ({low:.3f} to {high:.3f}) |"
    assert row in card
    assert all(f"| {label} | {of_class['slices']} |" in card for label, of_class in scores["by_class"].items())
    assert "trained on synthetic slices" in card
    assert Predictor.from_pretrained(tmp_path / "small").epoch == scores["checkpoint_epoch"]


def test_a_run_that_was_not_scored_is_not_exported(tmp_path, trained, run_script):
    workdir = shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation_*"))
    finished = run_script("export", f"--workdir={workdir}", f"--output={tmp_path / 'small'}")
    assert finished.returncode == 1
    assert "evaluation_test.json is missing" in finished.stderr
    assert not (tmp_path / "small").exists()
