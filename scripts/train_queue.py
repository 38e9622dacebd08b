"""Runs a queue of trainings: `python scripts/train_queue.py --queue=runs/queue.json`; `--status` shows its progress."""

import os
from pathlib import Path

from absl import flags

from brainseg_jax import cli

QUEUE = flags.DEFINE_string("queue", None, "JSON list of jobs; see brainseg_jax/studies/queue.py.", required=True)
STATUS = flags.DEFINE_bool("status", False, "Only show what is done, running and waiting, and the hours left.")
REPOSITORY = Path(__file__).resolve().parents[1]
ENVIRONMENT = dict(os.environ)  # before cli.run adds options for this jaxlib, since a job may have another


def main() -> None:
    """Runs the jobs that are not done; the same command resumes after a kill."""
    from brainseg_jax.studies.queue import describe_queue, run_queue

    path = Path(QUEUE.value).absolute()
    if STATUS.value:
        print(describe_queue(path, repository=REPOSITORY))
    else:
        run_queue(path, repository=REPOSITORY, environment=ENVIRONMENT)


if __name__ == "__main__":
    cli.run(main)
