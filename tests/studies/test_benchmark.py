"""The benchmark: PyTorch's networks are ours, turns are counted right, and the report has all results."""

import collections
import json
import time

import jax
import numpy as np
import pytest

from brainseg_jax.models import create_model
from brainseg_jax.studies.benchmark import profile, report, timing
from brainseg_jax.studies.benchmark.case import PLANS, Case
from tests.conftest import REPOSITORY


def test_turns_count_units_a_second_and_alternate():
    order = []

    def program(name, seconds):
        def run():
            order.append(name)
            time.sleep(seconds)

        return run

    programs = {"fast": timing.Program(program("fast", 0.01), 5), "slow": timing.Program(program("slow", 0.04), 5)}
    speeds = timing.measure_in_turns(programs, repeats=3, seconds=0.08)
    assert speeds["fast"].median == pytest.approx(500, rel=0.25)
    assert speeds["slow"].median == pytest.approx(125, rel=0.25)
    assert all(speed.lowest <= speed.median <= speed.highest for speed in speeds.values())
    turns = [name for name, before in zip(order[4:], [None, *order[4:]], strict=False) if name != before]
    assert min(order.count(name) for name in programs) > 3 * 2  # more than once a turn, after the run that wakes
    assert turns == ["fast", "slow"] * 3


def test_the_table_shows_ratios_on_a_cpu_and_speeds_on_a_gpu(tmp_path):
    row = {
        "model": "unet",
        "start_filters": 16,
        "mode": "train",
        "dtype": "float32",
        "image_size": 128,
        "batch_size": 8,
        "batch": "recipe",
        "ours_slices_per_second": 1234.0,
        "ours_slices_per_second_range": [1200.0, 1300.0],
        "torch_slices_per_second": 617.0,
        "torch_slices_per_second_range": [600.0, 620.0],
        "torch_setting": "eager",
        "ratio": 2.0,
        "share_of_peak": 0.4,
        "bound_by": "memory",
    }
    best = {**row, "batch": "best", "batch_size": 16, "torch_batch_size": 4, "ratio": 1.5}
    epoch = {
        "model": "unet",
        "slices": 64,
        "step_share": 0.98,
        "step_share_augmented": 0.9,
        "stream_share_of_device": 1,
    }
    content = {
        "device": "cpu",
        "devices": 2,
        "cores": 2,
        "commit": "abc",
        "python": "3.11",
        "versions": {"jax": "0.10"},
        "repeats": 3,
        "rows": [row, best],
        "epochs": [epoch],
        "convolutions": [
            {"side": 64, "channels": 8, "features": 16, "times": times}
            | {f"{who}_{name}_ms": ms for who, ms in (("ours", 3 * times), ("torch", 1)) for name in report.PASSES}
            for times in (1, 2)
        ],
        "profile": [
            {
                "model": "unet",
                "kinds": {"convolutions": 0.75, "sums": 0.25},
                "largest": [{"operation": "dot.1", "from": "jit(step)/UNet.compute_logits/down_1/dot", "share": 0.5}],
            }
        ],
        "parts": [
            {"image_size": 512, "batch_size": size, "onednn": onednn, "speed": (2 if onednn else 1) * size / 8}
            for size in (4, 8)
            for onednn in (True, False)
        ],
        "sweeps": {"batch_size": [row], "dataset_slices": [], "image_size": [{**row, "image_size": 256}]},
        "left_out": ["unet by image size"],
    }
    report.write_report(content, tmp_path)
    page = (tmp_path / "README.md").read_text()
    for size in ("128×128", "256×256"):
        assert f"| U-Net 16 | train | float32 | {size} | 8 | **2.00** | eager | 40% of memory |" in page
    assert "best: 16 / 4 | **1.50**" in page
    assert "| 64×64 | 8 → 16 | 2 | 6.0 | 6.0 | 6.0 |" in page
    assert "| all |  |  | **5.0** |" in page  # (1·3 + 2·6) / (1·1 + 2·1)
    assert "| U-Net | 75.0% | 25.0% |" in page
    assert "| `dot.1` | down_1/dot | 50.0% |" in page
    assert "| Convolutions | Batch 8 | Batch 4 |" in page
    assert "| XLA's | 1.00 | 0.50 |" in page
    assert "| oneDNN's | 2.00 | 1.00 |" in page
    assert "Left out for lack of time or memory: unet by image size." in page
    assert "1234" not in page
    assert json.loads((tmp_path / "benchmark.json").read_text()) == content
    assert (tmp_path / "benchmark.png").stat().st_size > 0
    assert "| 1234 | 617 |" in report.describe({**content, "device": "NVIDIA H100"})
    rows = [{**row, "onednn": True, "onednn_gain": 1.24}, {**best, "onednn": False, "onednn_gain": 0.9}]
    sweeps = {**content["sweeps"], "image_size": []}
    with_onednn = report.describe({**content, "rows": rows, "sweeps": sweeps})
    assert "| eager | 40% of memory | 1.24, used |" in with_onednn
    assert "| eager | 40% of memory | 0.90 |" in with_onednn


