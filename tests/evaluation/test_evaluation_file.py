"""An evaluation is read as it was written, and what is damaged is named."""

import copy
import json

import pytest

from brainseg_jax.errors import InputError
from brainseg_jax.evaluation.evaluation_file import read_evaluation
from tests.conftest import REPOSITORY

PATHS = sorted((REPOSITORY / "docs" / "results").glob("*/evaluation_*.json"))
WHOLE = json.loads((REPOSITORY / "docs/results/unet_128_family/evaluation_test.json").read_text())


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.parent.name)
def test_all_results_can_be_read(path):
    assert read_evaluation(path) == json.loads(path.read_text())


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        ("dice", "high", "dice is 'high', not a number"),
        ("dice", ..., "it lacks dice"),
        ("by_class.glioma.slices", 1.5, "by_class.glioma.slices is 1.5, not a whole number"),
        ("by_class.other", WHOLE["by_class"]["glioma"], "intervals.by_class.other is missing"),
        ("by_class", {}, "by_class.meningioma is missing"),
        ("intervals.recall", ..., "intervals.recall is missing"),
        ("intervals.dice", [0.5], "intervals.dice has 1 values, not 2"),
        ("calibration.tumour_share", [], "calibration.tumour_share has 0 values, not 20"),
        ("min_component_fraction", ..., "min_component_fraction is missing"),
        ("threshold", ..., "threshold is missing"),
        ("false_alarm_share", 0.5, "intervals.false_alarm_share is missing"),
        (
            "calibration.mean_probability",
            [None] * 20,
            "calibration.mean_probability of a bin, or its tumour_share, is missing",
        ),
        ("trained_with", [], "trained_with is no object"),
    ],
)
def test_damage_is_named(tmp_path, place, value, problem):
    evaluation = copy.deepcopy(WHOLE)
    *parents, name = place.split(".")
    inner = evaluation
    for parent in parents:
        inner = inner[parent]
    if value is ...:
        del inner[name]
    else:
        inner[name] = value
    path = tmp_path / "evaluation_test.json"
    path.write_text(json.dumps(evaluation))
    with pytest.raises(InputError) as raised:
        read_evaluation(path)
    assert f"evaluation_test.json is damaged ({problem}): " in str(raised.value)
