"""Checks of a device: they pass on a CPU, and a wrong device would not."""

import json

import jax
import numpy as np
import pytest

from brainseg_jax.studies import device_checks
from brainseg_jax.studies.device_checks import Check, Sizes

SIZES = Sizes(("unet",), 4, 16, 2, 2)


@pytest.fixture(scope="module")
def found():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: "gpu")  # the CPU beside itself
        return device_checks.run_checks(SIZES, log=lambda line: None)


def test_a_cpu_passes(found, tmp_path):
    values = {check["name"]: check["value"] for check in found["checks"]}
    assert values["again"] == values["against the CPU"] == values["float32 gradients"] == 0
    assert values["streamed"] < 1e-5
    assert values["bfloat16 gradients"] > 1e-3  # it is another computation
    device_checks.write_checks(found, tmp_path)
    assert json.loads((tmp_path / "checks.json").read_text()) == json.loads(json.dumps(found))
    assert (
        "| U-Net | again | largest relative difference of losses and parameters | 0.0e+00 | 0e+00 | yes |"
        in (tmp_path / "README.md").read_text()
    )


def test_values_beyond_the_limit_and_nan_do_not_pass():
    assert Check("a", "unet", "", 0.1, 0.2).passed
    assert Check("a", "unet", "", 0.3, 0.2).passed is False
    assert Check("a", "unet", "", float("nan"), 0.2).passed is False
    assert Check("a", "unet", "", None, 0.2, "no GPU").passed is None


def test_parameters_that_are_not_finite_do_not_pass(monkeypatch):
    found = iter([(np.ones(2), np.ones(3)), (np.ones(2), np.array([1, np.nan, 1])), (np.ones(2), np.ones(3))])
    monkeypatch.setattr(device_checks, "first_steps", lambda *arguments, **options: next(found))
    monkeypatch.setattr(device_checks, "gradients", lambda *arguments, **options: np.ones(3, np.float32))
    checks = device_checks.run_checks(SIZES, log=lambda line: None)["checks"]
    assert [check["name"] for check in checks if check["passed"] is False] == ["again"]


def test_a_device_that_computes_otherwise_is_found(monkeypatch):
    steps = device_checks.first_steps
    calls = []

    def drifting(*arguments, **options):
        losses, params = steps(*arguments, **options)
        calls.append(0)
        return losses * (1 + 0.01 * len(calls)), params

    monkeypatch.setattr(device_checks, "first_steps", drifting)
    monkeypatch.setattr(device_checks, "gradients", lambda *arguments, **options: np.ones(3, np.float32))
    checks = device_checks.run_checks(SIZES, log=lambda line: None)["checks"]
    assert {check["name"] for check in checks if check["passed"] is False} == {"again", "streamed"}
