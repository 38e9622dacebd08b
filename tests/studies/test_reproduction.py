"""Reproduction: jobs stop in time and are resumed, also on another machine; only complete results are merged."""

import json
import math
import shutil
import time

import pytest

from brainseg_jax.errors import InputError
from brainseg_jax.evaluation import evaluate
from brainseg_jax.studies.reproduction.jobs import STAGES, Job, list_jobs
from brainseg_jax.studies.reproduction.results import copy_parts, describe_speed, merge, save_job, summary_table
from brainseg_jax.studies.reproduction.runner import Runner
from brainseg_jax.studies.results.save import RUN_FILES
from brainseg_jax.studies.results.tables import devices_table, reproduced_table
from brainseg_jax.utils.locks import lock
from tests.conftest import REPOSITORY

WRITES = "import pathlib, sys, time; time.sleep(float(sys.argv[2])); pathlib.Path(sys.argv[1]).write_text('x')"


@pytest.fixture
def make_runner(tmp_path):
    """A function that makes a runner with so many seconds, whose repository has a script `write.py FILE SECONDS`."""
    (tmp_path / "write.py").write_text(WRITES)
    for folder in ("state", "results"):
        (tmp_path / "out" / folder).mkdir(parents=True)

    def make(seconds=math.inf):
        return Runner(tmp_path / "out", repository=tmp_path, started=time.time(), seconds=seconds, environment={})

    return make


def make_job(runner, name, seconds, **options):
    """A job whose result is one file, after so many seconds."""
    path = runner.results / name / "done.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    return Job(
        **{"stage": "0", "name": name, "result": "done.txt", **options},
        commands=(("write.py", str(path), str(seconds)),),
    )


def run(runner, *jobs, minutes=None, missing=None):
    """Runs jobs of stages "0" and "1", of a minute each if not given; the outcome of each job."""
    minutes = minutes or {"0": 1, "1": 1}
    list(runner.run(jobs, minutes=minutes, missing=missing or {}))
    return {name: entry["outcome"] for name, entry in runner.progress.items()}


def test_a_job_is_run_once_unless_its_result_is_gone(make_runner):
    runner = make_runner()
    job = make_job(runner, "one", 0)
    assert run(runner, job) == {"one": "done"}
    path = runner.results / "one" / "done.txt"
    path.write_text("untouched")
    assert run(make_runner(), job) == {"one": "done"}
    assert path.read_text() == "untouched"
    path.unlink()
    assert run(make_runner(), job) == {"one": "done"}
    assert path.read_text() == "x"


def test_the_time_limit_is_kept_and_the_jobs_that_it_cut_off_are_named(make_runner):
    runner = make_runner(seconds=3)
    long, later = make_job(runner, "long", 60), make_job(runner, "later", 0, stage="1", min_seconds=2.6)
    started = time.time()
    assert run(runner, long, later) == {"long": "stopped", "later": "skipped"}
    assert 2.5 < time.time() - started < 10  # seconds, of the 60 that the job would take
    assert runner.progress["long"]["reason"] == "time limit reached"
    assert "needs 3 s at least" in runner.progress["later"]["reason"]


def test_a_stage_that_exceeds_its_minutes_waits_for_the_others(make_runner):
    runner = make_runner(seconds=30)
    slow, quick = make_job(runner, "slow", 2), make_job(runner, "quick", 0, stage="1")
    assert run(runner, slow, quick, minutes={"0": 0.01, "1": 1}) == {"slow": "done", "quick": "done"}
    written = [(runner.results / name / "done.txt").stat().st_mtime for name in ("quick", "slow")]
    assert written[0] < written[1]


def test_jobs_that_fail_or_cannot_run_are_named_and_the_others_run(make_runner):
    runner = make_runner()
    broken = Job("0", "broken", "done.txt", (("nowhere.py",),))
    on_gpu, ensemble = (
        make_job(runner, "on_gpu", 0, needs=("gpu",)),
        make_job(runner, "ensemble", 0, members=("broken",)),
    )
    jobs = (broken, on_gpu, ensemble, make_job(runner, "last", 0))
    outcomes = run(runner, *jobs, missing={"gpu": "no GPU here"})
    assert outcomes == {"broken": "failed", "on_gpu": "skipped", "ensemble": "skipped", "last": "done"}
    assert "nowhere.py ended with 2" in runner.progress["broken"]["reason"]
    assert runner.progress["on_gpu"]["reason"] == "no GPU here"
    assert runner.progress["ensemble"]["reason"] == "broken is not done"
    other = make_job(runner, "other", 0, members=("last",))
    assert run(runner, other)["other"] == "skipped"
    assert "last was trained on another machine" in runner.progress["other"]["reason"]
    table = summary_table([broken, on_gpu], runner.progress, runner.results)
    assert "| 0 | broken | failed: nowhere.py ended with 2: " in table
    assert "| 0 | on_gpu | skipped: no GPU here | – | – | 0.0 |" in table


