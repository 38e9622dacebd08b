"""Timing of programs side by side: in turns, so that whatever slows the machine slows them all."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

# Thread pools go on spinning for a while after their work: what runs next must not pay for it.
PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class Program:
    """One of the programs that are compared.

    Attributes:
      run: does the work once and waits for it.
      slices: slices that `run` works on.
      compile_seconds: from the start of compilation to the end of the first run.
      parameters: trainable parameters of its network.
      memory_bytes: memory that it takes at its peak; None where it cannot be told.
      flops_per_slice: floating-point operations a slice, as XLA counts them; None where it cannot be told.
      bytes_per_slice: bytes that its operations read and write a slice, as XLA counts them; likewise.
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
      seconds: how long each program runs a turn, at least: it is run as often as that takes.

    Returns:
      Units a second, by name.
    """
    times: dict[str, int] = {}
    for name, (run, _) in runs.items():
        run()
        once = _seconds_of(run, 1)
        times[name] = max(1, round(seconds / once))
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, (run, units) in runs.items():
            time.sleep(PAUSE_SECONDS)
            run()  # wakes the program's own threads
            speeds[name].append(units * times[name] / _seconds_of(run, times[name]))
    return {name: Speed(float(np.median(found)), min(found), max(found)) for name, found in speeds.items()}


def _seconds_of(run: Callable[[], None], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        run()
    return time.perf_counter() - start
