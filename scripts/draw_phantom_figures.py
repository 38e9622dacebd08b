"""Draws README's images of phantom slices: `python scripts/draw_phantom_figures.py --workdir=runs/a,runs/b`."""

from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from brainseg_jax import cli
from brainseg_jax.models import MODELS

WORKDIRS = flags.DEFINE_list("workdir", None, "Two or more runs on one phantom dataset and split.", required=True)
OUTPUT = flags.DEFINE_string("output", "docs/figures", "Folder for phantom_slices.png and phantom_predictions.png.")
RANKS = (0.1, 0.4, 0.7, 0.95)  # which slices are compared: from the first network's worst to its best


def main() -> None:
    """Draws both figures."""
    from brainseg_jax.data.dataset import Dataset
    from brainseg_jax.errors import InputError
    from brainseg_jax.workdir.files import read_config, read_splits

    directories = [Path(name) for name in WORKDIRS.value]
    config = read_config(directories[0])
    members = read_splits(directories[0])["test"]
    for directory in directories:
        if read_config(directory).data.dataset != "phantom":
            raise InputError(
                f"{directory / 'config.json'}: data.dataset is not phantom; only phantom slices are shown."
            )
        if read_splits(directory)["test"] != members:
            raise InputError(
                f"{directory / 'splits.json'} has another test split than {directories[0]}: name runs of one split."
            )
    dataset = Dataset(config.data.data_dir, config="phantom")
    draw_gallery(dataset, Path(OUTPUT.value) / "phantom_slices.png")
    draw_comparison(dataset, directories, members, Path(OUTPUT.value) / "phantom_predictions.png")


def draw_gallery(dataset: Any, path: Path) -> None:
    """Draws the middle slice of the first patients of each class."""
    from brainseg_jax.data.dataset_info import LABELS
    from brainseg_jax.data.preprocessing import scale_image
    from brainseg_jax.plots.segmentations import slice_gallery

    metadata = dataset.metadata
    patients = np.array(metadata.patient_ids)
    captions: dict[int, str] = {}
    for label, name in enumerate(LABELS, start=1):
        for patient in list(dict.fromkeys(patients[metadata.labels == label]))[:4]:
            slice_ids = metadata.slice_ids[patients == patient]
            slice_id = int(slice_ids[len(slice_ids) // 3])
            captions[slice_id] = f"{name}, slice {slice_id}"
    samples = list(dataset.read(list(captions)))
    images = [scale_image(sample.image) for sample in samples]
    slice_gallery(images, [sample.mask for sample in samples], list(captions.values()), path)


def draw_comparison(dataset: Any, directories: list[Path], members: list[int], path: Path) -> None:
    """Draws the masks of all networks on the same test slices, by rising Dice of the first network."""
    from brainseg_jax.data.dataset_info import LABELS
    from brainseg_jax.data.preprocessing import scale_image
    from brainseg_jax.evaluation.scores import score_slice
    from brainseg_jax.inference.predictor import Predictor, predict_slices
    from brainseg_jax.plots.segmentations import prediction_comparison

    masks: dict[str, list[np.ndarray]] = {}
    dice: dict[str, list[float]] = {}
    for directory in directories:
        predictor = Predictor.from_workdir(directory)
        config = predictor.config
        name = f"{MODELS[config.model.name].title} {config.model.start_filters}"
        masks[name], dice[name] = [], []
        for sample, probabilities in predict_slices(predictor, dataset, np.array(members)):
            mask = predictor.postprocessing.mask(probabilities)
            masks[name].append(mask)
            dice[name].append(score_slice(sample, mask, patient_id="", family="", label="").dice)
    order = np.argsort(next(iter(dice.values())))
    rows = [int(order[round(rank * (len(order) - 1))]) for rank in RANKS]
    samples = list(dataset.read([members[row] for row in rows]))
    labels = dict(zip(dataset.metadata.slice_ids.tolist(), dataset.metadata.labels.tolist(), strict=True))
    prediction_comparison(
        [scale_image(sample.image) for sample in samples],
        [sample.mask for sample in samples],
        {name: [values[row] for row in rows] for name, values in masks.items()},
        {name: [values[row] for row in rows] for name, values in dice.items()},
        path,
        captions=[f"{LABELS[labels[sample.slice_id] - 1]}, phantom slice {sample.slice_id}" for sample in samples],
        title="Phantom slices of families that neither network was trained on",
    )


if __name__ == "__main__":
    cli.run(main)
