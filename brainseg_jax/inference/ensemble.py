"""Several trained networks as one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainseg_jax.errors import InputError
from brainseg_jax.inference.postprocessing import Postprocessing
from brainseg_jax.inference.predictor import Predictor
from brainseg_jax.workdir.files import read_config, read_fingerprint, read_splits


class Ensemble:
    """Several trained networks as one: the mean of their probabilities.

    Attributes:
      config: of the first network's training.
      epochs: of each checkpoint.
      postprocessing: how the mean becomes masks.
    """

    def __init__(self, members: Sequence[Predictor], postprocessing: Postprocessing) -> None:
        """Joins networks, whose sizes may differ."""
        self._members = members
        self.config, self.epochs = members[0].config, [member.epoch for member in members]
        self.postprocessing = postprocessing

    @classmethod
    def from_workdirs(
        cls,
        directories: Sequence[Path],
        *,
        threshold: float | None = None,
        min_component_fraction: float | None = None,
        tta_flip: bool | None = None,
    ) -> "Ensemble":
        """Opens the best checkpoints of several runs.

        Args:
          directories: the workdirs of runs that were trained on the same slices, or folders of weights.
          threshold: overrides that of the first run's config.
          min_component_fraction: likewise.
          tta_flip: overrides that of each run.

        Raises:
          InputError: there is no run or no checkpoint, or two runs divide the slices differently, so that a test
            slice of one may be a training slice of another.
        """
        for directory in directories[1:]:
            same_files = len({read_fingerprint(one) for one in (directory, directories[0])} - {""}) < 2
            if read_splits(directory) != read_splits(directories[0]) or not same_files:
                raise InputError(
                    f"{directory / 'splits.json'} lists other slices than that of {directories[0]}, or those of "
                    "a dataset from other files: name runs of one "
                    "protocol, fold, split seed and dataset, of which none was trained on another's test slices."
                )
        settings = read_config(directories[0]).evaluation
        postprocessing = Postprocessing(settings.threshold, settings.min_component_fraction)
        postprocessing = postprocessing.with_changes(threshold, min_component_fraction)
        options: dict[str, Any] = {**vars(postprocessing), "tta_flip": tta_flip}
        return cls([Predictor.from_workdir(directory, **options) for directory in directories], postprocessing)

    def probabilities(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the members' mean; see `Predictor.probabilities`."""
        of_members = [member.probabilities(images) for member in self._members]
        return [np.mean(of_image, axis=0) for of_image in zip(*of_members, strict=True)]
