"""The page of a report in a browser: `pip install playwright` and a chromium on the PATH; skipped without them."""

import os
import re
import shutil

import numpy as np
import pytest
from scipy import ndimage

from brainseg_jax.evaluation.report.gallery import encode_slice
from brainseg_jax.evaluation.report.page import Section, write_report
from brainseg_jax.inference.postprocessing import Postprocessing

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH: apt-get install chromium")

SIDE, SMALLEST = 64, 0.004  # of the slices; components under 16.4 of their 4096 pixels are left out
LABELS, SIZES = ("glioma", "meningioma", "pituitary"), ("under 0.5 %", "0.5 to 1 %", "over 2 %")
# The pixels of the predicted mask on the screen.
COUNT_PIXELS = """() => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 64;
  canvas.getContext("2d").drawImage(document.querySelector("#panel-predicted canvas"), 0, 0);
  return canvas.getContext("2d").getImageData(0, 0, 64, 64).data.filter((value, i) => i % 4 === 3 && value > 0).length;
}"""
TRAP = "<b onclick=alert(1)>P&amp;1</b>"


@pytest.fixture(scope="module")
def drawn():
    """Seven slices of noise: their probabilities in steps of 1/255, their true masks, and what the page is told."""
    generator = np.random.default_rng(0)
    slices = []
    for place in range(7):
        noise = ndimage.gaussian_filter(generator.normal(size=(SIDE, SIDE)), 2.5)
        levels = np.rint(255 * (noise - noise.min()) / np.ptp(noise)).astype(np.float32)
        truth = ndimage.gaussian_filter(generator.normal(size=(SIDE, SIDE)), 4) > 0.03 + 0.01 * place
        about = {"label": LABELS[place % 3], "patient_id": (TRAP, "10", "9")[place % 3], "size": SIZES[place % 3]}
        slices.append((levels, truth, {"name": f"slice {place}", "dice": place / 10, **about}))
    return slices


@pytest.fixture(scope="module")
def report(drawn, tmp_path_factory):
    path = tmp_path_factory.mktemp("browser") / "report.html"
    half, none = Postprocessing(0.5, SMALLEST), np.zeros((SIDE, SIDE), bool)
    image = np.linspace(0, 1, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)
    slices = [encode_slice(image, levels / 255, half, true_mask=truth, **about) for levels, truth, about in drawn]
    slices.append(encode_slice(image, none.astype(np.float32), half, name="healthy", true_mask=none, dice=1.0))
    slices.append(encode_slice(image, drawn[0][0] / 255, half, name="unknown"))
    sections = [Section("one", "One", '<p><a href="#slices">link</a></p>')]
    write_report(path, title="Noise", sections=sections, slices=slices, note=TRAP)
    return path


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        # Chromium has no sandbox for root, as which tests run in containers.
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        with driver.chromium.launch(executable_path=CHROMIUM, args=sandbox) as started:
            yield started


@pytest.fixture
def page(browser, report):
    """The page, opened as a file; at the end nothing was written to the console and nothing else was asked for."""
    said, asked = [], []
    with browser.new_context(viewport={"width": 1000, "height": 800}) as context:
        tab = context.new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(report.as_uri())
        tab.wait_for_selector("#count:not(:empty)")
        yield tab
        assert said == []
        assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]


def shown(page):
    return [
        re.search(r"slice (\d)|$", alt)[1] or alt
        for alt in page.eval_on_selector_all("#grid img", "all => all.map(one => one.alt)")
    ]


def focused(page):
    return page.evaluate("document.activeElement.querySelector(':scope.card img')?.alt ?? ''").split(",")[0]


def test_slices_are_sorted_and_chosen(page):
    assert shown(page) == [*"0123456", "healthy", "unknown"]
    assert page.text_content("#count") == "9 of 9 slices."
    page.select_option("#order", "best")
    assert shown(page) == ["healthy", *"6543210", "unknown"]
    page.select_option("#order", "patient")
    assert shown(page) == ["healthy", "unknown", *"036", *"25", *"14"]  # none, the trap, 9, 10
    page.select_option("#order", "worst")
    page.select_option("#label", "glioma")
    assert shown(page) == [*"036"]
    page.fill("#dice-to", "0.3")
    assert shown(page) == [*"03"]
    page.fill("#dice-from", "0.1")
    assert shown(page) == ["3"]
    page.select_option("#patient", "10")
    assert shown(page) == []
    assert page.text_content("#count") == "No slice fits."
    page.click("#reset-filters")
    page.wait_for_selector("#grid li:nth-child(9)")
    page.select_option("#size", SIZES[1])
    assert shown(page) == [*"14"]
    assert page.eval_on_selector_all("#patient option", "all => all.map(one => one.value)") == ["", TRAP, "9", "10"]
    assert page.eval_on_selector_all("b[onclick]", "all => all.length") == 0


