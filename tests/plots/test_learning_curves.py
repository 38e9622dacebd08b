"""Learning curves: the lines that are drawn are the values that were given; files are small and reproducible."""

import math

import numpy as np
import pytest
from PIL import Image

from brainseg_jax.plots import learning_curves as module
from brainseg_jax.plots.learning_curves import learning_curves, published_curves


def epochs(count):
    return [
        {
            "epoch": epoch,
            "step": 10 * epoch,
            "train_loss": 1 / epoch,
            "train_dice": 1 - 0.9 / epoch,
            "validation_loss": 1.2 / epoch,
            "validation_dice": 1 - 0.95 / epoch,
            "learning_rate": 1e-3 if epoch < 4 else 1e-4,
        }
        for epoch in range(1, count + 1)
    ]


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, in place of their files."""
    drawn = []
    monkeypatch.setattr(module, "save_figure", lambda figure, path: drawn.append(figure))
    return drawn


@pytest.fixture
def draw(figures, tmp_path):
    """A function that draws rows and returns the figure instead of writing the file."""

    def draw(rows):
        learning_curves(rows, tmp_path / "a.png", title="Title")
        return figures[-1]

    return draw


def require_no_overlap(figure):
    """Requires that no text, legend or panel overlaps another one or leaves the figure."""
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.texts]
    boxes += [figure.legends[0].get_window_extent(), *(axes.get_tightbbox() for axes in figure.axes)]
    for index, box in enumerate(boxes):
        assert min(box.x0, box.y0) >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y1 <= figure.bbox.height
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])


def lines_of(axes):
    """The y values of the solid lines of a panel."""
    return [list(line.get_ydata()) for line in axes.lines if line.get_linestyle() == "-"]


def drops_of(axes):
    """The epochs at which a panel has a dashed vertical line."""
    return [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"]


def test_loss_dice_and_learning_rate_are_drawn_over_the_epochs(draw):
    rows = epochs(30)
    loss, dice, rate = draw(rows).axes
    for axes, quantity in ((loss, "loss"), (dice, "dice")):
        assert lines_of(axes) == [[row[f"{split}_{quantity}"] for row in rows] for split in ("train", "validation")]
    assert lines_of(rate) == [[row["learning_rate"] for row in rows]]
    assert list(rate.lines[0].get_xdata()) == list(range(1, 31))
    assert rate.get_title(loc="left") == "Learning rate"


def test_drops_of_the_learning_rate_are_marked_and_drawn_on_a_log_scale(draw):
    loss, dice, rate = draw(epochs(30)).axes
    assert drops_of(loss) == drops_of(dice) == [4]
    assert rate.get_yscale() == "log"


def test_a_smooth_schedule_has_a_linear_scale_and_no_marks(draw):
    rows = [{**row, "learning_rate": 1e-3 * math.cos((row["epoch"] - 1) / 20) ** 2} for row in epochs(30)]
    rows[0]["learning_rate"] = 0.0  # warm-up
    loss, _, rate = draw(rows).axes
    assert drops_of(loss) == []
    assert rate.get_yscale() == "linear"
    assert rate.get_ylim() == pytest.approx((0, 1.08 * rows[1]["learning_rate"]))


def test_a_constant_learning_rate_has_no_marks(draw):
    loss, _, rate = draw([{**row, "learning_rate": 1e-3} for row in epochs(5)]).axes
    assert drops_of(loss) == []
    assert rate.get_yscale() == "linear"


def test_the_epoch_of_the_lowest_finite_validation_loss_has_a_ring(draw):
    rows = epochs(5)
    rows[4]["validation_loss"] = math.nan
    rows[3]["train_loss"] = math.inf
    loss, dice, _ = draw(rows).axes
    for axes, quantity in ((loss, "loss"), (dice, "dice")):
        (ring,) = [line for line in axes.lines if line.get_linestyle() == "None"]
        np.testing.assert_array_equal(ring.get_xydata(), [[4, rows[3][f"validation_{quantity}"]]])


@pytest.mark.parametrize("count", [1, 4, 30, 200])
def test_no_text_or_panel_overlaps_another_or_leaves_the_figure(draw, count):
    require_no_overlap(draw(epochs(count)))


@pytest.mark.parametrize("count", [1, 30])
def test_the_file_is_a_small_image_with_the_same_bytes_each_time(tmp_path, count):
    for name in ("folder/a.png", "b.png"):
        learning_curves(epochs(count), tmp_path / name, title="Title")
    assert (tmp_path / "folder" / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "b.png").stat().st_size < 500_000
    with Image.open(tmp_path / "b.png") as image:
        assert image.width >= 900


def test_no_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no epoch"):
        learning_curves([], tmp_path / "a.png", title="a")
    assert not (tmp_path / "a.png").exists()


OURS = {
    "train_loss": [0.9, 0.5, 0.3],
    "train_dice": [0.0, 0.2, 0.4],
    "validation_loss": [0.8, 0.6, 0.7],
    "validation_dice": [0.1, 0.3, 0.2],
    "seconds": [1.0, 1.0, 1.0],
}
PUBLISHED = {
    "train_loss": [0.8, 0.4, 0.2, 0.1],
    "train_dice": [0.0, 0.3, 0.5, 0.6],
    "validation_loss": [0.7, 0.5, math.nan, 0.4],
    "validation_dice": [0.0, 0.4, 0.5, 0.6],
}


@pytest.fixture
def draw_both(figures, tmp_path):
    """A function that draws two runs and returns the figure instead of writing the file."""

    def draw(ours, published, **options):
        published_curves(ours, published, tmp_path / "a.png", **{"title": "Title", **options})
        return figures[-1]

    return draw


def points_of(axes, style):
    """The points of the lines of a style, in the order of drawing; rings are those of style "None"."""
    chosen = [line for line in axes.lines if line.get_linestyle() == style and len(line.get_xydata())]
    return [[tuple(point) for point in line.get_xydata()] for line in chosen]


def test_our_curves_are_solid_and_the_published_ones_dashed(draw_both):
    figure = draw_both(OURS, PUBLISHED)
    for axes, quantity in zip(figure.axes, ("loss", "dice"), strict=True):
        for style, curves in (("-", OURS), ("--", PUBLISHED)):
            expected = [list(enumerate(curves[f"{split}_{quantity}"], 1)) for split in ("train", "validation")]
            np.testing.assert_array_equal(np.array(points_of(axes, style)), np.array(expected))
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear"]


def test_the_epochs_of_the_lowest_validation_loss_are_ringed_and_named(draw_both):
    figure = draw_both(OURS, PUBLISHED)
    loss, dice = (points_of(axes, "None") for axes in figure.axes)
    assert loss == [[(2, 0.6)], [(4, 0.4)]]  # a value that is not finite is not the lowest
    assert dice == [[(2, 0.3)], [(4, 0.6)]]
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


def test_the_legend_names_a_curve_that_is_not_known(draw_both):
    figure = draw_both(OURS, {name: values for name, values in PUBLISHED.items() if "train" not in name})
    assert [len(points_of(axes, "--")) for axes in figure.axes] == [1, 1]
    assert figure.legends[0].get_texts()[1].get_text() == "published: training not known"


def test_no_text_or_panel_of_two_runs_overlaps_another_or_leaves_the_figure(draw_both):
    figure = draw_both(OURS, PUBLISHED, notes=["first note", "second note"])
    assert {text.get_text() for text in figure.texts} == {"Title", "first note", "second note"}
    require_no_overlap(figure)


def test_the_file_of_two_runs_is_a_small_image_with_the_same_bytes_each_time(tmp_path):
    for name in ("folder/a.png", "b.png"):
        published_curves(OURS, PUBLISHED, tmp_path / name, title="Title")
    assert (tmp_path / "folder" / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert Image.open(tmp_path / "b.png").width >= 700


def test_a_run_without_epochs_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no epoch"):
        published_curves({**OURS, "validation_loss": []}, PUBLISHED, tmp_path / "a.png", title="Title")
    assert not (tmp_path / "a.png").exists()