def test_a_profile_divides_the_time_among_kinds_of_operations():
    times = {"custom-call.7.clone__onednn$convolution": 5.0, "ynn_fusion.2": 2.0, "multiply_add_fusion": 1.0}
    times |= {"transpose_copy_fusion": 1.0, "custom-call.8__onednn$matmul": 0.5, "dot.4": 0.5}
    summary = profile.summarize(times, {"custom-call.7.clone": "jit(step)/conv_1", "dot.4": "jit(step)/dense"})
    assert summary["kinds"] == pytest.approx(
        {"convolutions": 0.5, "matrix products": 0.1, "sums": 0.2, "rearrangements": 0.1, "elementwise": 0.1}
    )
    assert [row["share"] for row in summary["largest"]] == sorted((time / 10 for time in times.values()), reverse=True)
    sources = {row["operation"]: row["from"] for row in summary["largest"]}
    assert sources["custom-call.7.clone__onednn$convolution"] == "jit(step)/conv_1"
    assert sources["ynn_fusion.2"] == ""


def test_the_profile_of_a_step_has_its_convolutions():
    [row] = profile.profile(Case("unet", 4, "train", 32, 2, "float32"), runs=2)
    assert sum(row["kinds"].values()) == pytest.approx(1)
    assert row["kinds"]["convolutions"] > 0.2
    assert any("conv_1" in operation["from"] for operation in row["largest"])


def test_the_pages_of_the_kept_results_are_written_from_them():
    folders = sorted((REPOSITORY / "docs" / "results").glob("benchmark_*"))
    assert folders
    for folder in folders:
        content = json.loads((folder / "benchmark.json").read_text())
        assert report.describe(content) == (folder / "README.md").read_text()


