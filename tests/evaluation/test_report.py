"""Reports: what the page says is what was evaluated, and it needs no other file."""

import base64
import dataclasses
import hashlib
import json
import re
import shutil
import zlib
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from brainseg_jax.errors import InputError
from brainseg_jax.evaluation import evaluate
from brainseg_jax.evaluation.report.gallery import describe_choice, encode_slice
from brainseg_jax.evaluation.report.page import Section, report_path, write_report
from brainseg_jax.evaluation.report.run import report_run
from brainseg_jax.evaluation.scores import read_scores, write_scores
from brainseg_jax.inference.postprocessing import Postprocessing
from brainseg_jax.workdir.files import read_splits
from tests.conftest import REPOSITORY

HALF = Postprocessing(0.5, 0.0)


class Page(HTMLParser):
    """The elements of a page, their attributes, and the text outside scripts and styles."""

    def __init__(self, path):  # noqa: D107
        super().__init__()
        self.elements, self.text, self.inside, self.scripts = [], "", "", []
        self.source = path.read_text()
        self.feed(self.source)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts[-1] += data
        elif self.inside != "style":
            self.text += data

    def values(self, attribute):
        return [attributes[attribute] for _, attributes in self.elements if attribute in attributes]

    @property
    def slices(self):
        return json.loads(self.scripts[0]) if self.scripts else []


@pytest.fixture(scope="module")
def scored(trained, tmp_path_factory):
    run = tmp_path_factory.mktemp("report") / "run"
    shutil.copytree(trained, run)
    evaluate.evaluate(run, split="test", output=run, examples=0)
    return run


@pytest.fixture
def copy(scored, tmp_path):
    """A copy of the run, to be spoiled."""
    return shutil.copytree(scored, tmp_path / "run")


@pytest.fixture(scope="module")
def page(scored, tmp_path_factory):
    return Page(report_run(scored, output=tmp_path_factory.mktemp("page"), max_slices=9))


def test_the_page_needs_nothing_but_itself(page):
    links = page.values("src") + page.values("href")
    assert links
    assert all(link.startswith(("#", "data:")) for link in links)
    assert not re.search(r"@import|url\(", page.source)
    (policy,) = (of["content"] for _, of in page.elements if "Content-Security-Policy" in of.get("http-equiv", ""))
    _, script = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_every_reference_on_the_page_has_its_element(page):
    names = page.values("id")
    assert len(names) == len(set(names))
    references = [link[1:] for link in page.values("href")] + page.values("aria-labelledby")
    references += " ".join(page.values("for")).split() + re.findall(r'byId\("([\w-]+)"\)', page.scripts[1])
    assert len(references) > 30
    assert set(references) <= set(names)
    assert ("html", {"lang": "en"}) in page.elements
    assert all(of["aria-label"] for tag, of in page.elements if tag == "svg")
    for drawing in re.findall(r"<svg.*?</svg>", page.source, flags=re.DOTALL):
        ElementTree.fromstring(drawing)


def test_the_page_says_what_the_evaluation_says(page, scored):
    evaluation = json.loads((scored / "evaluation_test.json").read_text())
    shown = [
        f"{evaluation['dice']:.3f}",
        f"{evaluation['slices']} slices",
        "32 × 32 pixels",
    ]
    shown += [
        evaluation["commit"] or "not known",
        evaluation["versions"]["jax"],
        evaluation["command"],
        "family, fold 1",
    ]
    shown += [f"{of['dice']:.3f}" for of in evaluation["by_class"].values() if of["slices"]]
    for text in shown:
        assert text in page.text, text
    for split, ids in read_splits(scored).items():
        assert re.search(f">{split}</th><td>{len(ids)}</td>", page.source)
    dots = page.source.count('<path d="M')
    bins = sum(share is not None for share in evaluation["calibration"]["tumour_share"])
    assert dots == 2 * evaluation["slices"] + bins
    assert re.search(">optimizer.learning_rate</th><td>0.005<", page.source)


