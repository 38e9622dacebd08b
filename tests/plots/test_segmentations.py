"""Figures of segmentations: colours counted by hand; PNG files are valid, small and the same every time."""

import functools
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from brainseg_jax.plots import overlays, segmentations
from brainseg_jax.plots.segmentations import _window, prediction_comparison, slice_gallery

SIDE = 64


def head(*, seed: int = 0, side: int = SIDE) -> np.ndarray:
    """A grey ellipse with noise, (side, side) float in [0, 1]."""
    rows, columns = np.mgrid[:side, :side] / side - 0.5
    ellipse = (rows / 0.45) ** 2 + (columns / 0.38) ** 2 < 1
    noise = np.random.default_rng(seed).uniform(0, 0.2, (side, side))
    return ellipse * (0.3 + noise)


def rectangle(top: int, left: int, height: int, width: int, *, side: int = SIDE) -> np.ndarray:
    mask = np.zeros((side, side), bool)
    mask[top : top + height, left : left + width] = True
    return mask


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        image.verify()
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert not {"Software", "Creation Time", "date"} & set(image.info)
        return np.asarray(image.convert("RGB"))


def draw_one_network(path: Path, *, count: int) -> None:
    truth, predicted = [rectangle(20, 20, 10, 12)] * count, [rectangle(22, 21, 10, 12)] * count
    captions = [f"slice {seed}" for seed in range(count)]
    images = [head(seed=seed) for seed in range(count)]
    prediction_comparison(
        images, truth, {"Net": predicted}, {"Net": [0.75] * count}, path, captions=captions, title="a"
    )


def test_overlay_keeps_the_pixels_outside_of_the_mask() -> None:
    image, mask = head(), rectangle(10, 12, 20, 16)
    result = overlays.overlay(image, mask)
    assert result.shape == (SIDE, SIDE, 3)
    assert result.dtype == np.uint8
    grey = np.rint(255 * image).astype(np.uint8)
    for channel in range(3):
        np.testing.assert_array_equal(result[~mask][:, channel], grey[~mask])


def test_overlay_draws_the_plain_colour_on_the_outline_only() -> None:
    mask = rectangle(10, 12, 20, 16)
    result = overlays.overlay(np.full((SIDE, SIDE), 0.5), mask)
    outline = (result == overlays.MASK_COLOR).all(axis=-1)
    # A rectangle of 20×16 pixels has 2·20 + 2·16 - 4 = 68 pixels on its edge.
    assert outline.sum() == 68
    assert not outline[11:29, 13:27].any()
    inside = result[11:29, 13:27].reshape(-1, 3)
    expected = np.rint((1 - overlays.MASK_ALPHA) * 128 + overlays.MASK_ALPHA * np.array(overlays.MASK_COLOR))
    np.testing.assert_array_equal(inside, np.broadcast_to(expected, inside.shape))


def test_difference_colours_as_many_pixels_as_numpy_counts() -> None:
    truth, predicted = rectangle(10, 10, 20, 20), rectangle(15, 5, 20, 20)
    result = overlays.difference(np.full((SIDE, SIDE), 0.5), truth, predicted)
    # The squares of 400 pixels share 15×15.
    expected = {"true positive": 225, "false positive": 175, "false negative": 175}
    for kind, color in overlays.DIFFERENCE_COLORS.items():
        blended = np.rint((1 - overlays.DIFFERENCE_ALPHA) * 128 + overlays.DIFFERENCE_ALPHA * np.array(color))
        assert (result == blended).all(axis=-1).sum() == expected[kind], kind
    assert (result == 128).all(axis=-1).sum() == SIDE * SIDE - 575