def test_pytorchs_unet_is_ours():
    """With our parameters put into PyTorch's layers, one after the other, both give the same logits."""
    torch = pytest.importorskip("torch", reason="needs the [bench] extra")
    from brainseg_jax.studies.benchmark.torch_networks import NETWORKS

    model = create_model({"name": "unet", "start_filters": 2})
    images = np.random.default_rng(0).random((2, 64, 64, 1), np.float32)
    params = model.init(jax.random.key(0), images)["params"]
    params = jax.tree.map(lambda leaf: leaf + 0.1 * (leaf.ndim == 1), params)  # biases that would show
    levels = (1, 2, 3, 4)
    blocks = [f"down_{level}" for level in levels] + ["bottom"]
    paths = [(block, conv) for block in blocks for conv in ("conv_1", "conv_2")]
    paths += [(f"up_conv_{level}",) for level in reversed(levels)]
    paths += [(f"up_{level}", conv) for level in reversed(levels) for conv in ("conv_1", "conv_2")]
    paths += [("logits",)]
    network = NETWORKS["unet"](2).eval()
    layers = [layer for layer in network.modules() if hasattr(layer, "weight")]
    with torch.no_grad():
        for layer, path in zip(layers, paths, strict=True):
            ours = params
            for key in path:
                ours = ours[key]
            # Ours are (rows, columns, in, out), those that double the sides (in, rows, columns, out).
            axes = (0, 3, 1, 2) if isinstance(layer, torch.nn.ConvTranspose2d) else (3, 2, 0, 1)
            layer.weight.copy_(torch.from_numpy(np.array(ours["kernel"].transpose(axes))))
            layer.bias.copy_(torch.from_numpy(np.array(ours["bias"])))
        in_torch = network(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(in_torch, model.apply({"params": params}, images), atol=1e-4)


def test_pytorchs_linknet_has_our_layers():
    """The same kernels and norms in number and shape; only where stride 2 begins differs, by PyTorch's even padding."""
    torch = pytest.importorskip("torch", reason="needs the [bench] extra")
    from brainseg_jax.studies.benchmark.torch_networks import NETWORKS

    model = create_model({"name": "linknet", "start_filters": 4})
    images = np.zeros((1, 64, 64, 1), np.float32)
    ours = collections.Counter(
        tuple(sorted(leaf.shape)) for leaf in jax.tree.leaves(model.init(jax.random.key(0), images)["params"])
    )
    network = NETWORKS["linknet"](4).eval()
    assert ours == collections.Counter(tuple(sorted(parameter.shape)) for parameter in network.parameters())
    assert network(torch.zeros(1, 1, 64, 64)).shape == (1, 1, 64, 64)


@pytest.mark.parametrize(("seconds", "measured", "left_out"), [(0, 1, ["sweep", "last"]), (600, 3, ["sweep"])])
def test_what_is_left_out_for_lack_of_time_or_memory_is_named(monkeypatch, seconds, measured, left_out):
    pytest.importorskip("torch", reason="needs the [bench] extra")
    from brainseg_jax.studies.benchmark import run

    def too_large():
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    def parts(plan, content):
        for name, measure in (("first", None), ("sweep", None), ("sweep", too_large), ("sweep", None), ("last", None)):
            yield name, content["rows"], measure or (lambda: [{"ratio": 1.0}])

    monkeypatch.setattr(run, "list_parts", parts)
    monkeypatch.setattr(run, "measure_peaks", lambda plan: {})
    saved = []
    run.run_benchmark(PLANS["tiny"], log=lambda line: None, save=saved.append, seconds=seconds)
    assert saved[-1]["rows"] == [{"ratio": 1.0}] * measured
    assert saved[-1]["left_out"] == left_out


def test_the_convolutions_to_profile_are_those_of_the_network():
    pytest.importorskip("torch", reason="needs the [bench] extra")
    from brainseg_jax.studies.benchmark import convolutions

    case = PLANS["tiny"].recipes()[0]
    model = create_model({"name": "unet", "start_filters": case.start_filters})
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 64, 64, 1), np.float32))["params"]
    kernels = [leaf.shape[2:] for leaf in jax.tree.leaves(shapes) if leaf.shape[:2] == (3, 3)]
    assert sorted(kernels) == sorted(shape[1:] for shape in convolutions.list_shapes(case))


def test_the_benchmark_runs_in_miniature(tmp_path, run_script):
    pytest.importorskip("torch", reason="needs the [bench] extra")
    finished = run_script("benchmark", "--tiny", f"--output={tmp_path}")
    assert finished.returncode == 0, finished.stderr
    content = json.loads((tmp_path / "benchmark.json").read_text())
    names = {"model", "mode", "image_size", "batch_size", "ours_slices_per_second", "torch_slices_per_second"}
    for row in content["rows"]:
        assert names | {"torch_setting", "ratio", "parameters", "ours_compile_seconds"} <= set(row)
        if row["batch"] == "recipe":
            assert row["ratio"] == pytest.approx(row["ours_slices_per_second"] / max(row["torch_settings"].values()))
            rates = {"arithmetic": row["flops_per_second"] / content["peaks"]["float32_flops_per_second"]}
            rates["memory"] = row["bytes_per_second"] / content["peaks"]["bytes_per_second"]
            assert row["bound_by"] == max(rates, key=rates.get)
            assert row["share_of_peak"] == pytest.approx(max(rates.values()))
    assert {(row["model"], row["mode"]) for row in content["rows"]} == {
        (model, mode) for model in ("unet", "linknet") for mode in ("train", "inference")
    }
    assert [epoch["model"] for epoch in content["epochs"]] == ["unet", "linknet"]
    assert all(epoch["step_share"] > 0 for epoch in content["epochs"])
    assert {row["batch_size"] for row in content["parts"]} == {1, 2, 4, 8}
    assert 1 in [row["speed"] for row in content["parts"] if row["batch_size"] == 8]
    assert "'.[bench]'" in (REPOSITORY / "docs" / "how_to" / "many_gpus.md").read_text()
