"""The summary of what is there, as a Markdown table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brainseg_jax.studies.reproduction.stages import Stage
from brainseg_jax.utils import markdown


def summary_table(stages: Sequence[Stage], progress: Mapping[str, Mapping[str, Any]], results: Path) -> str:
    """A row a job: how far it is, what was found, what others report, and the minutes that it took over all calls.

    Args:
      stages: all of them.
      progress: see `runner.Runner`.
      results: folder of the results.
    """
    rows = []
    for stage in stages:
        for job in stage.jobs:
            known = progress.get(job.name, {"outcome": "not yet", "seconds": 0.0, "reason": ""})
            folder = results / job.name
            found = job.kind.describe(folder) if folder.exists() and any(folder.iterdir()) else "–"
            state = known["outcome"] + (f": {known['reason']}" if known["reason"] else "")
            published = f"{job.published:.3f}" if job.published else "–"
            rows.append((stage.name, job.name, state, found, published, f"{known['seconds'] / 60:.1f}"))
    return markdown.table(("Stage", "Result", "State", "Found", "Published", "Minutes"), rows)
