"""Reproduction: jobs stop in time and are gone on with, parts outlive a machine, and only whole results are kept."""

import json
import math
import shutil
import time

import pytest

from brainseg_jax.errors import InputError
from brainseg_jax.evaluation import evaluate
from brainseg_jax.studies.reproduction import jobs, merge, stages
from brainseg_jax.studies.reproduction.runner import Runner, alone_in
from brainseg_jax.studies.results import RUN_FILES, devices_table, reproduced_table
from tests.conftest import REPOSITORY

WRITES = "import pathlib, sys, time; time.sleep(float(sys.argv[2])); pathlib.Path(sys.argv[1]).write_text('x')"
KIND = jobs.ResultKind("done.txt", (), lambda workdir, folder: None, lambda folder: "found")


@pytest.fixture
def make_runner(tmp_path):
    """A function that makes a runner with so many seconds, whose repository has a script `write.py FILE SECONDS`."""
    (tmp_path / "write.py").write_text(WRITES)
    for folder in ("state", "results"):
        (tmp_path / "out" / folder).mkdir(parents=True)

    def make(seconds=math.inf):
        return Runner(tmp_path / "out", repository=tmp_path, started=time.time(), seconds=seconds, environment={})

    return make


def job_of(runner, name, seconds, **options):
    """A job whose result is one file, after so many seconds."""
    path = runner.results / name / "done.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    return jobs.Job(name, KIND, (("write.py", str(path), str(seconds)),), **{"least_seconds": 0.0, **options})


def run(runner, *of_stages, missing=None):
    """Runs stages, each of so many minutes and jobs; the outcome of each job."""
    staged = [stages.Stage(str(number), minutes, tuple(of)) for number, (minutes, of) in enumerate(of_stages)]
    runner.run(staged, missing=missing or {}, after_stage=lambda: None)
    return {name: known["outcome"] for name, known in runner.progress.items()}


def test_a_job_is_run_once_unless_its_result_is_gone(make_runner):
    runner = make_runner()
    job = job_of(runner, "one", 0)
    assert run(runner, (1, [job])) == {"one": "done"}
    path = runner.results / "one" / "done.txt"
    path.write_text("untouched")
    assert run(make_runner(), (1, [job])) == {"one": "done"}
    assert path.read_text() == "untouched"
    path.unlink()
    assert run(make_runner(), (1, [job])) == {"one": "done"}
    assert path.read_text() == "x"


def test_the_minutes_are_kept_and_what_was_left_is_named(make_runner):
    runner = make_runner(seconds=3)
    long, later = job_of(runner, "long", 60), job_of(runner, "later", 0, least_seconds=2.6)
    started = time.time()
    assert run(runner, (1, [long]), (1, [later])) == {"long": "stopped", "later": "skipped"}
    assert 2.5 < time.time() - started < 3.3
    assert runner.progress["long"]["reason"] == "for want of time"
    assert "needs 3 s at least" in runner.progress["later"]["reason"]


def test_a_stage_over_its_minutes_waits_for_the_others(make_runner):
    runner = make_runner(seconds=30)
    slow, quick = job_of(runner, "slow", 2), job_of(runner, "quick", 0)
    assert run(runner, (0.01, [slow]), (1, [quick])) == {"slow": "done", "quick": "done"}
    written = [(runner.results / name / "done.txt").stat().st_mtime for name in ("quick", "slow")]
    assert written[0] < written[1]


def test_what_fails_or_cannot_run_is_named_and_the_rest_goes_on(make_runner):
    runner = make_runner()
    broken = jobs.Job("broken", KIND, (("nowhere.py",),), 0.0)
    on_gpu, member = job_of(runner, "on_gpu", 0, needs=("gpu",)), job_of(runner, "of_others", 0, members=("broken",))
    outcomes = run(runner, (1, [broken, on_gpu, member, job_of(runner, "last", 0)]), missing={"gpu": "no GPU here"})
    assert outcomes == {"broken": "failed", "on_gpu": "skipped", "of_others": "skipped", "last": "done"}
    assert "nowhere.py ended with 2" in runner.progress["broken"]["reason"]
    assert runner.progress["on_gpu"]["reason"] == "no GPU here"
    assert runner.progress["of_others"]["reason"] == "broken is not done"
    of_last = job_of(runner, "of_last", 0, members=("last",))
    assert run(runner, (1, [of_last]))["of_last"] == "skipped"
    assert "last was trained on another machine" in runner.progress["of_last"]["reason"]


