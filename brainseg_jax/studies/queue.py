"""Runs a queue of trainings one after the other, for days on a machine without a GPU, and reports its progress."""

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
from brainseg_jax.studies.processes import run_command
from brainseg_jax.utils.locks import lock
from brainseg_jax.workdir.files import read_metrics

RECENT_EPOCHS = 5  # their median predicts the seconds of an epoch


class Job(NamedTuple):
    """One training of the queue file; `workdir` and `done` are relative to `checkout`."""

    name: str  # also the name of its log
    command: list[Any]  # a script and its flags, or a list of such commands, which run in order
    workdir: str  # holds metrics.jsonl, or folders that hold one each (folds, variants)
    epochs: int  # in total
    done: str  # file that exists when the job is done
    checkout: str  # folder in which it runs and whose package it imports; the repository if not given
    python: str = sys.executable
    cores: list[int] | None = None  # numbers of the CPU cores that it may use; None for all

    @property
    def is_done(self) -> bool:
        """Whether the job is done."""
        return Path(self.checkout, self.done).exists()

    def commands(self) -> list[list[Any]]:
        """Returns its commands in order."""
        return self.command if self.command and isinstance(self.command[0], list) else [self.command]

    def rows(self) -> list[dict[str, float]]:
        """Reads the rows of its metrics.jsonl files, the latest file last."""
        workdir = Path(self.checkout, self.workdir)
        paths = [*workdir.glob("metrics.jsonl"), *workdir.glob("*/metrics.jsonl")]
        paths.sort(key=lambda path: path.stat().st_mtime)
        return [row for path in paths for row in read_metrics(path.parent, epochs=self.epochs)]


def read_queue(path: Path, *, repository: Path) -> list[Job]:
    """Reads a queue file, a JSON list of jobs; `repository` is the checkout of jobs that name none.

    Raises:
      InputError: the file is missing or damaged, or a job lacks a field or has an unknown or a wrong one.
    """
    try:
        entries = json.loads(path.read_text())
        jobs = [Job(**{**entry, "checkout": str(repository / entry.get("checkout", ""))}) for entry in entries]
    except (OSError, ValueError, TypeError) as error:
        problem = str(error).replace("Job.__new__() ", "")
        raise InputError(
            f"{path} is not a JSON list of jobs with {', '.join(Job._fields)} ({problem}): correct it."
        ) from error
    names = [job.name for job in jobs]
    for job in jobs:
        if names.count(job.name) > 1 or Path(str(job.name)).name != job.name:
            raise InputError(f"{path}: job name {job.name!r} is used twice or is not a file name: choose another.")
        if not (
            isinstance(job.command, list)
            and all(isinstance(command, list) and {*map(type, command)} == {str} for command in job.commands())
            and [type(job.epochs), *{*map(type, (job.workdir, job.done, job.python))}] == [int, str]
            and (job.cores is None or (isinstance(job.cores, list) and {*map(type, job.cores)} == {int}))
        ):
            raise InputError(
                f"{path}, job {job.name}: command is a list of strings or of such lists, epochs an integer, cores a "
                "list of integers, all others strings: correct it."
            )
    return jobs


def run_queue(path: Path, *, repository: Path, environment: Mapping[str, str]) -> None:
    """Runs the jobs that are not done, one at a time and each at most once, and reads the file again after each.

    Args:
      path: the queue file; the output of each job is appended to its log in logs/ beside it.
      repository: see `read_queue`.
      environment: environment variables of all commands.

    Raises:
      InputError: see `read_queue`; or another process runs this queue, or jobs failed.
    """
    jobs, reasons = read_queue(path, repository=repository), dict[str, str]()  # why each job failed, "" if it did not
    refusal = f"{path} is being run by another process: wait for it, or see its progress with --status."
    with lock(Path(f"{path}.lock"), refusal=refusal) as note:
        while job := next((job for job in jobs if job.name not in reasons and not job.is_done), None):
            note.truncate(0)
            print(job.name, file=note, flush=True)
            print(f"{time.strftime('%F %T')} {job.name} …", flush=True)
            reasons[job.name] = _run_job(job, path.parent / "logs", environment, lock_file=note.fileno())
            print(f"{time.strftime('%F %T')} {job.name} {reasons[job.name] or 'is done'}", flush=True)
            try:
                jobs = read_queue(path, repository=repository)
            except InputError as error:  # somebody may be editing the file; the other jobs must run nevertheless
                print(f"warning: {error} The queue goes on as it was.", flush=True)
    if failed := [f"{name} {reason}" for name, reason in reasons.items() if reason]:
        raise InputError(f"{'; '.join(failed)}.")


def _run_job(job: Job, logs: Path, environment: Mapping[str, str], *, lock_file: int) -> str:
    """Returns why the job failed, "" if it did not; its commands inherit `lock_file` and so hold the lock too."""
    python_path = os.pathsep.join(filter(None, [job.checkout, environment.get("PYTHONPATH")]))
    pin = (lambda: os.sched_setaffinity(0, job.cores or ())) if job.cores else None
    options: dict[str, Any] = {"cwd": job.checkout, "preexec_fn": pin, "pass_fds": [lock_file]}
    options["environment"] = {**environment, "PYTHONPATH": python_path}
    log = logs / f"{job.name}.log"
    for command in job.commands():
        try:
            code = run_command([job.python, *command], log, **options)
        except (OSError, subprocess.SubprocessError) as error:
            return f"could not be started ({error})"
        if code:
            return f"failed: {command[0]} ended with exit code {code}, see {log}"
    return "" if job.is_done else f"failed: it ended without {job.done}, see {log}"


def describe_queue(path: Path, *, repository: Path) -> str:
    """Returns a line for each job (done, running or waiting; its epochs; hours left) and a line with the totals."""
    jobs, running = read_queue(path, repository=repository), _running(path)
    lines, hours = [], list[float | None]()
    for job in jobs:
        state = "done" if job.is_done else "running" if job.name == running else "waiting"
        rows = job.rows()
        seconds = statistics.median(row["seconds"] for row in rows[-RECENT_EPOCHS:]) if rows else None
        left = 0.0 if job.is_done else None if seconds is None else max(job.epochs - len(rows), 0) * seconds / 3600
        hours.append(left)
        shown = "unknown" if left is None else f"{left:.1f}"
        lines.append(f"{job.name:<28} {state:<8} {len(rows):>4} of {job.epochs} epochs, hours left: {shown}")
    more = f", not counting {hours.count(None)} jobs without an epoch" if None in hours else ""
    done, total = sum(job.is_done for job in jobs), sum(left or 0.0 for left in hours)
    return "\n".join([*lines, f"{done} of {len(jobs)} jobs are done; hours left: {total:.1f}{more}"])


def _running(path: Path) -> str:
    """Returns the name of the job that a process runs now; "" if none does."""
    note = Path(f"{path}.lock")
    name = note.read_text().strip() if note.exists() else ""
    try:
        with lock(note, refusal="") if name else nullcontext():
            return ""
    except InputError:
        return name
