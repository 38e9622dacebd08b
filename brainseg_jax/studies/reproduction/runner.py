"""Runs jobs within a time limit and resumes where an earlier call stopped or was killed."""

import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from brainseg_jax.studies.processes import GRACE_SECONDS, run_command
from brainseg_jax.studies.reproduction.jobs import Job
from brainseg_jax.studies.reproduction.results import copy_parts, save_job
from brainseg_jax.utils.files import read_json, write_json


class Runner:
    """Runs jobs.

    Attributes:
      progress: the content of results/progress.json, for each job `outcome` ("done", "stopped", "failed" or "skipped"),
        `seconds` over all calls and `reason`.
    """

    def __init__(
        self, directory: Path, *, repository: Path, started: float, seconds: float, environment: Mapping[str, str]
    ) -> None:
        """Reads the progress of earlier calls.

        Args:
          directory: holds state/ and results/.
          repository: the checkout whose scripts are run.
          started: start of the time limit, as `time.time`.
          seconds: time limit; infinite for none.
          environment: additional environment variables of all commands.
        """
        self.results, self.state = directory / "results", directory / "state"
        self._repository, self._environment = repository, environment
        self._grace = min(GRACE_SECONDS, 0.05 * seconds)
        self._deadline = started + seconds - self._grace
        self._path = self.results / "progress.json"
        self.progress: dict[str, dict[str, Any]] = read_json(self._path) if self._path.exists() else {}

    def run(self, jobs: Sequence[Job], *, minutes: Mapping[str, float], missing: Mapping[str, str]) -> Iterator[str]:
        """Runs the jobs that are not done: each stage for its minutes, then all that are left for the rest of the time.

        Args:
          jobs: in order of value.
          minutes: of each stage.
          missing: for "gpu" and "torch", if the machine lacks it, a message that says so.

        Yields:
          Each stage in which a job ran.
        """
        failed: set[str] = set()
        # Without a time limit no stage has to wait for its turn.
        for limited in (False,) if math.isinf(self._deadline) else (True, False):
            for stage in dict.fromkeys(job.stage for job in jobs):
                end = min(self._deadline, time.time() + minutes[stage] * 60) if limited else self._deadline
                outcomes = {}
                for job in jobs:
                    if job.stage == stage and job.name not in failed and self._can_run(job, end, missing):
                        outcomes[job.name] = self._run_job(job, end)
                failed |= {name for name, outcome in outcomes.items() if outcome == "failed"}
                if outcomes:
                    yield stage

    def _outcome(self, name: str) -> str:
        return self.progress.get(name, {}).get("outcome", "")

    def _can_run(self, job: Job, end: float, missing: Mapping[str, str]) -> bool:
        """Returns whether the job is not done and can run; otherwise records the reason."""
        if self._outcome(job.name) == "done" and (self.results / job.name / job.result).exists():
            return False
        reasons = [missing[need] for need in job.needs if need in missing]
        for member in job.members:
            if self._outcome(member) != "done":
                reasons.append(f"{member} is not done")
            elif not (self.state / member / "checkpoints").is_dir():
                reasons.append(f"{member} was trained on another machine, where its checkpoints are")
        left = max(end - time.time(), 0)
        if left <= job.min_seconds:
            reasons.append(f"needs {job.min_seconds:.0f} s at least, {left:.0f} s were left")
        if reasons and self._outcome(job.name) not in ("stopped", "failed"):
            self._record(job, "skipped", 0.0, reasons[0])
        return not reasons

    def _run_job(self, job: Job, end: float) -> str:
        workdir, started = self.state / job.name, time.time()
        if job.restarts:
            shutil.rmtree(workdir, ignore_errors=True)
        copy_parts(job, self.results / job.name, workdir, overwrite=False)  # finished on another machine
        print(f"{job.stage}: {job.name} …", flush=True)
        outcome, reason = "done", ""
        for command in job.commands:
            outcome, reason = self.run_script(command, job.name, end=end, environment=job.environment)
            if outcome != "done":
                break
        save_job(job, workdir, self.results)
        seconds = time.time() - started
        self._record(job, outcome, seconds, reason)
        print(f"{job.stage}: {job.name} {outcome} after {seconds:.0f} s {reason}".rstrip(), flush=True)
        return outcome

    def run_script(
        self, command: Sequence[str], name: str, *, end: float = math.inf, environment: Mapping[str, str] | None = None
    ) -> tuple[str, str]:
        """Runs a script until it ends or until `end` (as `time.time`) and returns outcome and reason (see `progress`).

        Its output is appended to state/logs/<name>.log.
        """
        log = self.state / "logs" / f"{name}.log"
        code = run_command(
            [sys.executable, *command],
            log,
            environment={**os.environ, **self._environment, **(environment or {})},
            timeout=None if math.isinf(end) else max(end - time.time(), 0),
            grace=self._grace,
            cwd=self._repository,
        )
        if code is None:
            return "stopped", "time limit reached"
        if code:
            last = [line for line in log.read_text().splitlines() if line.strip()][-1:]
            return "failed", f"{Path(command[0]).name} ended with {code}: {''.join(last)[:300]} (full log: {log})"
        return "done", ""

    def _record(self, job: Job, outcome: str, seconds: float, reason: str) -> None:
        before = self.progress.get(job.name, {}).get("seconds", 0.0)
        self.progress[job.name] = {"outcome": outcome, "seconds": round(before + seconds, 1), "reason": reason}
        write_json(self._path, self.progress)
