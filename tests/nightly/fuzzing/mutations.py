"""Damages bytes and JSON values at random."""

import copy
import json
import struct
from typing import Any

from numpy.random import Generator

# What a field of a header, read as a number, may hold at worst.
EXTREMES = (
    0,
    1,
    2,
    -1,
    127,
    128,
    255,
    2**15 - 1,
    2**15,
    2**16 - 1,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**63,
)
HEADER = 512  # bytes in which most formats have their header
DEEP = 3000  # levels of nested lists, beyond Python's limit of recursion


def damage_bytes(rng: Generator, data: bytes, *, most: int = 4) -> bytes:
    """Changes a file in one to `most` places: flips, extremes, and blocks cut, zeroed, inserted, doubled, swapped."""
    for _ in range(rng.integers(1, most + 1)):
        place, end = _block(rng, len(data))
        block = data[place:end]
        match rng.integers(8):
            case 0 | 1:
                changed = bytes(byte ^ (1 << int(rng.integers(8))) for byte in block[:1]) + block[1:]
            case 2 | 3:
                changed = extreme(rng, int(rng.choice([1, 2, 4, 8])))
                end = place + len(changed)
            case 4:
                changed = bytes(len(block))
            case 5:
                changed = block * int(rng.integers(0, 4))
            case 6:
                changed = rng.bytes(int(rng.integers(1, 65)))
            case _:
                if rng.random() < 0.5:
                    data = data[:place]
                other, _ = _block(rng, len(data))
                changed = data[other : other + len(block)]
        data = data[:place] + changed + data[end:]
    return data


def extreme(rng: Generator, size: int, *, order: str = "") -> bytes:
    """Returns one of `EXTREMES` in `size` bytes, in the order "<" or ">", or in any."""
    value = int(rng.choice(len(EXTREMES)))
    bits = (EXTREMES[value] % 2 ** (8 * size)).to_bytes(size, "little")
    return bits if (order or rng.choice(["<", ">"])) == "<" else bits[::-1]


def set_field(rng: Generator, data: bytes, fields: list[tuple[int, str]]) -> bytes:
    """Sets one of the fields of a header, (offset, struct format), to an extreme number."""
    offset, form = fields[int(rng.integers(len(fields)))]
    if form[-1] in "fd":
        value = float(rng.choice([0.0, -1.0, float("nan"), float("inf"), 1e38, 1e-38]))
        changed = struct.pack(form, value)
    else:
        changed = extreme(rng, struct.calcsize(form), order=form[0])
    return data[:offset] + changed + data[offset + len(changed) :]


def strange_value(rng: Generator) -> Any:
    """Returns a value that a file of ours does not have at most places, or none of ours has."""
    values = (
        *(
            None,
            True,
            False,
            0,
            1,
            -1,
            0.5,
            -0.5,
            1e308,
            float("nan"),
            float("inf"),
            -float("inf"),
            2**31,
            2**63,
            -(2**63),
        ),
        *(
            10**400,
            "",
            " ",
            "٣",
            "1e5",
            "nan",
            "true",
            "x" * 5000,
            "\0",
            "\ud800",
            "../..",
            "<b>",
            [],
            {},
            [[]],
            [1],
            ["1"],
        ),
        *({"a": 1}, {"": {}}, [None], [float("nan")] * 2),
    )
    return copy.deepcopy(values[int(rng.integers(len(values)))])


def damage_json(rng: Generator, value: Any) -> bytes:
    """Changes one or two places of a JSON value, or its text: other types, lost, renamed, doubled or swapped keys."""
    value = copy.deepcopy(value)
    for _ in range(rng.integers(1, 3)):
        value = _change(rng, value)
    text = json.dumps(value).encode("utf-8", "surrogatepass")
    match rng.integers(12):
        case 0:
            return damage_bytes(rng, text, most=1)
        case 1:
            name = json.dumps(next(iter(value), "")) if isinstance(value, dict) else '""'
            return (
                text[:-1] + f", {name}: {json.dumps(strange_value(rng))}".encode("utf-8", "surrogatepass") + text[-1:]
            )
        case 2:
            deep = b"[" * DEEP + b"]" * DEEP if rng.random() < 0.5 else b"9" * 5000
            return text.replace(b"1", deep, 1)
    return text


def _change(rng: Generator, value: Any) -> Any:
    """Replaces a random place of a nested value."""
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.1:
        return strange_value(rng)
    keys = [*value] if isinstance(value, dict) else [*range(len(value))]
    key, other = (keys[int(rng.integers(len(keys)))] for _ in range(2))
    choice = rng.random()
    if isinstance(value[key], (dict, list)) and value[key] and choice < 0.7:
        value[key] = _change(rng, value[key])
    elif choice < 0.8:
        value[key] = strange_value(rng)
    elif choice < 0.87:
        del value[key]
    elif choice < 0.93:
        value[key], value[other] = value[other], value[key]
    elif isinstance(value, dict):
        value[str(strange_value(rng))[:50]] = value.pop(key)
    else:
        value.append(value[key])
    return value


def _block(rng: Generator, length: int) -> tuple[int, int]:
    """Returns the ends of a block, half of the time in the header, of 1 byte to a few hundred."""
    top = min(length, HEADER) if rng.random() < 0.5 else length
    place = int(rng.integers(max(top, 1)))
    return place, min(length, place + int(2 ** rng.uniform(0, 9)))