def test_difference_puts_each_colour_where_it_belongs() -> None:
    truth, predicted = rectangle(10, 10, 20, 20), rectangle(15, 5, 20, 20)
    image = head()
    result = overlays.difference(image, truth, predicted).astype(int)
    areas = {
        "true positive": np.logical_and(truth, predicted),
        "false positive": np.logical_and(predicted, np.logical_not(truth)),
        "false negative": np.logical_and(truth, np.logical_not(predicted)),
    }
    colors = np.array([overlays.DIFFERENCE_COLORS[kind] for kind in areas])
    for index, area in enumerate(areas.values()):
        distances = np.abs(result[area][:, np.newaxis] - colors).sum(axis=-1)
        assert (distances.argmin(axis=-1) == index).all()
    outside = ~(truth | predicted)
    grey = np.rint(255 * image).astype(int)
    np.testing.assert_array_equal(result[outside], np.repeat(grey[outside][:, np.newaxis], 3, axis=1))


def test_difference_of_equal_masks_has_one_colour_and_of_empty_masks_none() -> None:
    image = np.full((SIDE, SIDE), 0.5)
    mask, empty = rectangle(10, 10, 5, 5), np.zeros((SIDE, SIDE), bool)
    assert len(np.unique(overlays.difference(image, mask, mask).reshape(-1, 3), axis=0)) == 2
    assert (overlays.difference(image, empty, empty) == 128).all()
    assert (overlays.overlay(image, empty) == 128).all()


def test_masks_of_zeros_and_ones_are_masks() -> None:
    image, truth, predicted = head(), rectangle(10, 10, 20, 20), rectangle(15, 5, 20, 20)
    for dtype in (np.uint8, np.float32):
        expected = overlays.difference(image, truth, predicted)
        np.testing.assert_array_equal(
            overlays.difference(image, truth.astype(dtype), predicted.astype(dtype)), expected
        )


def test_the_colours_of_the_difference_differ_in_lightness_too() -> None:
    def luminance(color: tuple[int, int, int]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.array(color) / 255]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    values = [luminance(color) for color in overlays.DIFFERENCE_COLORS.values()]
    for first, second in itertools.combinations(values, 2):
        # Contrast as WCAG defines it.
        assert (max(first, second) + 0.05) / (min(first, second) + 0.05) > 1.5


@pytest.mark.parametrize("shape", [(SIDE, SIDE + 1), (SIDE,), (SIDE, SIDE, 1)])
def test_masks_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    mask = rectangle(0, 0, 5, 5)
    with pytest.raises(ValueError, match="shape"):
        overlays.overlay(head(), np.zeros(shape, bool))
    with pytest.raises(ValueError, match="shape"):
        overlays.difference(head(), mask, np.zeros(shape, bool))


def draw_comparison(path: Path) -> None:
    truth = rectangle(20, 20, 10, 12)
    masks = {"U-Net": [rectangle(22, 21, 10, 12)] * 2, "LinkNet": [rectangle(20, 18, 9, 9), np.zeros_like(truth)]}
    dice = {"U-Net": [0.7, 0.7], "LinkNet": [0.6, 0.0]}
    images = [head(), head(seed=1)]
    prediction_comparison(images, [truth] * 2, masks, dice, path, captions=["a", "b"], title="Both")


def draw_gallery(path: Path) -> None:
    masks = [rectangle(20, 20, 10, 12), np.zeros((SIDE, SIDE)), np.ones((SIDE, SIDE))]
    slice_gallery([head(seed=seed) for seed in range(3)], masks, ["a", "b", "c"], path, columns=2)


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(functools.partial(draw_one_network, count=1), id="one network, one image"),
        pytest.param(functools.partial(draw_one_network, count=3), id="one network"),
        pytest.param(draw_comparison, id="comparison"),
        pytest.param(draw_gallery, id="gallery"),
    ],
)
def test_figures_are_small_files_with_the_same_bytes_each_time(draw: Callable[[Path], None], tmp_path: Path) -> None:
    first, second = tmp_path / "new" / "folder" / "first.png", tmp_path / "second.png"
    draw(first)
    draw(second)
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size < 500_000
    pixels = pixels_of(first)
    assert pixels.shape[1] >= 700
    assert pixels.std() > 0


