"""Describes what a result was computed with: commit, versions, machine."""

import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


def describe_environment(*, devices: int) -> dict[str, object]:
    """Describes the code, the libraries and the machine of this process.

    Args:
      devices: number of devices used.

    Returns:
      `command`; `commit`, the value of the environment variable BRAINSEG_JAX_COMMIT, for files that were copied from
      their checkout; without it that of the checkout, with "+changes" if tracked files differ, or None outside of one;
      `versions` by package, `python`, `device` (JAX's name), `devices`, `cores` and `xla_flags`, the environment
      variable, which can change speed and the last bits.
    """
    device = jax.devices()[0]
    return {
        "command": shlex.join(["python", str(Path("scripts", Path(sys.argv[0]).name)), *sys.argv[1:]]),
        "commit": _commit(),
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "device": device.device_kind,
        "devices": devices,
        "cores": os.cpu_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def _commit() -> str | None:
    if told := os.environ.get("BRAINSEG_JAX_COMMIT"):
        return told
    folder = Path(__file__).resolve().parents[2]
    try:
        # An installed package may lie in a virtual environment inside another checkout, whose commit is not ours.
        if Path(_git(folder, "rev-parse", "--show-toplevel")).resolve() != folder:
            return None
        commit = _git(folder, "rev-parse", "HEAD")
        changes = _git(
            folder, "status", "--porcelain", "--untracked-files=no", "--", "brainseg_jax", "configs", "scripts"
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+changes" if changes else "")


def _git(folder: Path, *arguments: str) -> str:
    result = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return result.stdout.strip()
