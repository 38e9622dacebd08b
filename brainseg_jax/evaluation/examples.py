"""Draws the slices with the best, the median and the worst predictions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from brainseg_jax.data.dataset import Dataset
from brainseg_jax.data.preprocessing import scale_image
from brainseg_jax.evaluation.scores import SliceScore
from brainseg_jax.inference.predictor import Segmenter, predict_slices
from brainseg_jax.plots.segmentations import prediction_comparison


def choose_examples(scores: Sequence[SliceScore], *, count: int) -> dict[str, list[SliceScore]]:
    """Chooses which slices are shown: at most one of each family of patients.

    Args:
      scores: any number; slices without a tumour have no Dice and are not chosen.
      count: slices in each group, or fewer where there are fewer families.

    Returns:
      `worst`, `median` and `best`. Of slices with the same Dice, the one with the larger tumour comes first: missing a
      large tumour is worse, predicting it well is better. Empty if no slice has a tumour.
    """
    scores = [score for score in scores if score.tumour_pixels]
    if not scores:
        return {}
    middle = float(np.median([score.dice for score in scores]))
    groups = {}
    for name, distance in (
        ("worst", lambda dice: dice),
        ("median", lambda dice: abs(dice - middle)),
        ("best", lambda dice: -dice),
    ):
        first_of_family: dict[str, SliceScore] = {}
        for score in sorted(scores, key=lambda score: (distance(score.dice), -score.tumour_pixels, score.slice_id)):
            first_of_family.setdefault(score.family, score)
        groups[name] = list(first_of_family.values())[:count]
    return groups


def draw_examples(
    segmenter: Segmenter, dataset: Dataset, scores: Sequence[SliceScore], folder: Path, *, split: str, count: int
) -> None:
    """Draws `<split>_worst.png`, `<split>_median.png` and `<split>_best.png`.

    Args:
      segmenter: the network, or several as one.
      dataset: holds the slices.
      scores: the slices to choose from.
      folder: where the figures are written.
      split: beginning of the file names.
      count: slices in each figure.
    """
    for name, group in choose_examples(scores, count=count).items():
        predicted = list(predict_slices(segmenter, dataset, np.array([score.slice_id for score in group])))
        prediction_comparison(
            [scale_image(sample.image) for sample, _ in predicted],
            [sample.mask for sample, _ in predicted],
            {"Difference": [segmenter.postprocessing.mask(probabilities) for _, probabilities in predicted]},
            {"Difference": [score.dice for score in group]},
            folder / f"{split}_{name}.png",
            captions=[f"slice {score.slice_id}, {score.label}" for score in group],
            title=f"{name.capitalize()} predictions of split {split}, at most one slice of a family",
        )
