"""Every result again: `python scripts/reproduce.py --data_dir=data --out=runs/reproduction --minutes=25`."""

import importlib.util
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from absl import flags

from brainseg_jax import cli
from brainseg_jax.errors import InputError

DATA_DIR = flags.DEFINE_string("data_dir", None, "The prepared dataset, as prepare_data.py wrote it.")
OUT = flags.DEFINE_string("out", None, "Folder for state/ and results/; what is there is gone on with.", required=True)
MINUTES = flags.DEFINE_float("minutes", 0.0, "How long this call may take; 0: until all is done.")
STAGES = flags.DEFINE_list("stages", [], "Which stages, separated by commas; all if not given.")
TINY = flags.DEFINE_bool("tiny", False, "Everything in miniature on a CPU, on phantoms if --data_dir is not given.")
REPOSITORY = Path(__file__).resolve().parents[1]
PATIENTS = 12  # of the phantom slices
LESS_COMPILING = "--xla_backend_optimization_level=1"  # in miniature, compiling is most of the work


def main() -> None:
    """Runs what is not done and prints the summary after each stage."""
    from brainseg_jax.studies.reproduction import stages, summary
    from brainseg_jax.studies.reproduction.runner import Runner, alone_in

    seconds = MINUTES.value * 60 or math.inf
    if unknown := sorted(set(STAGES.value) - set(stages.NAMES)):
        raise InputError(f"--stages names {unknown[0]}: choose from {', '.join(stages.NAMES)}.")
    if seconds <= 0:
        raise InputError(f"--minutes is {MINUTES.value}: set it to a number above 0, or leave it out.")
    if not (DATA_DIR.value or TINY.value):
        raise InputError("--data_dir is missing: name the prepared dataset, or add --tiny for a miniature on drawings.")
    directory = Path(OUT.value).absolute()
    dataset, data_dir = "figshare", Path(DATA_DIR.value or directory / "state" / "data").absolute()
    if DATA_DIR.value:
        _require_dataset(data_dir, dataset)
    else:
        dataset = "phantom"
    for folder in ("state", "results"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    with alone_in(directory):
        _require_same_plan(directory, f"{'tiny' if TINY.value else 'full'}, {dataset}")
        environment = {"JAX_PLATFORMS": "cpu"} if TINY.value else {}
        if TINY.value:
            environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {LESS_COMPILING}".strip()
        started = psutil.Process().create_time()
        runner = Runner(directory, repository=REPOSITORY, started=started, seconds=seconds, environment=environment)
        if dataset == "phantom":
            _draw_dataset(runner, data_dir)
        plan = stages.TINY if TINY.value else stages.FULL
        planned = stages.make_stages(
            plan, dataset=dataset, data_dir=str(data_dir), state=runner.state, results=runner.results
        )
        chosen = [stage for stage in planned if not STAGES.value or stage.name in STAGES.value]

        def show() -> None:
            table = summary.summary_table(planned, runner.progress, runner.results)
            (runner.results / "summary.md").write_text(f"{table}\n")
            print(f"\n{table}\n", flush=True)

        runner.run(chosen, missing=_missing(environment), after_stage=show)
        show()
        print(f"{(time.time() - started) / 60:.1f} minutes; results in {runner.results}")
        if failed := [name for name, known in runner.progress.items() if known["outcome"] == "failed"]:
            raise InputError(f"{', '.join(failed)} failed: see the table above and {runner.state / 'logs'}.")


def _require_dataset(data_dir: Path, dataset: str) -> None:
    from brainseg_jax.data.dataset import Dataset

    Dataset(str(data_dir), config=dataset)


def _require_same_plan(directory: Path, plan: str) -> None:
    path = directory / "results" / "plan.txt"
    if path.exists() and path.read_text().strip() != plan:
        raise InputError(f"{path} says {path.read_text().strip()}, this command is {plan}: name another --out.")
    path.write_text(f"{plan}\n")


def _draw_dataset(runner: Any, data_dir: Path) -> None:
    """Draws the slices, unless an earlier call did."""
    try:
        _require_dataset(data_dir, "phantom")
    except InputError:
        command = ("scripts/prepare_data.py", f"--phantom={PATIENTS}", f"--data_dir={data_dir}")
        outcome, reason = runner.command(command, runner.state / "logs" / "data.log", end=math.inf, environment={})
        if outcome != "done":
            raise InputError(f"The slices could not be drawn: {reason}.") from None


def _missing(environment: Mapping[str, str]) -> dict[str, str]:
    """What there is not. JAX is asked in a process of its own: this one must not take the GPU's memory."""
    question = "import jax; print(jax.default_backend())"
    answer = subprocess.run(
        [sys.executable, "-c", question], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    found = {}
    if "gpu" not in answer.stdout:
        found["gpu"] = "no GPU here"
    if importlib.util.find_spec("torch") is None:
        found["torch"] = "no PyTorch here (pip install -e '.[bench]')"
    return found


if __name__ == "__main__":
    cli.run(main)
