"""The examples that are drawn: one slice of a family, and among equal Dice the larger tumour first."""

from brainseg_jax.evaluation.examples import choose_examples
from tests.evaluation.test_scores import score


def test_groups_show_a_patient_once_and_large_missed_tumours_first():
    rows = [
        score("glioma", 0.0, slice_id=1, patient_id="1", tumour_pixels=5),
        score("glioma", 0.0, slice_id=2, patient_id="2", tumour_pixels=50),
        score("glioma", 0.0, slice_id=3, patient_id="2", tumour_pixels=40),
        score("glioma", 0.0, slice_id=4, patient_id="3", tumour_pixels=20),
        score("meningioma", 0.6, slice_id=5, patient_id="4"),
        score("meningioma", 0.9, slice_id=6, patient_id="5", tumour_pixels=10),
        score("meningioma", 0.9, slice_id=7, patient_id="5", tumour_pixels=30),
        score("pituitary", 0.8, slice_id=8, patient_id="4"),
        score("pituitary", 0.7, slice_id=9, patient_id="6"),
    ]
    groups = {name: [row.slice_id for row in group] for name, group in choose_examples(rows, count=3).items()}
    assert groups["worst"] == [2, 4, 1]
    assert groups["best"] == [7, 8, 9]
    assert groups["median"] == [5, 9, 7]  # the median is 0.6


def test_slices_without_tumour_are_not_shown():
    without = score("glioma", float("nan"), tumour_pixels=0, patient_id="1")
    assert choose_examples([without], count=2) == {}
    groups = choose_examples([without, score("glioma", 0.5, slice_id=2, patient_id="2")], count=2)
    assert [[row.slice_id for row in group] for group in groups.values()] == [[2]] * 3


def test_groups_are_as_small_as_there_are_families():
    groups = choose_examples(
        [score("glioma", 0.5, patient_id="MR000001"), score("glioma", 0.4, patient_id="MR000001B")], count=4
    )
    assert [len(group) for group in groups.values()] == [1, 1, 1]
