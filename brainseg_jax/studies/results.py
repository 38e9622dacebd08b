"""Results that are kept: a folder a run without images of patients, and the table of them all."""

import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from brainseg_jax.data.dataset_info import LABELS
from brainseg_jax.errors import InputError
from brainseg_jax.evaluation import score_charts
from brainseg_jax.evaluation.scores import SliceScore, read_scores
from brainseg_jax.evaluation.summary import pooled_dice
from brainseg_jax.models import MODELS
from brainseg_jax.plots.learning_curves import learning_curves
from brainseg_jax.plots.published_curves import CURVES, published_curves
from brainseg_jax.published import (
    PEER_DICE,
    PEER_DICE_BY_CLASS,
    PEER_FAMILIES,
    PEER_NAME,
    PUBLISHED_BATCH,
    PUBLISHED_DICE,
    PUBLISHED_LEARNING_RATES,
    PUBLISHED_LOSS,
    PUBLISHED_SIZE,
    PUBLISHED_START_FILTERS,
    find_published_run,
    published_runs,
)
from brainseg_jax.utils import markdown
from brainseg_jax.workdir.files import describe_run, read_config, read_metrics

# What is kept: of a run, and of a cross-validation. The last of them says that the others are there.
RUN_FILES = (
    "config.json",
    "splits.json",
    "environment.json",
    "metrics.jsonl",
    "per_slice_test.csv",
    "evaluation_test.json",
)
FOLDS_FILES = (
    "config.json",
    *(f"fold_{fold}/{name}" for fold in range(1, 6) for name in ("splits.json", "metrics.jsonl")),
    "per_slice_cv.csv",
    "evaluation_cv.json",
)
# Of an ensemble: its settings and slices are those of its first member.
ENSEMBLE_FILES = ("members.json", "config.json", "splits.json", "per_slice_test.csv", "evaluation_test.json")


def save_run(directory: Path, results: Path) -> None:
    """Copies a run, an ensemble or a cross-validation, but for checkpoints and images, to `results`/<its name>.

    The charts of its scores and, of a run, of its learning are drawn anew, the latter over the published curves too
    where the recipe is a published one.

    Args:
      directory: the workdir of a run that scripts/evaluate.py scored on its test part, or of a cross-validation.
      results: folder of all results; made if missing.

    Raises:
      InputError: a file is missing.
    """
    has_folds = (directory / "evaluation_cv.json").exists()
    names, split = (FOLDS_FILES, "cv") if has_folds else (RUN_FILES, "test")
    if is_ensemble := (directory / "members.json").exists():
        names = ENSEMBLE_FILES
    for name in names:
        if not (directory / name).exists():
            raise InputError(
                f"{directory / name} is missing: train with scripts/train.py and score with scripts/evaluate.py "
                f"--workdir={directory} first, or cross-validate with scripts/cross_validate.py."
            )
    folder = results / directory.resolve().name
    copy_files(directory, folder, names)
    config = read_config(folder)
    evaluation = json.loads((folder / f"evaluation_{split}.json").read_text())
    seeds = evaluation["seed"] if is_ensemble else ""
    title = describe_run(config, all_folds=has_folds, seeds=seeds)
    if not has_folds and not is_ensemble:
        rows = read_metrics(folder, epochs=config.train.epochs)
        learning_curves(rows, folder / "learning_curves.png", title=title)
        if is_published_recipe(config):
            draw_published_curves(folder, folder / "published_curves.png")
    scores = read_scores(folder / f"per_slice_{split}.csv")
    score_charts.score_overview(scores, evaluation["calibration"], folder / "scores.png", title=title)


def is_published_recipe(config: ml_collections.ConfigDict) -> bool:
    """Whether network, start filters, batch size, loss and learning rate are those of a published run."""
    network = config.model.name
    of_network = (PUBLISHED_START_FILTERS[network], PUBLISHED_BATCH[network])
    return (
        (config.model.start_filters, config.train.batch_size) == of_network
        and config.train.loss == PUBLISHED_LOSS
        and config.optimizer.learning_rate in PUBLISHED_LEARNING_RATES[network]
    )


