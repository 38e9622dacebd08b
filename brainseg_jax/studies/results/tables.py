"""Makes the Markdown tables of all results and writes them into the pages of the repository."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainseg_jax import published
from brainseg_jax.data.dataset_info import LABELS
from brainseg_jax.data.splits import MUST_NOT_SHARE
from brainseg_jax.errors import InputError
from brainseg_jax.evaluation.scores import SliceScore, read_scores
from brainseg_jax.evaluation.summary import pooled_dice
from brainseg_jax.models import MODELS
from brainseg_jax.studies.results.save import is_published_recipe
from brainseg_jax.utils import markdown
from brainseg_jax.utils.files import read_json
from brainseg_jax.workdir.files import read_config

CLASS_TITLES = tuple(name.capitalize() for name in LABELS)
RESULTS_HEADER = (
    *("Run", "Network", "Protocol", "Image", "Seed", "Test slices (families)", "Dice (95 % interval)", "Median"),
    *(*CLASS_TITLES, "Missed", "NSD 2 mm", "HD95 mm"),
)


def read_evaluations(results: Path) -> dict[str, dict[str, Any]]:
    """Reads evaluation_test.json or evaluation_cv.json of each run in `results`, by the run's name.

    Sorted by protocol, network, recipe (published before others), image size and name.
    """
    paths = sorted([*results.glob("*/evaluation_test.json"), *results.glob("*/evaluation_cv.json")])

    def place(path: Path) -> tuple[Any, ...]:
        config = read_config(path.parent)
        protocol, network = [*MUST_NOT_SHARE].index(config.split.protocol), [*MODELS].index(config.model.name)
        return protocol, network, not is_published_recipe(config), config.data.image_size

    return {path.parent.name: read_json(path) for path in sorted(paths, key=place)}


def write_tables(results: Path, page: Path) -> None:
    """Writes the tables of all results into README.md of `results` and into `page`, between their markers.

    Raises:
      InputError: a page lacks the markers of a table.
    """
    evaluations, link = read_evaluations(results), f"{os.path.relpath(results, page.parent)}/"
    for path, name, table in (
        (results / "README.md", "results", f"{results_table(evaluations, link='')}\n\n{provenance_table(evaluations)}"),
        (results / "README.md", "peers", peers_table(results)),
        (page, "results", results_table(evaluations, link=link)),
        (page, "reproduced", reproduced_table(evaluations)),
        (results / "README.md", "devices", devices_table(results)),
    ):
        start, end = f"<!-- {name}: scripts/save_results.py -->", f"<!-- end of {name} -->"
        text = path.read_text()
        if start not in text or end not in text:
            raise InputError(f"{path} has no lines '{start}' and '{end}': put them where the table shall stand.")
        before, after = text.split(start)[0], text.split(end)[1]
        path.write_text(f"{before}{start}\n\n{table}\n\n{end}{after}")


def results_table(evaluations: Mapping[str, Mapping[str, Any]], *, link: str) -> str:
    """Returns a table with a row per run; `link` is the path from the table's page to the folder of all results."""
    rows = []
    for name, run in evaluations.items():
        fold = f", fold {run['fold']}" if run["fold"] else ", five folds" if run["split"] == "cv" else ""
        ends = run["intervals"]["dice"]
        interval = f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else "–"
        rows.append(
            (
                f"[{name}]({link}{name})",
                f"{MODELS[run['network']].title} {run['start_filters']}",
                f"{run['protocol']}{fold}",
                f"{run['image_size']}×{run['image_size']}",
                str(run["seed"]),
                f"{run['slices']} ({run['families']})",
                f"**{run['dice']:.3f}** ({interval})",
                f"{run['dice_median']:.3f}",
                *(_number(run["dice_by_class"].get(label), 3) for label in LABELS),
                f"{run['share_missed']:.1%}",
                _number(run["nsd_2mm"], 3),
                _number(run["hd95_mm"], 1),
            )
        )
    return markdown.table(RESULTS_HEADER, rows)


