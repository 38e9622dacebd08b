"""The real slices that FIGSHARE_SLICES names, from figshare's zips to the prepared dataset."""

import csv
import io
import json
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from brainseg_jax.data.dataset import Dataset
from brainseg_jax.data.dataset_info import LABELS
from brainseg_jax.data.figshare_brain_tumor import Builder
from brainseg_jax.data.splits import make_splits, overlaps
from brainseg_jax.evaluation.scores import read_scores
from brainseg_jax.inference.predictor import Predictor, predict_slices
from brainseg_jax.workdir import weights
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, real_archives, run_script):
    """(data_dir, seconds, standard output) of prepare_data.py on all real slices at hand."""
    data_dir = tmp_path_factory.mktemp("real")
    start = time.perf_counter()
    finished = run_script("prepare_data", f"--manual_dir={real_archives}", f"--data_dir={data_dir}")
    assert finished.returncode == 0, finished.stderr
    return data_dir, time.perf_counter() - start, finished.stdout


@pytest.fixture(scope="module")
def listed(figshare_slices):
    """The rows of slices.csv by slice id."""
    with (figshare_slices / "slices.csv").open() as file:
        return {int(row["slice_id"]): row for row in csv.DictReader(file)}


def test_all_slices_are_prepared_in_time_and_counted(prepared, listed):
    _, seconds, printed = prepared
    assert seconds < 180  # 42 on two quiet cores, which other tests may be using
    assert f"This is a part of the dataset: {len(listed)} of 3064 slices" in printed
    for fold in "12345":
        slices = sum(row["fold"] == fold for row in listed.values())
        (line,) = (line for line in printed.splitlines() if line.split()[:1] == [fold])
        assert int(line.split()[1]) == slices


def test_every_fold_holds_its_slices_bit_for_bit_and_upright(prepared, listed, figshare_slices):
    builder = Builder(config="figshare", data_dir=prepared[0])
    seen = set()
    for fold in range(1, 6):
        with zipfile.ZipFile(figshare_slices / f"fold_{fold}.zip") as pack:
            for row in builder.as_data_source(f"fold_{fold}"):
                slice_id = int(row["slice_id"])
                expected = listed[slice_id]
                assert (row["patient_id"].decode(), str(row["fold"])) == (expected["patient_id"], expected["fold"])
                assert LABELS[row["label"]] == LABELS[int(expected["label"]) - 1]
                image = np.asarray(Image.open(io.BytesIO(pack.read(f"{slice_id}.jpg"))).convert("L"))
                mask = np.asarray(Image.open(io.BytesIO(pack.read(f"{slice_id}_mask.png"))).convert("1"))
                np.testing.assert_array_equal(row["image"], image.astype(np.int16) * (4 + slice_id % 13))
                np.testing.assert_array_equal(row["mask"], mask)
                spacing = row["pixel_spacing_mm"]
                assert spacing == np.float32(0.49) if image.shape == (512, 512) else np.isnan(spacing)
                seen.add(slice_id)
    assert seen == set(listed)


def test_real_families_stay_together_and_official_folds_part_them(prepared):
    metadata = Dataset(str(prepared[0]), config="figshare").metadata
    options = {"seed": 0, "validation_share": 0.15}
    crossing = set()
    for fold in range(1, 6):
        family = make_splits(metadata, protocol="family", fold=fold, **options)
        assert not any(overlaps(metadata, family)["families"].values())
        official = overlaps(metadata, make_splits(metadata, protocol="official", fold=fold, **options))
        assert not any(official["patient_ids"].values())
        crossing |= {name for shared in official["families"].values() for name in shared}
    assert crossing  # ids of one family in several official folds: why the family protocol is there


def test_the_weights_in_the_package_score_what_their_card_says(prepared):
    """Every fifth slice of their test split, beside their kept scores and those of the run that they come from."""
    results = REPOSITORY / "docs" / "results"
    kept = read_scores(results / "six_bits" / "per_slice_test.csv")
    run = read_scores(results / weights.DEFAULT / "per_slice_test.csv")
    assert np.mean([score.dice for score in kept]) == pytest.approx(np.mean([score.dice for score in run]), abs=5e-4)
    kept = kept[::5]
    dataset = Dataset(str(prepared[0]), config="figshare")
    predictor = Predictor.from_pretrained()
    found = []
    for sample, probabilities in predict_slices(predictor, dataset, np.array([score.slice_id for score in kept])):
        mask, truth = predictor.postprocessing.mask(probabilities), sample.mask.astype(bool)
        found.append(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
    assert len(found) > 90
    assert np.mean(found) == pytest.approx(np.mean([score.dice for score in kept]), abs=5e-4)
    card = (weights.PACKAGED / weights.DEFAULT / "README.md").read_text()
    scores = json.loads((results / weights.DEFAULT / "evaluation_test.json").read_text())
    assert f"| all | {scores['slices']} | {scores['families']} | {scores['dice']:.3f} (" in card
