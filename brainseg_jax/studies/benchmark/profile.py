"""Profiles a training step on a CPU: how its time divides among operations."""

import collections
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax

from brainseg_jax.studies.benchmark import ours
from brainseg_jax.studies.benchmark.case import Case

LARGEST = 12  # operations that are named
# Kinds of operations by the names that XLA gives them; the first pattern that is found decides.
KINDS = {
    "convolutions": "convolution",
    "matrix products": "matmul|dot",
    "sums": "reduce|ynn",
    "rearrangements": "transpose|copy|concatenate|reverse|pad|wrapped_slice|slice_bitcast",
    "elementwise": "",
}


def profile(case: Case, *, runs: int) -> list[dict[str, Any]]:
    """Measures the operations of a program on all threads of the CPU.

    Args:
      case: network, sizes and dtype.
      runs: how often the program runs.

    Returns:
      A row: `kinds` of operations and the share of the time of each, and the `largest` operations, each with its
      `operation` (XLA's name), `from` (the layer, where XLA keeps it) and `share`.
    """
    program = ours.make_program(case)
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in range(runs):
                program.run()
        [path] = Path(folder).rglob("*.xplane.pb")
        times = _read_times(path)
    layers = dict(re.findall(r'^ *(?:ROOT )?%(\S+) = .*op_name="([^"]*)"', program.text, re.MULTILINE))
    return [{**asdict(case), **summarize(times, layers)}]


def summarize(times: Mapping[str, float], layers: Mapping[str, str]) -> dict[str, Any]:
    """Divides the time of operations among their kinds, and lists the largest.

    Args:
      times: by the operation's name.
      layers: `op_name` by the operation's name; the names of oneDNN's calls have its own name behind that.
    """
    total = sum(times.values())
    kinds = dict.fromkeys(KINDS, 0.0)
    for name, time in times.items():
        kinds[next(kind for kind, pattern in KINDS.items() if re.search(pattern, name))] += time / total
    largest = sorted(times, key=lambda name: -times[name])[:LARGEST]
    rows = [
        {"operation": name, "from": layers.get(name.split("__onednn")[0], ""), "share": times[name] / total}
        for name in largest
    ]
    return {"kinds": kinds, "largest": rows}


def _read_times(path: Path) -> dict[str, float]:
    """Sums the nanoseconds of each operation in a file of JAX's profiler."""
    times: dict[str, float] = collections.defaultdict(float)
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for event in (event for line in plane.lines for event in line.events):
            if name := dict(event.stats).get("hlo_op"):
                times[name] += event.duration_ns
    return times
