"""Runs jobs within a time, and goes on where an earlier call stopped or was killed."""

import fcntl
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from brainseg_jax.errors import InputError
from brainseg_jax.studies.reproduction.jobs import Job, restore_parts
from brainseg_jax.studies.reproduction.stages import Stage
from brainseg_jax.utils import xla_setup
from brainseg_jax.utils.files import write_json

MOST_GRACE = 10.0  # seconds that a stopped command has to end by itself


class Runner:
    """Runs the jobs of stages.

    Attributes:
      progress: what progress.json holds: by job `outcome` ("done", "stopped", "failed"), `seconds` over all calls and
        `reason`.
    """

    def __init__(
        self, directory: Path, *, repository: Path, started: float, seconds: float, environment: Mapping[str, str]
    ) -> None:
        """Reads what earlier calls did.

        Args:
          directory: holds state/ and results/.
          repository: the checkout, whose scripts are run.
          started: when the time began to run, as `time.time`.
          seconds: how long it is; infinite for no limit.
          environment: variables of all commands.
        """
        self.directory, self.results, self.state = directory, directory / "results", directory / "state"
        self.progress: dict[str, dict[str, Any]] = {}
        self._repository, self._environment = repository, dict(environment)
        self._grace = min(MOST_GRACE, 0.05 * seconds)
        self._end = started + seconds - self._grace
        self._path = self.results / "progress.json"
        if self._path.exists():
            self.progress = json.loads(self._path.read_text())

    def run(self, stages: Sequence[Stage], *, missing: Mapping[str, str], after_stage: Callable[[], None]) -> None:
        """Runs what is not done: every stage for its minutes, then whatever is left for the rest of the time.

        Args:
          stages: in order of value.
          missing: what there is not, "gpu" or "torch", and the sentence that says so.
          after_stage: called after each stage that did something.
        """
        failed: set[str] = set()
        # Without an end nobody has to wait for a turn.
        for limited in (False,) if math.isinf(self._end) else (True, False):
            for stage in stages:
                end = min(self._end, time.time() + stage.minutes * 60) if limited else self._end
                did = [self._run_job(stage, job, end, missing) for job in stage.jobs if job.name not in failed]
                failed |= {job.name for job in stage.jobs if self._outcome(job) == "failed"}
                if any(did):
                    after_stage()

    def is_done(self, job: Job) -> bool:
        """Whether its result is there, whole."""
        return self._outcome(job) == "done" and (self.results / job.name / job.kind.marker).exists()

    def _outcome(self, job: Job) -> str:
        return self.progress.get(job.name, {}).get("outcome", "")

    def _run_job(self, stage: Stage, job: Job, end: float, missing: Mapping[str, str]) -> bool:
        """Whether there was something to do and time for it."""
        if self.is_done(job):
            return False
        reasons = [missing[name] for name in job.needs if name in missing]
        for member in job.members:
            if self.progress.get(member, {}).get("outcome") != "done":
                reasons.append(f"{member} is not done")
            elif not (self.state / member / "checkpoints").is_dir():
                reasons.append(f"{member} was trained on another machine, where its checkpoints are")
        left = end - time.time()
        if not reasons and left < job.least_seconds:
            reasons = [f"needs {job.least_seconds:.0f} s at least, {max(left, 0):.0f} s were left"]
        if reasons:
            if self._outcome(job) not in ("stopped", "failed"):
                self._note(job, "skipped", 0.0, reasons[0])
            return False
        workdir, began = self.state / job.name, time.time()
        if job.restarts:
            shutil.rmtree(workdir, ignore_errors=True)
        restore_parts(job, workdir, self.results / job.name)
        print(f"{stage.name}: {job.name} …", flush=True)
        log = self.state / "logs" / f"{job.name}.log"
        outcome, reason = "done", ""
        for command in job.commands:
            outcome, reason = self.command(command, log, end=end, environment=job.environment)
            if outcome != "done":
                break
        job.kind.keep(workdir, self.results)
        self._note(job, outcome, time.time() - began, reason)
        print(f"{stage.name}: {job.name} {outcome} after {time.time() - began:.0f} s {reason}".rstrip(), flush=True)
        return True

    def command(
        self, command: Sequence[str], log: Path, *, end: float, environment: Mapping[str, str]
    ) -> tuple[str, str]:
        """Runs a script until it ends or the time is over.

        Args:
          command: a script of the repository and its flags.
          log: file that its output is added to.
          end: when it is stopped, as `time.time`: asked to end first, then killed.
          environment: variables beside those of all commands.

        Returns:
          "done", "stopped" or "failed", and the reason.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as output:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=self._repository,
                env={**os.environ, **self._environment, **environment, xla_setup.PARENT: str(os.getpid())},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(None if math.isinf(end) else max(end - time.time(), 0))
            except subprocess.TimeoutExpired:
                stop(process, self._grace)
                return "stopped", "for want of time"
            except BaseException:
                stop(process, self._grace)
                raise
        if code:
            last = [line for line in log.read_text().splitlines() if line.strip()][-1:]
            return "failed", f"{Path(command[0]).name} ended with {code}: {''.join(last)[:300]} (all of it is in {log})"
        return "done", ""

    def _note(self, job: Job, outcome: str, seconds: float, reason: str) -> None:
        before = self.progress.get(job.name, {}).get("seconds", 0.0)
        self.progress[job.name] = {"outcome": outcome, "seconds": round(before + seconds, 1), "reason": reason}
        write_json(self._path, self.progress)


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Keeps a second process off a folder.

    Raises:
      InputError: one is there.
    """
    refusal = f"{directory} is in use by another process: wait for it, or name another --out."
    with lock(directory / "state" / "lock", refusal=refusal):
        yield


@contextmanager
def lock(path: Path, *, refusal: str) -> Iterator[IO[str]]:
    """Holds a lock for as long as the process lives or the block lasts; gives the file, empty, for a note.

    Args:
      path: file of the lock; made if missing.
      refusal: the sentence for a second process.

    Raises:
      InputError: another process holds it.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(refusal) from error
        file.truncate(0)
        yield file


def stop(process: subprocess.Popen[bytes], grace: float) -> None:
    """Asks a process to end, and kills it and its own when `grace` seconds are over."""
    process.send_signal(signal.SIGINT)  # the script ends with what it has
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
