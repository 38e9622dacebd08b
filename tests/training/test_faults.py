"""What happens to a training whose folder is in use, damaged, deleted, or no folder."""

import json
import shutil

import pytest

from brainseg_jax.config import get_config
from brainseg_jax.errors import InputError
from brainseg_jax.inference.postprocessing import read_postprocessing
from brainseg_jax.inference.predictor import Predictor
from brainseg_jax.training import loop
from brainseg_jax.training.loop import train_and_evaluate
from brainseg_jax.utils.locks import lock_folder
from brainseg_jax.workdir.files import read_config, read_environment, read_metrics, read_patients, read_splits
from tests.conftest import REPOSITORY, TRAINED

WITHOUT_PATIENTS = '{"splits": {"train": [1], "validation": [2], "test": [3]}, "patient_ids": {"train": ["a"]}}'
TUNED = '{"threshold": 0.5, "min_component_fraction": 0, "epoch": 3, "tta_flip": false}'
TINY = {"train.epochs": 1, "data.image_size": 16, "model.start_filters": 1}


def test_a_second_process_is_refused_and_a_stale_lock_is_not(tmp_path, make_config):
    tmp_path.joinpath(".lock").write_text("process 1 on another machine, long ago")
    with lock_folder(tmp_path, remedy="wait"):
        with pytest.raises(InputError, match=r"is in use by process \d+ on .*: wait for it, or name another --workdir"):
            train_and_evaluate(make_config(**TINY), tmp_path)
        assert not (tmp_path / "checkpoints").exists()
    with lock_folder(tmp_path, remedy="wait"):
        pass


def test_a_workdir_that_is_deleted_ends_the_training(tmp_path, make_config, monkeypatch):
    evaluate_slices = loop.evaluate_slices

    def and_delete(*arguments, **options):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return evaluate_slices(*arguments, **options)

    monkeypatch.setattr(loop, "evaluate_slices", and_delete)
    with pytest.raises(InputError, match=r"run was deleted or moved while it was trained: train again"):
        train_and_evaluate(make_config(**TINY), tmp_path / "run")


def read_tuned(folder):
    config = get_config()
    config.evaluation.tune_postprocessing = True
    return read_postprocessing(folder, config, epoch=3, tta_flip=False)


def test_a_system_that_cannot_reserve_space_trains_too(tmp_path, make_config, monkeypatch):
    monkeypatch.delattr("os.posix_fallocate")  # macOS has none
    train_and_evaluate(make_config(**TINY), tmp_path / "run")
    assert [row["epoch"] for row in read_metrics(tmp_path / "run", epochs=9)] == [1]


def test_the_beginning_of_a_checkpoint_is_none_and_the_run_starts_as_it_would(tmp_path, make_config):
    (tmp_path / "checkpoints" / "1.orbax-checkpoint-tmp").mkdir(parents=True)
    # Of another network, so that they are refused where they are looked at.
    config = make_config(**TINY, **{"train.init_from": "unet_strong_64_to_128_family"})
    with pytest.raises(InputError, match=r"start from a run of the same network"):
        train_and_evaluate(config, tmp_path)


def test_a_kill_right_after_a_checkpoint_loses_no_row(tmp_path, make_config, monkeypatch):
    config = make_config(**{**TINY, "train.epochs": 2})
    save = loop.Checkpoints.save

    def and_end(self, epoch, *arguments, **options):
        save(self, epoch, *arguments, **options)
        if epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.Checkpoints, "save", and_end)
    with pytest.raises(KeyboardInterrupt):
        train_and_evaluate(config, tmp_path / "run")
    monkeypatch.undo()
    (tmp_path / "run" / "figures" / "learning_curves.png").unlink(missing_ok=True)
    train_and_evaluate(config, tmp_path / "run")
    assert [row["epoch"] for row in read_metrics(tmp_path / "run", epochs=2)] == [1, 2]
    assert (tmp_path / "run" / "figures" / "learning_curves.png").exists()


