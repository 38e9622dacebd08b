"""Compares our speed with PyTorch's on this machine: `python scripts/benchmark.py` (needs the extra `bench`)."""

import math
import os
from pathlib import Path

from absl import flags

from brainseg_jax import cli
from brainseg_jax.errors import InputError

OUTPUT = flags.DEFINE_string("output", None, "Folder for the results; docs/results/benchmark_<device> if not given.")
MINUTES = flags.DEFINE_float(
    "minutes", 0.0, "Time limit; the least important measurements are left out for it; 0: no limit."
)
TINY = flags.DEFINE_bool("tiny", False, "A miniature that takes a minute, to test that everything runs.")
REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> None:
    """Measures, prints a line per case, and writes benchmark.json, README.md and benchmark.png."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs the GPU's memory as well
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise InputError(
            "PyTorch, which the benchmark measures against, is missing: .venv/bin/pip install -e '.[bench]'."
        ) from error
    import jax

    from brainseg_jax.studies.benchmark import case, report, run
    from brainseg_jax.studies.results.save import device_folder

    plan = case.PLANS["tiny" if TINY.value else "gpu" if jax.default_backend() == "gpu" else "cpu"]
    default = device_folder(REPOSITORY / "docs" / "results", "benchmark", jax.devices()[0].device_kind)
    folder = Path(OUTPUT.value or default)
    run.run_benchmark(
        plan,
        log=lambda line: print(line, flush=True),
        save=lambda content: report.write_report(content, folder),
        seconds=MINUTES.value * 60 or math.inf,
    )
    print(f"written to {folder}")


if __name__ == "__main__":
    cli.run(main)
