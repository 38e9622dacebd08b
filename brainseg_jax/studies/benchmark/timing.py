"""Times programs in turns, so that whatever slows the machine slows them all."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

# Thread pools keep spinning for a while after their work, which must not slow the next program.
PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class Program:
    """A program to compare.

    Attributes:
      run: does the work once and waits for it.
      slices: slices that `run` works on.
      compile_seconds: from the start of compilation to the end of the first run.
      parameters: trainable parameters of its network.
      memory_bytes: its peak memory; None if unknown.
      flops_per_slice: floating-point operations a slice, as XLA counts them; None if unknown.
      bytes_per_slice: bytes that its operations read and write a slice, as XLA counts them; None if unknown.
    """

    run: Callable[[], None]
    slices: int
    compile_seconds: float
    parameters: int
    memory_bytes: int | None = None
    flops_per_slice: float | None = None
    bytes_per_slice: float | None = None


@dataclass(frozen=True)
class Speed:
    """Slices a second over several repeats: the median and the spread."""

    median: float
    lowest: float
    highest: float


def measure_in_turns(
    runs: Mapping[str, tuple[Callable[[], None], int]], *, repeats: int, seconds: float
) -> dict[str, Speed]:
    """Times programs in turns.

    Args:
      runs: by name, what to run and how many units of work (slices, bytes, operations) a run does.
      repeats: turns.
      seconds: minimum duration of each program a turn, for which it is repeated.

    Returns:
      Units a second, by name.
    """
    times: dict[str, int] = {}
    for name, (run, _) in runs.items():
        run()
        times[name] = max(1, round(seconds / _measure_seconds(run, 1)))
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, (run, units) in runs.items():
            time.sleep(PAUSE_SECONDS)
            run()  # wakes the program's threads
            speeds[name].append(units * times[name] / _measure_seconds(run, times[name]))
    return {name: Speed(float(np.median(values)), min(values), max(values)) for name, values in speeds.items()}


def _measure_seconds(run: Callable[[], None], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        run()
    return time.perf_counter() - start
