"""Slices on which a network was trained or chosen are counted, and scored apart."""

import json
import shutil

import numpy as np
import pytest

from brainseg_jax.data.dataset import Dataset
from brainseg_jax.errors import InputError
from brainseg_jax.evaluation import evaluate
from brainseg_jax.evaluation.seen_slices import find_seen, warn_of_seen
from brainseg_jax.workdir.files import read_splits


@pytest.fixture
def dataset(data_dir):
    return Dataset(str(data_dir), config="phantom")


def test_training_and_validation_are_seen_and_test_is_not(trained, dataset):
    splits = read_splits(trained)
    assert find_seen([trained], dataset) == {*splits["train"], *splits["validation"]}


def test_so_are_other_slices_of_their_families_and_what_ancestors_saw(trained, dataset, tmp_path):
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    path, config = tmp_path / "run" / "splits.json", tmp_path / "run" / "config.json"
    content = json.loads(path.read_text())
    whole = find_seen([trained], dataset)
    for split in ("train", "validation"):
        content["splits"][split] = content["splits"][split][:1]
    path.write_text(json.dumps(content))
    assert find_seen([tmp_path / "run"], dataset) == whole  # by the patients' families
    content["patient_ids"] = {split: [] for split in content["patient_ids"]}
    path.write_text(json.dumps(content))
    assert find_seen([tmp_path / "run"], dataset) == set()
    settings = json.loads(config.read_text())
    settings["train"]["init_from"] = str(trained)
    config.write_text(json.dumps(settings))
    assert find_seen([tmp_path / "run"], dataset) == whole
    settings["train"]["init_from"] = str(tmp_path / "gone")
    config.write_text(json.dumps(settings))
    assert find_seen([tmp_path / "run"], dataset) == set()


def test_a_mixed_score_is_called_so(trained, run_script, tmp_path):
    finished = run_script("evaluate", f"--workdir={trained}", "--split=all", f"--output={tmp_path}", "--examples=0")
    summary = json.loads((tmp_path / "evaluation_all.json").read_text())
    test = evaluate.evaluate(trained, split="test", output=tmp_path / "test", examples=0)
    seen, splits = summary["seen"], read_splits(trained)
    assert seen["slices"] == len(splits["train"]) + len(splits["validation"])
    assert seen["other_slices"] == test["slices"]
    assert seen["other_dice"] == pytest.approx(test["dice"], abs=1e-3)
    parts = (seen["slices"] * seen["dice"] + seen["other_slices"] * seen["other_dice"]) / summary["slices"]
    assert summary["dice"] == pytest.approx(parts)
    first = finished.stdout.splitlines()[0]
    assert first.startswith(
        f"warning: {seen['slices']} of these {summary['slices']} slices ({seen['families']} families)"
    )
    assert f"{seen['other_dice']:.3f} on the {test['slices']} others" in first
    assert test["seen"]["slices"] == 0
    assert warn_of_seen(test) == ""


def test_a_dataset_that_was_replaced_is_refused_and_another_copy_is_named(trained, data_dir, tmp_path, make_config):
    shutil.copytree(data_dir, tmp_path / "data")
    record = next((tmp_path / "data").rglob("source.json"))
    record.write_text(json.dumps(json.loads(record.read_text()) | {"fingerprint": "other"}))
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    settings = json.loads((run / "config.json").read_text())
    settings["data"]["data_dir"] = str(tmp_path / "data")
    (run / "config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"was replaced by one from other files since it was trained: name the old"):
        evaluate.evaluate(run, split="test", output=tmp_path / "out", examples=0)
    assert not (tmp_path / "out").exists()
    with pytest.warns(UserWarning, match="was built from other files than that of"):
        named = evaluate.evaluate(
            run, split="test", output=tmp_path / "out", examples=0, data_dir=str(tmp_path / "data")
        )
    assert np.isfinite(named["dice"])
