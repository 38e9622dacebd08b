"""Measures what each ingredient of a recipe contributes: the recipe without it, scored on validation."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from brainseg_jax.data.dataset import Dataset
from brainseg_jax.data.dataset_info import LABELS
from brainseg_jax.errors import InputError
from brainseg_jax.evaluation.comparison import compare_scores
from brainseg_jax.evaluation.evaluate import evaluate
from brainseg_jax.evaluation.scores import SliceScore, read_scores
from brainseg_jax.inference.postprocessing import Postprocessing, tune_postprocessing
from brainseg_jax.inference.predictor import Predictor, predict_slices
from brainseg_jax.metrics import overlap
from brainseg_jax.training.loop import train_and_evaluate
from brainseg_jax.utils import markdown
from brainseg_jax.utils.files import read_json, write_json
from brainseg_jax.utils.provenance import describe_environment
from brainseg_jax.workdir.files import describe_run, read_config, read_splits

WARPS = ("flip", "rotation", "scale", "shift", "elastic")
GREY_LEVELS = ("gamma", "contrast", "bias", "blur", "low_resolution", "noise")
# Points of the sweeps of start filters and L2 penalty.
SWEEPS: Mapping[str, Mapping[str, Any]] = {
    "filters_8": {"model.start_filters": 8},
    "filters_64": {"model.start_filters": 64},
    "l2_1e-5": {"optimizer.l2_penalty": 1e-5},
    "l2_1e-4": {"optimizer.l2_penalty": 1e-4},
    "l2_1e-3": {"optimizer.l2_penalty": 1e-3},
}
# What is changed in the recipe, by the name of the variant; the first is the recipe itself.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "recipe": {},
    "without_batch_norm": {"model.batch_norm": False},
    "prior_one_half": {"model.prior": 0.5},
    "without_warps": {f"augmentation.{name}": 0.0 for name in WARPS},
    "without_grey_levels": {f"augmentation.{name}": 0.0 for name in GREY_LEVELS},
    "without_dice_loss": {"train.loss": "bce"},
    "plateau_adam": {"optimizer.schedule": "plateau", "optimizer.warmup_epochs": 0.0, "optimizer.weight_decay": 0.0},
    "without_average": {"train.ema_decay": 0.0},
    "batch_8": {"train.batch_size": 8},
    "filters_32": {"model.start_filters": 32},
    "without_mirror": {"evaluation.tta_flip": False},
    "min_max": {"data.intensity_percentile": 0.0},
    "validation_of_10_percent": {"split.validation_share": 0.06},
    "few_changes": {"augmentation.probability": 0.3, "augmentation.low_resolution": 0.5},
    **SWEEPS,
}


def ablate(config: ml_collections.ConfigDict, directory: Path, names: Sequence[str]) -> None:
    """Trains and scores variants one after the other, or resumes an earlier call.

    All are scored at the config's threshold, since one chosen on the scored slices would flatter; what choosing gives
    is measured on the recipe, see `choice_across_halves`. Variants that do not differ from the recipe are left out.

    Args:
      config: the recipe.
      directory: holds a workdir for each variant, ablation.json and README.md with the table of all so far.
      names: which of `VARIANTS`; the recipe comes first whether it is named or not.

    Raises:
      InputError: see `train_and_evaluate`; or the directory holds variants of another recipe.
    """
    recipe = _changed(config, {"evaluation.tune_postprocessing": False})
    for name in dict.fromkeys(("recipe", *names)):
        run, changed = directory / name, _changed(recipe, VARIANTS[name])
        if name != "recipe" and changed == recipe:
            continue
        if (run / "config.json").exists() and read_config(run) != changed:
            raise InputError(f"{run / 'config.json'} is of another recipe: name another --workdir.")
        if not (run / "evaluation_validation.json").exists():
            if not run.exists() and all(field.startswith("evaluation.") for field in VARIANTS[name]) and VARIANTS[name]:
                _copy_training(directory / "recipe", run)  # trained alike, scored otherwise
            train_and_evaluate(changed, run)
            evaluate(run, split="validation", output=run, examples=0)
        _report(recipe, directory)


def choice_across_halves(directory: Path) -> tuple[float, float]:
    """Measures what choosing threshold and smallest component gives on slices that the choice did not see.

    The validation families are split in halves; each half is scored by the choice of the other.

    Args:
      directory: workdir of a run.

    Returns:
      Mean Dice of the validation slices at the config's threshold, and by the choices.
    """
    predictor = Predictor.from_workdir(directory)
    config = predictor.config
    dataset = Dataset.from_config(config.data)
    slice_ids = np.array(read_splits(directory)["validation"])
    families = np.array(dataset.metadata.families)[np.searchsorted(dataset.metadata.slice_ids, slice_ids)]
    in_first = np.isin(families, np.unique(families)[::2])
    pairs = [(probabilities, sample.mask) for sample, probabilities in predict_slices(predictor, dataset, slice_ids)]
    halves = [[pair for pair, chosen in zip(pairs, in_first == half, strict=True) if chosen] for half in (True, False)]
    fixed = Postprocessing(config.evaluation.threshold, config.evaluation.min_component_fraction)
    chosen = [tune_postprocessing(half)[0] for half in reversed(halves)]

    def mean_dice(postprocessings: Sequence[Postprocessing]) -> float:
        dice = [
            overlap.dice(overlap.count_overlap(postprocessing.mask(probabilities)[None], mask[None]))[0]
            for postprocessing, half in zip(postprocessings, halves, strict=True)
            for probabilities, mask in half
        ]
        return float(np.mean(dice))

    return mean_dice([fixed, fixed]), mean_dice(chosen)


def _changed(config: ml_collections.ConfigDict, changes: Mapping[str, Any]) -> ml_collections.ConfigDict:
    result = ml_collections.ConfigDict(config.to_dict())
    result.update_from_flattened_dict(changes)
    return result


def _copy_training(source: Path, target: Path) -> None:
    # Renamed when complete, so that a killed copy is not taken for a run. The scores are not the target's.
    unfinished = target.with_name(target.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(source, unfinished, ignore=shutil.ignore_patterns("evaluation_*", "per_slice_*", "figures"))
    unfinished.rename(target)


def _report(recipe: ml_collections.ConfigDict, directory: Path) -> None:
    """Writes README.md and ablation.json of all variants that are scored."""
    rows = {}
    recipe_scores = read_scores(directory / "recipe" / "per_slice_validation.csv")
    for name, changes in VARIANTS.items():
        run = directory / name
        if (run / "evaluation_validation.json").exists():
            evaluation = read_json(run / "evaluation_validation.json")
            rows[name] = {
                "changes": dict(changes),
                **{key: evaluation[key] for key in ("slices", "families", "dice", "dice_by_class", "share_missed")},
                "difference": _compare_shared(recipe_scores, read_scores(run / "per_slice_validation.csv")),
                "trained_with": evaluation["trained_with"],
            }
    path = directory / "ablation.json"
    before = read_json(path) if path.exists() else {}
    if before.get("variants", {}).get("recipe") == rows["recipe"]:  # the same network
        choice = before["choice_across_halves"]
    else:
        choice = dict(zip(("fixed", "chosen"), choice_across_halves(directory / "recipe"), strict=True))
    report = {
        "config": json.loads(recipe.to_json()),
        "variants": rows,
        "choice_across_halves": choice,
        **describe_environment(devices=jax.local_device_count()),
    }
    (directory / "README.md").write_text(f"# Ablation\n\n{_describe(report)}\n")
    write_json(path, report)  # last: it says that both files are there


def _compare_shared(first: Sequence[SliceScore], second: Sequence[SliceScore]) -> dict[str, Any]:
    """Compares Dice on the slices that both have, and counts them: variants can hold back other slices."""
    shared = {score.slice_id for score in first} & {score.slice_id for score in second}
    pair = ([score for score in scores if score.slice_id in shared] for scores in (first, second))
    return {"slices": len(shared), **compare_scores(*pair)["dice"]}


def _describe(report: Mapping[str, Any]) -> str:
    config = ml_collections.ConfigDict(report["config"])
    recipe, choice = report["variants"]["recipe"], report["choice_across_halves"]
    header = ("Variant", "What is changed", "Dice", "Difference", *(name.capitalize() for name in LABELS), "Missed")
    rows = []
    for name, row in report["variants"].items():
        changes = ", ".join(f"`{field}={value}`" for field, value in row["changes"].items())
        interval = row["difference"]["interval"]
        difference = f"{row['difference']['difference']:+.3f}"
        difference += f" ({interval[0]:+.3f} to {interval[1]:+.3f})" if interval else ""
        dice = f"**{row['dice']:.3f}**" + (f" ({row['slices']} slices)" if row["slices"] != recipe["slices"] else "")
        classes = ("–" if value is None else f"{value:.3f}" for value in row["dice_by_class"].values())
        missed = f"{row['share_missed']:.1%}"
        rows.append((name, changes or "–", dice, difference if changes else "–", *classes, missed))
    return (
        f"{describe_run(config)}, {config.train.epochs} epochs. Mean Dice of the {recipe['slices']} validation "
        f"slices ({recipe['families']} families), or of as many as a row says; the difference is to the first row, "
        "slice by slice on those of both, with its 95 % interval over families. The interval says what other families "
        "would have given to these trained networks; another seed moves them as well, and there is one. The learning "
        "rate was not tuned anew for any variant. "
        f"Each network is that of its epoch of the lowest validation loss. Threshold {config.evaluation.threshold}; "
        "choosing threshold and smallest component on one half of the validation families and scoring the other gives "
        f"the recipe {choice['chosen']:.3f} instead of {choice['fixed']:.3f}.\n\n"
        f"`{report['command']}`, commit {report['commit']}, {report['device']}, {report['cores']} cores, jax "
        f"{report['versions']['jax']}.\n\n{markdown.table(header, rows)}"
    )
