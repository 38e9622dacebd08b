"""Curves over the published ones: the lines that are drawn are the values that were given."""

import math

import numpy as np
import pytest
from PIL import Image

from brainseg_jax.plots import published_curves as module
from brainseg_jax.plots.published_curves import published_curves

OURS = {
    "train_loss": [0.9, 0.5, 0.3],
    "train_dice": [0.0, 0.2, 0.4],
    "validation_loss": [0.8, 0.6, 0.7],
    "validation_dice": [0.1, 0.3, 0.2],
    "seconds": [1.0, 1.0, 1.0],
}
THEIRS = {
    "train_loss": [0.8, 0.4, 0.2, 0.1],
    "train_dice": [0.0, 0.3, 0.5, 0.6],
    "validation_loss": [0.7, 0.5, math.nan, 0.4],
    "validation_dice": [0.0, 0.4, 0.5, 0.6],
}


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """A function that draws and gives the figure instead of the file."""

    def draw(ours, theirs, **options):
        figures = []
        monkeypatch.setattr(module, "save_figure", lambda figure, path: figures.append(figure))
        published_curves(ours, theirs, tmp_path / "a.png", **{"title": "Title", **options})
        return figures[0]

    return draw


def lines_of(axes, style):
    """The values of the lines of a style, in the order of drawing; rings are those of style "None"."""
    chosen = [line for line in axes.lines if line.get_linestyle() == style]
    return [[tuple(point) for point in line.get_xydata()] for line in chosen]


def test_ours_are_solid_and_theirs_dashed_over_their_epochs(drawn):
    figure = drawn(OURS, THEIRS)
    for axes, quantity in zip(figure.axes, ("loss", "dice"), strict=True):
        for style, curves in (("-", OURS), ("--", THEIRS)):
            expected = [list(enumerate(curves[f"{part}_{quantity}"], 1)) for part in ("train", "validation")]
            np.testing.assert_array_equal(np.array(lines_of(axes, style)), np.array(expected))
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear"]


def test_the_epochs_of_the_lowest_validation_loss_are_ringed_and_named(drawn):
    figure = drawn(OURS, THEIRS)
    loss, dice = (lines_of(axes, "None") for axes in figure.axes)
    assert loss == [[(4, 0.4)], [(2, 0.6)]]  # what is not finite is not the lowest
    assert dice == [[(4, 0.6)], [(2, 0.3)]]
    assert figure.axes[0].get_title(loc="right") == "at the rings: ours 0.600, published 0.400"
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [
        "ours: training",
        "published: training",
        "ours: validation",
        "published: validation",
        "ours: best epoch, 2",
        "published: best epoch, 4",
    ]


def test_a_curve_that_is_not_known_is_not_drawn_and_the_legend_says_so(drawn):
    figure = drawn(OURS, {name: values for name, values in THEIRS.items() if "train" not in name})
    assert [len(lines_of(axes, "--")) for axes in figure.axes] == [1, 1]
    assert figure.legends[0].get_texts()[1].get_text() == "published: training not known"


def test_nothing_written_lies_on_anything_else_or_outside(drawn):
    figure = drawn(OURS, THEIRS, notes=["first note", "second note"])
    figure.draw_without_rendering()
    texts = {text.get_text(): text.get_window_extent() for text in figure.texts}
    assert set(texts) == {"Title", "first note", "second note"}
    boxes = [*texts.values(), figure.legends[0].get_window_extent(), *(axes.get_tightbbox() for axes in figure.axes)]
    for index, box in enumerate(boxes):
        assert min(box.x0, box.y0) >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y1 <= figure.bbox.height
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])


def test_the_file_is_a_small_image_with_the_same_bytes_each_time(tmp_path):
    for name in ("folder/a.png", "b.png"):
        published_curves(OURS, THEIRS, tmp_path / name, title="Title")
    assert (tmp_path / "folder" / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert Image.open(tmp_path / "b.png").width >= 700


def test_a_run_without_epochs_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no epoch"):
        published_curves({**OURS, "validation_loss": []}, THEIRS, tmp_path / "a.png", title="Title")
    assert not (tmp_path / "a.png").exists()
