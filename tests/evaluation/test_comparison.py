"""Comparisons: differences slice by slice as derived by hand, with intervals over families."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainseg_jax.errors import InputError
from brainseg_jax.evaluation import comparison, evaluate
from brainseg_jax.evaluation.scores import read_scores
from tests.evaluation.test_scores import score


def rows_of(*dice):
    """Six slices of four patients."""
    return [
        score(label, value, patient_id=str(index // 2), slice_id=index)
        for index, (label, value) in enumerate(zip(["glioma"] * 4 + ["meningioma"] * 2, dice, strict=True), start=1)
    ]


FIRST, SECOND = rows_of(0.0, 0.5, 0.6, 0.6, 0.9, 0.9), rows_of(0.4, 0.7, 0.5, 0.6, 0.9, 0.8)


def test_the_table_names_the_better_run_where_the_interval_excludes_zero():
    rows = [
        dataclasses.replace(FIRST[0], slice_id=number, patient_id=str(number), family=str(number))
        for number in range(12)
    ]
    better = [
        dataclasses.replace(row, metrics={**row.metrics, "dice": row.dice + 0.05, "hd95_mm": 1.0}) for row in rows
    ]
    table = comparison.comparison_table(comparison.compare_scores(rows, better), names=("old", "new"))
    lines = {line.split(" | ")[0]: line for line in table.splitlines()}
    assert lines["| dice ↑"].endswith("| new |")
    assert lines["| hd95_mm ↓"].endswith("| new |")  # less is better
    assert lines["| recall ↑"].endswith("| – |")  # the same
    back = comparison.comparison_table(comparison.compare_scores(better, rows), names=("new", "old"))
    assert {line.split(" | ")[0]: line for line in back.splitlines()}["| hd95_mm ↓"].endswith("| new |")


def test_differences_equal_values_derived_by_hand():
    found = comparison.compare_scores(FIRST, SECOND[::-1])  # the order of the rows does not matter
    assert (found["slices"], found["families"]) == (6, 4)
    assert found["dice"]["first"] == pytest.approx(3.5 / 6)
    assert found["dice"]["difference"] == pytest.approx((0.4 + 0.2 - 0.1 + 0 + 0 - 0.1) / 6)
    assert found["share_missed"]["difference"] == pytest.approx(-1 / 6)
    assert found["by_class"]["glioma"]["difference"] == pytest.approx(0.5 / 4)
    assert found["by_class"]["meningioma"]["difference"] == pytest.approx(-0.1 / 2)
    assert found["by_class"]["pituitary"]["difference"] is None
    assert found["dice"]["interval"] is None  # of four families
    assert found["hd95_mm"]["difference"] == pytest.approx(0.0)
    swapped = comparison.compare_scores(SECOND, FIRST)
    assert swapped["dice"]["difference"] == pytest.approx(-found["dice"]["difference"])


def test_slices_without_tumour_change_no_difference_and_own_classes_have_rows():
    first, second = (
        [*rows, score("none", float("nan"), slice_id=99, tumour_pixels=0, predicted_pixels=alarm)]
        for rows, alarm in ((FIRST, 0), (SECOND, 4))
    )
    plain, found = comparison.compare_scores(FIRST, SECOND), comparison.compare_scores(first, second)
    assert found["slices"] == plain["slices"] + 1
    for name in ("dice", "share_missed", "by_size"):
        assert found[name] == plain[name]
    assert list(found["by_class"]) == ["glioma", "meningioma", "none"]
    assert found["by_class"]["glioma"] == plain["by_class"]["glioma"]
    assert found["by_class"]["none"]["slices"] == 0
    table = comparison.comparison_table(found, names=("old", "new"))
    assert "dice, glioma" in table
    assert "nan" not in table


def test_a_constant_difference_has_an_interval_of_no_width():
    first = [dataclasses.replace(row, patient_id=str(row.slice_id), family=str(row.slice_id)) for row in FIRST]
    better = [dataclasses.replace(row, metrics={**row.metrics, "dice": row.dice + 0.05}) for row in first]
    interval = comparison.compare_scores(first, better)["dice"]["interval"]
    np.testing.assert_allclose(interval, 0.05)


def test_folders_of_the_same_name_are_shown_with_their_parents():
    assert comparison.short_names(Path("runs/one"), Path("runs/two")) == ("one", "two")
    assert comparison.short_names(Path("/a/fold_1"), Path("/b/fold_1")) == ("a/fold_1", "b/fold_1")


def test_a_row_of_the_table_and_no_row_without_slices():
    table = comparison.comparison_table(comparison.compare_scores(FIRST, SECOND), names=("old", "new"))
    assert table.startswith(
        "|  | old | new | Difference | 95 % interval | Better |\n| --- | --- | --- | --- | --- | --- |\n"
    )
    assert "| dice ↑ | 0.583 | 0.650 | +0.067 | – | – |" in table
    assert "pituitary" not in table


def test_runs_on_other_slices_are_refused():
    with pytest.raises(InputError, match="1 slices, for instance 6, were scored in only one"):
        comparison.compare_scores(FIRST, SECOND[:-1])
    other = [*SECOND[:-1], dataclasses.replace(SECOND[-1], tumour_pixels=11)]
    with pytest.raises(InputError, match="Slice 6 has another patient or another tumour"):
        comparison.compare_scores(FIRST, other)


def test_the_script_compares_two_folders_and_draws(run_script, trained, tmp_path):
    evaluate.evaluate(trained, split="test", output=trained, examples=0)
    finished = run_script("compare", trained, trained, f"--output={tmp_path / 'out'}")
    assert finished.returncode == 0, finished.stderr
    largest = finished.stdout.split("differ most")[1].split("written to")[0].splitlines()[1:]
    assert len(largest) == 8
    assert "| +0.000 | – |" in finished.stdout  # four families are too few for an interval
    files = {"comparison.json", "README.md", "most_different.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == files
    assert Image.open(tmp_path / "out" / "most_different.png").size[0] > 500
    slices = len(read_scores(trained / "per_slice_test.csv"))
    assert f'"slices": {slices},' in (tmp_path / "out" / "comparison.json").read_text()
