"""What a program settles before JAX is imported: memory pages, compiled programs, and the CPU's devices.

All of it is said in environment variables, so that a value which the user set is kept.
"""

import os
import platform
import sys
from pathlib import Path

HUGE_PAGES = "glibc.malloc.hugetlb=1"


def set_up() -> None:
    """Settles all three; starts the program again where that is what huge pages need."""
    use_huge_pages()
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(compilation_cache()))
    # Half a second of compilation saved is worth a file.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    # A core is a device, so that a batch can be divided among cores as it is among GPUs: XLA's own threads leave one of
    # two cores idle in most of these networks' convolutions.
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(available_cores()))


def use_huge_pages() -> None:
    """Has glibc ask for pages of 2 MiB, which only a new process can be told: replaces this one where needed.

    XLA takes the memory of a step anew each time; in pages of 4 KiB the kernel spends a fifth of a training step on a
    CPU handing them out.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if "glibc.malloc.hugetlb" in tunables:
        return
    os.environ["GLIBC_TUNABLES"] = f"{tunables}:{HUGE_PAGES}" if tunables else HUGE_PAGES
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def compilation_cache() -> Path:
    """Folder of the programs that XLA compiled, shared by all runs of this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "brainseg_jax" / "compiled"


def available_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