def test_the_gallery_holds_the_scored_slices_worst_first(page, scored):
    rows = {f"slice {row.slice_id}": row for row in read_scores(scored / "per_slice_test.csv")}
    dice = [of["dice"] for of in page.slices]
    ranked = sorted(row.dice for row in rows.values())
    assert len(dice) == 9 < len(ranked)
    assert dice == sorted(dice)
    assert (dice[0], dice[-1]) == (ranked[0], ranked[-1])
    assert ranked[len(ranked) // 2] in dice
    assert describe_choice(len(ranked), count=9) in page.text
    for of in page.slices:
        row = rows[of["name"]]
        assert (of["dice"], of["label"], of["patient"]) == (row.dice, row.label, row.patient_id)
        assert of["share"] == pytest.approx(row.tumour_pixels / row.image_pixels)
        # Phantoms of 128 pixels are not shrunk, so the Dice of what is embedded is the exact one.
        levels = np.frombuffer(zlib.decompress(base64.b64decode(of["probability"])), np.uint8)
        truth = np.unpackbits(np.frombuffer(zlib.decompress(base64.b64decode(of["truth"])), np.uint8)).astype(bool)
        predicted = levels / 255 > of["threshold"]
        found = 2 * (predicted & truth).sum() / (predicted.sum() + truth.sum())
        assert found == pytest.approx(row.dice, abs=0.02)


def test_text_from_the_data_stays_text(tmp_path):
    trap = "</script></title><img src=x onerror=alert(1)>&amp;\"'"
    image = np.zeros((8, 8), np.float32)
    of = encode_slice(image, image, HALF, name=trap, label=trap, patient_id=trap, size=trap)
    write_report(
        tmp_path / "page.html", title=trap, sections=[Section("one", trap, "<p>text</p>")], slices=[of], note=trap
    )
    page = Page(tmp_path / "page.html")
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert not [of for tag, of in page.elements if "onerror" in of]
    assert page.text.count(trap) == 5  # title, headline, link, heading, note
    (found,) = page.slices
    assert [found[name] for name in ("name", "label", "patient", "size")] == [trap] * 4


def test_a_slice_may_lack_its_true_mask_or_its_tumour(tmp_path):
    image, empty = np.zeros((16, 16), np.float32), np.zeros((16, 16), bool)
    unknown = encode_slice(image, image, HALF, name="unknown")
    healthy = encode_slice(image, image, HALF, name="healthy", true_mask=empty, dice=1.0)
    write_report(tmp_path / "page.html", title="Two", sections=[], slices=[unknown, healthy], note="")
    found = Page(tmp_path / "page.html").slices
    assert [(of["dice"], of["share"], of["truth"] is None) for of in found] == [(None, None, True), (1.0, 0.0, False)]


def test_without_networks_or_images_the_page_says_so(scored, tmp_path):
    kept = REPOSITORY / "docs" / "results"
    for run, split in ((kept / "unet_strong_64_family_cv", "cv"), (kept / "unet_128_family", "test")):
        page = Page(report_run(run, split=split, output=tmp_path / run.name))
        assert not page.slices
        assert "the networks that made the scores are not in the folder" in page.text
        evaluation = json.loads((run / f"evaluation_{split}.json").read_text())
        low, high = evaluation["intervals"]["dice"]
        assert f"{evaluation['dice']:.3f}95 % interval {low:.3f} to {high:.3f}" in page.text
        assert page.source.count('class="line orange"') == (10 if split == "cv" else 2)  # the folds' losses and Dice
    assert "without images (--max_slices=0)" in Page(report_run(scored, output=tmp_path, max_slices=0)).text


def test_each_fold_predicts_its_own_test_slices(trained, tmp_path):
    ids, runs, rows = read_splits(trained)["test"], tmp_path / "cv", []
    by_fold = {}
    for fold, tested, threshold in (("1", ids[::2], 0.5), ("2", ids[1::2], 0.3)):
        run = shutil.copytree(trained, runs / f"fold_{fold}")
        splits = json.loads((run / "splits.json").read_text())
        summary = evaluate.evaluate(run, split="test", output=run, examples=0, threshold=threshold)
        by_fold[fold] = summary
        rows += [row for row in read_scores(run / "per_slice_test.csv") if row.slice_id in tested]
        splits["splits"]["test"] = tested
        (run / "splits.json").write_text(json.dumps(splits))
    write_scores(runs / "per_slice_cv.csv", rows)
    whole = {name: value for name, value in summary.items() if name not in ("threshold", "min_component_fraction")}
    (runs / "evaluation_cv.json").write_text(json.dumps({**whole, "split": "cv", "fold": None, "by_fold": by_fold}))
    page = Page(report_run(runs, split="cv"))
    thresholds = {int(of["name"].split()[1]): of["threshold"] for of in page.slices}
    assert thresholds == {**dict.fromkeys(ids[::2], 0.5), **dict.fromkeys(ids[1::2], 0.3)}


def test_an_ensemble_needs_its_networks_by_name(trained, tmp_path):
    evaluate.evaluate([trained, trained], split="test", output=tmp_path, examples=0)
    assert not Page(report_run(tmp_path)).slices
    page = Page(report_run(tmp_path, weights=[trained, trained], max_slices=3))
    assert len(page.slices) == 3
    assert "ensemble of seeds 0, 0" in page.text
    assert "run, run" in page.text


def test_scores_that_no_longer_fit_are_refused(copy):
    path, text = copy / "evaluation_test.json", (copy / "evaluation_test.json").read_text()
    evaluation = json.loads(text)
    path.write_text(json.dumps({**evaluation, "checkpoint_epoch": 99}))
    with pytest.raises(
        InputError, match=r"scores are of epoch 99, but the best checkpoint of .* is of epoch .*: score it"
    ):
        report_run(copy)
    path.write_text(text)
    rows = read_scores(copy / "per_slice_test.csv")
    lower = [dataclasses.replace(row, metrics={**row.metrics, "dice": row.dice / 2}) for row in rows]
    write_scores(copy / "per_slice_test.csv", lower)
    with pytest.raises(InputError, match=r"a mean Dice of .* the scores say .*: score it again"):
        report_run(copy)
    other = [dataclasses.replace(row, tumour_pixels=row.tumour_pixels + 1) for row in rows]
    write_scores(copy / "per_slice_test.csv", other)
    with pytest.raises(InputError, match="another true mask than the one that was scored: name the --data_dir"):
        report_run(copy)
    assert not (copy / "report.html").exists()
    with pytest.raises(InputError, match=r"per_slice_train\.csv is missing: score the run"):
        report_run(copy, split="train")


def test_only_a_report_is_written_over(tmp_path):
    path = tmp_path / "report.html"
    write_report(path, title="One", sections=[], slices=[], note="")
    assert report_path(tmp_path) == report_path(path) == path
    assert report_path(tmp_path / "new") == tmp_path / "new" / "report.html"
    path.write_text("<html>my own</html>")
    with pytest.raises(InputError, match="is no report of this program: name another --output"):
        report_path(tmp_path)