def provenance_table(evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a table with a row per run: commit, version of jax, machine and command of its training."""
    rows = []
    for name, evaluation in evaluations.items():
        trained = evaluation["trained_with"]
        commit = f"`{trained['commit'][:10]}`" if trained["commit"] else "–"
        device = f"{trained['versions']['jax']}, {trained['device']}, {trained['cores']} cores"
        rows.append((name, commit, device, f"`{trained['command']}`" if "command" in trained else "see below"))
    return markdown.table(("Run", "Trained at commit", "jax, device", "Command"), rows)


def reproduced_table(evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a table with a row per network: the published Dice and ours by seed, at 512×512, protocol "slice".

    Ours is the mean over the seeds with their standard deviation; for a single seed, its Dice with the interval.
    """
    rows = []
    for network, reported in published.PUBLISHED_DICE.items():
        runs = sorted(
            (run["seed"], run["dice"], run["intervals"]["dice"])
            for run in evaluations.values()
            if "members" not in run
            and (run["network"], run["protocol"], run["image_size"]) == (network, "slice", published.PUBLISHED_SIZE)
        )
        dice = [value for _, value, _ in runs]
        if len(dice) > 1:
            spread = f" ± {np.std(dice, ddof=1):.3f}, {len(dice)} seeds"
        else:
            spread = "".join(f" ({ends[0]:.3f} to {ends[1]:.3f}), one seed" for _, _, ends in runs if ends)
        ours = f"**{np.mean(dice):.3f}**{spread}" if dice else "not measured yet"
        by_seed = ", ".join(f"{seed}: {value:.3f}" for seed, value, _ in runs) or "–"
        rows.append((MODELS[network].title, f"{reported:.3f}", ours, by_seed))
    return markdown.table(("Network", "Published Dice", "Ours", "By seed"), rows)


def peers_table(results: Path) -> str:
    """Returns a table of the best published result on new patients and of our cross-validations by families.

    Each of ours has two rows: the slices that we have of the families that the published result was tested on, and all
    slices. Dice is the mean over slices, in the last column that of all pixels (see `pooled_dice`).
    """
    header = ("Run", "Slices (families)", "Dice", *CLASS_TITLES, "Missed", "Pooled Dice")
    by_class = [f"{published.PEER_DICE_BY_CLASS[label]:.3f}" for label in LABELS]
    rows = [(published.PEER_NAME, "436 (29)", f"**{published.PEER_DICE:.3f}**", *by_class, "–", "–")]
    for name, evaluation in read_evaluations(results).items():
        if (evaluation["split"], evaluation["protocol"]) == ("cv", "family"):
            scores = read_scores(results / name / "per_slice_cv.csv")
            if shared := [score for score in scores if score.family in published.PEER_FAMILIES]:
                rows.append(_peer_row(f"[{name}]({name}), of these the {len(shared):,} at hand", shared))
            rows.append(_peer_row(f"[{name}]({name}), all slices", scores))
    return markdown.table(header, rows)


def _peer_row(name: str, scores: Sequence[SliceScore]) -> tuple[str, ...]:
    by_class = {label: [score.dice for score in scores if score.label == label] for label in LABELS}
    classes = (f"{np.mean(dice):.3f} ({len(dice):,})" if dice else "–" for dice in by_class.values())
    dice = np.concatenate([*by_class.values()])
    counts = f"{len(scores):,} ({len({score.family for score in scores})})"
    return (name, counts, f"**{dice.mean():.3f}**", *classes, f"{np.mean(dice == 0):.1%}", f"{pooled_dice(scores):.3f}")


def devices_table(results: Path) -> str:
    """Returns a table with a row per device: the results of scripts/check_device.py and scripts/benchmark.py there."""
    tasks = [(network, mode) for network in published.PUBLISHED_DICE for mode in ("train", "inference")]
    devices: dict[str, dict[str, Any]] = {}
    for path in (*results.glob("checks_*/checks.json"), *results.glob("benchmark_*/benchmark.json")):
        content = read_json(path)
        measured = {key: content[key] for key in ("checks", "complete", "rows") if key in content}
        device = f"{content['device']}, jax {content['versions']['jax']}"
        devices.setdefault(device, {"checks": [], "rows": []}).update(measured)
    rows = []
    for device, content in sorted(devices.items()):
        passed = [check["passed"] for check in content["checks"]]
        # The first dtype comes last, so that it is the one that is kept.
        recipes = [row for row in reversed(content["rows"]) if row["batch"] == "recipe"]
        ratios = {(row["model"], row["mode"]): row["ratio"] for row in recipes}
        share = f"{passed.count(True)} of {len(passed) - passed.count(None)} passed" if passed else "–"
        if passed and not content["complete"]:
            share += ", others not run"
        rows.append((device, share, *(_number(ratios.get(task), 2) for task in tasks)))
    titles = (f"{MODELS[network].title} {mode}" for network, mode in tasks)
    return markdown.table(("Device, version", "Checks", *titles), rows)


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
