"""Several trained networks as one: the mean of their probabilities."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainseg_jax import workdir
from brainseg_jax.decision import Decision, choose
from brainseg_jax.errors import InputError
from brainseg_jax.evaluate import EXAMPLES, score_and_write
from brainseg_jax.input_pipeline import Dataset
from brainseg_jax.predict import Predictor, predict_records


class Ensemble:
    """The best checkpoints of several runs as one function from pictures to probabilities.

    Attributes:
      epochs: the epoch of each checkpoint.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        """Restores the networks.

        Args:
          directories: the workdirs of runs that were trained on the same slices; sizes and networks may differ.

        Raises:
          InputError: there is no run or no checkpoint, or two runs divide the slices differently, so that a test
            slice of one may be a training slice of another.
        """
        for directory in directories[1:]:
            if workdir.read_splits(directory) != workdir.read_splits(directories[0]):
                raise InputError(
                    f"{directory / 'splits.json'} lists other slices than that of {directories[0]}: name runs of one "
                    "protocol, fold, split seed and dataset, of which none was trained on another's test slices."
                )
        self._members = [Predictor(directory) for directory in directories]
        self.epochs = [member.epoch for member in self._members]

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Predicts; see `Predictor`."""
        of_members = [member(images) for member in self._members]
        return [np.mean(of_picture, axis=0) for of_picture in zip(*of_members, strict=True)]


def evaluate_ensemble(
    directories: Sequence[Path], *, split: str, output: Path, examples: int = EXAMPLES
) -> dict[str, Any]:
    """Scores the ensemble of several runs.

    Args:
      directories: see `Ensemble`. The first one's config says how masks are made; where it has threshold and smallest
        component chosen on validation, they are chosen anew, for the ensemble.
      split: "train", "validation" or "test".
      output: folder for the files of `evaluate.evaluate`, for members.json, and for config.json and splits.json of
        the first run.
      examples: see `evaluate.evaluate`.

    Returns:
      What evaluation_<split>.json holds: that of a run, the `seed` of each, and `members`, their names.

    Raises:
      InputError: see `Ensemble`.
    """
    first = directories[0]
    config, parts = workdir.read_config(first), workdir.read_splits(first)
    ensemble = Ensemble(directories)
    dataset = Dataset(config.data.data_dir, config=config.data.dataset)
    decision = Decision(config.evaluation.threshold, config.evaluation.smallest_component)
    if config.evaluation.choose_on_validation:
        validation = predict_records(ensemble, dataset, np.array(parts["validation"]))
        decision, _ = choose((probabilities, record.mask) for record, probabilities in validation)
    members = [directory.resolve().name for directory in directories]
    about = {
        "members": members,
        "seed": ", ".join(str(workdir.read_config(directory).seed) for directory in directories),
        "checkpoint_epoch": ensemble.epochs,
        "trained_with": workdir.read_environment(first),
    }
    output.mkdir(parents=True, exist_ok=True)
    workdir.write_json(output / "members.json", members)
    for name in ("config.json", "splits.json"):
        workdir.write_json(output / name, json.loads((first / name).read_text()))
    slice_ids = np.array(parts[split])
    return score_and_write(ensemble, decision, dataset, slice_ids, config, about, split, output, examples=examples)