def draw_published_curves(directory: Path, path: Path) -> None:
    """Draws the learning curves of a run over those of the published run of its network and learning rate.

    Args:
      directory: the workdir of a run, which may be under way, or its folder among the results.
      path: PNG file to write; missing folders are made.

    Raises:
      InputError: there is no such published run, the directory holds no run, or no epoch is over.
    """
    config = read_config(directory)
    network, rate, size = config.model.name, config.optimizer.learning_rate, config.data.image_size
    theirs = find_published_run(network, learning_rate=rate)
    if theirs is None:
        known = ", ".join(f"{run.network} at {run.learning_rate:g}" for run in published_runs())
        raise InputError(
            f"{directory / 'config.json'} has model.name = {network} and optimizer.learning_rate = {rate:g}, of which "
            f"there is no published run: name the --workdir of a run of {known}."
        )
    rows = read_metrics(directory, epochs=config.train.epochs)
    if not rows:
        raise InputError(f"{directory / 'metrics.jsonl'} has no epoch yet: train with scripts/train.py first.")
    ours = {name: [row[name] for row in rows] for name in CURVES}
    notes = (
        f"Ours: {size}×{size}, protocol {config.split.protocol}, batch {config.train.batch_size}; Dice of each slice, "
        "then the mean over the slices.",
        f"Published: {PUBLISHED_SIZE}×{PUBLISHED_SIZE}, random slices, batch {PUBLISHED_BATCH[network]}; "
        f"one Dice of all pixels of a batch, then the mean over batches. Test Dice {theirs.test_dice:.3f}.",
    )
    published_curves(ours, theirs.curves, path, title=describe_run(config), notes=notes)


def copy_files(source: Path, target: Path, names: Iterable[str]) -> None:
    """Copies files from folder to folder in their order, so that the last of them says that all are there."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)


def device_folder(results: Path, kind: str, device: str) -> Path:
    """Folder of what was found on a device: `kind` is "benchmark" or "checks", `device` JAX's name of it."""
    name = re.sub(r"\W+", "_", device.lower())
    return results / f"{kind}_{name}"


def read_evaluations(results: Path) -> dict[str, dict[str, Any]]:
    """What evaluation_test.json or evaluation_cv.json says of each run in `results`, by the run's name.

    Raises:
      InputError: an older version wrote one.
    """
    paths = [*results.glob("*/evaluation_test.json"), *results.glob("*/evaluation_cv.json")]
    evaluations = {path.parent.name: json.loads(path.read_text()) for path in sorted(paths)}
    for name, found in evaluations.items():
        if "intervals" not in found:
            raise InputError(
                f"{results / name} was scored by an older version: score the run again with scripts/evaluate.py and "
                "save it again, or remove the folder."
            )
    return evaluations


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
        "Image",
        "Seed",
        "Test slices (families)",
        "Dice (95 % interval)",
        "Median",
        *(name.capitalize() for name in LABELS),
        "Missed",
        "NSD 2 mm",
        "HD95 mm",
    )
    rows = []
    for name, found in evaluations.items():
        fold = f", fold {found['fold']}" if found["fold"] else ", five folds" if found["split"] == "cv" else ""
        rows.append(
            (
                f"[{name}]({link}{name})",
                f"{MODELS[found['network']].title} {found['start_filters']}",
                f"{found['protocol']}{fold}",
                f"{found['image_size']}×{found['image_size']}",
                str(found["seed"]),
                f"{found['slices']} ({found['families']})",
                f"**{found['dice']:.3f}** ({_interval(found)})",
                f"{found['dice_median']:.3f}",
                *("–" if dice is None else f"{dice:.3f}" for dice in found["dice_by_class"].values()),
                f"{found['share_missed']:.1%}",
                _number(found["nsd_2mm"], 3),
                _number(found["hd95_mm"], 1),
            )
        )
    return markdown.table(header, rows)


