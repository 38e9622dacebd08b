"""From what a reproduction found to the results that the repository keeps."""

import json
from pathlib import Path

from brainseg_jax.errors import InputError
from brainseg_jax.studies.reproduction.jobs import ABLATION, ABLATION_FILES, BENCHMARK, CHECKS, FOLDS, RUN
from brainseg_jax.studies.results import copy_files, device_folder, save_run

MERGEABLE = "full, figshare"  # miniatures and phantom slices are no results


def merge(reproduction: Path, kept: Path) -> list[str]:
    """Copies every whole result; what is of parts only waits.

    Args:
      reproduction: the `--out` of scripts/reproduce.py.
      kept: folder of all results, docs/results.

    Returns:
      The names of the folders that were written.

    Raises:
      InputError: there is no reproduction, or one that is no result.
    """
    found = reproduction / "results"
    plan = found / "plan.txt"
    if not plan.exists():
        raise InputError(f"{plan} is missing: name the --out of scripts/reproduce.py.")
    if plan.read_text().strip() != MERGEABLE:
        raise InputError(f"{plan} says {plan.read_text().strip()}: only full runs on the real slices are results.")
    names = []
    for folder in sorted(path for path in found.iterdir() if path.is_dir()):
        if any((folder / kind.marker).exists() for kind in (RUN, FOLDS)):
            save_run(folder, kept)
            names.append(folder.name)
        elif (folder / ABLATION.marker).exists():
            copy_files(folder, kept / folder.name, ABLATION_FILES)
            names.append(folder.name)
        for kind in (CHECKS, BENCHMARK):
            if (folder / kind.marker).exists():
                device = json.loads((folder / kind.marker).read_text())["device"]
                target = device_folder(kept, folder.name, device)
                copy_files(folder, target, [path.name for path in folder.iterdir()])
                names.append(target.name)
    (kept / "reproduction").mkdir(parents=True, exist_ok=True)
    table = (found / "summary.md").read_text()
    (kept / "reproduction" / "README.md").write_text(f"# What scripts/reproduce.py found\n\n{table}")
    return names
