"""A queue of trainings, for days on a machine without a GPU: one job after the other, and how far they are."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from brainseg_jax.errors import InputError
from brainseg_jax.studies.reproduction.runner import MOST_GRACE, lock, stop
from brainseg_jax.utils import xla_setup
from brainseg_jax.workdir.files import read_metrics

LAST_ROWS = 5  # of metrics.jsonl, whose median says how long an epoch takes


class Job(NamedTuple):
    """One training, as the queue file has it; `workdir` and `done` are relative to `checkout`."""

    name: str  # also of its log
    command: list[Any]  # a script and its flags, or a list of such commands, run in order
    workdir: str  # where metrics.jsonl grows, or folders with one: folds, variants
    epochs: int  # of all of it
    done: str  # file whose existence says that the job is done
    checkout: str  # folder in which it runs and whose package it imports; the repository if not given
    python: str = sys.executable
    cores: list[int] | None = None  # numbers of the CPU cores that it may use; None: all

    @property
    def is_done(self) -> bool:
        """Whether its last file is there."""
        return Path(self.checkout, self.done).exists()

    def commands(self) -> list[list[Any]]:
        """Its commands in order."""
        return self.command if self.command and isinstance(self.command[0], list) else [self.command]

    def rows(self) -> list[dict[str, float]]:
        """The rows of its metrics.jsonl, or of all of them, the latest last."""
        workdir = Path(self.checkout, self.workdir)
        paths = [*workdir.glob("metrics.jsonl"), *workdir.glob("*/metrics.jsonl")]
        paths.sort(key=lambda path: path.stat().st_mtime)
        return [row for path in paths for row in read_metrics(path.parent, epochs=self.epochs)]


def read_queue(path: Path, *, repository: Path) -> list[Job]:
    """Reads a queue file, a JSON list of jobs; `repository` is the checkout of those that name none.

    Raises:
      InputError: the file is missing or damaged, or a job lacks a field, has an unknown one or a bad one.
    """
    try:
        entries = json.loads(path.read_text())
        jobs = [Job(**{**entry, "checkout": str(repository / entry.get("checkout", ""))}) for entry in entries]
    except (OSError, ValueError, TypeError) as error:
        problem = str(error).replace("Job.__new__() ", "")
        raise InputError(f"{path} is no list of jobs with {', '.join(Job._fields)} ({problem}): mend it.") from error
    for job in jobs:
        if [other.name for other in jobs].count(job.name) > 1 or Path(str(job.name)).name != job.name:
            raise InputError(f"{path}: name {job.name!r} is not of one job alone or not of a file: choose another.")
        if not (
            isinstance(job.command, list)
            and all(isinstance(words, list) and {*map(type, words)} == {str} for words in job.commands())
            and [type(job.epochs), *{*map(type, (job.workdir, job.done, job.python))}] == [int, str]
            and (job.cores is None or (isinstance(job.cores, list) and {*map(type, job.cores)} == {int}))
        ):
            remedy = (
                "command is a list of words or of such lists, epochs a number, cores a list of them, the rest words"
            )
            raise InputError(f"{path}, job {job.name}: {remedy}.")
    return jobs


def run_queue(path: Path, *, repository: Path, environment: Mapping[str, str]) -> None:
    """Runs the jobs that are not done, one at a time and each at most once, in the order that the file has by then.

    The output of a job is added to its log in logs/ beside the file; `environment` are the variables of all commands.

    Raises:
      InputError: see `read_queue`; or another process runs this queue, or jobs failed.
    """
    jobs, reasons = read_queue(path, repository=repository), dict[str, str]()  # of failure, "" where there is none
    refusal = f"{path} is being run by another process: wait for it, or look how far it is with --status."
    with lock(Path(f"{path}.lock"), refusal=refusal) as note:
        while job := next((job for job in jobs if job.name not in reasons and not job.is_done), None):
            note.truncate(0)
            print(job.name, file=note, flush=True)
            print(f"{time.strftime('%F %T')} {job.name} …", flush=True)
            reasons[job.name] = _run_job(job, path.parent / "logs", environment, keep=note.fileno())
            print(f"{time.strftime('%F %T')} {job.name} {reasons[job.name] or 'is done'}", flush=True)
            try:
                jobs = read_queue(path, repository=repository)
            except InputError as error:  # half edited, perhaps: no reason to lose a night
                print(f"warning: {error} Going on with the queue as it was.", flush=True)
    if failed := [f"{name} {reason}" for name, reason in reasons.items() if reason]:
        raise InputError(f"{'; '.join(failed)}.")


def _run_job(job: Job, logs: Path, environment: Mapping[str, str], *, keep: int) -> str:
    """Why it failed, "" if it did not; its commands have the file `keep`, so that they hold the lock too."""
    logs.mkdir(parents=True, exist_ok=True)
    places = os.pathsep.join(filter(None, [job.checkout, environment.get("PYTHONPATH")]))
    variables = {**environment, "PYTHONPATH": places, xla_setup.PARENT: str(os.getpid())}
    pin = (lambda: os.sched_setaffinity(0, job.cores or ())) if job.cores else None
    with (log := logs / f"{job.name}.log").open("a") as output:
        options: dict[str, Any] = {"stdout": output, "stderr": subprocess.STDOUT, "start_new_session": True}
        options |= {"cwd": job.checkout, "env": variables, "preexec_fn": pin, "pass_fds": [keep]}
        for words in job.commands():
            try:
                process = subprocess.Popen([job.python, *words], **options)
            except (OSError, subprocess.SubprocessError) as error:
                return f"could not be started ({error})"
            try:
                code = process.wait()
            except BaseException:
                stop(process, MOST_GRACE)
                raise
            if code:
                return f"failed: {' '.join(words[:1])} ended with {code}, see {log}"
    return "" if job.is_done else f"failed: it ended without {job.done}, see {log}"


def describe_queue(path: Path, *, repository: Path) -> str:
    """A line a job, done, running or waiting, with its epochs and the hours left, and a line of all."""
    jobs, running = read_queue(path, repository=repository), _running(path)
    lines, hours = [], list[float | None]()
    for job in jobs:
        state = "done" if job.is_done else "running" if job.name == running else "waiting"
        rows = job.rows()
        seconds = statistics.median(row["seconds"] for row in rows[-LAST_ROWS:]) if rows else None
        left = 0.0 if job.is_done else None if seconds is None else max(job.epochs - len(rows), 0) * seconds / 3600
        hours.append(left)
        told = "unknown" if left is None else f"{left:.1f}"
        lines.append(f"{job.name:<28} {state:<8} {len(rows):>4} of {job.epochs} epochs, hours left: {told}")
    more = f", without {hours.count(None)} jobs that have no epoch yet" if None in hours else ""
    done, total = sum(job.is_done for job in jobs), sum(left or 0.0 for left in hours)
    return "\n".join([*lines, f"{done} of {len(jobs)} jobs are done; hours left: {total:.1f}{more}"])


def _running(path: Path) -> str:
    """The name of the job that a process runs now; "" if none does."""
    note = Path(f"{path}.lock")
    name = note.read_text().strip() if note.exists() else ""
    try:
        with lock(note, refusal="") if name else nullcontext():
            return ""
    except InputError:
        return name
