"""Says where a JSON value differs from the shape that our files have.

A shape is written as the value looks: a type (`float` takes whole numbers too, `None` is null), a tuple of
alternatives, `[shape]` for a list of any length, `[shape, shape]` for a list of that length, a dict for an object,
where the key `str` stands for all other keys and a key that ends in "?" may be missing. Further keys are allowed.
"""

from typing import Any

_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false", None: "null"}


def find_misfit(value: Any, shape: Any, place: str = "") -> str:
    """Returns what does not fit, for instance "intervals.dice is 'x', not a list"; "" where all fits."""
    where = place or "it"
    if isinstance(shape, tuple):
        misfits = [find_misfit(value, one, place) for one in shape]
        return "" if "" in misfits else misfits[0]
    if isinstance(shape, dict):
        return _misfit_of_object(value, shape, place) if isinstance(value, dict) else f"{where} is no object"
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{where} is no list"
        if len(shape) > 1 and len(value) != len(shape):
            return f"{where} has {len(value)} values, not {len(shape)}"
        shapes = shape if len(shape) > 1 else shape * len(value)
        misfits = [
            find_misfit(one, of_one, f"{place}[{row}]")
            for row, (one, of_one) in enumerate(zip(value, shapes, strict=True))
        ]
        return next(filter(None, misfits), "")
    fits = value is None if shape is None else type(value) is shape or (shape is float and type(value) is int)
    return "" if fits else f"{where} is {repr(value)[:40]}, not {_NAMES[shape]}"


def _misfit_of_object(value: dict[str, Any], shape: dict[Any, Any], place: str) -> str:
    named = {name.removesuffix("?"): of_one for name, of_one in shape.items() if name is not str}
    if missing := [name for name in shape if name is not str and not name.endswith("?") and name not in value]:
        return f"{place or 'it'} lacks {missing[0]}"
    inner = f"{place}." if place else ""
    shapes = named | {name: shape[str] for name in value if str in shape and name not in named}
    misfits = (find_misfit(value[name], shapes[name], f"{inner}{name}") for name in value if name in shapes)
    return next(filter(None, misfits), "")
