"""What a result says of its making: this checkout's commit, never that of another repository around the package."""

import re
import shutil
import subprocess
import sys

from brainseg_jax.utils.provenance import describe_environment
from tests.conftest import REPOSITORY

PRINT_COMMIT = "from brainseg_jax.utils.provenance import describe_environment as d; print(d(devices=1)['commit'])"


def test_the_commit_is_that_of_this_checkout():
    commit = describe_environment(devices=1)["commit"]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert re.fullmatch(head.stdout.strip() + r"(\+changes)?", commit)


def test_a_commit_that_is_told_comes_first(monkeypatch):
    monkeypatch.setenv("BRAINSEG_JAX_COMMIT", "abc123")  # files that were copied into a checkout of something else
    assert describe_environment(devices=1)["commit"] == "abc123"


def test_a_copy_inside_another_repository_does_not_take_its_commit(tmp_path):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", *identity, "commit", "--quiet", "--allow-empty", "-m", "x"], cwd=tmp_path, check=True)
    site_packages = tmp_path / "venv" / "site-packages"
    shutil.copytree(REPOSITORY / "brainseg_jax", site_packages / "brainseg_jax")
    for variable, expected in (({}, "None"), ({"BRAINSEG_JAX_COMMIT": "abc123"}, "abc123")):
        environment = {"PYTHONPATH": str(site_packages), "PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu", **variable}
        finished = subprocess.run(
            [sys.executable, "-c", PRINT_COMMIT],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert finished.stdout.strip() == expected
