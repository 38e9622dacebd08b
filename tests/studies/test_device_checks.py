"""Checks of a device: a CPU passes, and a device with wrong results does not."""

import json

import jax
import numpy as np

from brainseg_jax.models import layers
from brainseg_jax.studies import device_checks
from brainseg_jax.studies.device_checks import Check, Sizes

SIZES = Sizes(("unet",), 4, 16, 2, 2)


def test_a_cpu_passes(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")  # so that the CPU is compared with itself
    report = device_checks.run_checks(SIZES, tmp_path / "new")
    values = {check["name"]: check["value"] for check in report["checks"]}
    assert values["again"] == values["against the CPU"] == values["float32 gradients"] == 0
    assert values["streamed"] < 1e-5
    assert values["gradients by differences"] < 0.1
    assert values["bfloat16 gradients"] > 1e-3  # it is another computation
    assert json.loads((tmp_path / "new" / "checks.json").read_text()) == json.loads(json.dumps(report))
    assert report["complete"]
    assert len(capsys.readouterr().out.splitlines()) == len(report["checks"])
    assert (
        "| U-Net | again | largest relative difference of losses and parameters | 0.0e+00 | 0e+00 | yes |"
        in (tmp_path / "new" / "README.md").read_text()
    )


def test_values_beyond_the_limit_and_nan_do_not_pass():
    assert Check("a", "unet", "", 0.1, 0.2).passed
    assert Check("a", "unet", "", 0.3, 0.2).passed is False
    assert Check("a", "unet", "", float("nan"), 0.2).passed is False
    assert Check("a", "unet", "", None, 0.2, "no GPU").passed is None


def test_parameters_that_are_not_finite_do_not_pass(monkeypatch, tmp_path):
    found = iter([(np.ones(2), np.ones(3)), (np.ones(2), np.array([1, np.nan, 1])), (np.ones(2), np.ones(3))])
    monkeypatch.setattr(device_checks, "first_steps", lambda *arguments, **options: next(found))
    monkeypatch.setattr(device_checks, "gradients", lambda *arguments, **options: np.ones(3, np.float32))
    monkeypatch.setattr(device_checks, "difference_to_quotients", lambda *arguments: 0.0)
    checks = device_checks.run_checks(SIZES, tmp_path)["checks"]
    assert [check["name"] for check in checks if check["passed"] is False] == ["again"]


def test_a_device_that_computes_other_values_does_not_pass(monkeypatch, tmp_path):
    steps = device_checks.first_steps
    calls = []

    def drifting(*arguments, **options):
        losses, params = steps(*arguments, **options)
        calls.append(0)
        return losses * (1 + 0.01 * len(calls)), params

    monkeypatch.setattr(device_checks, "first_steps", drifting)
    monkeypatch.setattr(device_checks, "gradients", lambda *arguments, **options: np.ones(3, np.float32))
    monkeypatch.setattr(device_checks, "difference_to_quotients", lambda *arguments: 0.0)
    checks = device_checks.run_checks(SIZES, tmp_path)["checks"]
    assert {check["name"] for check in checks if check["passed"] is False} == {"again", "streamed"}


def test_a_wrong_gradient_of_one_layer_does_not_pass(monkeypatch):
    """As that of jaxlib 0.12.0.1 with oneDNN, for the kernel of a 1×1 convolution to one channel."""
    right = layers._to_one_channel

    @jax.custom_vjp
    def wrong(inputs, kernel):
        return right(inputs, kernel)

    def backward(saved, gradient):
        of_inputs, of_kernel = jax.vjp(right, *saved)[1](gradient)
        return of_inputs, of_kernel[:, :, ::-1]

    wrong.defvjp(lambda inputs, kernel: (right(inputs, kernel), (inputs, kernel)), backward)
    monkeypatch.setattr(layers, "_to_one_channel", wrong)
    assert device_checks.difference_to_quotients("unet", SIZES) > 0.2