@pytest.mark.parametrize(
    ("name", "content", "read"),
    [
        ("config.json", "[]", read_config),
        ("config.json", '{"data": 3}', read_config),
        ("config.json", '{"data": {"image_size": "large"}}', read_config),
        ("config.json", '{"data": {"image_size": 17}}', read_config),
        ("config.json", '{"data": {"intensity_percentile": NaN}}', read_config),
        ("config.json", '{"model": {"start_filters": 1}}', read_config),
        ("config.json", '{"model": {"name": "unet"}}', read_config),
        ("config.json", '{"split": {"protocol": "x"}}', read_config),
        ("config.json", '{"seed": 99999999999999999999}', read_config),
        ("config.json", '{"seed": 9' + 5000 * "9" + "}", read_config),
        ("config.json", '{"data": {"data_dir": "\\ud800"}}', read_config),
        ("config.json", 3000 * "[" + 3000 * "]", read_config),
        ("config.json", b'{"seed": "\xff"}', read_config),
        ("splits.json", "[]", read_splits),
        ("splits.json", '{"splits": {"train": [1]}}', read_splits),
        ("splits.json", '{"splits": {"train": [1], "validation": ["2"], "test": [3]}}', read_splits),
        ("splits.json", '{"splits": {"train": [1], "validation": 2, "test": [3]}}', read_splits),
        ("splits.json", WITHOUT_PATIENTS, read_patients),
        ("environment.json", "[]", read_environment),
        ("environment.json", '{"versions": "1"}', read_environment),
        ("metrics.jsonl", '{"epoch": 1}\n{"epo', lambda folder: read_metrics(folder, epochs=9)),
        ("metrics.jsonl", "[1]\n", lambda folder: read_metrics(folder, epochs=9)),
        ("metrics.jsonl", '{"epoch": 1, "train_loss": "low"}\n', lambda folder: read_metrics(folder, epochs=9)),
        ("metrics.jsonl", '{"epoch": 2}\n{"epoch": 1}\n', lambda folder: read_metrics(folder, epochs=9)),
        ("metrics.jsonl", '{"epoch": 1}\n', lambda folder: read_metrics(folder, epochs=9, columns=["train_loss"])),
        ("postprocessing.json", '{"threshold": 0.5, "epoch": 3}', read_tuned),
        ("postprocessing.json", TUNED.replace("0.5", "1.5"), read_tuned),
    ],
)
def test_damaged_files_of_a_run_are_named(tmp_path, name, content, read):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=rf"{name} is damaged"):
        read(tmp_path)


def test_a_damaged_checkpoint_is_named_with_the_other_one(tmp_path, trained, make_config):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    folders = sorted(int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit())
    for path in (run / "checkpoints" / str(folders[-1])).rglob("*"):
        if path.is_file() and "metric" not in str(path):
            path.write_bytes(b"damaged")
    config = make_config(**{**TRAINED, "train.epochs": 26})
    with pytest.raises(InputError, match=rf"epoch {folders[-1]} in .*checkpoints is damaged") as raised:
        train_and_evaluate(config, run)
    if len(folders) > 1:
        assert f"remove the folder {folders[-1]} there to use the checkpoint of epoch {folders[0]}" in str(raised.value)
        Predictor.from_workdir(run)  # the best one is whole
    json.loads((run / "config.json").read_text())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"split.protocol": "slice", "split.validation_share": float("inf")},
            "validation_share is inf: set it to a fin",
        ),
        ({"optimizer.weight_decay": -1.0}, r"optimizer\.weight_decay is -1\.0: set it to a number in \[0, inf\)"),
        ({"optimizer.plateau_factor": 10.0}, r"plateau_factor is 10\.0: set it to a number between 0 and 1"),
        ({"optimizer.minimum_learning_rate": 1.0}, r"minimum_learning_rate is 1\.0, above the learning rate of 0\.003"),
        ({"split.protocol": "slice", "split.fold": 3}, r"fold is 3, but protocol 'slice' has no folds: leave it out"),
    ],
)
def test_settings_without_a_meaning_are_refused(tmp_path, make_config, changes, message):
    with pytest.raises(InputError, match=message):
        train_and_evaluate(make_config(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: {"seed": 0}, "The config is dict, not a ConfigDict: let get_config of the config file return"),
        (lambda config: delattr(config.optimizer, "plateau_rtol"), "config.optimizer.plateau_rtol is missing: keep to"),
        (lambda config: setattr(config.augmentation, "blurr", 0.1), "config.augmentation.blurr is no field: keep to"),
        (lambda config: delattr(config, "model"), "config.model.name is missing"),
        (lambda config: setattr(config.train, "ema_decay", None), "config.train.ema_decay is None: set it to a value"),
        (lambda config: setattr(config, "seed", 2**63), "config.seed is beyond 2147483647"),
        (
            lambda config: setattr(config.model, "start_filters", 2**40),
            "config.model.start_filters is beyond 2147483647",
        ),
    ],
)
def test_what_is_no_config_is_refused(tmp_path, change, message):
    config = get_config()
    with config.unlocked():
        config = change(config) or config
    with pytest.raises(InputError, match=message):
        train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_places_that_cannot_be_written_are_named(tmp_path, trained, data_dir, run_script):
    (tmp_path / "file").write_text("mine")
    place = f"{tmp_path}/file/below"
    data = f"--config.data.data_dir={data_dir}"
    quickstart = f"--config={REPOSITORY}/configs/quickstart.py"
    for script, arguments in (
        ("prepare_data", ["--phantom=10", f"--data_dir={place}"]),
        ("train", [quickstart, data, f"--workdir={place}", "--config.data.image_size=32"]),
        ("evaluate", [f"--workdir={trained}", f"--output={place}", "--examples=0"]),
    ):
        finished = run_script(script, *arguments)
        assert finished.returncode == 1, finished.stderr
        assert "Traceback" not in finished.stderr
        assert f"{tmp_path}/file" in finished.stderr.splitlines()[-1]
    assert (tmp_path / "file").read_text() == "mine"
    empty = run_script("evaluate", f"--workdir={trained}", "--output=")
    assert (empty.returncode, empty.stderr) == (1, "error: --output is empty: name a place, or leave it out.\n")
