"""Scores, their summary and their file, compared with values derived by hand."""

import dataclasses
import math

import numpy as np
import pytest

from brainseg_jax.data.dataset import Sample
from brainseg_jax.data.dataset_info import LABELS
from brainseg_jax.errors import InputError
from brainseg_jax.evaluation.scores import SliceScore, read_scores, score_slice, write_scores
from brainseg_jax.evaluation.summary import describe, pooled_dice, summarize
from brainseg_jax.metrics.bootstrap import bootstrap_mean
from brainseg_jax.metrics.slice_metrics import METRICS


def score(label, dice, *, patient_id="1", slice_id=1, **changes):
    metrics = {"dice": dice, "iou": dice / (2 - dice), "precision": dice, "recall": dice}
    metrics |= {"hd95_mm": 5.0, "assd_mm": 2.0, "nsd_2mm": 0.5}
    metrics |= {name: changes.pop(name) for name in metrics.keys() & changes.keys()}
    row = SliceScore(
        slice_id=slice_id,
        patient_id=patient_id,
        family=patient_id[:8],
        label=label,
        image_pixels=1000,
        tumour_pixels=10,
        predicted_pixels=10,
        metrics=metrics,
    )
    return dataclasses.replace(row, **changes)


def test_a_row_equals_values_derived_by_hand():
    predicted, true = np.zeros((2, 20, 20), bool)
    true[5:9, 5:9] = True  # 16 pixels
    predicted[5:9, 5:7] = True  # half of them
    row = score_slice(
        Sample(7, true, true.astype(np.uint8), 0.5),
        predicted,
        patient_id="MR000001B",
        family="MR000001",
        label="glioma",
    )
    assert (row.slice_id, row.patient_id, row.family, row.label) == (7, "MR000001B", "MR000001", "glioma")
    assert (row.image_pixels, row.tumour_pixels, row.predicted_pixels) == (400, 16, 8)
    names = ("dice", "iou", "precision", "recall")
    assert [row.metrics[name] for name in names] == pytest.approx([2 / 3, 0.5, 1.0, 0.5])
    # All 8 predicted pixels and 12 of the true ones are outline; the true right side is 2 pixels of 0.5 mm away.
    assert row.metrics["hd95_mm"] == pytest.approx(1.0)
    assert row.metrics["nsd_2mm"] == 1.0
    assert row.size == "over 2 %"


def test_pooled_dice_is_the_dice_of_all_pixels_together():
    generator = np.random.default_rng(0)
    true, predicted = generator.random((2, 5, 20, 20)) < np.linspace(0.02, 0.5, 5)[:, None, None]
    rows = [
        score_slice(Sample(1, mask, mask.astype(np.uint8), 0.5), guess, patient_id="1", family="1", label="glioma")
        for mask, guess in zip(true, predicted, strict=True)
    ]
    pooled = 2 * (true & predicted).sum() / (true.sum() + predicted.sum())
    assert pooled_dice(rows) == pytest.approx(pooled, abs=1e-12)
    assert pooled > np.mean([row.dice for row in rows]) + 0.05  # large ones are the better ones here
    missed = score("glioma", 0.0, tumour_pixels=30, predicted_pixels=0)
    found = score("glioma", 0.5, tumour_pixels=40, predicted_pixels=40)
    assert pooled_dice([missed, found]) == pytest.approx(2 * 20 / 110)


def test_the_summary_equals_values_derived_by_hand():
    rows = [
        score("glioma", 0.0, patient_id="MR000001", hd95_mm=20.0),
        score("glioma", 0.5, patient_id="MR000001B", hd95_mm=math.nan, assd_mm=math.nan, nsd_2mm=math.nan),
        score("meningioma", 1.0, patient_id="7", hd95_mm=0.0, tumour_pixels=3),
        score("meningioma", 0.9, patient_id="7", hd95_mm=1.0, tumour_pixels=4),
    ]
    found = summarize(rows, classes=LABELS)
    assert (found["slices"], found["patients"], found["families"]) == (4, 3, 2)
    assert found["dice"] == pytest.approx(0.6)
    assert found["dice_median"] == pytest.approx(0.7)
    assert found["dice_patient_mean"] == pytest.approx((0.0 + 0.5 + 0.95) / 3)
    assert found["iou"] == pytest.approx((0 + 1 / 3 + 1 + 0.9 / 1.1) / 4)
    assert found["hd95_mm"] == pytest.approx(7.0)  # mean of the three slices whose spacing is known
    assert found["dice_by_class"] == {
        "meningioma": pytest.approx(0.95),
        "glioma": pytest.approx(0.25),
        "pituitary": None,
    }
    assert found["share_missed"] == 0.25
    assert found["by_class"]["glioma"] == {
        "slices": 2,
        "families": 1,
        "dice": pytest.approx(0.25),
        "dice_median": pytest.approx(0.25),
        "share_missed": 0.5,
    }
    assert [group["slices"] for group in found["by_size"].values()] == [2, 0, 2, 0]