def provenance_table(evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    """A Markdown table, a row a run: the commit that trained it, with which jax on what, and the command."""
    rows = []
    for name, found in evaluations.items():
        trained = found["trained_with"]
        commit = f"`{trained['commit'][:10]}`" if trained["commit"] else "–"
        device = f"{trained['versions']['jax']}, {trained['device']}, {trained['cores']} cores"
        rows.append((name, commit, device, f"`{trained['command']}`" if "command" in trained else "see below"))
    return markdown.table(("Run", "Trained at commit", "jax, device", "Command"), rows)


def reproduced_table(evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    """A Markdown table, a row a network: the published Dice and that of our runs of the published recipe, seed by seed.

    Args:
      evaluations: see `read_evaluations`; those of 512×512 under the protocol "slice" count.
    """
    rows = []
    for network, published in PUBLISHED_DICE.items():
        runs = sorted(
            (found["seed"], found["dice"])
            for found in evaluations.values()
            if "members" not in found
            and (found["network"], found["protocol"], found["image_size"]) == (network, "slice", PUBLISHED_SIZE)
        )
        dice = [of_run for _, of_run in runs]
        spread = f" ± {np.std(dice, ddof=1):.3f}" if len(dice) > 1 else ""
        rows.append(
            (
                MODELS[network].title,
                f"{published:.3f}",
                f"**{np.mean(dice):.3f}**{spread}" if dice else "not measured yet",
                ", ".join(f"{seed}: {of_run:.3f}" for seed, of_run in runs) or "–",
            )
        )
    return markdown.table(("Network", "Published Dice", "Ours, mean ± standard deviation of seeds", "By seed"), rows)


def peers_table(results: Path) -> str:
    """A Markdown table: the best published result of new patients, and beside it our cross-validations by families.

    Each of ours has two rows: the slices at hand of the peer's test families, all of them predicted by networks that
    never saw their family, and all slices. Dice is the mean over slices but for the last column (see `pooled_dice`).

    Args:
      results: folder of all results; of it each */per_slice_cv.csv under the protocol "family".
    """
    header = ("Run", "Slices (families)", "Dice", *(name.capitalize() for name in LABELS), "Missed", "Pooled Dice")
    of_peer = [f"{PEER_DICE_BY_CLASS[label]:.3f}" for label in LABELS]
    rows = [(PEER_NAME, "436 (29)", f"**{PEER_DICE:.3f}**", *of_peer, "–", "–")]
    for name, found in read_evaluations(results).items():
        if (found["split"], found["protocol"]) != ("cv", "family"):
            continue
        scores = read_scores(results / name / "per_slice_cv.csv")
        of_peers = [score for score in scores if score.family in PEER_FAMILIES]
        rows += [
            _peer_row(f"[{name}]({name}), {which}", chosen)
            for which, chosen in ((f"of these the {len(of_peers):,} at hand", of_peers), ("all slices", scores))
            if chosen
        ]
    return markdown.table(header, rows)


def _peer_row(name: str, scores: Sequence[SliceScore]) -> tuple[str, ...]:
    dice = {label: [score.dice for score in scores if score.label == label] for label in LABELS}
    every = np.concatenate([*dice.values()])
    families = {score.family for score in scores}
    by_class = (f"{np.mean(values):.3f} ({len(values):,})" if values else "–" for values in dice.values())
    counts = f"{len(scores):,} ({len(families)})"
    return (
        name,
        counts,
        f"**{every.mean():.3f}**",
        *by_class,
        f"{np.mean(every == 0):.1%}",
        f"{pooled_dice(scores):.3f}",
    )


def devices_table(results: Path) -> str:
    """A Markdown table, a row a device: what scripts/check_device.py and scripts/benchmark.py found there.

    Args:
      results: folder of all results, with `checks_<device>` and `benchmark_<device>`.
    """
    works = [(network, mode) for network in PUBLISHED_DICE for mode in ("train", "inference")]
    checks = {found["device"]: found["checks"] for found in _read_all(results, "checks_*/checks.json")}
    ratios = {
        found["device"]: {
            (row["model"], row["mode"]): row["ratio"] for row in found["rows"] if row["batch"] == "recipe"
        }
        for found in _read_all(results, "benchmark_*/benchmark.json")
    }
    rows = []
    for device in sorted(checks.keys() | ratios.keys()):
        passed = [check["passed"] for check in checks.get(device, [])]
        of_checks = f"{passed.count(True)} of {len(passed) - passed.count(None)} passed" if passed else "–"
        speeds = [_number(ratios.get(device, {}).get(work), 2) for work in works]
        rows.append((device, of_checks, *speeds))
    titles = (f"{MODELS[network].title} {mode}" for network, mode in works)
    return markdown.table(("Device", "Checks", *titles), rows)


def _read_all(results: Path, pattern: str) -> list[Any]:
    return [json.loads(path.read_text()) for path in sorted(results.glob(pattern))]


def _interval(found: Mapping[str, Any]) -> str:
    ends = found["intervals"]["dice"]
    return "–" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def put_table(page: Path, table: str, *, name: str = "results") -> None:
    """Replaces what stands between the two markers of a Markdown page by a table.

    Args:
      page: the page.
      table: what shall stand there.
      name: of the markers.

    Raises:
      InputError: the page lacks the markers.
    """
    start, end = f"<!-- {name}: scripts/save_results.py -->", f"<!-- end of {name} -->"
    text = page.read_text()
    if start not in text or end not in text:
        raise InputError(f"{page} has no lines '{start}' and '{end}': put them where the table shall stand.")
    before, rest = text.split(start, 1)
    after = rest.split(end, 1)[1]
    page.write_text(f"{before}{start}\n\n{table}\n\n{end}{after}")
