"""What each ingredient of a recipe gives: the recipe without it, scored on validation."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections

from brainseg_jax import workdir
from brainseg_jax.comparison import compare_scores
from brainseg_jax.environment import describe_environment
from brainseg_jax.evaluate import evaluate
from brainseg_jax.scores import read_scores
from brainseg_jax.train import train_and_evaluate

WARPS = ("flip", "rotation", "scale", "shift", "elastic")
GREY_LEVELS = ("gamma", "contrast", "bias", "blur", "noise")
# What is changed in the recipe, by the name of the variant; the first is the recipe itself.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "recipe": {},
    "without_batch_norm": {"model.batch_norm": False},
    "without_warps": {f"augmentation.{name}": 0.0 for name in WARPS},
    "without_grey_levels": {f"augmentation.{name}": 0.0 for name in GREY_LEVELS},
    "without_dice_loss": {"train.loss": "bce"},
    "plateau_adam": {"optimizer.schedule": "plateau", "optimizer.warmup_epochs": 0.0, "optimizer.weight_decay": 0.0},
    "without_average": {"train.ema_decay": 0.0},
    "batch_8": {"train.batch_size": 8},
    "filters_32": {"model.start_filters": 32},
    "without_mirror": {"evaluation.flip": False},
    "without_choice": {"evaluation.choose_on_validation": False},
}


def ablate(config: ml_collections.ConfigDict, directory: Path, variants: Mapping[str, Mapping[str, Any]]) -> None:
    """Trains and scores the variants one after the other, or goes on where an earlier call stopped.

    Args:
      config: the recipe.
      directory: holds a workdir for each variant, ablation.json and README.md with the table.
      variants: what is changed, by name; "recipe", the first, changes nothing.

    Raises:
      InputError: see `train_and_evaluate`.
    """
    for name, changes in variants.items():
        run = directory / name
        changed = ml_collections.ConfigDict(config.to_dict())
        changed.update_from_flattened_dict(changes)
        if (run / "evaluation_validation.json").exists():
            continue
        if changes and all(field.startswith("evaluation.") for field in changes) and not run.exists():
            shutil.copytree(directory / "recipe", run)  # trained alike, scored otherwise
        train_and_evaluate(changed, run)
        evaluate(run, split="validation", data_dir="", output=run)
        _report(config, directory, variants)


def _report(config: ml_collections.ConfigDict, directory: Path, variants: Mapping[str, Mapping[str, Any]]) -> None:
    rows = {}
    recipe = read_scores(directory / "recipe" / "per_slice_validation.csv")
    for name, changes in variants.items():
        path = directory / name / "evaluation_validation.json"
        if path.exists():
            evaluation = json.loads(path.read_text())
            rows[name] = {
                "changes": dict(changes),
                **{key: evaluation[key] for key in ("slices", "families", "dice", "dice_by_class", "share_missed")},
                "difference": compare_scores(recipe, read_scores(path.with_name("per_slice_validation.csv")))["dice"],
                "epochs": workdir.read_config(directory / name).train.epochs,
                "trained_with": evaluation["trained_with"],
            }
    found = {
        "config": json.loads(config.to_json()),
        "variants": rows,
        **describe_environment(devices=jax.local_device_count()),
    }
    (directory / "ablation.json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    (directory / "README.md").write_text(f"# Ablation\n\n{describe(found)}\n")


def describe(found: Mapping[str, Any]) -> str:
    """A sentence and a Markdown table of what ablation.json holds."""
    config = ml_collections.ConfigDict(found["config"])
    recipe = found["variants"]["recipe"]
    lines = [
        f"{workdir.describe_run(config)}, {config.train.epochs} epochs. Mean Dice of the {recipe['slices']} validation "
        f"slices ({recipe['families']} families); the difference is to the first row, slice by slice, with its 95 % "
        f"interval over families. Commit {found['commit']}, {found['device']}, {found['cores']} cores, jax "
        f"{found['versions']['jax']}. One seed: differences under 0.02 are within what another seed may give.",
        "",
        "| Variant | What is changed | Dice | Difference | Meningioma | Glioma | Pituitary | Missed |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in found["variants"].items():
        changes = ", ".join(f"`{field}={value}`" for field, value in row["changes"].items()) or "–"
        interval = row["difference"]["interval"]
        difference = "–"
        if row["changes"]:
            difference = f"{row['difference']['difference']:+.3f}"
            difference += f" ({interval[0]:+.3f} to {interval[1]:+.3f})" if interval else ""
        classes = " | ".join("–" if dice is None else f"{dice:.3f}" for dice in row["dice_by_class"].values())
        lines.append(
            f"| {name} | {changes} | **{row['dice']:.3f}** | {difference} | {classes} | {row['share_missed']:.1%} |"
        )
    return "\n".join(lines)