def test_slices_without_tumour_have_no_metrics_and_count_as_false_alarms():
    empty = np.zeros((20, 20), bool)
    marked = empty.copy()
    marked[0, :3] = True
    sample = Sample(7, empty, empty.astype(np.uint8), 0.5)
    options = {"family": "9", "label": "glioma"}
    quiet, alarm = (
        score_slice(sample, mask, patient_id=name, **options) for mask, name in ((empty, "8"), (marked, "9"))
    )
    assert all(math.isnan(value) for row in (quiet, alarm) for value in row.metrics.values())
    assert (quiet.size, quiet.predicted_pixels, alarm.predicted_pixels) == ("none", 0, 3)
    rows = [score("glioma", 0.0), score("glioma", 0.8, patient_id="2"), quiet, alarm, alarm]
    found = summarize(rows, classes=LABELS)
    plain = summarize(rows[:2], classes=LABELS)
    for name in (*METRICS, "dice_median", "dice_patient_mean", "share_missed", "by_size"):
        assert found[name] == plain[name]
    assert found["by_class"] == plain["by_class"]
    assert (found["slices"], found["slices_without_tumour"], found["false_positive_pixels"]) == (5, 3, 2.0)
    assert found["false_alarm_share"] == pytest.approx(2 / 3)
    assert "false_alarm_share" not in plain
    assert pooled_dice(rows) == pytest.approx(2 * 8 / (20 + 20 + 3 + 3))  # 8 of 10 pixels shared
    only = summarize([quiet, alarm], classes=LABELS) | {"protocol": "family"}
    assert only["dice"] is only["dice_median"] is only["dice_patient_mean"] is only["share_missed"] is None
    assert describe(only).startswith("no tumour on 2 slices of 1 families, false alarms in 50.0% of the 2 without")


def test_intervals_are_those_of_the_bootstrap_over_families():
    rng = np.random.default_rng(0)
    rows = [score("glioma", dice, patient_id=str(index % 9)) for index, dice in enumerate(rng.random(40))]
    intervals = summarize(rows, classes=LABELS)["intervals"]
    dice = np.array([row.dice for row in rows])
    families = [row.family for row in rows]
    assert intervals["dice"] == pytest.approx(bootstrap_mean(dice, families))
    assert intervals["by_class"]["glioma"]["dice"] == intervals["dice"]
    assert intervals["by_class"]["pituitary"]["dice"] is None
    low, high = intervals["dice"]
    assert low < dice.mean() < high
    assert summarize(rows[:1], classes=LABELS)["intervals"]["dice"] is None  # one family is too few for an interval


def test_rows_are_read_back_as_they_were_written(tmp_path):
    rows = [score("glioma", 1 / 3, slice_id=5), score("pituitary", 0.1, hd95_mm=math.inf)]
    write_scores(tmp_path / "rows.csv", rows)
    assert read_scores(tmp_path / "rows.csv") == rows
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_a_new_metric_is_one_entry_and_older_files_can_still_be_read(tmp_path, monkeypatch):
    write_scores(tmp_path / "old.csv", [score("glioma", 0.5)])
    monkeypatch.setitem(METRICS, "pixels_too_many", lambda pair: float((pair.predicted & ~pair.true).sum()))
    (old,) = read_scores(tmp_path / "old.csv")
    assert math.isnan(old.metrics["pixels_too_many"])
    true = np.zeros((20, 20), bool)
    true[5:9, 5:9] = True
    record = Sample(7, true, true.astype(np.uint8), 0.5)
    row = score_slice(record, np.roll(true, 1, axis=0), patient_id="1", family="1", label="glioma")
    write_scores(tmp_path / "new.csv", [row])
    assert read_scores(tmp_path / "new.csv")[0].metrics["pixels_too_many"] == 4.0
    assert summarize([row, row], classes=LABELS)["pixels_too_many"] == 4.0
    assert summarize([row, old], classes=LABELS)["pixels_too_many"] == 4.0  # the mean over the slices that have it


def test_missing_and_damaged_files_are_refused(tmp_path):
    path = tmp_path / "rows.csv"
    with pytest.raises(InputError, match=r"rows\.csv is missing: score the run with scripts/evaluate\.py first"):
        read_scores(path)
    write_scores(path, [score("glioma", 0.5)])
    text = path.read_text()
    path.write_text(text.replace("tumour_pixels", "pixels"))
    with pytest.raises(InputError, match=r"rows\.csv has no column 'tumour_pixels': score the run again"):
        read_scores(path)
    head, row = text.splitlines()
    for damaged in (
        text.replace("0.5", "half"),
        text.replace("0.5", "1.5"),  # no Dice
        text.replace("0.5", "nan"),  # of a slice with a tumour
        text.replace(",1000,", ",0,"),
        text.replace(",1000,", ",5,"),  # fewer pixels than the tumour has
        text.replace("glioma", ""),
        f"{head}\n{row[:9]}\n",
        f"{head}\n{row}{'0' * 200_000}\n",  # beyond the limit of csv
        f'{head}\n{row}"\n{row}\n',
        f"{text}\xff",
    ):
        path.write_bytes(damaged.encode("latin-1"))
        with pytest.raises(InputError, match=r"rows\.csv is damaged .*: score the run again") as raised:
            read_scores(path)
        assert len(str(raised.value)) < 600
        assert "\n" not in str(raised.value)
    path.write_text(f"{text}{row}\n")
    with pytest.raises(InputError, match=r"rows\.csv has slice 1 twice"):
        read_scores(path)
    path.write_text(f"{head}\n")
    with pytest.raises(InputError, match=r"rows\.csv has no row"):
        read_scores(path)
