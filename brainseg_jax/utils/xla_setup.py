"""Configures a script before it imports JAX: huge pages, the compilation cache, XLA's convolutions on a CPU.

Everything is set by environment variables; values that the user has set are kept. Huge pages need Linux with glibc, and
ending with the parent process needs Linux; on other systems both are skipped.
"""

import ctypes
import os
import platform
import re
import signal
import sys
import warnings
from importlib import metadata
from pathlib import Path

RESTARTED = "BRAINSEG_JAX_RESTARTED"
PARENT = "BRAINSEG_JAX_PARENT"
PR_SET_PDEATHSIG = 1  # of Linux's prctl
HUGE_PAGES = "glibc.malloc.hugetlb=1"
EIGEN_CONVOLUTIONS = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE"
FIRST_RELEASE, LAST_RELEASE = (0, 10), (0, 12)  # of jaxlib, whose XLA has the option above

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


def set_up() -> None:
    """Applies all settings; for scripts only, since huge pages may restart the program.

    The restarted program begins with SIGINT and SIGTERM blocked, since nobody handles them during its imports, and lets
    them through here.
    """
    use_huge_pages()
    folder = compilation_cache()
    if folder:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    # Caches every program that takes at least a tenth of a second to compile.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    # XLA cannot serialize programs with oneDNN (models/compilation.py); the warning helps nobody.
    warnings.filterwarnings("ignore", "Error writing persistent compilation cache entry.*std::bad_alloc")
    use_fast_convolutions()


def end_with_parent() -> None:
    """Ends this program when the process whose id is in `PARENT` ends (Linux only).

    A training that outlives the script that started it would write to the same folder as the next one. Also restores
    the handling of interrupts, which background jobs of a shell ignore.
    """
    if parent := os.environ.pop(PARENT, ""):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        end_with(int(parent))


def end_with(parent: int) -> None:
    """Ends this process when the process of that id, which must be its parent, ends (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)  # the parent has already ended


def use_huge_pages() -> None:
    """Makes glibc allocate pages of 2 MiB (Linux only); restarts this process, since glibc reads the setting at start.

    XLA allocates new memory for every step. With pages of 4 KiB this takes a fifth of a training step on a CPU.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if platform.libc_ver()[0] != "glibc":
        return
    if "glibc.malloc.hugetlb" in tunables or RESTARTED in os.environ:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTS)
        return
    os.environ["GLIBC_TUNABLES"] = f"{tunables}:{HUGE_PAGES}" if tunables else HUGE_PAGES
    os.environ[RESTARTED] = "1"  # avoids a loop if GLIBC_TUNABLES is dropped (setuid)
    sys.stdout.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def compilation_cache() -> Path | None:
    """Returns the folder of the compilation cache, shared by all runs of a user; None if there is no home folder."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "brainseg_jax" / "compiled"
    except RuntimeError:
        return None


def use_fast_convolutions() -> None:
    """Makes XLA compute convolutions on a CPU with Eigen, which uses all cores.

    YNNPACK, jaxlib's default since 0.10, computes narrow convolutions on one core; its faster reductions stay enabled.
    An XLA that does not know the option ends the program, so it is set only for tested versions.
    """
    release = tuple(int(part) for part in re.findall(r"\d+", metadata.version("jaxlib"))[:2])
    if FIRST_RELEASE <= release <= LAST_RELEASE:
        _add_xla_flag(EIGEN_CONVOLUTIONS)


def available_cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _add_xla_flag(flag: str) -> None:
    """Adds an XLA flag unless the user has set it."""
    flags = os.environ.get("XLA_FLAGS", "")
    if flag.split("=")[0] not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()
