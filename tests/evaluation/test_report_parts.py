"""The parts of a report: which slices are chosen, their thumbnails, and the charts."""

import base64
import io
import json
import math
import re
import zlib

import numpy as np
import pytest
from PIL import Image

from brainseg_jax.data.formats.image_slice import ImageSlice
from brainseg_jax.errors import InputError
from brainseg_jax.evaluation.report import charts, predictions
from brainseg_jax.evaluation.report.gallery import choose_slices, describe_choice, encode_slice, shrink_mask
from brainseg_jax.inference.postprocessing import Postprocessing
from tests.evaluation.test_scores import score

HALF = Postprocessing(0.5, 0.0)


def test_of_many_slices_the_worst_the_middle_and_the_best_are_chosen():
    rows = [score("glioma", place / 100, slice_id=place) for place in range(101)]
    chosen = [row.slice_id for row in choose_slices(rows[::-1], count=8)]
    assert chosen == [0, 1, 2, 3, 49, 50, 99, 100]
    ties = [score("glioma", 0.0, slice_id=place, tumour_pixels=size) for place, size in enumerate((5, 50, 20))]
    assert [row.slice_id for row in choose_slices(ties, count=5)] == [1, 2, 0]
    for count in range(110):
        chosen = [row.slice_id for row in choose_slices(rows, count=count)]
        assert len(chosen) == len(set(chosen)) == min(count, 101)
        assert chosen == sorted(chosen)
        if count >= 3:
            assert {0, 100} <= set(chosen)
            assert min(abs(place - 50) for place in chosen) <= 1
    assert "4 of lowest Dice, 2 about the median and the 2 of highest" in describe_choice(101, count=8)


def test_thumbnails_are_means_over_areas():
    generator = np.random.default_rng(0)
    image, probabilities = generator.random((2, 256, 192), np.float32)
    truth = generator.random((256, 192)) < 0.5
    of = encode_slice(image, probabilities, HALF, name="one", true_mask=truth, dice=0.25)
    assert (of["width"], of["height"], of["fullSize"]) == (96, 128, [192, 256])

    def means(values):
        return values.reshape(128, 2, 96, 2).mean((1, 3))

    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(of["image"].removeprefix("data:image/png;base64,")))))
    levels = np.frombuffer(zlib.decompress(base64.b64decode(of["probability"])), np.uint8).reshape(128, 96)
    bits = np.unpackbits(np.frombuffer(zlib.decompress(base64.b64decode(of["truth"])), np.uint8)).reshape(128, 96)
    np.testing.assert_allclose(pixels, 255 * means(image), atol=0.51)
    np.testing.assert_allclose(levels, 255 * means(probabilities), atol=0.51)
    np.testing.assert_array_equal(bits, means(truth) >= 0.5)
    assert encode_slice(image[:40, :50], probabilities[:40, :50], HALF, name="small")["width"] == 50


def test_a_tumour_of_a_pixel_does_not_disappear():
    mask = np.zeros((512, 512), bool)
    mask[100, 200] = True
    (found,) = np.argwhere(shrink_mask(mask, 128, 128))
    assert found.tolist() == [25, 50]
    assert not shrink_mask(np.zeros((512, 512), bool), 128, 128).any()


def test_lines_go_through_their_values_and_leave_gaps():
    chart = charts.Chart((0, 2), (0, 10))
    chart.line([(0, 0), (1, math.nan), (1, 10), (2, 5)], "blue")
    svg = chart.to_svg(description="lines", x_label="x", x_ticks={}, y_ticks={})
    middle = (charts.LEFT + charts.RIGHT) / 2
    ends = f"{charts.RIGHT} {(charts.TOP + charts.BOTTOM) / 2:g}"
    assert f'd="M{charts.LEFT} {charts.BOTTOM}M{middle:g} {charts.TOP}L{ends}"' in svg
    assert charts.Chart((1, 100), (0, 1), log_x=True).place(10, 0)[0] == middle
    nothing = {"epoch": 1, "learning_rate": 0.0}
    nothing |= {f"{split}_{what}": math.nan for split in ("train", "validation") for what in ("loss", "dice")}
    for quantity in ("loss", "dice", "learning_rate"):  # a run that diverged at once
        assert "<svg" in charts.learning_curve([[nothing]], quantity)


def test_slices_without_tumour_have_no_place_on_a_logarithmic_axis():
    rows, summary = (
        [score("glioma", math.nan, tumour_pixels=0), score("pituitary", 0.5)],
        {"by_class": ["glioma", "pituitary"]},
    )
    assert charts.dice_by_size(rows, summary).count('<path d="M') == 1
    assert charts.dice_by_size(rows[:1], summary).count('<path d="M') == 0


def test_where_no_slice_has_a_tumour_the_chart_by_class_is_empty():
    summary = {"by_class": {"glioma": {"dice": None}}, "intervals": {"by_class": {"glioma": {"dice": None}}}}
    chart = charts.dice_by_class([score("glioma", math.nan, tumour_pixels=0)], summary)
    assert "<svg" in chart
    assert 'class="mean"' not in chart


def test_a_report_of_predictions_keeps_the_largest_masks_in_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(predictions, "MAX_SLICES", 3)
    report = predictions.PredictionReport(tmp_path, Postprocessing(0.5, 0.0))
    for number, pixels in enumerate((4, 0, 9, 1, 16), start=1):
        probabilities = np.zeros((8, 8), np.float32)
        probabilities.flat[:pixels] = 0.9
        report.add(tmp_path / "a <b>.tif", ImageSlice(np.eye(8), number), probabilities)
    text = report.write(network="U-Net <16>").read_text("utf-8")
    slices = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    assert [one["name"] for one in slices] == [f"a <b>.tif, slice {number}" for number in (1, 3, 5)]
    assert {one["truth"] for one in slices} == {one["dice"] for one in slices} == {None}
    assert "5 slices of 1 files; a tumour is marked in 4 of them." in text
    assert "U-Net &lt;16&gt;" in text
    assert "The 3 with the largest masks." in text
    report.path.write_text("my page")
    with pytest.raises(InputError, match=r"report\.html is there already and is no report of this program"):
        predictions.PredictionReport(tmp_path, Postprocessing(0.5, 0.0))
