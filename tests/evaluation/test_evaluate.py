"""Evaluation: its rows and its summary, counted again from masks at the slices' own size."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from brainseg_jax.data.dataset import Dataset
from brainseg_jax.data.figshare_brain_tumor import archives, mat_file, prepare
from brainseg_jax.data.phantom import generate
from brainseg_jax.errors import InputError
from brainseg_jax.evaluation import evaluate
from brainseg_jax.inference.predictor import Predictor
from brainseg_jax.workdir.files import read_config, read_splits


@pytest.fixture(scope="module")
def scored(trained, tmp_path_factory):
    output = tmp_path_factory.mktemp("scored")
    return evaluate.evaluate(trained, split="test", output=output, save_masks=True), output


def test_rows_are_the_overlaps_of_masks_at_the_slices_own_size(scored, trained, data_dir):
    _, output = scored
    rows = list(csv.DictReader((output / "per_slice_test.csv").open()))
    assert [int(row["slice_id"]) for row in rows] == read_splits(trained)["test"]
    predictor = Predictor.from_workdir(trained)
    dataset = Dataset(str(data_dir), config="phantom")
    ids_of = dict(zip(dataset.metadata.slice_ids.tolist(), dataset.metadata.patient_ids, strict=True))
    for row in rows[::10]:
        (record,) = dataset.read([int(row["slice_id"])])
        (probabilities,) = predictor.probabilities([record.image])
        assert probabilities.shape == record.image.shape == (128, 128)  # the network's side is 32
        predicted, true = set(np.flatnonzero(probabilities > 0.5)), set(np.flatnonzero(record.mask))
        assert int(row["tumour_pixels"]) == len(true)
        assert abs(int(row["predicted_pixels"]) - len(predicted)) <= 1  # another batch rounds another way
        assert float(row["dice"]) == pytest.approx(
            2 * len(predicted & true) / (len(predicted) + len(true)) if predicted else 0, abs=0.02
        )
        assert row["patient_id"] == ids_of[int(row["slice_id"])]


def test_the_saved_masks_are_the_scored_ones(scored):
    _, output = scored
    rows = list(csv.DictReader((output / "per_slice_test.csv").open()))
    masks = {path.stem: np.asarray(Image.open(path)) for path in (output / "masks_test").iterdir()}
    assert {name: int((mask == 255).sum()) for name, mask in masks.items()} == {
        row["slice_id"]: int(row["predicted_pixels"]) for row in rows
    }
    assert {*np.unique(np.stack([*masks.values()]))} == {0, 255}


def test_the_summary_follows_from_the_rows(scored):
    summary, output = scored
    assert json.loads((output / "evaluation_test.json").read_text()) == json.loads(json.dumps(summary))
    rows = list(csv.DictReader((output / "per_slice_test.csv").open()))
    dice = np.array([float(row["dice"]) for row in rows])
    assert summary["slices"] == len(rows)
    assert summary["dice"] == pytest.approx(dice.mean())
    assert (dice > 0.1).sum() > 5  # otherwise the comparison would be trivial
    assert summary["dice_median"] == pytest.approx(np.median(dice))
    assert summary["share_missed"] == pytest.approx((dice == 0).mean())
    assert summary["patients"] == len({row["patient_id"] for row in rows})
    assert summary["families"] == len({row["family"] for row in rows})
    for label, value in summary["dice_by_class"].items():
        of_class = [float(row["dice"]) for row in rows if row["label"] == label]
        assert value == (pytest.approx(np.mean(of_class)) if of_class else None)


def test_the_summary_names_checkpoint_settings_and_machine(scored, trained):
    summary, _ = scored
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert summary["checkpoint_epoch"] == min(rows, key=lambda row: row["validation_loss"])["epoch"]
    assert summary["protocol"] == "family"
    assert (summary["fold"], summary["seed"], summary["image_size"], summary["threshold"]) == (1, 0, 32, 0.5)
    assert (summary["network"], summary["start_filters"]) == ("unet", 8)
    assert {"commit", "versions", "python", "device", "cores", "trained_with", "xla_flags"} <= set(summary)
    assert "jax" in summary["versions"]


def test_figures_show_the_best_the_median_and_the_worst(scored):
    _, output = scored
    assert {path.name for path in (output / "figures").iterdir()} == {
        "test_best.png",
        "test_median.png",
        "test_scores.png",
        "test_worst.png",
    }


def test_a_dataset_of_the_other_kind_has_its_own_name_in_the_summary(trained, tmp_path):
    (tmp_path / "in").mkdir()
    drawn = [(slice_, fold) for slice_, fold in generate.phantom_slices(patients=10, seed=9, size=64)][:6]
    folds = np.ones(3064, np.int64)
    for slice_, _ in drawn:
        data = mat_file.write_slice(dataclasses.replace(slice_, is_phantom=False))
        (tmp_path / "in" / f"{slice_.slice_id}.mat").write_bytes(data)
    (tmp_path / "in" / "cvind.mat").write_bytes(mat_file.write_folds(folds))
    source = archives.find_source(tmp_path / "in")
    other = tmp_path / "other"
    prepare.build_dataset(source, manual_dir=tmp_path / "in", data_dir=other, config="figshare", overwrite=False)
    summary = evaluate.evaluate(trained, split="all", data_dir=str(other), output=tmp_path / "out", examples=0)
    assert summary["dataset"] == f"figshare in {other}"
    assert summary["trained_on"] == "phantom"
    assert summary["slices"] == 6


def test_another_dataset_is_scored_whole(trained, tmp_path):
    generate.write_archives(tmp_path / "in", patients=10, seed=9, size=64)
    source = archives.find_source(tmp_path / "in")
    prepare.build_dataset(
        source, manual_dir=tmp_path / "in", data_dir=tmp_path / "other", config="phantom", overwrite=False
    )
    summary = evaluate.evaluate(
        trained, split="all", data_dir=str(tmp_path / "other"), output=tmp_path / "out", examples=0
    )
    assert summary["slices"] == len(source.slices)
    assert str(tmp_path / "other") in summary["dataset"]
    assert (tmp_path / "out" / "per_slice_all.csv").exists()
    with pytest.raises(InputError, match=r"has no slice \d+ .*: name the --data_dir .* or add --split=all"):
        evaluate.evaluate(trained, split="test", data_dir=str(tmp_path / "other"), output=tmp_path / "out")


def test_a_dataset_that_was_moved_gives_the_same_scores_and_one_of_other_patients_is_refused(
    trained, tmp_path, data_dir, monkeypatch
):
    shutil.copytree(data_dir, tmp_path / "moved")
    options = {"split": "test", "examples": 0, "output": tmp_path / "out"}
    here, moved = (evaluate.evaluate(trained, **options, data_dir=place) for place in ("", str(tmp_path / "moved")))
    assert here["dice"] == moved["dice"]
    monkeypatch.setattr(evaluate, "read_patients", lambda run: {"test": ["somebody"]})
    with pytest.raises(InputError, match=r"other patients than .*splits\.json names: name the --data_dir"):
        evaluate.evaluate(trained, **options)


def test_wrong_input_is_refused_and_nothing_is_written(trained, tmp_path):
    with pytest.raises(InputError, match="--split is 'tests'"):
        evaluate.evaluate(trained, split="tests", output=tmp_path / "out")
    with pytest.raises(InputError, match=r"config\.json is missing"):
        evaluate.evaluate(tmp_path / "nowhere", split="test", output=tmp_path / "out")
    with pytest.raises(InputError, match="holds no figshare_brain_tumor"):
        evaluate.evaluate(trained, split="all", data_dir=str(tmp_path / "none"), output=tmp_path / "out")
    from_elsewhere = read_config(trained).copy_and_resolve_references()
    from_elsewhere.data.data_dir = "data_of_another_folder"
    with pytest.raises(InputError, match=r"not in /.*/data_of_another_folder: name the folder that holds it as --data"):
        evaluate.open_dataset(from_elsewhere, "")
    without = tmp_path / "without"
    shutil.copytree(trained, without, ignore=shutil.ignore_patterns("checkpoints"))
    with pytest.raises(InputError, match="checkpoints is missing: train first"):
        evaluate.evaluate(without, split="test", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