def test_a_second_process_is_refused(make_runner, run_script, tmp_path):
    make_runner()
    with lock(tmp_path / "out" / "state" / "lock", refusal=""):
        refused = run_script("reproduce", "--tiny", f"--out={tmp_path / 'out'}")
    assert refused.returncode == 1
    assert "out is in use by another process: wait for it, or name another --out" in refused.stderr


def test_finished_folds_are_resumed_on_another_machine(tmp_path):
    """A fold whose results are saved is copied back to an empty workdir, and only a complete one is saved."""
    job = Job("folds", "cv", "evaluation_cv.json", ())
    for fold in (1, 2):
        for name in RUN_FILES[: None if fold == 1 else -1]:  # the second is not scored yet
            path = tmp_path / "cv" / f"fold_{fold}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
    save_job(job, tmp_path / "cv", tmp_path / "results")
    assert [path.name for path in (tmp_path / "results" / "cv").iterdir()] == ["fold_1"]
    copy_parts(job, tmp_path / "results" / "cv", tmp_path / "elsewhere" / "cv", overwrite=False)
    restored = tmp_path / "elsewhere" / "cv" / "fold_1"
    assert {path.name: path.read_text() for path in restored.iterdir()} == {name: name for name in RUN_FILES}


def test_the_time_to_a_dice_is_that_of_the_first_process():
    rows = [
        {"epoch": epoch, "seconds_since_start": seconds, "validation_dice": dice}
        for epoch, seconds, dice in ((1, 20.0, 0.3), (2, 30.0, 0.71), (3, 40.0, 0.8))
    ]
    assert describe_speed(rows) == "validation Dice 0.70 30 s after the process started (epoch 2)"
    rows[1]["seconds_since_start"] = 5.0  # resumed by another process
    assert describe_speed(rows) == "validation Dice at most 0.800"


def test_every_stage_has_jobs_of_distinct_names_and_known_configs(tmp_path):
    for tiny in (False, True):
        jobs = list(list_jobs(tiny=tiny, dataset="figshare", data_dir=tmp_path, directory=tmp_path))
        assert list(dict.fromkeys(job.stage for job in jobs)) == list(STAGES)
        assert len({job.name for job in jobs}) == len(jobs)
        for command in (command for job in jobs for command in job.commands):
            assert (REPOSITORY / command[0]).exists()
            for flag in command[1:]:
                if flag.startswith("--config="):
                    assert (REPOSITORY / flag.removeprefix("--config=")).exists()


def test_only_complete_results_of_real_slices_are_merged(trained, tmp_path):
    results = tmp_path / "out" / "results"
    run = results / "my_run"
    shutil.copytree(trained, run)
    evaluate.evaluate(run, split="test", output=run, examples=0)
    device = {"device": "Some GPU 80GB", "versions": {"jax": "1.2"}}
    checks = {**device, "complete": True, "checks": [{"passed": True}, {"passed": None}]}
    row = {"model": "unet", "mode": "train", "batch": "recipe"}
    speeds = {**device, "rows": [{**row, "dtype": "bfloat16", "ratio": 1.25}, {**row, "dtype": "float32", "ratio": 9}]}
    for folder, name, content in (
        ("half_cv/fold_1", "evaluation_test.json", {}),
        ("checks", "checks.json", checks),
        ("benchmark", "benchmark.json", speeds),
    ):
        (results / folder).mkdir(parents=True)
        (results / folder / name).write_text(json.dumps(content))
    (results / "summary.md").write_text("| a |\n")
    (results / "plan.txt").write_text("tiny, phantom\n")
    with pytest.raises(InputError, match=r"plan\.txt says tiny, phantom: only full runs"):
        merge(tmp_path / "out", tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    (results / "plan.txt").write_text("full, figshare\n")
    names = merge(tmp_path / "out", tmp_path / "kept")
    assert sorted(names) == ["benchmark_some_gpu_80gb", "checks_some_gpu_80gb", "my_run"]
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {*names, "reproduction"}
    assert "| Some GPU 80GB, jax 1.2 | 1 of 1 passed | 1.25 | – | – | – |" in devices_table(tmp_path / "kept")


def test_the_published_dice_stands_beside_ours_by_seed():
    def evaluation(seed, dice, protocol="slice"):
        intervals = {"dice": [dice - 0.05, dice + 0.05]}
        settings = {"network": "unet", "protocol": protocol, "image_size": 512, "seed": seed}
        return {**settings, "dice": dice, "intervals": intervals}

    evaluations = {"a": evaluation(1, 0.72), "b": evaluation(0, 0.70), "c": evaluation(0, 0.9, "family")}
    table = reproduced_table(evaluations)
    assert "| U-Net | 0.703 | **0.710** ± 0.014, 2 seeds | 0: 0.700, 1: 0.720 |" in table
    single = reproduced_table({"b": evaluation(0, 0.70)})
    assert "| U-Net | 0.703 | **0.700** (0.650 to 0.750), one seed | 0: 0.700 |" in single
    assert "| LinkNet | 0.715 | not measured yet | – |" in table