def test_tall_figures_of_noisy_images_stay_small(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    masks, path = [rectangle(10, 10, 200, 220, side=256)] * 8, tmp_path / "noisy.png"
    noisy = [generator.uniform(size=(256, 256)) for _ in masks]
    prediction_comparison(noisy, masks, {"a": masks}, {"a": [1.0] * 8}, path, captions=["a"] * 8, title="Noise")
    assert path.stat().st_size < 500_000
    assert len(pixels_of(path)) > 0


def test_the_colours_of_the_difference_survive_in_the_file(tmp_path: Path) -> None:
    truth, predicted, path = rectangle(10, 10, 20, 20), rectangle(15, 5, 20, 20), tmp_path / "a.png"
    image = np.zeros((SIDE, SIDE))
    prediction_comparison([image], [truth], {"a": [predicted]}, {"a": [0.56]}, path, captions=["a"], title="a")
    pixels = pixels_of(path).reshape(-1, 3).astype(int)
    for color in overlays.DIFFERENCE_COLORS.values():
        blended = np.array(color) * overlays.DIFFERENCE_ALPHA
        # Rounding to the file's 64 levels changes a value by at most four of 255.
        assert (np.abs(pixels - blended).max(axis=1) <= 4).sum() > 100


@pytest.mark.parametrize("networks", [1, 2, 3])
def test_a_single_network_has_a_panel_for_its_mask(networks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(segmentations, "save_figure", lambda figure, path: figures.append(figure))
    mask, names = rectangle(20, 20, 10, 12), [f"net {number}" for number in range(networks)]
    masks, dice = ({name: [value] for name in names} for value in (mask, 1.0))
    prediction_comparison([head()], [mask], masks, dice, Path("a.png"), captions=["a"], title="b")  # type: ignore[arg-type]
    assert len(figures[0].axes) == 2 + networks + (networks == 1)
    notes = [text.get_text() for axes in figures[0].axes for text in axes.texts]
    assert notes == ["Dice 1.000"] * networks


def test_the_enlarged_part_holds_all_masks() -> None:
    """A mask far away from the true one must not be cut off."""
    image = head()
    masks = [rectangle(20, 20, 4, 4), rectangle(40, 36, 5, 5)]
    window = _window(image, masks)
    assert window is not None
    row, column, side = window
    assert 0 <= row <= row + side <= SIDE
    assert 0 <= column <= column + side <= SIDE
    for mask in masks:
        assert mask[row : row + side, column : column + side].sum() == mask.sum()
    assert _window(image, [rectangle(0, 0, 2, 2), rectangle(60, 60, 2, 2)]) is None
    assert _window(image, [np.zeros_like(image)]) is None


@pytest.mark.parametrize("corner", [(0, 0), (0, 59), (59, 0), (59, 59), (30, 30)])
def test_the_enlarged_part_stays_in_the_image(corner: tuple[int, int]) -> None:
    mask = rectangle(*corner, 5, 5)
    window = _window(head(), [mask])
    assert window is not None
    row, column, side = window
    assert min(row, column) >= 0
    assert max(row, column) + side <= SIDE
    assert mask[row : row + side, column : column + side].sum() == 25


def test_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(ValueError, match="no image"):
        prediction_comparison([], [], {"a": []}, {"a": []}, path, captions=[], title="a")
    with pytest.raises(ValueError, match="no image"):
        slice_gallery([], [], [], path)
    assert not path.exists()


def test_lists_of_different_lengths_are_refused(tmp_path: Path) -> None:
    image, mask, path = head(), rectangle(20, 20, 10, 12), tmp_path / "a.png"
    with pytest.raises(ValueError, match="U-Net"):
        prediction_comparison(
            [image], [mask], {"U-Net": [mask, mask]}, {"U-Net": [1.0]}, path, captions=["a"], title="a"
        )
    with pytest.raises(ValueError, match="U-Net"):
        prediction_comparison([image], [mask], {"U-Net": [mask]}, {"LinkNet": [1.0]}, path, captions=["a"], title="a")
    with pytest.raises(ValueError, match="shorter"):
        slice_gallery([image, image], [mask], ["a", "b"], path)
    assert not path.exists()