def test_the_largest_tumour_comes_first_where_asked_for(page, drawn):
    page.select_option("#order", "largest")
    by_size = sorted(range(7), key=lambda place: -drawn[place][1].sum())
    assert shown(page)[:7] == [str(place) for place in by_size]


@pytest.mark.parametrize("filtered", [True, False])
def test_the_slider_changes_mask_and_dice(page, drawn, filtered):
    levels, truth, _ = drawn[2]
    page.click("text=Dice 0.200")
    page.set_checked("#filter", filtered)
    for threshold in (0.3, 0.5, 0.6, 0.73, 0.9):
        page.fill("#threshold", str(threshold))
        mask = levels / 255 > threshold
        if filtered:
            mask = Postprocessing(threshold, SMALLEST).mask(levels / 255)
        dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
        assert page.text_content("#small-dice") == f"{dice:.3f}"
        assert page.text_content("#full-dice") == "0.200"  # the exact one stays
        drawn_pixels = page.evaluate(COUNT_PIXELS)
        assert drawn_pixels == mask.sum()
    changed = (levels / 255 > 0.5) != Postprocessing(0.5, SMALLEST).mask(levels / 255)
    assert changed.any()  # otherwise the checkbox would do nothing
    page.click("#reset-threshold")
    assert page.text_content("#threshold-value") == "0.5"


def test_the_keyboard_is_enough(page):
    page.focus("#reset-filters")
    page.keyboard.press("Tab")
    assert focused(page) == "slice 0"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert focused(page) == "slice 1"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.text_content("#viewer-title") == "slice 1 (2 of 9)"
    page.keyboard.press("ArrowRight")
    assert page.text_content("#viewer-title") == "slice 2 (3 of 9)"
    page.focus("#threshold")
    page.keyboard.press("ArrowRight")  # here it moves the slider
    assert page.text_content("#threshold-value") == "0.51"
    assert page.text_content("#viewer-title") == "slice 2 (3 of 9)"
    page.focus("#previous")
    for _ in range(4):  # to the first, where the button is disabled, and no further
        page.keyboard.press("ArrowLeft")
    assert page.text_content("#viewer-title") == "slice 0 (1 of 9)"
    page.keyboard.press("ArrowRight")
    assert page.text_content("#viewer-title") == "slice 1 (2 of 9)"
    page.keyboard.press("Escape")
    assert not page.is_visible("#viewer")
    assert focused(page) == "slice 1"
    page.keyboard.press("End")
    assert focused(page) == "unknown"
    page.keyboard.press("Tab")
    assert focused(page) == ""  # one stop for all cards


def test_slices_without_tumour_or_true_mask_open_too(page):
    page.click("img[alt=healthy]")
    assert page.text_content("#small-dice") == "1.000"  # both masks are empty
    assert "no tumour" in page.text_content("#facts")
    page.keyboard.press("ArrowRight")
    assert page.text_content("#viewer-title").startswith("unknown")
    for panel, visible in (("truth", False), ("difference", False), ("predicted", True), ("probability", True)):
        assert page.is_visible(f"#panel-{panel}") == visible
    assert not page.is_visible("#scores")
    assert page.get_attribute("#panel-probability img", "alt") == "Probability map of unknown"


def test_a_phone_and_a_dark_screen(page):
    page.set_viewport_size({"width": 390, "height": 800})
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.evaluate("document.querySelector('#viewer').scrollWidth") <= 390
        if not page.is_visible("#viewer"):
            page.click(".card")
    luminances = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colors = page.evaluate("['color', 'backgroundColor'].map(name => getComputedStyle(document.body)[name])")
        ink, paper = (sum(map(int, re.findall(r"\d+", color)[:3])) for color in colors)
        luminances.append(ink - paper)
    assert luminances[0] < -500
    assert luminances[1] > 500
