"""Makes the report of a run from the files of evaluate.py and train.py; predicts the slices of the gallery again."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from brainseg_jax.data.preprocessing import scale_image
from brainseg_jax.errors import InputError
from brainseg_jax.evaluation.evaluate import open_dataset
from brainseg_jax.evaluation.evaluation_file import read_evaluation
from brainseg_jax.evaluation.report import charts, sections
from brainseg_jax.evaluation.report.gallery import choose_slices, describe_choice, encode_slice
from brainseg_jax.evaluation.report.page import report_path, write_report
from brainseg_jax.evaluation.scores import SliceScore, read_scores
from brainseg_jax.inference.ensemble import Ensemble
from brainseg_jax.inference.postprocessing import Postprocessing
from brainseg_jax.inference.predictor import Predictor, predict_slices
from brainseg_jax.metrics.overlap import count_overlap, dice
from brainseg_jax.workdir.files import describe_run, read_config, read_metrics, read_split_record, read_splits
from brainseg_jax.workdir.weights import has_network

_LARGEST_DIFFERENCE = 0.02  # between the mean Dice in the CSV file and now; machines round differently


class _Network(NamedTuple):
    """What predicted the slices of `tests`: one run, or several as an ensemble."""

    runs: Sequence[Path]
    evaluation: Mapping[str, Any]  # with its threshold, min_component_fraction and checkpoint_epoch
    tests: Sequence[int] | None  # slice ids; None for all


def report_run(
    directory: Path,
    *,
    split: str = "test",
    output: Path | None = None,
    weights: Sequence[Path] = (),
    data_dir: str = "",
    max_slices: int = 200,
) -> Path:
    """Writes the report of a run that has been scored.

    Args:
      directory: holds evaluation_<split>.json and per_slice_<split>.csv: a workdir, a folder of cross_validate.py
        (split "cv"), or the --output of evaluate.py.
      split: the split of the evaluation.
      output: the HTML file, or the folder of report.html; None for `directory`.
      weights: the networks that were scored, workdirs or folders of weights; if empty, those in `directory`. Where
        there are none, the report has no gallery.
      data_dir: the prepared dataset; "" for where the evaluation or the run had it.
      max_slices: the most slices in the gallery; see `choose_slices`. 0 for a report without images.

    Returns:
      The path of the report.

    Raises:
      InputError: the run is not scored, its checkpoint or dataset was replaced since, the dataset is missing, or the
        file to write exists and is no report.
    """
    path = report_path(output or directory)
    scores = read_scores(directory / f"per_slice_{split}.csv")
    evaluation = read_evaluation(directory / f"evaluation_{split}.json")
    folders = _folders(directory, evaluation, weights)
    networks = _find_networks(directory, evaluation, weights) if max_slices else []
    chosen = choose_slices(scores, count=max_slices) if networks else []
    encoded: dict[int, dict[str, Any]] = {}
    for network in networks:
        tested = [score for score in chosen if network.tests is None or score.slice_id in network.tests]
        encoded |= _encode(network, tested, data_dir or evaluation["dataset"].partition(" in ")[2])
    write_report(
        path,
        title=_title(directory, evaluation, weights),
        sections=[
            sections.summary_section(evaluation),
            sections.run_section(
                evaluation,
                _read(folders, "config.json", lambda folder: read_config(folder).to_dict()),
                _read(folders, "splits.json", read_split_record),
            ),
            sections.curves_section([rows for folder in folders if (rows := _read_curves(folder))]),
            sections.dice_section(scores, evaluation),
            sections.calibration_section(evaluation),
        ],
        slices=[encoded[score.slice_id] for score in chosen],
        note=_note(evaluation, len(scores), max_slices, has_network=bool(networks)),
    )
    return path


def _folders(directory: Path, evaluation: Mapping[str, Any], weights: Sequence[Path]) -> list[Path]:
    """Returns the folders that may hold the run's files, each once: that of the scores, its folds, the networks."""
    folds = [directory / f"fold_{fold}" for fold in evaluation.get("by_fold", ())]
    return list({folder.resolve(): folder for folder in (directory, *folds, *weights)}.values())


def _find_networks(directory: Path, evaluation: Mapping[str, Any], weights: Sequence[Path]) -> list[_Network]:
    """Returns the networks that made the scores; an empty list if they are missing."""
    if by_fold := evaluation.get("by_fold"):
        runs = {directory / f"fold_{fold}": {**evaluation, **of_fold} for fold, of_fold in by_fold.items()}
        if not all(map(has_network, runs)):
            return []
        return [_Network([run], of_fold, read_splits(run)["test"]) for run, of_fold in runs.items()]
    if weights or has_network(directory):
        return [_Network(weights or [directory], evaluation, None)]
    return []


