"""What does not fit a shape is named with its place."""

import pytest

from brainseg_jax.utils.json_shape import find_misfit

SHAPE = {"name": str, "dice": (float, None), "ends": ([float, float], None), "ids": [int], "more?": {str: bool}}
GOOD = {"name": "a", "dice": 1, "ends": [0.5, 1], "ids": [1, 2], "more": {"x": True}, "unknown": object()}


@pytest.mark.parametrize(
    ("changes", "misfit"),
    [
        ({}, ""),
        ({"dice": None, "ends": None, "ids": [], "more": {}}, ""),
        ({"dice": "1"}, "dice is '1', not a number"),
        ({"dice": True}, "dice is True, not a number"),
        ({"name": 5}, "name is 5, not text"),
        ({"name": {"long": 50 * "x"}}, "name is {'long': 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx, not text"),
        ({"ends": [1.0]}, "ends has 1 values, not 2"),
        ({"ends": [1.0, "2"]}, "ends[1] is '2', not a number"),
        ({"ids": [1, 2.0]}, "ids[1] is 2.0, not a whole number"),
        ({"ids": {}}, "ids is no list"),
        ({"more": {"x": True, "y": 0}}, "more.y is 0, not true or false"),
        ({"more": []}, "more is no object"),
    ],
)
def test_misfits_are_named(changes, misfit):
    assert find_misfit({**GOOD, **changes}, SHAPE) == misfit


def test_what_is_missing_is_named():
    assert find_misfit({"name": "a"}, SHAPE) == "it lacks dice"
    assert find_misfit({name: value for name, value in GOOD.items() if name != "more"}, SHAPE) == ""
    assert find_misfit([GOOD, {}], [SHAPE]) == "[1] lacks name"
    assert find_misfit([], SHAPE) == "it is no object"
