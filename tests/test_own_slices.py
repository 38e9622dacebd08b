"""A user's own slices all the way: prepared by the script, trained on, scored, compared; some have no tumour."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainseg_jax.data.dataset import Dataset
from brainseg_jax.data.own_slices.table import read_source
from brainseg_jax.data.splits import make_splits
from brainseg_jax.errors import InputError
from brainseg_jax.evaluation.comparison import compare_scores
from brainseg_jax.evaluation.evaluate import evaluate
from brainseg_jax.evaluation.report.run import report_run
from brainseg_jax.evaluation.scores import read_scores
from brainseg_jax.evaluation.summary import describe
from brainseg_jax.inference.predictor import Predictor
from brainseg_jax.studies.cross_validation import check_folds
from brainseg_jax.training.loop import train_and_evaluate
from brainseg_jax.training.preflight import check_no_leakage
from brainseg_jax.workdir.files import describe_run, read_config, read_splits
from brainseg_jax.workdir.weights import find_weights
from tests.conftest import REPOSITORY
from tests.data.own_slices.files import CLASSES, write_files
from tests.helpers import rows_of


@pytest.fixture(scope="module")
def own(tmp_path_factory, run_script):
    folder = tmp_path_factory.mktemp("own")
    rows, _ = write_files(folder, **{"class": lambda slice_, fold: CLASSES[slice_.label]})
    arguments = ("--data_dir=tfds", "--images=images", "--masks=masks", "--table=table.csv")
    prepared = run_script("prepare_data", *arguments, cwd=folder)
    assert prepared.returncode == 0, prepared.stderr
    assert f"table.csv has {len(rows)} slices, {len(rows[::5])} without a mask." in prepared.stdout
    assert re.search(r"fold +slices +a, b +größer +type B +ids +families", prepared.stdout)
    return folder, rows


@pytest.fixture(scope="module")
def make(own, make_config):
    folder, _ = own
    return lambda **changes: make_config(**{"data.dataset": "folder", "data.data_dir": str(folder / "tfds"), **changes})


@pytest.fixture(scope="module")
def run(tmp_path_factory, make):
    """The workdir of two epochs, with threshold and smallest component tuned."""
    workdir = tmp_path_factory.mktemp("own_run") / "run"
    train_and_evaluate(make(**{"evaluation.tune_postprocessing": True}), workdir)
    return workdir


@pytest.fixture(scope="module")
def summary(run):
    return evaluate(run, split="test", output=run, examples=1)


def test_training_is_finite_and_named_after_its_dataset(run, make):
    rows = rows_of(run)
    assert len(rows) == 2
    assert np.isfinite([list(row.values()) for row in rows]).all()
    assert "32×32, own slices, " in describe_run(make())
    tuned = json.loads((run / "postprocessing.json").read_text())
    assert np.isfinite(tuned["validation_dice"])


def test_slices_without_tumour_count_as_false_alarms_only(run, summary, own):
    _, table = own
    test = read_splits(run)["test"]
    without = [number for number in test if not table[number - 1]["mask"]]
    scores = {score.slice_id: score for score in read_scores(run / "per_slice_test.csv")}
    assert sorted(scores) == test
    assert without
    assert all(np.isnan(scores[number].dice) == (number in without) for number in test)
    dice = [scores[number].dice for number in test if number not in without]
    assert summary["dice"] == pytest.approx(np.mean(dice))
    assert summary["share_missed"] == pytest.approx(np.mean(np.array(dice) == 0))
    marked = np.array([scores[number].predicted_pixels for number in without])
    assert (summary["slices"], summary["slices_without_tumour"]) == (len(test), len(without))
    assert summary["false_alarm_share"] == pytest.approx((marked > 0).mean())
    assert summary["false_positive_pixels"] == pytest.approx(marked.mean())
    assert f"false alarms in {(marked > 0).mean():.1%} of the {len(without)} without tumour" in describe(summary)
    assert list(summary["by_class"]) == list(summary["dice_by_class"]) == ["a, b", "größer", "type B"]
    assert sum(group["slices"] for group in summary["by_class"].values()) == len(dice)
    assert sum(group["slices"] for group in summary["by_size"].values()) == len(dice)
    json.loads((run / "evaluation_test.json").read_text(), parse_constant=pytest.fail)  # no NaN
    assert (run / "figures" / "test_scores.png").exists()
    assert (run / "figures" / "test_worst.png").exists()


def test_runs_are_compared_and_predict(run, summary, own, run_script):
    folder, table = own
    scores = read_scores(run / "per_slice_test.csv")
    result = compare_scores(scores, scores)
    assert result["dice"]["first"] == pytest.approx(summary["dice"])
    assert result["share_missed"]["first"] == pytest.approx(summary["share_missed"])
    assert set(result["by_class"]) == {score.label for score in scores}
    compared = run_script("compare", run, run)
    assert compared.returncode == 0, compared.stderr
    assert "nan" not in compared.stdout
    page = report_run(run, split="test").read_text(encoding="utf-8")
    assert "größer" in page
    assert "False alarms" in page
    assert not re.search(r"[>: ,]nan\b", page.lower())
    image = np.asarray(Image.open(folder / "images" / table[0]["image"]))
    assert Predictor.from_workdir(run).masks([image])[0].shape == image.shape


def test_the_folds_that_were_made_test_every_slice_once(make):
    metadata = Dataset(make().data.data_dir, config="folder").metadata
    for protocol in ("official", "family"):
        assert len(check_folds(metadata, make(**{"split.protocol": protocol}))) == 5


def test_weights_of_another_dataset_may_start_a_run_and_patients_of_this_one_may_not_be_tested(run, make):
    config = make()
    metadata = Dataset(config.data.data_dir, config="folder").metadata
    splits = make_splits(metadata, **config.split)
    check_no_leakage(run, config, splits, metadata)  # the same splits
    other = make(**{"split.fold": 2})
    with pytest.raises(InputError, match=r"which knows family .*or, if the tables are two, give different people"):
        check_no_leakage(run, other, make_splits(metadata, **other.split), metadata)
    name = "unet_strong_64_to_128_family"
    config.model = read_config(find_weights(name)).model
    check_no_leakage(name, config, splits, metadata)


def test_weights_that_a_run_started_from_are_named_when_they_are_of_the_package(run, tmp_path):
    predictor = Predictor.from_workdir(run)
    for start, kept in (("unet_strong_64_to_128_family", True), (str(run), False)):
        predictor.config.train.init_from = start
        predictor.save_pretrained(tmp_path / str(kept))
        config = json.loads((tmp_path / str(kept) / "config.json").read_text())
        assert config["train"]["init_from"] == (start if kept else "")


def test_a_run_is_scored_on_the_only_dataset_of_a_folder_whatever_its_kind(trained, own, run, data_dir, tmp_path):
    folder, rows = own
    scored = evaluate(trained, split="all", data_dir=str(folder / "tfds"), output=tmp_path / "a", examples=0)
    assert (scored["dataset"], scored["slices"]) == (f"folder in {folder / 'tfds'}", len(rows))
    assert list(scored["by_class"]) == ["a, b", "größer", "type B"]
    scored = evaluate(run, split="all", data_dir=str(data_dir), output=tmp_path / "b", examples=0)
    assert scored["dataset"] == f"phantom in {data_dir}"
    assert "false_alarm_share" not in scored
    for place in (data_dir / "figshare_brain_tumor", folder / "tfds" / "own_slices"):
        shutil.copytree(place, tmp_path / "both" / place.name)
    figshare = shutil.copytree(trained, tmp_path / "run")
    config = json.loads((figshare / "config.json").read_text())
    config["data"]["dataset"] = "figshare"
    (figshare / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="both holds folder and phantom slices: name a folder that holds one of them"):
        evaluate(figshare, split="all", data_dir=str(tmp_path / "both"), output=tmp_path / "c", examples=0)


def test_the_example_of_the_page_makes_a_table_that_is_accepted(tmp_path, monkeypatch):
    page = (REPOSITORY / "docs" / "how_to" / "own_data.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.S)
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    source = read_source(Path("table.csv"), images=Path("images"), masks=Path("masks"), seed=0)
    assert len(source.slices) == len(list(Path("images").iterdir())) > 60


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--table=t.csv"], "--table is for your own slices: give --images, --masks and --table together"),
        (["--table=t.csv", "--images=.", "--masks=.", "--phantom=20"], "--images and --phantom exclude each other"),
        (["--table=t.csv", "--images=.", "--masks=."], r"--table is t\.csv, which cannot be read"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(run_script, tmp_path, arguments, message):
    finished = run_script("prepare_data", "--data_dir=out", *arguments, cwd=tmp_path)
    assert finished.returncode == 1
    assert re.search(f"^error: {message}", finished.stderr, re.M)
    assert not (tmp_path / "out").exists()
