"""Reproduces all results: `python scripts/reproduce.py --data_dir=data --out=runs/reproduction --minutes=25`."""

import importlib.util
import itertools
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from absl import flags

from brainseg_jax import cli
from brainseg_jax.errors import InputError

if TYPE_CHECKING:
    from brainseg_jax.studies.reproduction.runner import Runner

DATA_DIR = flags.DEFINE_string("data_dir", None, "The prepared dataset, as prepare_data.py wrote it.")
OUT = flags.DEFINE_string(
    "out", None, "Folder for state/ and results/; an earlier call there is resumed.", required=True
)
MINUTES = flags.DEFINE_float("minutes", 0.0, "Time limit of this call; 0: until all is done.", lower_bound=0.0)
STAGES = flags.DEFINE_list("stages", [], "Which stages, separated by commas; all if not given.")
JOBS = flags.DEFINE_list("jobs", [], "Which jobs of these stages, as the summary names them; all if not given.")
TINY = flags.DEFINE_bool("tiny", False, "Everything in miniature on a CPU, on phantoms if --data_dir is not given.")
REPOSITORY = Path(__file__).resolve().parents[1]
PATIENTS = 12  # in the phantom slices
TINY_STAGE_MINUTES = 5.0
LESS_COMPILING = "--xla_backend_optimization_level=1"  # compiling is most of the work of a miniature


def main() -> None:
    """Runs the jobs that are not done and prints the summary after each stage."""
    from brainseg_jax.data.dataset import Dataset
    from brainseg_jax.studies.reproduction import jobs, results
    from brainseg_jax.studies.reproduction.runner import Runner
    from brainseg_jax.utils.locks import lock

    if unknown := sorted(set(STAGES.value) - set(jobs.STAGES)):
        raise InputError(f"--stages names {unknown[0]}: choose from {', '.join(jobs.STAGES)}.")
    if not (DATA_DIR.value or TINY.value):
        raise InputError("--data_dir is missing: name the prepared dataset, or add --tiny for a miniature on phantoms.")
    directory = Path(OUT.value).absolute()
    dataset = "figshare" if DATA_DIR.value else "phantom"
    data_dir = Path(DATA_DIR.value or directory / "state" / "data").absolute()
    if DATA_DIR.value:
        Dataset(str(data_dir), config=dataset)  # refuses a folder without the dataset
    all_jobs = list(jobs.list_jobs(tiny=TINY.value, dataset=dataset, data_dir=data_dir, directory=directory))
    if unknown := sorted(set(JOBS.value) - {job.name for job in all_jobs}):
        raise InputError(f"--jobs names {unknown[0]}: choose from {', '.join(job.name for job in all_jobs)}.")
    chosen = [
        job
        for job in all_jobs
        if (not STAGES.value or job.stage in STAGES.value) and (not JOBS.value or job.name in JOBS.value)
    ]
    for folder in ("state", "results"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    refusal = f"{directory} is in use by another process: wait for it, or name another --out."
    with lock(directory / "state" / "lock", refusal=refusal):
        plan, plan_path = f"{'tiny' if TINY.value else 'full'}, {dataset}", directory / "results" / "plan.txt"
        if plan_path.exists() and (before := plan_path.read_text().strip()) != plan:
            raise InputError(f"{plan_path} says {before}, this command is {plan}: name another --out.")
        plan_path.write_text(f"{plan}\n")
        environment = {}
        if TINY.value:
            options = f"{os.environ.get('XLA_FLAGS', '')} {LESS_COMPILING}".strip()
            environment = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": options}
        started = psutil.Process().create_time()
        seconds = MINUTES.value * 60 or math.inf
        runner = Runner(directory, repository=REPOSITORY, started=started, seconds=seconds, environment=environment)
        if dataset == "phantom":
            _make_phantoms(runner, data_dir)
        minutes = dict.fromkeys(jobs.STAGES, TINY_STAGE_MINUTES) if TINY.value else jobs.STAGES
        stages = runner.run(chosen, minutes=minutes, missing=_find_missing(environment))
        for _ in itertools.chain(stages, ["end"]):  # also when nothing is left to run
            table = results.summary_table(all_jobs, runner.progress, runner.results)
            (runner.results / "summary.md").write_text(f"{table}\n")
            print(f"\n{table}\n", flush=True)
        print(f"{(time.time() - started) / 60:.1f} minutes; results in {runner.results}")
        if failed := [name for name, entry in runner.progress.items() if entry["outcome"] == "failed"]:
            raise InputError(f"{', '.join(failed)} failed: see the table above and {runner.state / 'logs'}.")


def _make_phantoms(runner: "Runner", data_dir: Path) -> None:
    """Prepares the phantom slices unless an earlier call did."""
    from brainseg_jax.data.dataset import Dataset

    try:
        Dataset(str(data_dir), config="phantom")
    except InputError:
        command = ("scripts/prepare_data.py", f"--phantom={PATIENTS}", f"--data_dir={data_dir}")
        outcome, reason = runner.run_script(command, "data")
        if outcome != "done":
            raise InputError(f"The phantom slices could not be made: {reason}.") from None


def _find_missing(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns what this machine lacks. JAX runs in another process, since here it would take the GPU's memory."""
    question = "import jax; print(jax.default_backend())"
    answer = subprocess.run(
        [sys.executable, "-c", question], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    missing = {}
    if "gpu" not in answer.stdout:
        missing["gpu"] = "no GPU here"
    if importlib.util.find_spec("torch") is None:
        missing["torch"] = "no PyTorch here (pip install -e '.[bench]')"
    return missing


if __name__ == "__main__":
    cli.run(main)
