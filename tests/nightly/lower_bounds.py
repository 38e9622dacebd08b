"""Prints the oldest libraries that setup.py allows, as constraints for pip: `python -m tests.nightly.lower_bounds`.

With the libraries of the extras `formats` and `onnx`, which the tests use.
"""

from setuptools import distutils  # noqa: F401, I001  # puts distutils where the next line finds it, Python 3.12 too
from distutils.core import run_setup

from packaging.requirements import Requirement

from tests.conftest import REPOSITORY

EXTRAS = ("formats", "onnx")


def lower_bounds() -> list[str]:
    """`name==version` for every library of setup.py, at the version after its `>=`."""
    setup = run_setup(str(REPOSITORY / "setup.py"), stop_after="init")
    lines = [*setup.install_requires, *(line for extra in EXTRAS for line in setup.extras_require[extra])]
    requirements = [Requirement(line) for line in lines]
    return [f"{one.name}=={next(iter(one.specifier)).version}" for one in requirements]


if __name__ == "__main__":
    print("\n".join(lower_bounds()))
