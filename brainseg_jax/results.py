"""Results that are kept: a folder a run without pictures of patients, and the table of them all."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brainseg_jax import figures, workdir
from brainseg_jax.errors import InputError

RUN_FILES = (
    "config.json",
    "splits.json",
    "environment.json",
    "metrics.jsonl",
    "evaluation_test.json",
    "per_slice_test.csv",
)
_START, _END = "<!-- results: scripts/save_results.py -->", "<!-- end of results -->"


def save_run(directory: Path, results: Path) -> None:
    """Copies what a run leaves, without checkpoints and pictures, to `results`/<its name>; draws its learning curves.

    Args:
      directory: the workdir of a run that scripts/evaluate.py scored on its test part.
      results: folder of all results; made if missing.

    Raises:
      InputError: a file is missing.
    """
    for name in RUN_FILES:
        if not (directory / name).exists():
            raise InputError(
                f"{directory / name} is missing: train with scripts/train.py and score with scripts/evaluate.py "
                f"--workdir={directory} first."
            )
    folder = results / directory.resolve().name
    folder.mkdir(parents=True, exist_ok=True)
    for name in RUN_FILES:
        shutil.copyfile(directory / name, folder / name)
    config = workdir.read_config(folder)
    rows = workdir.read_metrics(folder, epochs=config.train.epochs)
    figures.learning_curves(rows, folder / "learning_curves.png", title=workdir.describe_run(config))


def read_evaluations(results: Path) -> dict[str, dict[str, Any]]:
    """What evaluation_test.json says of each run in `results`, by the run's name."""
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(results.glob("*/evaluation_test.json"))}


def results_table(evaluations: Mapping[str, Mapping[str, Any]], *, link: str) -> str:
    """A Markdown table, a row a run.

    Args:
      evaluations: see `read_evaluations`.
      link: relative path from the table's page to the folder of all results.
    """
    header = (
        "Run",
        "Network",
        "Protocol",
        "Picture",
        "Seed",
        "Test slices (families)",
        "Dice",
        "Median",
        "Meningioma",
        "Glioma",
        "Pituitary",
        "Missed",
    )
    rows: list[Sequence[str]] = [header, ["---"] * len(header)]
    for name, found in evaluations.items():
        fold = "" if found["fold"] is None else f", fold {found['fold']}"
        rows.append(
            (
                f"[{name}]({link}{name})",
                f"{workdir.NETWORK_NAMES[found['network']]} {found['start_filters']}",
                f"{found['protocol']}{fold}",
                f"{found['image_size']}×{found['image_size']}",
                str(found["seed"]),
                f"{found['slices']} ({found['families']})",
                f"**{found['dice']:.3f}**",
                f"{found['dice_median']:.3f}",
                *("–" if dice is None else f"{dice:.3f}" for dice in found["dice_by_class"].values()),
                f"{found['share_missed']:.1%}",
            )
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def put_table(page: Path, table: str) -> None:
    """Replaces what stands between the two markers of a Markdown page by a table.

    Raises:
      InputError: the page lacks the markers.
    """
    text = page.read_text()
    if _START not in text or _END not in text:
        raise InputError(f"{page} has no lines '{_START}' and '{_END}': put them where the table shall stand.")
    before, rest = text.split(_START, 1)
    after = rest.split(_END, 1)[1]
    page.write_text(f"{before}{_START}\n\n{table}\n\n{_END}{after}")
