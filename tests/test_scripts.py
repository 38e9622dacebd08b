"""The scripts as users run them: the whole way once, and every mistake as one sentence."""

import json
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import brainseg_jax
from tests.conftest import REPOSITORY

SMALL = (
    "--config.train.epochs=1",
    "--config.data.image_size=32",
    "--config.model.start_filters=4",
)


def test_the_whole_way_from_another_folder(run_script, tmp_path):
    prepared = run_script("prepare_data", "--phantom=10", "--data_dir=data", cwd=tmp_path)
    assert prepared.returncode == 0, prepared.stderr
    assert re.search(r"fold +slices +meningioma", prepared.stdout)
    arguments = ("--workdir=run", "--config.data.data_dir=data", *SMALL)
    config = f"--config={__file__.rsplit('/', 2)[0]}/configs/quickstart.py"
    trained = run_script("train", config, *arguments, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "train and test share 0 ids and 0 families" in trained.stdout
    again = run_script("train", config, *arguments, "--config.train.epochs=2", cwd=tmp_path)
    assert "Resumed after epoch 1 of 2" in again.stdout
    scored = run_script("evaluate", "--workdir=run", "--report", cwd=tmp_path)
    assert re.match(r"test: mean Dice 0\.\d{3} ", scored.stdout), scored.stderr
    assert json.loads((tmp_path / "run" / "evaluation_test.json").read_text())["protocol"] == "family"
    assert "report: run/report.html" in scored.stdout
    reported = run_script("report", "--workdir=run", "--output=out.html", "--max_slices=2", cwd=tmp_path)
    assert re.match(r"report written to out\.html \(0\.\d MB\)", reported.stdout), reported.stderr
    assert (tmp_path / "out.html").stat().st_size < (tmp_path / "run" / "report.html").stat().st_size
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70), np.uint8)).save(tmp_path / "own.png")
    predicted = run_script("predict", "--workdir=run", "--input=own.png", "--output=masks", cwd=tmp_path)
    assert predicted.returncode == 0, predicted.stderr
    assert Image.open(tmp_path / "masks" / "own_mask.png").size == (70, 50)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("config.data.imagesize = 64", r"config has no field imagesize: did you mean config\.data\.image_size\?"),
        ("config.data.image_size = 'large'", "TypeError: .*large"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("config.seed =", "SyntaxError: invalid syntax"),
    ],
)
def test_a_mistake_in_a_config_file_is_named_with_its_line(run_script, tmp_path, monkeypatch, line, message):
    monkeypatch.setenv("HOME", str(tmp_path))
    text = f"from brainseg_jax.config import get_config as get\n\ndef get_config():\n    config = get()\n    {line}\n"
    (tmp_path / "own.py").write_text(text + "    return config\n")
    finished = run_script("train", "--config=~/own.py", "--workdir=~/out", cwd=tmp_path)
    assert finished.returncode == 1
    assert re.fullmatch(rf"error: \S*own\.py, line 5: {message}.*\n", finished.stderr), finished.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name != ".cache"] == ["own.py"]


def test_programs_that_pip_installs_are_the_scripts(tmp_path):
    installed = {point.name for point in metadata.entry_points(group="console_scripts") if "brainseg" in point.name}
    scripts = {f"brainseg-{path.stem.replace('_', '-')}" for path in (REPOSITORY / "scripts").glob("*.py")}
    assert "brainseg-predict" in installed <= scripts

    def run(name, *arguments):
        program = Path(sys.executable).with_name(name)
        return subprocess.run([program, *arguments], capture_output=True, text=True, cwd=tmp_path, check=False)

    version = run("brainseg-train", "--version")
    assert (version.returncode, version.stdout) == (0, f"brainseg_jax {brainseg_jax.__version__}\n")
    refused = run("brainseg-predict", "--input=nowhere.png", "--output=out")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "error: --input=nowhere.png does not exist" in refused.stderr


