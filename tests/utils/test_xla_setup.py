"""What a program sets up before JAX starts."""

import os
import platform
import subprocess
import sys
import time

import psutil
import pytest

from brainseg_jax.utils import xla_setup
from tests.conftest import REPOSITORY

PROGRAM = """
import os, sys
from brainseg_jax.utils import xla_setup
print("started", *sys.argv[1:], flush=True)
xla_setup.set_up()
import jax, jax.numpy as jnp
jax.jit(lambda x: jnp.sin(x @ x))(jnp.ones((37, 37)))
print(os.environ.get("GLIBC_TUNABLES"), jax.config.jax_compilation_cache_dir, os.environ.get("XLA_FLAGS"))
"""


def run(tmp_path, **changes):
    removed = ("GLIBC_TUNABLES", xla_setup.RESTARTED, "JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in removed}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", **changes}
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), "an argument"]
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPOSITORY, check=True)
    return finished.stdout.splitlines()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="huge pages are asked of glibc")
def test_a_program_starts_once_more_with_huge_pages_and_its_arguments(tmp_path):
    lines = run(tmp_path)
    assert lines[:2] == ["started an argument"] * 2
    assert lines[2].split() == [
        xla_setup.HUGE_PAGES,
        str(tmp_path / "cache/brainseg_jax/compiled"),
        xla_setup.EIGEN_CONVOLUTIONS,
    ]
    assert any((tmp_path / "cache" / "brainseg_jax" / "compiled").iterdir())


def test_what_the_user_set_is_kept(tmp_path):
    own = {
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=0",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT",
    }
    lines = run(tmp_path, **own)
    assert lines[0] == "started an argument"
    assert lines[1].split() == list(own.values())


def test_other_tunables_stay(tmp_path):
    if platform.libc_ver()[0] == "glibc":
        assert run(tmp_path, GLIBC_TUNABLES="glibc.malloc.arena_max=3")[2].split()[0] == (
            f"glibc.malloc.arena_max=3:{xla_setup.HUGE_PAGES}"
        )


def test_an_xla_that_is_not_known_gets_no_flag_that_might_end_it(monkeypatch):
    monkeypatch.setattr(xla_setup.metadata, "version", lambda package: "0.99.1")
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_use_onednn=true")
    xla_setup.use_fast_convolutions()
    assert os.environ["XLA_FLAGS"] == "--xla_cpu_use_onednn=true"
    monkeypatch.setattr(xla_setup.metadata, "version", lambda package: "0.10.2")
    xla_setup.use_fast_convolutions()
    assert os.environ["XLA_FLAGS"] == f"--xla_cpu_use_onednn=true {xla_setup.EIGEN_CONVOLUTIONS}"


def test_a_script_ends_with_the_one_that_started_it(tmp_path):
    child = (
        "from brainseg_jax.utils import xla_setup; xla_setup.end_with_parent(); import time; print('on', flush=True); "
        "time.sleep(60)"
    )
    parent = (
        "import os, subprocess, sys; environment = {**os.environ, 'BRAINSEG_JAX_PARENT': str(os.getpid())}; "
        "process = subprocess.Popen([sys.executable, '-c', sys.argv[1]], env=environment, stdout=subprocess.PIPE); "
        "process.stdout.readline(); print(process.pid, flush=True); process.wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent, child], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as starter:
        started = psutil.Process(int(starter.stdout.readline()))
        assert started.status() != psutil.STATUS_ZOMBIE
        starter.kill()
    for _ in range(100):
        # Nobody may collect it here: then it stays as a zombie.
        if not started.is_running() or started.status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)
    pytest.fail("it outlived its parent")
