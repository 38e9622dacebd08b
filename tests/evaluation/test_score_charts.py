"""Charts of scores: each panel follows its own data, for any mixture of classes."""

import numpy as np
import pytest
from PIL import Image

from brainseg_jax.data.dataset_info import LABELS
from brainseg_jax.evaluation import score_charts
from brainseg_jax.metrics.calibration import Calibration
from tests.evaluation.test_scores import score


def calibration_of(masks_are):
    probabilities = np.random.default_rng(0).random((40, 40))
    return Calibration.empty().add(probabilities, masks_are(probabilities)).describe()


def rows_of(*labels):
    dice = np.random.default_rng(1).random(60)
    return [
        score(labels[index % len(labels)], value, tumour_pixels=1 + index, patient_id=str(index))
        for index, value in enumerate(dice)
    ]


def pixels_of(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_the_overview_shows_scores_and_calibration(tmp_path):
    rows, calibration = rows_of("glioma", "meningioma", "pituitary"), calibration_of(lambda found: found > 0.5)
    score_charts.score_overview(rows, calibration, tmp_path / "new" / "a.png", title="title", classes=LABELS)
    score_charts.score_overview(rows, calibration, tmp_path / "b.png", title="title", classes=LABELS)
    assert (tmp_path / "new" / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    first = pixels_of(tmp_path / "b.png")
    assert first.shape[1] > 900
    third = first.shape[1] // 3
    # Other scores change the left two thirds, another calibration the right one.
    score_charts.score_overview(
        [*rows[:30], *rows[:30]], calibration, tmp_path / "c.png", title="title", classes=LABELS
    )
    changed = (pixels_of(tmp_path / "c.png") != first).any(axis=(0, 2))
    assert changed[:third].any()
    assert changed[third : 2 * third].any()
    assert not changed[2 * third + 40 :].any()
    other = calibration_of(lambda found: np.random.default_rng(2).random(found.shape) < found)
    score_charts.score_overview(rows, other, tmp_path / "d.png", title="title", classes=LABELS)
    changed = (pixels_of(tmp_path / "d.png") != first).any(axis=(0, 2))
    assert changed[2 * third + 40 :].any()
    assert not changed[: 2 * third - 40].any()


def test_a_class_without_slices_and_bins_without_pixels_are_left_empty(tmp_path):
    calibration = Calibration.empty().add(np.zeros((5, 5)), np.zeros((5, 5))).describe()
    score_charts.score_overview(rows_of("glioma"), calibration, tmp_path / "a.png", title="title", classes=LABELS)
    colours = {tuple(pixel) for pixel in pixels_of(tmp_path / "a.png").reshape(-1, 3)}
    assert len(colours) > 10


def test_any_number_of_classes_is_drawn_and_slices_without_tumour_are_not(tmp_path):
    calibration = calibration_of(lambda found: found > 0.5)
    for count in (1, 9):
        names = [f"class {number}" for number in range(count)]
        rows, options = rows_of(*names), {"title": "title", "classes": names}
        without = score(names[0], float("nan"), tumour_pixels=0)
        score_charts.score_overview(rows, calibration, tmp_path / "a.png", **options)
        score_charts.score_overview([*rows, without], calibration, tmp_path / "b.png", **options)
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    score_charts.score_overview([without], calibration, tmp_path / "c.png", title="title", classes=["class 0"])


def test_no_scores_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no score to draw"):
        score_charts.score_overview([], {}, tmp_path / "a.png", title="title", classes=LABELS)
    assert not (tmp_path / "a.png").exists()


def test_slices_of_which_none_has_a_tumour_give_empty_panels(tmp_path):
    rows = [score("glioma", np.nan, tumour_pixels=0, slice_id=number) for number in range(3)]
    path = tmp_path / "none.png"
    score_charts.score_overview(rows, calibration_of(lambda found: found > 2), path, title="none", classes=LABELS)
    assert pixels_of(path).shape[1] > 900