def _encode(network: _Network, scores: Sequence[SliceScore], data_dir: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Predicts the slices of `scores`; yields the id and the encoded slice of each.

    Raises:
      InputError: checkpoint, true masks or Dice differ from those of the scores.
    """
    runs, evaluation = network.runs, network.evaluation
    postprocessing = Postprocessing(evaluation["threshold"], evaluation["min_component_fraction"])
    segmenter: Predictor | Ensemble
    if len(runs) == 1:
        segmenter = Predictor.from_workdir(runs[0], **vars(postprocessing), tta_flip=evaluation.get("tta_flip"))
        epoch: Any = segmenter.epoch
    else:
        segmenter = Ensemble.from_workdirs(runs)
        epoch = segmenter.epochs
    again = "score it again with scripts/evaluate.py, or add --max_slices=0 for a report without images"
    if epoch != evaluation["checkpoint_epoch"]:
        raise InputError(
            f"The scores are of epoch {evaluation['checkpoint_epoch']}, but the best checkpoint of {runs[0]} is of "
            f"epoch {epoch}: {again}."
        )
    dataset = open_dataset(segmenter.config, data_dir)
    known = []  # Dice now and when it was scored
    for score, (sample, probabilities) in zip(
        scores, predict_slices(segmenter, dataset, np.array([score.slice_id for score in scores])), strict=True
    ):
        if np.count_nonzero(sample.mask) != score.tumour_pixels or sample.mask.size != score.image_pixels:
            raise InputError(
                f"Slice {score.slice_id} of the dataset has another true mask than the one that was scored: name the "
                "--data_dir that it was scored with, or add --max_slices=0 for a report without images."
            )
        if score.tumour_pixels:
            known.append(
                (float(dice(count_overlap(postprocessing.mask(probabilities)[None], sample.mask[None]))[0]), score.dice)
            )
        yield (
            score.slice_id,
            encode_slice(
                scale_image(sample.image),
                probabilities,
                postprocessing,
                name=f"slice {score.slice_id}",
                true_mask=sample.mask,
                dice=score.dice,
                label=score.label,
                patient_id=score.patient_id,
                size=score.size if score.tumour_pixels else "no tumour",
            ),
        )
    if known and np.mean([abs(one - other) for one, other in known]) > _LARGEST_DIFFERENCE:
        raise InputError(
            f"The masks of {runs[0]} have a mean Dice of {np.mean([one for one, _ in known]):.3f} on the slices of the "
            f"gallery, but the scores say {np.mean([other for _, other in known]):.3f}: {again}."
        )


def _read(folders: Sequence[Path], name: str, read: Callable[[Path], dict[str, Any]]) -> dict[str, Any] | None:
    """Reads a file of the first folder that has it; None where none has."""
    return next((read(folder) for folder in folders if (folder / name).exists()), None)


def _read_curves(folder: Path) -> list[dict[str, float]]:
    return read_metrics(folder, epochs=sys.maxsize, columns=charts.CURVES)


def _title(directory: Path, evaluation: Mapping[str, Any], weights: Sequence[Path]) -> str:
    name = (weights[0] if len(weights) == 1 else directory).resolve().name
    home = next((folder for folder in (directory, *weights) if (folder / "config.json").exists()), None)
    split = "five folds" if evaluation["split"] == "cv" else f"split {evaluation['split']}"
    if home is None:
        return f"{name}: {evaluation['network']}, {evaluation['image_size']}×{evaluation['image_size']}, {split}"
    seeds = str(evaluation["seed"]) if "members" in evaluation else ""
    title = describe_run(read_config(home), name=name, all_folds=evaluation["split"] == "cv", seeds=seeds)
    return title if evaluation["split"] == "cv" else f"{title}, {split}"


def _note(evaluation: Mapping[str, Any], total: int, max_slices: int, *, has_network: bool) -> str:
    """Says which slices the gallery shows, or why none."""
    if not max_slices:
        return "This report was asked for without images (--max_slices=0)."
    if not has_network:
        return (
            "There are no images: the networks that made the scores are not in the folder. scripts/report.py takes "
            "them with --weights."
        )
    patients = (
        ""
        if evaluation["dataset"].startswith("phantom")
        else " The images are of patients: keep this file as you keep those."
    )
    return describe_choice(total, count=max_slices) + patients
