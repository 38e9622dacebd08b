"""What a script settles before JAX is imported: memory pages, compiled programs, a CPU's convolutions.

All of it is said in environment variables, so that a value which the user set is kept.
"""

import ctypes
import os
import platform
import re
import signal
import sys
from importlib import metadata
from pathlib import Path

RESTARTED = "BRAINSEG_JAX_RESTARTED"
PARENT = "BRAINSEG_JAX_PARENT"
PR_SET_PDEATHSIG = 1  # of Linux's prctl
HUGE_PAGES = "glibc.malloc.hugetlb=1"
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
EIGEN_CONVOLUTIONS = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE"
FIRST_RELEASE, LAST_RELEASE = (0, 10), (0, 12)  # of jaxlib, whose XLA has the option above


def set_up() -> None:
    """Settles all three; starts the program again where that is what huge pages need: for scripts only."""
    use_huge_pages()
    folder = compilation_cache()
    if folder:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    # A tenth of a second of compilation saved is worth a file.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    use_fast_convolutions()


def end_with_parent() -> None:
    """Has Linux kill this program when the one that started it and named itself in `PARENT` is gone.

    A training that outlived it would write where the next one does. An interrupt is heard again, too, which the
    background jobs of a shell ignore.
    """
    parent = os.environ.pop(PARENT, "")
    if not parent:
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit(1)  # it was gone before


def use_huge_pages() -> None:
    """Has glibc ask for pages of 2 MiB, which only a new process can be told: replaces this one where needed.

    XLA takes the memory of a step anew each time; in pages of 4 KiB the kernel spends a fifth of a training step on a
    CPU handing them out.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if platform.libc_ver()[0] != "glibc" or "glibc.malloc.hugetlb" in tunables or RESTARTED in os.environ:
        return
    os.environ["GLIBC_TUNABLES"] = f"{tunables}:{HUGE_PAGES}" if tunables else HUGE_PAGES
    os.environ[RESTARTED] = "1"  # a program with more rights than its user loses GLIBC_TUNABLES: once is enough
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def compilation_cache() -> Path | None:
    """Folder of the programs that XLA compiled, shared by all runs of this user; None where the user has no home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "brainseg_jax" / "compiled"
    except RuntimeError:
        return None


def use_fast_convolutions() -> None:
    """Has XLA compute a CPU's convolutions with Eigen, which gives them to all cores.

    YNNPACK, jaxlib's choice since 0.10, leaves narrow convolutions on one; its sums are the faster ones and stay. An
    XLA that does not know the option would end the program, so that it is set for the versions it was tried with.
    """
    release = tuple(int(part) for part in re.findall(r"\d+", metadata.version("jaxlib"))[:2])
    if FIRST_RELEASE <= release <= LAST_RELEASE:
        _add_xla_flag(EIGEN_CONVOLUTIONS)


def use_deterministic_operations() -> None:
    """Has XLA choose kernels on a GPU that give the same bits every time, some of which are slower."""
    _add_xla_flag(DETERMINISTIC)


def available_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _add_xla_flag(flag: str) -> None:
    """Adds an option of XLA's, unless the user set it."""
    flags = os.environ.get("XLA_FLAGS", "")
    if flag.split("=")[0] not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()
