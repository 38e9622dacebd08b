"""Cross-validation: each slice is scored once by a network that never saw its patient; leaks are refused."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from brainseg_jax.config import get_config
from brainseg_jax.data import splits
from brainseg_jax.data.dataset import Dataset
from brainseg_jax.errors import InputError
from brainseg_jax.evaluation.scores import read_scores
from brainseg_jax.inference.predictor import Predictor
from brainseg_jax.studies import cross_validation
from brainseg_jax.studies.results.save import FOLDS_FILES, save_run
from brainseg_jax.studies.results.tables import read_evaluations, results_table
from brainseg_jax.workdir.files import read_splits


@pytest.fixture(scope="module")
def config(make_config):
    return make_config(**{"train.epochs": 1})


@pytest.fixture(scope="module")
def folds(tmp_path_factory, config):
    directory = tmp_path_factory.mktemp("folds") / "unet_cv"
    return cross_validation.cross_validate(config, directory), directory


@pytest.fixture(scope="module")
def metadata(data_dir):
    return Dataset(str(data_dir), config="phantom").metadata


def test_every_slice_is_scored_once_by_a_network_that_never_saw_its_family(folds, metadata):
    summary, directory = folds
    scores = read_scores(directory / "per_slice_cv.csv")
    assert [score.slice_id for score in scores] == metadata.slice_ids.tolist()
    assert summary["slices"] == len(metadata.slice_ids)
    of_family = dict(zip(metadata.slice_ids.tolist(), metadata.families, strict=True))
    by_id = {score.slice_id: score for score in scores}
    for fold in range(1, 6):
        run = directory / f"fold_{fold}"
        splits = read_splits(run)
        seen = {of_family[slice_id] for slice_id in splits["train"] + splits["validation"]}
        of_fold = read_scores(run / "per_slice_test.csv")
        assert [score.slice_id for score in of_fold] == splits["test"]
        for score in of_fold:
            assert score.family not in seen
            assert by_id[score.slice_id] == score or np.isnan(score.metrics["hd95_mm"])  # NaN equals nothing


def test_the_files_have_the_keys_of_a_single_run(folds):
    summary, directory = folds
    assert json.loads((directory / "evaluation_cv.json").read_text()) == json.loads(json.dumps(summary))
    single = json.loads((directory / "fold_1" / "evaluation_test.json").read_text())
    assert set(single) - set(summary) == {
        "threshold",
        "min_component_fraction",
        "checkpoint_epoch",
    }  # these are by fold
    assert set(summary) - set(single) == {"by_fold"}
    assert (summary["split"], summary["fold"], summary["protocol"]) == ("cv", None, "family")
    dice = [score.dice for score in read_scores(directory / "per_slice_cv.csv")]
    assert summary["dice"] == pytest.approx(np.mean(dice))
    by_fold = summary["by_fold"].values()
    assert summary["dice"] == pytest.approx(
        sum(one["dice"] * one["slices"] for one in by_fold) / sum(one["slices"] for one in by_fold)
    )
    pixels = [
        json.loads((directory / f"fold_{fold}" / "evaluation_test.json").read_text())["calibration"]["pixels"]
        for fold in range(1, 6)
    ]
    assert summary["calibration"]["pixels"] == np.sum(pixels, axis=0).tolist()


def test_a_second_call_trains_only_the_missing_fold(folds, config, monkeypatch, tmp_path):
    summary, directory = folds
    shutil.copytree(directory, tmp_path / "folds")
    shutil.rmtree(tmp_path / "folds" / "fold_4")
    trained = []
    train = cross_validation.train_and_evaluate
    monkeypatch.setattr(
        cross_validation, "train_and_evaluate", lambda of_fold, run: (trained.append(run.name), train(of_fold, run))
    )
    again = cross_validation.cross_validate(config, tmp_path / "folds")
    assert trained == ["fold_4"]
    assert again["dice"] == summary["dice"]


def test_folds_of_another_config_are_refused(folds, config):
    _, directory = folds
    other = config.copy_and_resolve_references()
    other.train.batch_size = 4
    before = (directory / "config.json").read_text()
    with pytest.raises(InputError, match=r"fold_1/config\.json has train\.batch_size = 8, this command 4"):
        cross_validation.cross_validate(other, directory)
    assert (directory / "config.json").read_text() == before


def test_a_single_runs_workdir_is_refused(folds, config):
    _, directory = folds
    with pytest.raises(InputError, match=r"fold_1 holds a single run: name another --workdir"):
        cross_validation.cross_validate(config, directory / "fold_1")


@pytest.mark.parametrize("protocol", ["official", "family"])
def test_leaks_are_refused_before_training(metadata, config, protocol, monkeypatch):
    patient = metadata.patient_ids[0]
    rows = [row for row, name in enumerate(metadata.patient_ids) if name == patient]
    folds = metadata.folds.copy()
    folds[rows[-1]] = folds[rows[-1]] % 5 + 1
    in_two_folds = dataclasses.replace(metadata, folds=folds)
    changed = config.copy_and_resolve_references()
    changed.split.protocol = protocol
    cross_validation.check_folds(metadata, changed)
    # Under "family" a patient follows one fold whatever cvind.mat says; without that rule it would be in two.
    monkeypatch.setattr(splits, "_family_folds", lambda metadata: metadata.folds)
    with pytest.raises(InputError, match=rf"Protocol '{protocol}' would put {patient}.* into both"):
        cross_validation.check_folds(in_two_folds, changed)


def test_protocols_that_leak_are_refused(config, tmp_path):
    for protocol in ("slice", "family_leaked"):
        changed = config.copy_and_resolve_references()
        changed.split.protocol = protocol
        with pytest.raises(InputError, match="cross-validation needs folds that keep patients apart"):
            cross_validation.cross_validate(changed, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_fold_other_than_1_to_5_is_refused(metadata):
    config = get_config()
    config.split.protocol = "official"
    folds = np.where(np.array(metadata.patient_ids) == metadata.patient_ids[0], 6, metadata.folds)
    with pytest.raises(InputError, match=r"Slice \d+ would be tested 0 times"):
        cross_validation.check_folds(dataclasses.replace(metadata, folds=folds), config)


def test_a_saved_cross_validation_has_a_row_and_no_images(folds, tmp_path):
    _, directory = folds
    save_run(directory, tmp_path)
    kept = {str(path.relative_to(tmp_path / "unet_cv")) for path in (tmp_path / "unet_cv").rglob("*.*")}
    assert kept == {*FOLDS_FILES, "scores.png"}
    (row,) = results_table(read_evaluations(tmp_path), link="").splitlines()[2:]
    assert "| family, five folds |" in row


def test_each_fold_has_its_own_network(folds):
    _, directory = folds
    image = np.random.default_rng(0).integers(0, 200, (64, 64))
    first, second = (Predictor.from_workdir(directory / f"fold_{fold}").probabilities([image])[0] for fold in (1, 2))
    assert np.abs(first - second).max() > 0


def test_each_fold_starts_from_the_fold_of_its_number_and_not_from_one_that_knows_its_patients(
    folds, config, tmp_path, monkeypatch
):
    _, directory = folds
    starts = []

    def train(of_fold, run):
        starts.append(of_fold.train.init_from)
        raise InterruptedError

    monkeypatch.setattr(cross_validation, "train_and_evaluate", train)
    second = config.copy_and_resolve_references()
    second.train.init_from = str(directory)
    with pytest.raises(InterruptedError):
        cross_validation.cross_validate(second, tmp_path / "second")
    assert starts == [str(directory / "fold_1")]
    second.train.init_from = str(directory / "fold_1")
    with pytest.raises(InputError, match=r"init_from is .*fold_1, which knows family"):
        cross_validation.cross_validate(second, tmp_path / "third")
