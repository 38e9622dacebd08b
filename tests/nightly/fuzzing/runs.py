"""The files of a run's folder: settings, splits, metrics, scores, weights and checkpoints."""

import functools
import json
import shutil
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import traverse_util
from numpy.random import Generator

from brainseg_jax.config import get_config
from brainseg_jax.data.dataset import Sample
from brainseg_jax.data.splits import make_splits
from brainseg_jax.evaluation import comparison
from brainseg_jax.evaluation.evaluate import describe_scored_run
from brainseg_jax.evaluation.report.run import report_run
from brainseg_jax.evaluation.scores import read_scores, score_slice, write_scores
from brainseg_jax.evaluation.seen_slices import describe_seen, find_seen
from brainseg_jax.evaluation.summary import summarize
from brainseg_jax.inference.ensemble import Ensemble
from brainseg_jax.inference.postprocessing import Postprocessing, write_postprocessing
from brainseg_jax.inference.predictor import Predictor
from brainseg_jax.metrics.calibration import Calibration
from brainseg_jax.models import create_model
from brainseg_jax.training.preflight import check_no_leakage
from brainseg_jax.utils.files import write_json
from brainseg_jax.utils.provenance import describe_environment
from brainseg_jax.workdir.checkpoints import Checkpoints
from brainseg_jax.workdir.files import check_resumable, read_environment, read_metrics, start_run, write_metrics
from brainseg_jax.workdir.quantization import compress, decompress, dequantize, quantize
from brainseg_jax.workdir.ranges import check_ranges
from brainseg_jax.workdir.weights import COMPRESSED, write_weights
from tests.nightly.fuzzing.kind import Kind, read_all
from tests.nightly.fuzzing.mutations import damage_bytes, damage_json, strange_value
from tests.nightly.fuzzing.phantoms import metadata, phantoms

EPOCH = 2
CURVES = ("train_loss", "train_dice", "validation_loss", "validation_dice", "learning_rate", "seconds")


def _config() -> ml_collections.ConfigDict:
    config = get_config()
    config.data.dataset, config.data.image_size, config.split.protocol = "phantom", 16, "family"
    config.model.start_filters, config.train.epochs, config.evaluation.tune_postprocessing = 1, EPOCH, True
    return config


@functools.cache
def _variables() -> dict[str, Any]:
    """Returns random parameters of the network of `_config`."""
    model, rng = create_model(_config().model), np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 1))))
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), dict(shapes))


@functools.cache
def _splits() -> dict[str, np.ndarray]:
    return make_splits(metadata(), **_config().split)


def _run(folder: Path) -> Path:
    """Writes a run that has been trained and scored, without training: its masks are the true ones, shifted."""
    config, known, splits, environment = _config(), metadata(), _splits(), describe_environment(devices=1)
    start_run(folder, config, known, splits, environment, fingerprint="1234")
    rows = [{"epoch": epoch, "step": 9, **dict.fromkeys(CURVES, 0.5 / epoch)} for epoch in range(1, EPOCH + 1)]
    write_metrics(folder, rows)
    postprocessing = Postprocessing(0.4, 0.001)
    write_postprocessing(folder, postprocessing, epoch=EPOCH, tta_flip=False, validation_dice=0.5)
    scores, calibration = [], Calibration.empty()
    for slice_, family in zip(phantoms()[0], known.families, strict=True):
        if slice_.slice_id in splits["test"]:
            sample = Sample(slice_.slice_id, slice_.image, slice_.mask, 0.5)
            mask = np.roll(slice_.mask, 2, axis=1).astype(bool)
            about = {"patient_id": slice_.patient_id, "family": family, "label": known.label_names[slice_.label - 1]}
            scores.append(score_slice(sample, mask, **about))
            calibration = calibration.add(0.9 * mask, slice_.mask)
    write_scores(folder / "per_slice_test.csv", scores)
    evaluation = {
        "split": "test",
        "dataset": "phantom",
        "trained_on": "phantom",
        **summarize(scores, classes=known.label_names),
        "seen": describe_seen(scores, set()),
        "calibration": calibration.describe(),
        **describe_scored_run(config),
        **vars(postprocessing),
        **environment,
        "trained_with": environment,
        "checkpoint_epoch": EPOCH,
    }
    write_json(folder / "evaluation_test.json", evaluation)
    return folder


def _run_with_weights(folder: Path) -> Path:
    write_weights(_run(folder), _variables(), epoch=EPOCH)
    return folder


def _run_with_six_bits(folder: Path) -> Path:
    write_weights(_run(folder), _variables(), epoch=EPOCH, dtype="int6")
    return folder


def _run_with_checkpoints(folder: Path) -> Path:
    with Checkpoints(_run(folder) / "checkpoints") as checkpoints:
        for epoch in (EPOCH, EPOCH + 1):
            checkpoints.save(epoch, {**_variables(), "step": np.int32(epoch)}, validation_loss=0.1 * epoch)
    return folder


def _damage(name: str, change: Callable[[Generator, bytes], bytes]) -> Callable[[Generator, Path, Path], Path]:
    """Returns what copies a run and damages one of its files."""

    def damage(rng: Generator, seed: Path, folder: Path) -> Path:
        shutil.copytree(seed, folder, dirs_exist_ok=True)
        path = folder / name
        path.write_bytes(change(rng, path.read_bytes()))
        return folder

    return damage


def _change_json(rng: Generator, data: bytes) -> bytes:
    return damage_json(rng, json.loads(data)) if rng.random() < 0.9 else damage_bytes(rng, data, most=1)


