"""Parses the text of a compiled XLA program: its computations, their instructions and the shapes of their arrays."""

import functools
import math
import re
from typing import NamedTuple

# Bytes of a value; a value of another dtype, for instance a token, is not an array.
_WIDTHS = {1: "pred s8 u8", 2: "s16 u16 bf16 f16", 4: "s32 u32 f32", 8: "s64 u64 f64"}
BYTES = {dtype: width for width, dtypes in _WIDTHS.items() for dtype in dtypes.split()}
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([\d,]*)[^}]*\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%([\w.\-]+) = ")
_COMPUTATION = re.compile(r"(ENTRY )?%([\w.\-]+) \(.*\{$")
_CALLED = re.compile(r"(?:calls|to_apply|body)=%([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


class Shape(NamedTuple):
    """An array's dtype, in XLA's words ("bf16"), its sides, and its axes from the fastest in memory to the slowest."""

    dtype: str
    sides: tuple[int, ...]
    layout: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.sides)

    @property
    def nbytes(self) -> int:
        """Bytes; 0 for tokens and other things that are no arrays."""
        return self.size * BYTES.get(self.dtype, 0)


class Instruction(NamedTuple):
    """A line of a computation.

    Attributes:
      name: its name within the program.
      opcode: "fusion", "custom-call", "copy", ….
      shapes: its results; several if it gives a tuple.
      operands: names of the instructions whose results it takes.
      text: what follows the operands.
      is_root: whether the computation gives its result.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    text: str
    is_root: bool

    @property
    def called(self) -> str | None:
        """Name of the computation that it runs: a fusion's kernel, a loop's body."""
        found = _CALLED.search(self.text)
        return found[1] if found else None

    @property
    def target(self) -> str:
        """What a custom call calls, "" for others."""
        found = re.search(r'custom_call_target="([^"]*)"', self.text)
        return found[1] if found else ""

    @property
    def trips(self) -> int:
        """How often a loop runs its body; 1 if XLA does not know."""
        found = _TRIPS.search(self.text)
        return int(found[1]) if found else 1

    @property
    def op_name(self) -> str:
        """The operation of the network and of JAX that it was made from; "" if XLA does not say."""
        found = re.search(r'op_name="([^"]*)"', self.text)
        return found[1] if found else ""


class Computation(NamedTuple):
    """A function of the program: instructions by name, in the order in which they run."""

    name: str
    instructions: dict[str, Instruction]

    @property
    def root(self) -> Instruction:
        """The instruction that gives the result."""
        return next(instruction for instruction in self.instructions.values() if instruction.is_root)


class Module(NamedTuple):
    """A program: its computations by name and the name of the one that starts."""

    computations: dict[str, Computation]
    entry: str


def parse(text: str) -> Module:
    """Parses what `compiled.as_text()` gives.

    Raises:
      ValueError: the text has no entry computation.
    """
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            current = computations.setdefault(header[2], Computation(header[2], {}))
            entry = header[2] if header[1] else entry
        elif current is not None and (start := _INSTRUCTION.match(line)):
            instruction = _parse_instruction(start[2], line[start.end() :], is_root=bool(start[1]))
            current.instructions[instruction.name] = instruction
    if not entry:
        raise ValueError("The text is no HLO module: it has no ENTRY computation.")
    return Module(computations, entry)


def _parse_instruction(name: str, line: str, *, is_root: bool) -> Instruction:
    """Parses "SHAPE opcode(operands), attributes"; the shape is in brackets if it is a tuple."""
    end = _closing(line, 0) if line.startswith("(") else line.index(" ")
    opcode, _, _ = line[end:].strip().partition("(")
    first = line.index("(", end)
    last = _closing(line, first)
    return Instruction(
        name, opcode, parse_shapes(line[:end]), tuple(_NAME.findall(line[first:last])), line[last:], is_root
    )


@functools.lru_cache(maxsize=4096)
def parse_shapes(text: str) -> tuple[Shape, ...]:
    """Parses "bf16[8,4]{1,0}" or a tuple of such."""
    return tuple(
        Shape(dtype, *(tuple(int(side) for side in sides.split(",") if side) for sides in (dimensions, layout or "")))
        for dtype, dimensions, layout in _ARRAY.findall(re.sub(r"/\*.*?\*/", "", text))
    )


def _closing(text: str, first: int) -> int:
    """Returns the position after the bracket that closes the one at `first`."""
    depth = 0
    for place in range(first, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if not depth:
            return place + 1
    raise ValueError(f"A bracket is not closed: {text[first : first + 80]}")
