"""Measures what each ingredient of a recipe contributes, by the validation scores of the recipe without it."""

import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from brainseg_jax.data.dataset import Dataset
from brainseg_jax.errors import InputError
from brainseg_jax.evaluation.comparison import compare_scores
from brainseg_jax.evaluation.evaluate import evaluate
from brainseg_jax.evaluation.evaluation_file import read_evaluation
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
# The changes of the recipe by the name of the variant; the first is the recipe itself.
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
    "bfloat16": {"model.dtype": "bfloat16"},
    "without_mirror": {"evaluation.tta_flip": False},
    "min_max": {"data.intensity_percentile": 0.0},
    "validation_of_10_percent": {"split.validation_share": 0.06},
    "few_changes": {"augmentation.probability": 0.3, "augmentation.low_resolution": 0.5},
    **SWEEPS,
}


def ablate(config: ml_collections.ConfigDict, directory: Path, names: Sequence[str]) -> None:
    """Trains and scores variants one after the other, or resumes an earlier call.

    All are scored at the config's threshold, since tuning on the scored slices would raise the scores;
    `tune_across_halves` measures what tuning gives. Variants that do not differ from the recipe are left out.

    Args:
      config: the recipe.
      directory: gets a workdir for each variant, ablation.json, and README.md with the table of all variants so far.
      names: which of `VARIANTS`; the recipe comes first whether it is named or not.

    Raises:
      InputError: see `train_and_evaluate`; or the directory holds variants of another recipe.
    """
    recipe = _changed(config, {"evaluation.tune_postprocessing": False})
    for name in dict.fromkeys(("recipe", *names)):
        run, changed = directory / name, _changed(recipe, VARIANTS[name])
        if name != "recipe" and changed.to_dict() == recipe.to_dict():
            continue
        if (run / "config.json").exists() and read_config(run).to_dict() != changed.to_dict():
            raise InputError(f"{run / 'config.json'} is of another recipe: name another --workdir.")
        if not (run / "evaluation_validation.json").exists():
            trained_alike = name != "recipe" and all(field.startswith("evaluation.") for field in VARIANTS[name])
            if trained_alike and not run.exists():
                _copy_training(directory / "recipe", run)
            train_and_evaluate(changed, run)
            evaluate(run, split="validation", output=run, examples=0)
        _report(recipe, directory)


def tune_across_halves(directory: Path) -> dict[str, float]:
    """Measures what tuning threshold and smallest component gives on slices that were not used for the tuning.

    The validation families are split in halves; each half is scored with the values that were tuned on the other.

    Args:
      directory: workdir of a run.

    Returns:
      Mean Dice of the validation slices: `fixed`, with the config's values, and `chosen`, with the tuned ones.
    """
    predictor = Predictor.from_workdir(directory)
    config = predictor.config
    dataset = Dataset.from_config(config.data)
    slice_ids = np.array(read_splits(directory)["validation"])
    families = np.array(dataset.metadata.families)[np.searchsorted(dataset.metadata.slice_ids, slice_ids)]
    in_first = np.isin(families, np.unique(families)[::2])
    pairs = [(probabilities, sample.mask) for sample, probabilities in predict_slices(predictor, dataset, slice_ids)]
    halves = [[pair for pair, first in zip(pairs, in_first, strict=True) if first == half] for half in (True, False)]
    fixed = Postprocessing(config.evaluation.threshold, config.evaluation.min_component_fraction)
    tuned = [tune_postprocessing(half)[0] for half in reversed(halves)]
    dice: dict[str, list[Any]] = {"fixed": [], "chosen": []}
    for half, other in zip(halves, tuned, strict=True):
        for (probabilities, mask), (name, how) in itertools.product(half, (("fixed", fixed), ("chosen", other))):
            dice[name].append(overlap.dice(overlap.count_overlap(how.mask(probabilities)[None], mask[None]))[0])
    return {name: float(np.mean(values)) for name, values in dice.items()}


def _changed(config: ml_collections.ConfigDict, changes: Mapping[str, Any]) -> ml_collections.ConfigDict:
    result = config.copy_and_resolve_references()
    result.update_from_flattened_dict(changes)
    return result