def _change_lines(rng: Generator, data: bytes) -> bytes:
    lines = data.splitlines()
    number = int(rng.integers(len(lines)))
    lines[number] = damage_json(rng, json.loads(lines[number]))
    return b"\n".join(lines)


def change_cells(rng: Generator, data: bytes) -> bytes:
    """Changes cells of a CSV file, or its bytes."""
    if rng.random() < 0.2:
        return damage_bytes(rng, data, most=1)
    rows = [line.split(b",") for line in data.splitlines()]
    for _ in range(rng.integers(1, 3)):
        row = rows[0 if rng.random() < 0.2 else int(rng.integers(len(rows)))]
        column = int(rng.integers(len(row))) if row else 0
        match rng.integers(5):
            case 0 if row:
                del row[column]
            case 1:
                row.insert(column, b'"')
            case 2 if row:
                other = int(rng.integers(len(row)))
                row[column], row[other] = row[other], row[column]
            case _ if row:
                row[column] = str(strange_value(rng))[:300].encode("utf-8", "surrogatepass")
    return b"\n".join(b",".join(row) for row in rows) + b"\n"


def _change_tensors(rng: Generator, data: bytes) -> bytes:
    """Changes a value of the JSON head of a safetensors file, or its bytes."""
    if rng.random() < 0.5:
        return damage_bytes(rng, data)
    length = int.from_bytes(data[:8], "little")
    head = damage_json(rng, json.loads(data[8 : 8 + length]))
    return len(head).to_bytes(8, "little") + head + data[8 + length :]


def _change_compressed(rng: Generator, data: bytes) -> bytes:
    """Changes a compressed safetensors file, or what is in it, which may become a few MB of zeros."""
    choice = rng.random()
    if choice < 0.5:
        return damage_bytes(rng, data)
    inside = decompress(data, largest=1 << 24)
    return compress(_change_tensors(rng, inside) if choice < 0.95 else inside + bytes(1 << 26))


def _damage_checkpoint(rng: Generator, seed: Path, folder: Path) -> Path:
    """Damages, empties, removes or renames a file or a folder of the best checkpoint."""
    shutil.copytree(seed, folder, dirs_exist_ok=True)
    places = sorted(
        (folder / "checkpoints").rglob("*"), key=lambda path: (len(path.parts), path.stat().st_size, path.name)
    )
    path = places[int(rng.integers(len(places)))]
    choice = rng.random()
    if choice < 0.05:
        path.rename(path.with_name(str(rng.choice(["x", "7", "-1", "3.orbax-checkpoint-tmp", "99999999999999999999"]))))
    elif path.is_dir():
        shutil.rmtree(path)
    elif choice < 0.1:
        path.unlink()
    elif data := path.read_bytes():
        is_json = data[:1] == b"{" and choice < 0.6
        path.write_bytes(_change_json(rng, data) if is_json else damage_bytes(rng, data))
    return folder


def _open(folder: Path) -> Predictor:
    """Opens a run as predict.py does and checks that its settings are ones that train.py takes."""
    predictor = Predictor.from_workdir(folder)
    check_ranges(predictor.config)
    return predictor


def _open_same(folder: Path) -> None:
    expected = traverse_util.flatten_dict(_variables(), sep=".")
    if (folder / COMPRESSED).exists():
        expected = dequantize(quantize(expected))
    found = traverse_util.flatten_dict(_open(folder).variables, sep=".")
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=f"{name} was changed in silence")


def _read_run(folder: Path) -> None:
    """Reads what train.py, evaluate.py, predict.py and report.py read."""
    dataset: Any = types.SimpleNamespace(name="phantom", metadata=metadata())
    read_all(
        folder,
        _open,
        read_environment,
        lambda folder: find_seen([folder], dataset),
        lambda folder: check_no_leakage(folder, _config(), _splits(), metadata()),
        lambda folder: check_resumable(folder, _config(), _splits(), fingerprint="1234"),
        lambda folder: Ensemble.from_workdirs([folder, folder]),
        _read_report,
    )


def _read_report(folder: Path) -> None:
    report_run(folder, max_slices=0)
    read_metrics(folder, epochs=EPOCH)


def _read_scores(folder: Path) -> None:
    scores = read_scores(folder / "per_slice_test.csv")
    table = comparison.comparison_table(comparison.compare_scores(scores, scores), names=("a", "b"))
    assert table.count("\n") > 2
    _read_report(folder)


KINDS = {
    "config.json": Kind(_run_with_weights, _damage("config.json", _change_json), _read_run, ("no name of weights",)),
    "splits.json": Kind(_run_with_weights, _damage("splits.json", _change_json), _read_run),
    "environment.json": Kind(_run_with_weights, _damage("environment.json", _change_json), _read_run),
    "postprocessing.json": Kind(_run_with_weights, _damage("postprocessing.json", _change_json), _read_run),
    "metrics.jsonl": Kind(_run, _damage("metrics.jsonl", _change_lines), _read_report),
    "evaluation.json": Kind(_run, _damage("evaluation_test.json", _change_json), _read_report),
    "per_slice.csv": Kind(_run, _damage("per_slice_test.csv", change_cells), _read_scores),
    "safetensors": Kind(_run_with_weights, _damage("model.safetensors", _change_tensors), _open_same),
    "safetensors.xz": Kind(_run_with_six_bits, _damage(COMPRESSED, _change_compressed), _open_same),
    "checkpoint": Kind(_run_with_checkpoints, _damage_checkpoint, _open_same),
}