@pytest.mark.parametrize("script", ["predict", "evaluate"])
def test_help_lists_the_flags_of_postprocessing(script, run_script):
    shown = run_script(script, "--help").stdout
    assert all(f"--{name}" in shown for name in ("threshold", "min_component_fraction", "[no]tta_flip"))
    assert "--verbosity" not in shown  # of absl


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("prepare_data", ["--manual_dir=nowhere", "--data_dir=out"], "manual_dir nowhere is not a folder"),
        ("prepare_data", ["--manual_dir=.", "--data_dir=out"], r"holds none of the dataset's zips"),
        ("prepare_data", ["--phantom=2", "--data_dir=out"], "patients must be at least 10"),
        ("prepare_data", ["--phantom=20", "--manual_dir=.", "--data_dir=out"], "exclude each other"),
        ("prepare_data", ["data"], "data is not a flag"),
        ("train", ["--config=CONFIGS/unet.py", "--workdir=out", "--config.data.data_dir=none"], "run `python scripts"),
        (
            "train",
            ["--config=CONFIGS/unet.py", "--workdir=out", "--config.train.epoch=3"],
            r"config has no field epoch: did you mean config\.train\.epochs\?",
        ),
        ("train", ["--config=CONFIGS/unet.py", "--workdir=out", "--config.optimizer.lr=1"], "config has no field lr: "),
        ("train", ["--config=CONFIGS/unet.py", "--workdir=out", "--config.foo.bar=1"], "config has no field foo: "),
        (
            "train",
            ["--config=CONFIGS/unet.py", "--workdir=out", "--config.optimiser.learning_rate=1"],
            r"config has no field optimiser: did you mean config\.optimizer\?",
        ),
        (
            "train",
            ["--config=CONFIGS/unet.py", "--workdir=out", "--config.optimizer.learning_rate=fast"],
            r"brainseg_jax/config\.py lists the fields",
        ),
        ("train", ["--config=CONFIGS/unet.py", "--workdir=out", "--config.train.epochs=three"], "three"),
        ("train", ["--config=none.py", "--workdir=out"], r"Failed loading config file .*none\.py"),
        ("evaluate", ["--workdir=nowhere"], "nowhere is no folder and no name of weights in the package"),
        ("predict", ["--workdir=nowhere", "--input=*.png", "--output=out"], "names no image"),
        ("cross_validate", ["--config=CONFIGS/unet.py", "--workdir=out"], "holds no figshare_brain_tumor|needs folds"),
        ("ablate", ["--config=CONFIGS/unet_strong.py", "--workdir=out", "--variants=magic"], "--variants names magic"),
        ("reproduce", ["--out=out"], "--data_dir is missing: name the prepared dataset, or add --tiny"),
        ("reproduce", ["--out=out", "--data_dir=none"], r"none holds no figshare_brain_tumor"),
        ("reproduce", ["--out=out", "--tiny", "--stages=magic"], "--stages names magic: choose from correctness"),
        ("reproduce", ["--out=out", "--tiny", "--jobs=magic"], "--jobs names magic: choose from checks, unet_64_slice"),
        ("evaluate", ["--workdir=one,two"], "--output is missing: name a folder"),
        ("save_results", ["--reproduced=nowhere"], r"nowhere/results/plan\.txt is missing"),
        ("compare", ["nowhere"], "DIR_B is missing: give DIR_A DIR_B"),
        ("compare", ["one", "two", "three"], "three is not a flag"),
        ("compare", ["one", "two"], r"one/per_slice_test\.csv is missing"),
        ("report", ["--workdir=nowhere", "--output=out"], r"nowhere/per_slice_test\.csv is missing: score the run"),
        ("save_results", ["--workdir=nowhere"], r"nowhere/config\.json is missing"),
        ("draw_published_curves", ["--workdir=nowhere"], r"nowhere/config\.json is missing"),
        ("export", ["--weights=nowhere", "--output=out", "--formats=torch"], "names torch: choose from onnx"),
        ("compile_for_gpu", ["--gpu=h1000", "--output=out"], "--gpu is 'h1000': set it to one of h100, a100"),
        ("draw_networks", ["--image_size=100", "--output=out"], "multiple of 64"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(run_script, tmp_path, script, arguments, message):
    configs = f"{__file__.rsplit('/', 2)[0]}/configs"
    finished = run_script(script, *(argument.replace("CONFIGS", configs) for argument in arguments), cwd=tmp_path)
    assert finished.returncode == 1, finished.stdout + finished.stderr
    assert "Traceback" not in finished.stderr
    errors = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, finished.stderr
    assert re.search(message, errors[0]), errors[0]
    assert not (tmp_path / "out").exists()


def test_a_build_from_another_source_is_refused_by_the_script(run_script, tmp_path, phantom_archives):
    arguments = ("--data_dir=data", f"--manual_dir={phantom_archives}")
    refused = run_script("prepare_data", *arguments, cwd=tmp_path)  # phantom slices are no published ones
    assert refused.returncode == 1
    assert "is a phantom slice" in refused.stderr
    assert "brainTumorDataPublic_1-766.zip" in refused.stdout + refused.stderr  # the warning about its MD5
    assert not list(tmp_path.rglob("*.array_record*"))


def test_results_are_kept_and_their_table_is_made(trained, tmp_path):
    from brainseg_jax.evaluation import evaluate
    from brainseg_jax.studies.results.save import RUN_FILES, save_run
    from brainseg_jax.studies.results.tables import read_evaluations, write_tables

    run = tmp_path / "my_run"
    shutil.copytree(trained, run)
    evaluate.evaluate(run, split="test", output=run, examples=0)
    save_run(run, tmp_path / "results")
    kept = {path.name for path in (tmp_path / "results" / "my_run").iterdir()}
    assert kept == {*RUN_FILES, "learning_curves.png", "scores.png"}
    page, other = tmp_path / "page.md", tmp_path / "results" / "README.md"
    for path, names in ((page, ("results", "reproduced")), (other, ("results", "peers", "devices"))):
        tables = (f"<!-- {name}: scripts/save_results.py -->\nstale\n<!-- end of {name} -->\n" for name in names)
        path.write_text(f"before\n{''.join(tables)}after\n")
    evaluations = read_evaluations(tmp_path / "results")
    for _ in range(2):
        write_tables(tmp_path / "results", page)
    assert "[my_run](my_run)" in other.read_text()
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "stale" not in text
    assert text.count("[my_run](results/my_run) | U-Net 8 | family, fold 1 | 32×32") == 1
    assert f"**{evaluations['my_run']['dice']:.3f}**" in text


def test_networks_are_compared_on_the_same_drawn_slices(run_script, trained, tmp_path):
    drawn = run_script("draw_phantom_figures", f"--workdir={trained},{trained}", f"--output={tmp_path}")
    assert drawn.returncode == 0, drawn.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"phantom_slices.png", "phantom_predictions.png"}


def test_images_of_patients_are_never_drawn_for_the_readme(run_script, trained, tmp_path):
    real = tmp_path / "real"
    shutil.copytree(trained, real)
    config = json.loads((real / "config.json").read_text())
    config["data"]["dataset"] = "figshare"
    (real / "config.json").write_text(json.dumps(config))
    refused = run_script("draw_phantom_figures", f"--workdir={trained},{real}", f"--output={tmp_path / 'out'}")
    assert refused.returncode == 1
    assert re.search(r"real/config\.json: data\.dataset is not phantom", refused.stderr)
    assert not (tmp_path / "out").exists()
