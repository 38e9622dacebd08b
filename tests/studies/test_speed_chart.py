"""The chart of speeds shows what the results say."""

import json

import pytest

from brainseg_jax.config import load_config
from brainseg_jax.studies.results import speed_chart
from tests.conftest import REPOSITORY


def save_run(folder, network, *, ends, device, **changes):
    config = load_config(REPOSITORY / "configs" / f"{network}.py")
    config.train.epochs = len(ends)
    config.update_from_flattened_dict(changes)
    rows = [{"epoch": epoch, "seconds_since_start": end} for epoch, end in enumerate(ends, start=1)]
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config.to_json())
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "splits.json").write_text(
        json.dumps({"splits": {"train": list(range(60)), "validation": [], "test": []}})
    )
    (folder / "evaluation_test.json").write_text(json.dumps({"trained_with": {"device": device}}))


def test_speeds_on_gpus_are_those_of_whole_epochs_by_the_published_recipes(tmp_path):
    # Epochs of 10, 12 and 30 s after the first, and once a new start: 60 slices in 12 s are 5 a second.
    save_run(tmp_path / "linknet_512", "linknet", ends=(100, 110, 122, 5, 35), device="NVIDIA X")
    save_run(tmp_path / "small", "linknet", ends=(1, 2), device="NVIDIA X", **{"data.image_size": 128})
    save_run(tmp_path / "family", "linknet", ends=(1, 2), device="NVIDIA X", **{"split.protocol": "family"})
    save_run(tmp_path / "other", "unet", ends=(1, 2), device="NVIDIA X", **{"train.batch_size": 16})
    save_run(tmp_path / "slow", "unet", ends=(1, 2), device="cpu")
    found = speed_chart.speeds_on_gpu(tmp_path)
    assert found.pop("ours: NVIDIA X") == [None, 5.0]
    (published,) = found.values()
    assert published == pytest.approx([28.5, 51.5], rel=0.01)  # 2,145 slices in 75.2 and 41.6 s


def test_ratios_on_a_cpu_are_sorted_by_version_and_dtype(tmp_path):
    def row(model, mode, dtype, ratio, batch="recipe"):
        return {"model": model, "mode": mode, "dtype": dtype, "ratio": ratio, "batch": batch}

    old = [row("unet", "train", "float32", 0.6), row("unet", "train", "float32", 9, "best")]
    new = [row("unet", "train", "float32", 0.8), row("linknet", "inference", "bfloat16", 1.5)]
    for name, python, version, rows in (
        ("benchmark_cpu", "3.13.0", "0.12", new),
        ("benchmark_cpu_old", "3.11.7", "0.10", old),
    ):
        (tmp_path / name).mkdir()
        content = {"python": python, "versions": {"jax": version}, "rows": rows}
        (tmp_path / name / "benchmark.json").write_text(json.dumps(content))
    assert speed_chart.ratios_on_cpu(tmp_path) == {
        "Python 3.11, jax 0.10, float32": [0.6, None, None, None],
        "Python 3.13, jax 0.12, float32": [0.8, None, None, None],
        "Python 3.13, jax 0.12, bfloat16": [None, None, None, 1.5],
    }
    speed_chart.draw_speeds(tmp_path)
    assert (tmp_path / "speed.png").stat().st_size > 0