def test_a_second_process_is_kept_off(make_runner):
    directory = make_runner().directory
    with alone_in(directory), pytest.raises(InputError, match="is in use by another process"), alone_in(directory):
        pass


def test_parts_outlive_the_machine(tmp_path):
    """A fold whose results are kept is given back to an empty workdir, and only a whole one is kept."""
    job = jobs.Job("cv", jobs.FOLDS, (), 0.0)
    for fold in (1, 2):
        for name in RUN_FILES[: None if fold == 1 else -1]:  # the second is not scored yet
            path = tmp_path / "cv" / f"fold_{fold}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
    jobs.FOLDS.keep(tmp_path / "cv", tmp_path / "results")
    assert [path.name for path in (tmp_path / "results" / "cv").iterdir()] == ["fold_1"]
    jobs.restore_parts(job, tmp_path / "elsewhere" / "cv", tmp_path / "results" / "cv")
    restored = tmp_path / "elsewhere" / "cv" / "fold_1"
    assert {path.name: path.read_text() for path in restored.iterdir()} == {name: name for name in RUN_FILES}


def test_the_time_to_a_dice_is_that_of_the_first_process():
    rows = [
        {"epoch": epoch, "seconds_since_start": seconds, "validation_dice": dice}
        for epoch, seconds, dice in ((1, 20.0, 0.3), (2, 30.0, 0.71), (3, 40.0, 0.8))
    ]
    assert jobs.describe_speed(rows) == "validation Dice 0.70 30 s after the process started (epoch 2)"
    rows[1]["seconds_since_start"] = 5.0  # gone on with by another process
    assert jobs.describe_speed(rows) == "validation Dice at most 0.800"


def test_every_stage_has_jobs_of_distinct_names_and_known_configs(tmp_path):
    for plan in (stages.FULL, stages.TINY):
        made = stages.make_stages(plan, dataset="figshare", data_dir="data", state=tmp_path, results=tmp_path)
        assert [stage.name for stage in made] == list(stages.NAMES)
        names = [job.name for stage in made for job in stage.jobs]
        assert len(set(names)) == len(names)
        for stage in made:
            assert stage.jobs
            for command in (command for job in stage.jobs for command in job.commands):
                assert (REPOSITORY / command[0]).exists()
                for flag in command[1:]:
                    if flag.startswith("--config="):
                        assert (REPOSITORY / flag.removeprefix("--config=")).exists()


def test_only_whole_results_of_real_slices_are_kept(trained, tmp_path):
    found = tmp_path / "out" / "results"
    run = found / "my_run"
    shutil.copytree(trained, run)
    evaluate.evaluate(run, split="test", output=run, examples=0)
    device = {"device": "Some GPU 80GB", "checks": [{"passed": True}, {"passed": None}]}
    for folder, name, content in (
        ("half_cv/fold_1", "evaluation_test.json", {}),
        ("checks", "checks.json", device),
        (
            "benchmark",
            "benchmark.json",
            {**device, "rows": [{"model": "unet", "mode": "train", "batch": "recipe", "ratio": 1.25}]},
        ),
    ):
        (found / folder).mkdir(parents=True)
        (found / folder / name).write_text(json.dumps(content))
    (found / "summary.md").write_text("| a |\n")
    (found / "plan.txt").write_text("tiny, phantom\n")
    with pytest.raises(InputError, match=r"plan\.txt says tiny, phantom: only full runs"):
        merge.merge(tmp_path / "out", tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    (found / "plan.txt").write_text("full, figshare\n")
    names = merge.merge(tmp_path / "out", tmp_path / "kept")
    assert sorted(names) == ["benchmark_some_gpu_80gb", "checks_some_gpu_80gb", "my_run"]
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {*names, "reproduction"}
    assert "| Some GPU 80GB | 1 of 1 passed | 1.25 | – | – | – |" in devices_table(tmp_path / "kept")


def test_the_published_dice_stands_beside_ours_by_seed():
    def found(seed, dice, **changes):
        run = {"network": "unet", "protocol": "slice", "image_size": 512, "seed": seed, "dice": dice}
        return {**run, **changes}

    evaluations = {"a": found(1, 0.72), "b": found(0, 0.70), "c": found(0, 0.9, protocol="family")}
    table = reproduced_table(evaluations)
    assert "| U-Net | 0.703 | **0.710** ± 0.014 | 0: 0.700, 1: 0.720 |" in table
    assert "| LinkNet | 0.715 | not measured yet | – |" in table