def _copy_training(source: Path, target: Path) -> None:
    # Renamed when complete, so that an interrupted copy is not taken for a run. The scores are not copied.
    unfinished = target.with_name(target.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(source, unfinished, ignore=shutil.ignore_patterns("evaluation_*", "per_slice_*", "figures"))
    unfinished.rename(target)


def _report(recipe: ml_collections.ConfigDict, directory: Path) -> None:
    """Writes README.md and ablation.json of all variants that are scored."""
    rows: dict[str, Any] = {}
    recipe_scores = read_scores(directory / "recipe" / "per_slice_validation.csv")
    for name, changes in VARIANTS.items():
        run = directory / name
        if (run / "evaluation_validation.json").exists():
            evaluation = read_evaluation(run / "evaluation_validation.json")
            kept = ("slices", "families", "dice", "dice_by_class", "share_missed", "trained_with")
            difference = _compare_shared(recipe_scores, read_scores(run / "per_slice_validation.csv"))
            rows[name] = {"changes": dict(changes), "difference": difference, **{key: evaluation[key] for key in kept}}
    path = directory / "ablation.json"
    before = read_json(path) if path.exists() else {}
    is_known = before.get("variants", {}).get("recipe") == rows["recipe"]  # the same network
    report = {
        "config": json.loads(recipe.to_json()),
        "variants": rows,
        "choice_across_halves": before["choice_across_halves"]
        if is_known
        else tune_across_halves(directory / "recipe"),
        **describe_environment(devices=jax.local_device_count()),
    }
    (directory / "README.md").write_text(f"# Ablation\n\n{_describe(report)}\n")
    write_json(path, report)  # last: its existence says that both files are complete


def _compare_shared(first: Sequence[SliceScore], second: Sequence[SliceScore]) -> dict[str, Any]:
    """Compares Dice on the slices that both have, and counts them: a variant may have other validation slices."""
    shared = {score.slice_id for score in first} & {score.slice_id for score in second}
    pair = ([score for score in scores if score.slice_id in shared] for scores in (first, second))
    return {"slices": len(shared), **compare_scores(*pair)["dice"]}


def _describe(report: Mapping[str, Any]) -> str:
    config = ml_collections.ConfigDict(report["config"])
    recipe, choice = report["variants"]["recipe"], report["choice_across_halves"]
    classes = (name[:1].upper() + name[1:] for name in recipe["dice_by_class"])
    header = ("Variant", "What is changed", "Dice", "Difference", *classes, "Missed")
    rows = []
    for name, row in report["variants"].items():
        changes = ", ".join(f"`{field}={value}`" for field, value in row["changes"].items())
        difference = f"{row['difference']['difference']:+.3f}"
        if ends := row["difference"]["interval"]:
            difference += f" ({ends[0]:+.3f} to {ends[1]:+.3f})"
        dice = f"**{row['dice']:.3f}**" + (f" ({row['slices']} slices)" if row["slices"] != recipe["slices"] else "")
        classes = ("–" if value is None else f"{value:.3f}" for value in row["dice_by_class"].values())
        missed = f"{row['share_missed']:.1%}"
        rows.append((name, changes or "–", dice, difference if changes else "–", *classes, missed))
    return (
        f"{describe_run(config)}, {config.train.epochs} epochs. Dice is the mean over the {recipe['slices']} "
        f"validation slices ({recipe['families']} families), or over as many as a row says. The difference is to the "
        "first row, slice by slice on the slices of both, with its 95 % interval over families. The interval says what "
        "these trained networks would give on other families; another seed would change the differences as well, and "
        "only one was trained. The learning rate was not tuned anew for any variant. Each network is that of the epoch "
        f"with its lowest validation loss. The threshold is {config.evaluation.threshold}; tuning threshold and "
        "smallest component on one half of the validation families and scoring the other half gives the recipe "
        f"{choice['chosen']:.3f} instead of {choice['fixed']:.3f}.\n\n"
        f"`{report['command']}`, commit {report['commit']}, {report['device']}, {report['cores']} cores, jax "
        f"{report['versions']['jax']}.\n\n{markdown.table(header, rows)}"
    )
