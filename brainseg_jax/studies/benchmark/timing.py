"""Times programs in turns, so that whatever slows the machine slows them all."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

# Thread pools keep spinning for a while after their work, which must not slow the next program.
PAUSE_SECONDS = 0.2
Key = TypeVar("Key")


@dataclass(frozen=True)
class Program:
    """A program to time.

    Attributes:
      run: does the work once and waits for it.
      units: units of work of a run: slices, bytes or operations.
      compile_seconds: from the start of compilation to the end of the first run.
      memory_bytes: its peak memory; None if unknown.
      parameters: trainable parameters of its network.
      flops_per_slice: floating-point operations per slice, as XLA counts them; 0 if unknown.
      bytes_per_slice: bytes that its operations read and write per slice, as XLA counts them; 0 if unknown.
      text: its HLO; empty if unknown.
    """

    run: Callable[[], object]
    units: int
    compile_seconds: float = 0.0
    memory_bytes: int | None = None
    parameters: int = 0
    flops_per_slice: float = 0.0
    bytes_per_slice: float = 0.0
    text: str = ""


@dataclass(frozen=True)
class Speed:
    """Units of work per second over several turns: the median and the spread."""

    median: float
    lowest: float
    highest: float


def measure_in_turns(programs: Mapping[Key, Program], *, repeats: int, seconds: float) -> dict[Key, Speed]:
    """Times programs in turns.

    Args:
      programs: by name.
      repeats: turns.
      seconds: minimum duration of each program per turn, for which it is repeated.

    Returns:
      Units per second, by name.
    """
    times: dict[Key, int] = {}
    for name, program in programs.items():
        program.run()
        times[name] = max(1, round(seconds / _measure_seconds(program, 1)))
    speeds: dict[Key, list[float]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, program in programs.items():
            time.sleep(PAUSE_SECONDS)
            program.run()  # wakes its threads
            speeds[name].append(program.units * times[name] / _measure_seconds(program, times[name]))
    return {name: Speed(float(np.median(values)), min(values), max(values)) for name, values in speeds.items()}


def _measure_seconds(program: Program, times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        program.run()
    return time.perf_counter() - start
